//! What Asterisk forbids a manager's user who lacks the class `system`, whatever its other classes: to reach a shell by an
//! application or a dialplan function. The hub's own user has every class, so the hub must ask the same of its clients.

use crate::wire::Frame;

/// Applications that run programs, or run an application given as text; parts of names, as in Asterisk's `action_originate`.
const APPLICATIONS: [&str; 6] = [
    "system",
    "exec",
    "agi",
    "mixmonitor",
    "externalivr",
    "originate",
];
/// Functions that run programs, read or write files, or evaluate text.
const FUNCTIONS: [&str; 7] = ["SHELL", "EVAL", "FILE(", "CURL", "STAT(", "ENV(", "ODBC"];

/// Whether an action must be refused to a user who may not reach a shell.
pub(crate) fn reaches_shell(frame: &Frame<'_>) -> bool {
    let is_action = |name: &[u8]| frame.action.eq_ignore_ascii_case(name);
    let is_tricky = frame
        .lines()
        .any(|line| FUNCTIONS.iter().any(|name| contains(line, name)));
    let application = frame.get("Application").unwrap_or_default();
    let by_application = is_action(b"Originate")
        && APPLICATIONS
            .iter()
            .any(|name| contains_ignoring_case(application, name));
    let by_command = is_action(b"MixMonitor")
        && (frame.get("Command").is_some() || frame.get("PostProcess").is_some());
    is_tricky || by_application || by_command
}

fn contains(line: &[u8], word: &str) -> bool {
    memchr::memmem::find(line, word.as_bytes()).is_some()
}

fn contains_ignoring_case(text: &[u8], word: &str) -> bool {
    contains(&text.to_ascii_lowercase(), word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &str) -> bool {
        let text = format!("{headers}\r\n\r\n");
        reaches_shell(&Frame::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_shell_is_not_reached_by_application_function_or_recording() {
        assert!(is_refused(
            "Action: originate\r\nApplication: TrySystem\r\nData: rm"
        ));
        assert!(is_refused(
            "Action: Originate\r\nApplication: NoOp\r\nData: ${SHELL(rm)}"
        ));
        assert!(is_refused("Action: Getvar\r\nVariable: EVAL(${x})"));
        assert!(is_refused("Action: MixMonitor\r\nCommand: rm"));
        assert!(!is_refused(
            "Action: Originate\r\nApplication: Wait\r\nData: 1"
        ));
        assert!(!is_refused("Action: MixMonitor\r\nFile: a.wav"));
    }
}
