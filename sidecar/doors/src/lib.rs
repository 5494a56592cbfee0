//! The doors of a sidecar: interfaces by which clients of other systems read the state of the cluster, unmodified.
//!
//! Each door is a module with a pure codec (bytes in, messages out) and a thin server. All of them are fed from one `watch` of
//! a [`View`], and ask for changes through one queue of [`Request`]s: none can slow the core, the services or another (I5).
//! [`channel`] joins the doors of two nodes.

pub mod channel;
mod doorway;
pub mod droonga;
mod dropped;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod haast;
pub mod heartbeat;
pub mod job;
pub mod sysadm;
pub mod tls;
pub mod token;
mod unix_socket;
pub mod view;

pub use doorway::{Doorway, JOBS_KEPT};
pub use dropped::OnDropped;
pub use job::{Action, Job, JobState, Refusal, Request, Step, Strategy};
pub use view::{NodeView, View};
