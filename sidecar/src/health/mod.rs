//! How well this node is: sensors are read, their points make a score, the score reaches a level, and at Failure the active
//! looks for a healthier node.
//!
//! Reading order: `plan.rs` (which sensors), `score.rs` (readings to a level; pure), `choice.rs` (what follows from it; pure),
//! `probe/` (the readings), `watch.rs` (the tasks that take them). Not here: who takes over (the core), the process of Asterisk
//! (the guard tells of its end at once).

mod choice;
mod plan;
mod probe;
mod score;
mod watch;

pub use choice::{Chooser, Decision, Situation};
pub use probe::{Outcome, run_bounded};
pub use score::{Assessment, Reading, Scoreboard, Verdict};
pub use watch::{Ground, Life, Watch};
