//! One client's dialogue with HAAst's socket: bytes in, text and actions out. Leaves out sockets and waiting.
//!
//! ```text
//!  Open ──── request ────► Open, or Acting while an action is being begun ──── its outcome ────► Open
//!   └── flood, or over the network a wrong token ────► Closed
//! ```

use jiff::Timestamp;

use super::request::{COMMANDS, Command, Flood, Problem, Request, RequestReader};
use super::status::status;
use crate::job::{Action, Refusal};
use crate::view::View;

/// What a client reads first.
pub const BANNER: &str = "haast socket interface v1.1\n";
/// What a client reads before each command.
pub const PROMPT: &str = "ready>";
/// Stands where HAAst says `ok`.
const ERROR: &str = "error";

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer, ready to be written.
    Answer(String),
    /// An action is to be begun; then [`Session::acted`] has the answer.
    Act(Action),
    /// The last answer: the connection is closed after it.
    Close(String),
}

/// Says whether a token is the right one.
pub type TokenCheck = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A client.
#[derive(Default)]
pub struct Session {
    requests: RequestReader,
    /// What each command of a client over the network must pass.
    token: Option<TokenCheck>,
    /// Of the command under way.
    id: Option<String>,
}

impl Session {
    /// A client that must show a token with each command. The default is one that need not: there the permissions of the
    /// socket decide who comes this far.
    pub fn guarded(token: TokenCheck) -> Self {
        Self {
            token: Some(token),
            ..Self::default()
        }
    }

    /// What a client is greeted with.
    pub fn greeting() -> String {
        format!("{BANNER}{PROMPT}")
    }

    /// Takes one byte; returns what it leads to. While an action is being begun, no byte is due.
    pub fn push(&mut self, byte: u8, view: &View, now: Timestamp) -> Option<Outcome> {
        match self.requests.push(byte) {
            Ok(None) => None,
            Ok(Some(request)) => Some(self.on_request(request, view, now)),
            Err(flood) => Some(self.close(flood)),
        }
    }

    /// The answer to an action: its job, or why none was begun. `None`: nobody said in time.
    pub fn acted(&self, outcome: Option<Result<u64, Refusal>>) -> String {
        match outcome {
            Some(Ok(job)) => self.answer("ok", &format!("job: {job}\n")),
            Some(Err(refusal)) => {
                let reason = refusal.reason();
                self.answer(ERROR, &format!("reason: {reason}\nmessage: {refusal}\n"))
            }
            None => self.answer(
                ERROR,
                "reason: NoAnswer\nmessage: the node is busy: what became of the command is unknown\n",
            ),
        }
    }

    fn on_request(&mut self, request: Request, view: &View, now: Timestamp) -> Outcome {
        self.id = request.id;
        if !self.admits(request.token.as_deref()) {
            let message = "reason: BadToken\nmessage: token is missing or wrong\n";
            return Outcome::Close(self.answer(ERROR, message));
        }
        match request.command {
            Ok(Command::Act(action)) => Outcome::Act(action),
            Ok(Command::Help) => Outcome::Answer(self.answer("ok", &commands())),
            Ok(Command::GetStatus { peer }) => {
                let known = |name: &str| {
                    let own = &view.own().name;
                    name != own && view.nodes.iter().any(|node| node.name == name)
                };
                match peer {
                    Some(name) if !known(&name) => {
                        let refusal = Refusal::NoSuchNode(name);
                        Outcome::Answer(self.acted(Some(Err(refusal))))
                    }
                    peer => {
                        let status = status(view, peer.as_deref(), now);
                        Outcome::Answer(self.answer("ok", &status))
                    }
                }
            }
            Err(problem) => Outcome::Answer(self.refusal(&problem)),
        }
    }

    fn refusal(&self, problem: &Problem) -> String {
        let text = format!("reason: BadRequest\nmessage: {problem}\n{}", commands());
        self.answer(ERROR, &text)
    }

    fn close(&self, flood: Flood) -> Outcome {
        let text = format!("reason: BadRequest\nmessage: {flood}\n");
        Outcome::Close(self.answer(ERROR, &text))
    }

    /// An empty line, the id, the result, the rest; an empty line ends it, and the prompt follows.
    fn answer(&self, result: &str, rest: &str) -> String {
        let id = self.id.as_ref().map(|id| format!("id: {id}\n"));
        let id = id.unwrap_or_default();
        format!("\n{id}result: {result}\n{rest}\n{PROMPT}")
    }

    fn admits(&self, token: Option<&str>) -> bool {
        match (&self.token, token) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(is_right), Some(token)) => is_right(token.as_bytes()),
        }
    }
}

fn commands() -> String {
    format!("valid commands: {}\n", COMMANDS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn talk(session: &mut Session, text: &str) -> Vec<Outcome> {
        let view = fixtures::two_nodes();
        let bytes = text.bytes();
        bytes
            .filter_map(|byte| session.push(byte, &view, view.started_at))
            .collect()
    }

    fn guarded() -> Session {
        Session::guarded(Box::new(|token| token == b"secret"))
    }

    fn answer_to(session: &mut Session, text: &str) -> String {
        match talk(session, text).as_slice() {
            [Outcome::Answer(answer)] => answer.clone(),
            other => panic!("one answer, not {other:?}"),
        }
    }

    #[test]
    fn an_answer_begins_empty_echoes_the_id_and_ends_with_the_prompt() {
        let mut session = Session::default();
        let answer = answer_to(&mut session, "id: 123\ncommand:getstatus\n\n");
        assert!(answer.starts_with("\nid: 123\nresult: ok\ncluster name: office\n"));
        assert!(
            answer.ends_with(
                "\nremote to local peerlink connection state formatted: Unknown\n\nready>"
            )
        );
        let answer = answer_to(&mut session, "command:getstatus\n\n");
        assert!(
            answer.starts_with("\nresult: ok\n"),
            "no id is kept from before: {answer}"
        );
    }

    #[test]
    fn an_invalid_command_is_answered_with_the_valid_ones() {
        let mut session = Session::default();
        let list =
            "valid commands: demote, getstatus, help, promote, restart, start, stop, switchover\n";
        let refused = format!(
            "\nresult: error\nreason: BadRequest\nmessage: invalid command\n{list}\nready>"
        );
        assert_eq!(answer_to(&mut session, "YYYY\n\n"), refused);
        assert_eq!(answer_to(&mut session, "command: YYYY\n\n"), refused);
        assert_eq!(
            answer_to(&mut session, "command: help\n\n"),
            format!("\nresult: ok\n{list}\nready>")
        );
    }

    #[test]
    fn an_action_is_begun_and_then_answered() {
        let mut session = Session::default();
        let outcome = talk(&mut session, "id: x\ncommand: promote\n\n");
        assert_eq!(outcome, [Outcome::Act(Action::Promote)]);
        assert_eq!(
            session.acted(Some(Ok(17))),
            "\nid: x\nresult: ok\njob: 17\n\nready>"
        );
        assert_eq!(
            session.acted(Some(Err(Refusal::Busy(16)))),
            "\nid: x\nresult: error\nreason: Busy\n\
             message: job 16 is under way: wait for its end or cancel it\n\nready>"
        );
        assert!(session.acted(None).contains("reason: NoAnswer"));
    }

    #[test]
    fn over_the_network_each_command_needs_the_token() {
        let mut session = guarded();
        answer_to(&mut session, "token: secret\ncommand: getstatus\n\n");
        for command in [
            "command: getstatus\n\n",
            "token: Secret\ncommand: stop\n\n",
            "token: secre\nhelp\n",
        ] {
            let outcomes = talk(&mut guarded(), command);
            let [Outcome::Close(answer)] = outcomes.as_slice() else {
                panic!("closed, not {outcomes:?}");
            };
            assert!(answer.contains("reason: BadToken"));
        }
    }

    #[test]
    fn a_flood_is_told_and_closed() {
        let outcomes = talk(&mut Session::default(), &"x".repeat(1001));
        let [Outcome::Close(answer)] = outcomes.as_slice() else {
            panic!("closed, not {outcomes:?}");
        };
        assert!(answer.contains("message: a line is longer than 1000 bytes"));
    }

    #[test]
    fn a_peer_that_does_not_exist_is_refused() {
        let mut session = Session::default();
        for peer in ["office-9", "office-0"] {
            let answer = answer_to(
                &mut session,
                &format!("command: getstatus\npeer: {peer}\n\n"),
            );
            assert!(answer.contains("reason: NoSuchNode"), "{answer}");
        }
    }
}
