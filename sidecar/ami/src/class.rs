//! Permission classes, as manager.conf names them: what a user may hear (`read`) and ask for (`write`).

/// In the order of Asterisk's `manager.h`; the position is the bit.
const NAMES: [&str; 21] = [
    "system",
    "call",
    "log",
    "verbose",
    "command",
    "agent",
    "user",
    "config",
    "dtmf",
    "reporting",
    "cdr",
    "dialplan",
    "originate",
    "agi",
    "hookresponse",
    "cc",
    "aoc",
    "test",
    "security",
    "message",
    "none",
];
/// A class that this list does not know: only `all` includes it.
const OTHER: u32 = 1 << 31;

/// A set of permission classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u32);

impl Classes {
    /// No class.
    pub const NONE: Self = Self(0);
    /// Every class, those of modules yet to be written too.
    pub const ALL: Self = Self(u32::MAX);
    /// `system`: may run programs.
    pub const SYSTEM: Self = Self(1);

    /// Reads a list such as `call,reporting` or `all`, as users write it. The error names the word that is no class.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        words.into_iter().try_fold(Self::NONE, |sum, word| {
            if word.eq_ignore_ascii_case("all") {
                return Ok(Self::ALL);
            }
            let bit = bit_of(word.as_bytes()).ok_or_else(|| word.to_owned())?;
            Ok(Self(sum.0 | bit))
        })
    }

    /// Reads what Asterisk says of an event or action (`call,all`, `<none>`): `all` in it adds nothing, an unknown class counts.
    pub(crate) fn of_privilege(text: &[u8]) -> Self {
        let words = text.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let bits = words.map(|word| match word {
            b"" | b"all" | b"<none>" => 0,
            word => bit_of(word).unwrap_or(OTHER),
        });
        Self(bits.fold(0, |sum, bit| sum | bit))
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether every class of `others` is in this set.
    pub fn includes(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether one class is in both sets, or `required` is empty: what Asterisk asks of an action.
    pub fn permits(self, required: Self) -> bool {
        required == Self::NONE || self.0 & required.0 != 0
    }
}

fn bit_of(word: &[u8]) -> Option<u32> {
    let at = NAMES
        .iter()
        .position(|name| word.eq_ignore_ascii_case(name.as_bytes()))?;
    Some(1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_heard_with_all_its_classes_and_an_action_is_done_with_one() {
        let user = Classes::parse("call, reporting").unwrap();
        assert!(user.includes(Classes::of_privilege(b"call,all")));
        assert!(!user.includes(Classes::of_privilege(b"system,call,all")));
        assert!(user.permits(Classes::of_privilege(b"system,call,all")));
        assert!(!user.permits(Classes::of_privilege(b"command,all")));
        assert!(user.permits(Classes::of_privilege(b"<none>")));
    }

    #[test]
    fn an_unknown_class_is_for_all_alone() {
        let new = Classes::of_privilege(b"telepathy,all");
        assert!(Classes::ALL.includes(new));
        let every = Classes::parse(&NAMES.join(",")).unwrap();
        assert!(!every.includes(new));
        assert_eq!(Classes::parse("call,telepathy").unwrap_err(), "telepathy");
    }
}
