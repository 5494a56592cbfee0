//! Tells people's programs what happened: commands beside the sidecar, and web servers. One task with a bounded queue of its own:
//! nothing of the failover waits for it, and what finds it full is counted and not told.

use std::time::Duration;

use jiff::Timestamp;
use pbx_crds::switchover::{HookEvent, HookSpec};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_blocking, spawn_local};

use crate::health::{Outcome, run_bounded};
use crate::metrics::Metrics;

/// Events that wait for slow hooks.
const QUEUE: usize = 64;

/// What happened, as hooks are told it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// Its name, as in the resource.
    pub event: &'static str,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node that tells.
    pub node: String,
    /// When.
    pub time: Timestamp,
    /// The epoch that it is about.
    pub epoch: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Who was active before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The level of the node's health.
    pub health: &'static str,
}

/// Why a hook was not told, or did not want to hear it.
#[derive(Debug, Error)]
pub enum HookError {
    /// Its command could not be started.
    #[error("failed to start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Its command ended badly.
    #[error("the command ended with {code:?}: {said}")]
    Command {
        /// Exit code; none: a signal.
        code: Option<i32>,
        /// The beginning of what it said.
        said: String,
    },
    /// It did not end in time.
    #[error("it did not end within {limit:?}")]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// The web server did not take it.
    #[error("failed to post to {url}")]
    Post {
        /// Where.
        url: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
}

impl HookError {
    /// Stable, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Start { .. } => "StartFailed",
            Self::Command { .. } => "CommandFailed",
            Self::TimedOut { .. } => "TimedOut",
            Self::Post { .. } => "PostFailed",
        }
    }
}

/// The way to the task. It ends when this is dropped.
pub struct Hooks {
    queue: mpsc::Sender<(HookEvent, Happening)>,
    metrics: Metrics,
    task: AbortHandle,
}

impl Hooks {
    /// Starts the task for these hooks.
    pub fn start(hooks: Vec<HookSpec>, metrics: Metrics) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let task = spawn_local(serve(hooks, events, metrics.clone()));
        Self {
            queue,
            metrics,
            task: task.abort_handle(),
        }
    }

    /// Tells it, later.
    pub fn tell(&self, event: HookEvent, happening: Happening) {
        if self.queue.try_send((event, happening)).is_err() {
            Metrics::count(&self.metrics.hooks, "QueueFull");
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    hooks: Vec<HookSpec>,
    mut events: mpsc::Receiver<(HookEvent, Happening)>,
    metrics: Metrics,
) {
    while let Some((event, happening)) = events.recv().await {
        let json = serde_json::to_string(&happening).expect("names and numbers are JSON");
        for hook in hooks.iter().filter(|hook| hook.events.contains(&event)) {
            match call(hook, event, &json).await {
                Ok(()) => Metrics::count(&metrics.hooks, "Told"),
                Err(error) => {
                    Metrics::count(&metrics.hooks, error.reason());
                    tracing::warn!(
                        hook = hook.name,
                        event = event.as_str(),
                        reason = error.reason(),
                        error = &error as &dyn std::error::Error,
                        "a hook was not told"
                    );
                }
            }
        }
    }
}

async fn call(hook: &HookSpec, event: HookEvent, json: &str) -> Result<(), HookError> {
    let limit = hook.timeout.get();
    if let Some(url) = &hook.url {
        return post(url.clone(), json.to_owned(), limit).await;
    }
    let environment = [("PBXHA_EVENT", event.as_str())];
    match run_bounded(&hook.command, &environment, json.as_bytes(), limit).await {
        Outcome::Ended { code: Some(0), .. } => Ok(()),
        Outcome::Ended { code, said } => Err(HookError::Command { code, said }),
        Outcome::TimedOut => Err(HookError::TimedOut { limit }),
        Outcome::NotStarted(source) => Err(HookError::Start {
            program: hook.command.first().cloned().unwrap_or_default(),
            source,
        }),
    }
}

/// On a thread of its own, one at a time: names are resolved there too.
async fn post(url: String, json: String, limit: Duration) -> Result<(), HookError> {
    let posted = spawn_blocking(move || {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .build()
            .new_agent();
        let request = agent.post(&url).header("content-type", "application/json");
        request
            .send(json)
            .map(drop)
            .map_err(|source| HookError::Post {
                url,
                source: Box::new(source),
            })
    });
    // A panic in there would be a defect of the library: as if it had not answered.
    posted.await.unwrap_or(Err(HookError::TimedOut { limit }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::task::LocalSet;

    use super::*;

    fn happening() -> Happening {
        Happening {
            event: "Promote",
            cluster: "office".into(),
            node: "office-1".into(),
            time: Timestamp::UNIX_EPOCH,
            epoch: 7,
            cause: Some("Switchover".into()),
            from: Some("office-0".into()),
            health: "Good",
        }
    }

    fn hook(text: &str) -> HookSpec {
        serde_yaml::from_str(text).unwrap()
    }

    fn metrics() -> Metrics {
        Metrics::new(&[None], &[None])
    }

    #[tokio::test]
    async fn a_command_gets_the_event_on_its_input_and_others_do_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let (told, other) = (folder.path().join("told"), folder.path().join("other"));
        let script = |path: &std::path::Path| format!("cat > {}", path.display());
        let hooks = vec![
            hook(&format!(
                "{{name: a, events: [Promote], command: [sh, -c, '{}']}}",
                script(&told)
            )),
            hook(&format!(
                "{{name: b, events: [Demote], command: [sh, -c, '{}']}}",
                script(&other)
            )),
        ];
        let counted = metrics();
        let local = LocalSet::new();
        local
            .run_until(async {
                let hooks = Hooks::start(hooks, counted.clone());
                hooks.tell(HookEvent::Promote, happening());
                while !counted.text().contains("reason=\"Told\"} 1") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
        assert_eq!(
            (json["event"].as_str(), json["epoch"].as_u64()),
            (Some("Promote"), Some(7))
        );
        assert!(!other.exists());
    }

    #[tokio::test]
    async fn a_web_server_gets_json_and_its_refusal_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for status in ["204 No Content", "500 Oops"] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut text = vec![0; 4096];
                let length = socket.read(&mut text).unwrap();
                assert!(String::from_utf8_lossy(&text[..length]).starts_with("POST /hook"));
                write!(
                    socket,
                    "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                .unwrap();
            }
        });
        let limit = Duration::from_secs(2);
        assert!(post(url.clone(), "{}".into(), limit).await.is_ok());
        let error = post(url, "{}".into(), limit).await.unwrap_err();
        assert_eq!(error.reason(), "PostFailed");
        server.join().unwrap();
    }

    #[tokio::test]
    async fn one_that_hangs_or_fails_is_given_up() {
        let slow = hook("{name: a, events: [Demote], command: [sleep, '100'], timeout: 200ms}");
        let error = call(&slow, HookEvent::Demote, "{}").await.unwrap_err();
        assert_eq!(error.reason(), "TimedOut");
        let bad = hook("{name: a, events: [Demote], command: ['false']}");
        let error = call(&bad, HookEvent::Demote, "{}").await.unwrap_err();
        assert_eq!(error.reason(), "CommandFailed");
    }

    #[tokio::test]
    async fn a_full_queue_is_counted_and_nobody_waits() {
        let counted = metrics();
        let local = LocalSet::new();
        local
            .run_until(async {
                let hooks = Hooks::start(Vec::new(), counted.clone());
                for _ in 0..=QUEUE {
                    hooks.tell(HookEvent::Promote, happening());
                }
            })
            .await;
        assert!(
            counted.text().contains("reason=\"QueueFull\"} 1"),
            "{}",
            counted.text()
        );
    }
}
