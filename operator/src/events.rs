//! Publishes Events about clusters (`kubectl describe pbx`). Events are news, not state: they wait in a bounded queue, are
//! tried a few times with growing pauses, and are then dropped with a word in the log. They hold up nobody.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::{Client, Resource};
use pbx_crds::PbxCluster;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::observe::announce::Announcement;

const QUEUE: usize = 256;
const TRIES: u32 = 6;
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Takes Events to be published.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<(ObjectReference, Announcement)>);

impl Announcer {
    /// Starts the publishing task; `instance` is this operator's pod.
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let reporter = Reporter {
            controller: "pbxha.dev/operator".into(),
            instance: Some(instance),
        };
        tokio::spawn(publish_all(Recorder::new(client, reporter), queue));
        Self(sender)
    }

    /// Publishes soon; a full queue drops the news, and says so.
    pub fn announce(&self, cluster: &PbxCluster, announcement: Announcement) {
        let about = cluster.object_ref(&());
        if let Err(error) = self.0.try_send((about, announcement)) {
            tracing::warn!(error = %error, "event dropped");
        }
    }
}

async fn publish_all(
    recorder: Recorder,
    mut queue: mpsc::Receiver<(ObjectReference, Announcement)>,
) {
    while let Some((about, announcement)) = queue.recv().await {
        publish(&recorder, &about, announcement).await;
    }
}

async fn publish(recorder: &Recorder, about: &ObjectReference, announcement: Announcement) {
    let event = Event {
        type_: announcement.type_,
        reason: announcement.reason,
        note: Some(announcement.message),
        action: announcement.action,
        secondary: None,
    };
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        match timeout(CALL_TIMEOUT, recorder.publish(&event, about)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "event not yet published"
                );
            }
            Err(_) => tracing::debug!("event not yet published: no answer"),
        }
        sleep(pause).await;
        pause *= 2;
    }
    tracing::warn!(reason = %event.reason, "event dropped: the API server did not take it");
}
