//! The flight recorder: the inputs of the core are its whole story, so the last minutes of them are kept, and replayed to say why.
//!
//! - [`Recorder`] lives on the core's thread: it encodes each step into the [`ring`] (a microsecond, nothing allocated), and
//!   copies the ring out at a change of roles, once at once and once with the aftermath, or on request.
//! - [`entry`] and [`file`] are the bytes; [`replay`] runs the core again.
//!
//! Not here: what the services do with a copy (they write it), and anything of calls, phones or keys: none of it enters the core.

pub mod entry;
pub mod file;
pub mod keeper;
pub mod replay;
mod ring;
#[cfg(test)]
mod tests;

use std::time::Duration;

use pbx_core::{
    BootTime, Condition, Effect, FoundAtStart, Incarnation, Input, Node, Notice, Occupant, Seat,
    Seats, Settings, Start, Timing,
};

use entry::{Entry, Mark};
use ring::Ring;

/// About four to eight minutes of three calm nodes at a keepalive of 100 ms.
const RING_BYTES: usize = 512 << 10;
/// So much of what follows a change of roles is in its file.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Copying the ring takes the core a third of a millisecond: nobody may ask for that more often.
const REST: Duration = Duration::from_millis(500);

/// A copy of the ring.
#[derive(Debug)]
pub struct Shot {
    /// What it was taken for.
    pub occasion: Occasion,
    /// When.
    pub taken_at: BootTime,
    /// The entries.
    pub entries: Vec<u8>,
}

/// What a copy is for. Two of the same occasion are one file: the later one holds more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// What happened.
    pub kind: Kind,
    /// When.
    pub at: BootTime,
    /// Under which epoch; zero of a request.
    pub epoch: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This node began to serve.
    Promoted,
    /// It serves no longer.
    Demoted,
    /// Its Asterisk is started again in place.
    Restarted,
    /// Somebody asked.
    Asked,
}

impl Kind {
    /// As it stands in names of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Demoted => "demoted",
            Self::Restarted => "restarted",
            Self::Asked => "asked",
        }
    }
}

/// The recorder of one core.
pub struct Recorder {
    ring: Ring,
    occasion: Option<Occasion>,
    /// The copy at once is still to be taken.
    is_fresh: bool,
    copied_at: Option<BootTime>,
}

impl Recorder {
    /// Begins with the core: what it was given, and what it did at once.
    pub fn new(settings: &Settings, start: &Start, effects: &[Effect], node: &Node) -> Self {
        let mut recorder = Self {
            ring: Ring::new(RING_BYTES),
            occasion: None,
            is_fresh: false,
            copied_at: None,
        };
        let entry = Entry::Start {
            settings: *settings,
            start: *start,
            digest: entry::digest_of(effects),
        };
        recorder.ring.push(&entry, node);
        recorder
    }

    /// Keeps one step, after it was made and before its effects are carried out.
    pub fn on_step(&mut self, at: BootTime, input: &Input, effects: &[Effect], node: &Node) {
        let entry = Entry::Step {
            at,
            input: *input,
            digest: entry::digest_of(effects),
        };
        self.ring.push(&entry, node);
        let newest = effects.iter().rev().find_map(|effect| occasion(at, effect));
        if let Some(occasion) = newest {
            self.occasion = Some(occasion);
            self.is_fresh = true;
        }
    }

    /// Keeps a moment that the core does not see.
    pub fn on_mark(&mut self, at: BootTime, mark: Mark, node: &Node) {
        self.ring.push(&Entry::Mark { at, mark }, node);
    }

    /// When [`Recorder::due`] has something to give.
    pub fn next_deadline(&self) -> BootTime {
        self.occasion.map_or(BootTime::FAR_FUTURE, |occasion| {
            occasion.at.after(AFTERMATH)
        })
    }

    /// The copy that a change of roles makes due, if any. Asked after the effects of a step are carried out.
    pub fn due(&mut self, now: BootTime) -> Option<Shot> {
        let occasion = self.occasion?;
        let is_over = now >= occasion.at.after(AFTERMATH);
        let is_first = std::mem::take(&mut self.is_fresh) && self.is_rested(now);
        if is_over {
            self.occasion = None;
        }
        (is_over || is_first).then(|| self.copy(now, occasion))
    }

    /// A copy for somebody who asks; `None`: too soon after the last.
    pub fn on_asked(&mut self, now: BootTime) -> Option<Shot> {
        let occasion = Occasion {
            kind: Kind::Asked,
            at: now,
            epoch: 0,
        };
        self.is_rested(now).then(|| self.copy(now, occasion))
    }

    fn copy(&mut self, now: BootTime, occasion: Occasion) -> Shot {
        self.copied_at = Some(now);
        Shot {
            occasion,
            taken_at: now,
            entries: self.ring.copy(),
        }
    }

    fn is_rested(&self, now: BootTime) -> bool {
        self.copied_at
            .is_none_or(|copied_at| now.since(copied_at) >= REST)
    }
}

fn occasion(at: BootTime, effect: &Effect) -> Option<Occasion> {
    let Effect::Notice(notice) = effect else {
        return None;
    };
    let (kind, epoch) = match notice {
        Notice::Promoted { epoch, .. } => (Kind::Promoted, epoch),
        Notice::Demoted { epoch, .. } => (Kind::Demoted, epoch),
        Notice::RestartedInPlace { epoch, .. } => (Kind::Restarted, epoch),
        Notice::EpochRaised { .. }
        | Notice::Resumed { .. }
        | Notice::SwitchoverRefused { .. }
        | Notice::SeatsChanged
        | Notice::Left => return None,
    };
    Some(Occasion {
        kind,
        at,
        epoch: epoch.0,
    })
}

/// How this build lays a node out in a checkpoint: a digest of one whose votes and Asterisk are in use.
pub fn layout() -> u32 {
    let seats = Seats {
        count: 3,
        occupants: [Some(Occupant(1)); pbx_core::MAX_NODES],
        requested: [false; pbx_core::MAX_NODES],
    };
    let settings = Settings {
        seat: Seat(0),
        occupant: Occupant(1),
        nodes: 3,
        timing: Timing::default(),
        traffic_needs_api: false,
        preferred_seat: None,
        on_quorum_loss: pbx_core::OnQuorumLoss::Demote,
        fixed_seats: Some(seats),
    };
    let start = Start {
        now: BootTime(1),
        incarnation: Incarnation(1),
        record: None,
        guard: FoundAtStart::Nothing,
    };
    let mut effects = Vec::new();
    let mut node = Node::new(settings, start, &mut effects);
    let condition = Condition {
        is_ready: true,
        is_api_reachable: true,
        rank: 0,
        is_held_back: false,
    };
    for input in [Input::Condition(condition), Input::Tick] {
        let now = node.next_deadline().after(settings.timing.quarantine());
        node.step(now, input, &mut effects);
    }
    entry::digest_of_node(&node)
}
