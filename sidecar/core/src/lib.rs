//! The failover protocol as a pure state machine: input in, effects out, time as an argument.
//!
//! No IO, no clock, no randomness, no allocation in steady state. The shell (pbx-sidecar) owns sockets, API client,
//! guard and clock, and turns what happens into [`Input`]s; [`Node::step`] answers with [`Effect`]s.
//!
//! # The protocol in a few words
//! Every node has one vote; an even number of nodes shares one more, the *witness*, a Lease object in the API. A vote
//! is *granted* to one candidate for deadtime, and the candidate's beats renew it. Who counts a quorum of votes is
//! *active*, and tells the kernel a deadline by which Asterisk is killed: a little before the votes run out, each
//! counted from the moment that the beat was *sent*. So nobody needs a common clock, and nobody has to be asked before
//! another takes over: it is enough to wait. Everything else is the care that this takes; DESIGN section 2 numbers
//! the rules (R1 to R14; R15 is in `rivals`), and each rule's function carries its number.
//!
//! # Contract with the shell
//! - All effects of a step are carried out, in order, before the next step; the buffer is cleared by the caller.
//! - [`Effect::Record`] is on tmpfs before the effects that follow it.
//! - The guard's events arrive in the order in which they happened, and concern the Asterisk that the last
//!   [`Effect::Arm`], [`Effect::Stop`] or [`Effect::RestartInPlace`] was about: events of earlier runs are dropped by
//!   the shell. A start that the guard refuses is reported as [`GuardEvent::Stopped`].
//! - After [`GuardEvent::Exited`] or [`GuardEvent::Stopped`] the node counts as not ready until the next
//!   [`Input::Condition`], which the shell always sends.
//! - A standby's Asterisk is the shell's to start, slack. The core arms, stops and restarts. After [`Effect::Stop`]
//!   the shell starts it again when it sees fit. It paces [`Effect::RestartInPlace`] by itself when Asterisk dies
//!   again and again: the core goes on as long as the authority lasts, since nobody else could serve.
//! - A [`Input::Tick`] at [`Node::next_deadline`], or earlier; later ones cost time, never safety.
//!
//! # Reading order
//! `input`, `effect`, `message` (the border); `node` (state and step); `grant`, `bid`, `authority` (votes);
//! `asterisk` (deadline and stop), `handover`, `rivals`; `witness`, `lease_calls`, `observation` (the Lease); `seats`, `seat_count`, `leave` (who votes).
//!
//! # What is not here
//! Traffic, trunks, health, drains, notices to people: the shell acts on [`Notice`]s.

mod asterisk;
mod authority;
mod ballot;
mod beat;
mod bid;
mod cause;
mod effect;
mod grant;
mod handover;
mod identity;
mod input;
mod invariants;
mod lease;
mod lease_calls;
mod leave;
mod message;
mod node;
mod observation;
mod peer;
#[cfg(feature = "model")]
mod rebase;
mod record;
mod report;
mod rivals;
#[cfg_attr(
    not(feature = "mutation"),
    allow(dead_code, reason = "named where applied")
)]
mod rule;
mod seat_count;
mod seats;
mod settings;
mod time;
mod timing;
mod view;
mod witness;

pub use ballot::{Ballot, BidView};
pub use cause::Cause;
pub use effect::{ApiCall, Effect, Notice, Suppression};
pub use identity::{Epoch, Incarnation, MAX_NODES, Occupant, Seat};
pub use input::{ApiAnswer, CallId, Command, Condition, GuardEvent, Input};
pub use lease::{Holder, LeaseContent, LeaseView, LeaseWrite, Seats};
pub use message::{Body, Message, PeerCondition, Refusal};
pub use node::Node;
#[cfg(feature = "model")]
pub use rebase::{Rebase, moved};
pub use record::Record;
#[cfg(feature = "mutation")]
pub use rule::{Rule, drop_rule};
pub use settings::{FoundAtStart, OnQuorumLoss, Settings, Start};
pub use time::BootTime;
pub use timing::{Timing, TimingProblem};
pub use view::{PeerView, Role, View};
