//! What can happen in the world, and how its network and API behave.

use pbx_core::{ApiAnswer, ApiCall, CallId, Message};
use pbx_guard::protocol::{Command, Event as Said};

use super::faults::Fault;

/// What happens at some moment.
#[allow(
    missing_docs,
    reason = "the names of fields and plain variants say what they are"
)]
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Tick {
        pod: usize,
        serial: u64,
    },
    Deliver {
        pod: usize,
        message: Message,
    },
    ApiApply {
        pod: usize,
        life: u32,
        id: CallId,
        call: ApiCall,
    },
    ApiAnswer {
        pod: usize,
        life: u32,
        id: CallId,
        answer: ApiAnswer,
    },
    GuardHears {
        pod: usize,
        connection: u32,
        command: Command,
    },
    /// That its Asterisk ended.
    GuardSees {
        pod: usize,
        run: u64,
    },
    /// That nothing is left of it.
    GuardReaps {
        pod: usize,
        run: u64,
    },
    GuardSays {
        pod: usize,
        connection: u32,
        said: Said,
    },
    /// The sidecar's connection to its guard is there again.
    Reconnected {
        pod: usize,
        connection: u32,
    },
    KernelKills {
        pod: usize,
        timer: u64,
    },
    StartSlack {
        pod: usize,
        run: u64,
    },
    Booted {
        pod: usize,
        run: u64,
    },
    SidecarUp {
        pod: usize,
        keeps_record: bool,
    },
    ShellLooks {
        pod: usize,
    },
    Operator,
    /// The operator makes a lost Lease anew.
    NewLease,
    NewPod {
        seat: u8,
    },
    EndPod {
        pod: usize,
    },
    Fault(Fault),
}

/// How the network and the API behave.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Losses, duplicates, reordering, long delays, slow API calls.
    pub is_noisy: bool,
    /// Half of all messages are lost until then.
    pub lossy_until: u64,
    /// How long a message takes, at least and at most.
    pub network_us: (u64, u64),
    /// How long a call to the API takes, there and back.
    pub api_us: (u64, u64),
}
