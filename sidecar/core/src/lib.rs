//! The failover protocol as a pure state machine: input in, effects out, time as an argument.
mod cause;
mod effect;
mod identity;
mod input;
mod lease;
mod message;
mod record;
mod time;
mod timing;

pub use cause::Cause;
pub use effect::{ApiCall, Effect, Notice, Suppression};
pub use identity::{Epoch, Incarnation, MAX_NODES, Occupant, Seat};
pub use input::{ApiAnswer, CallId, Command, Condition, GuardEvent, Input};
pub use lease::{Holder, LeaseContent, LeaseView, LeaseWrite, Seats};
pub use message::{Body, Message, PeerCondition};
pub use record::Record;
pub use time::BootTime;
pub use timing::Timing;
