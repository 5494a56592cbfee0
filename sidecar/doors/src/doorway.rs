//! What each door is given, and all that it is given.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::channel::Channel;
use crate::job::{Action, Job, Refusal, Request};
use crate::view::View;

/// Jobs that a door may lag behind before it misses some.
pub const JOBS_KEPT: usize = 64;

/// A door's side of the sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Doorway {
    /// What to show.
    pub view: watch::Receiver<Arc<View>>,
    /// Where to ask.
    pub requests: mpsc::Sender<Request>,
    /// Jobs, told at every change; subscribe to it.
    pub jobs: broadcast::Sender<Arc<Job>>,
    /// The way to the other nodes' doors.
    pub channel: Channel,
}

impl Doorway {
    /// Asks for `action` in the name of `who`, and waits for the number of the job that it began.
    pub async fn ask(&self, action: Action, who: String) -> Result<u64, Refusal> {
        let (reply, answer) = oneshot::channel();
        let request = Request { action, who, reply };
        if self.requests.try_send(request).is_err() {
            return Err(Refusal::NotPossible(
                "too many actions are asked for at once: ask again in a second".into(),
            ));
        }
        answer.await.unwrap_or(Err(Refusal::Ending))
    }
}
