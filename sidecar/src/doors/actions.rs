//! Which node does what was asked for here. A switchover is the active's to do, so a standby sends it there and tells of its
//! progress as if it were a job of its own; everything else goes to this node's services.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use pbx_doors::channel::message::{read_message, write_message};
use pbx_doors::channel::{ChannelError, Incoming, PeerStream, Service};
use pbx_doors::{Action, Doorway, Job, JobState, Refusal, Request, Step, View};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

use super::Inputs;

/// A request, an answer or a job.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Until a node has said whether it begins.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a step has that nobody can tell the end of.
const LOST: i32 = 255;

/// Gives every request to whom it concerns.
#[derive(Clone)]
pub struct Desk {
    doorway: Doorway,
    services: mpsc::Sender<Request>,
    numbers: Arc<AtomicU64>,
}

/// Where an action is done.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Here(Action),
    There(usize, Action),
    Nowhere(Refusal),
}

/// To another node.
#[derive(Serialize, Deserialize)]
struct Asked {
    action: Action,
    who: String,
}

/// From another node: first an answer, then, if it was a number, that job until it is finished.
#[derive(Serialize, Deserialize)]
enum Told {
    Answer(Result<u64, Refusal>),
    Job(Job),
}

impl Desk {
    /// Of the doors that `doorway` is given to.
    pub fn new(inputs: &Inputs, doorway: Doorway) -> Self {
        Self {
            doorway,
            services: inputs.services.clone(),
            numbers: inputs.numbers.clone(),
        }
    }

    /// Serves this node's doors.
    pub async fn serve(self, mut asked: mpsc::Receiver<Request>) {
        while let Some(request) = asked.recv().await {
            let route = route(&self.doorway.view.borrow(), request.action.clone());
            tracing::info!(who = request.who, action = ?request.action, ?route, "an action was asked for");
            match route {
                Route::Here(action) => self.give(Request { action, ..request }),
                Route::There(seat, action) => {
                    let asked = Request { action, ..request };
                    tokio::spawn(self.clone().forward(seat, asked));
                }
                Route::Nowhere(refusal) => answer(request.reply, Err(refusal)),
            }
        }
    }

    /// Serves the doors of peers.
    pub async fn serve_peers(self, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { seat, stream }) = incoming.recv().await {
            let desk = self.clone();
            tokio::spawn(async move {
                if let Err(error) = desk.serve_peer(seat, stream).await {
                    tracing::debug!(seat, reason = error.reason(), "a peer asked and went");
                }
            });
        }
    }

    fn give(&self, request: Request) {
        if let Err(full) = self.services.try_send(request) {
            answer(full.into_inner().reply, Err(busy()));
        }
    }

    async fn serve_peer(&self, seat: usize, mut stream: PeerStream) -> Result<(), ChannelError> {
        let Some(asked) = receive::<Asked>(&mut stream).await? else {
            return Ok(());
        };
        let mut jobs = self.doorway.jobs.subscribe();
        let begun = self.begin(seat, asked).await;
        send(&mut stream, &Told::Answer(begun.clone())).await?;
        let Ok(number) = begun else {
            return stream_end(stream).await;
        };
        let mut nothing = [0; 1];
        loop {
            let job = tokio::select! {
                job = jobs.recv() => job,
                _ = stream.read(&mut nothing) => return Ok(()),
            };
            match job {
                Ok(job) if job.id == number => {
                    send(&mut stream, &Told::Job(Job::clone(&job))).await?;
                    if job.state == JobState::Finished {
                        return stream_end(stream).await;
                    }
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    async fn begin(&self, seat: usize, asked: Asked) -> Result<u64, Refusal> {
        let view = self.doorway.view.borrow().clone();
        // A node that is not active any more does not send it on: it would travel in circles while roles change.
        let Route::Here(action) = route(&view, asked.action) else {
            let message = "the role moved just now: ask again";
            return Err(Refusal::NotPossible(message.into()));
        };
        let by = view.nodes.get(seat).map_or("?", |node| &node.name);
        let who = format!("{} via {by}", asked.who);
        tracing::info!(who, ?action, "a peer asked for an action");
        let (reply, begun) = oneshot::channel();
        self.give(Request { action, who, reply });
        begun.await.unwrap_or(Err(Refusal::Ending))
    }

    async fn forward(self, seat: usize, request: Request) {
        let Request { action, who, reply } = request;
        let asked = Asked {
            action: action.clone(),
            who: who.clone(),
        };
        match timeout(PATIENCE, self.ask_peer(seat, &asked)).await {
            Ok(Ok((Ok(_), stream))) => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                answer(reply, Ok(number));
                self.retell(unheard(number, action, who), stream).await;
            }
            Ok(Ok((Err(refusal), _))) => answer(reply, Err(refusal)),
            Ok(Err(_)) | Err(_) => {
                let name = self.doorway.view.borrow().nodes[seat].name.clone();
                let message = format!("{name}, which would have to do it, does not answer");
                answer(reply, Err(Refusal::NotPossible(message)));
            }
        }
    }

    async fn ask_peer(
        &self,
        seat: usize,
        asked: &Asked,
    ) -> Result<(Result<u64, Refusal>, PeerStream), ChannelError> {
        let mut stream = self.doorway.channel.open(seat, Service::Action).await?;
        send(&mut stream, asked).await?;
        match receive(&mut stream).await? {
            Some(Told::Answer(answer)) => Ok((answer, stream)),
            Some(Told::Job(_)) | None => Err(ChannelError::NotAuthentic),
        }
    }

    /// Tells what the peer tells, under this node's number, and an end if the peer tells none.
    async fn retell(&self, mut last: Job, mut stream: PeerStream) {
        while let Ok(Some(Told::Job(job))) = receive(&mut stream).await {
            last = Job { id: last.id, ..job };
            // Nobody may be listening.
            let _ = self.doorway.jobs.send(Arc::new(last.clone()));
        }
        if last.state != JobState::Finished {
            let _ = self.doorway.jobs.send(Arc::new(lost(last)));
        }
    }
}

/// Where `action` is done, as things are.
fn route(view: &View, action: Action) -> Route {
    let is_of_active = matches!(
        action,
        Action::Promote
            | Action::Demote
            | Action::Switchover { .. }
            | Action::CancelSwitchover
            | Action::Drill
    );
    if !is_of_active {
        return Route::Here(action);
    }
    let Some(active) = view.active else {
        return not_possible("no node is active: a standby that can takes over by itself");
    };
    match action {
        Action::Promote if active == view.own => not_possible("this node is active already"),
        Action::Promote => Route::There(
            active,
            Action::Switchover {
                to: Some(view.own().name.clone()),
                strategy: None,
            },
        ),
        Action::Demote if active != view.own => not_possible("this node is not active"),
        Action::Switchover { to: Some(name), .. } if !has_node(view, &name) => {
            Route::Nowhere(Refusal::NoSuchNode(name))
        }
        Action::Switchover { to: Some(name), .. } if view.nodes[active].name == name => {
            not_possible(&format!("{name} is active already"))
        }
        action if active == view.own => Route::Here(action),
        action => Route::There(active, action),
    }
}

fn has_node(view: &View, name: &str) -> bool {
    view.nodes.iter().any(|node| node.name == name)
}

fn not_possible(why: &str) -> Route {
    Route::Nowhere(Refusal::NotPossible(why.into()))
}

fn busy() -> Refusal {
    Refusal::NotPossible("too many actions are asked for at once: ask again in a second".into())
}

/// Who asked may have gone.
fn answer(reply: oneshot::Sender<Result<u64, Refusal>>, answer: Result<u64, Refusal>) {
    let _ = reply.send(answer);
}

fn unheard(id: u64, action: Action, who: String) -> Job {
    Job {
        id,
        action,
        who,
        state: JobState::Pending,
        steps: Vec::new(),
        started_at: None,
        finished_at: None,
    }
}

fn lost(mut job: Job) -> Job {
    job.state = JobState::Finished;
    job.finished_at = Some(Timestamp::now());
    if job.steps.is_empty() {
        job.steps.push(Step {
            command: "forward".into(),
            log: String::new(),
            return_code: None,
        });
    }
    for step in &mut job.steps {
        if step.return_code.is_none() {
            step.return_code = Some(LOST);
            step.log = "the node that does it is not heard any more".into();
        }
    }
    job
}

async fn send(stream: &mut PeerStream, what: &impl Serialize) -> Result<(), ChannelError> {
    let json = serde_json::to_vec(what).expect("requests and jobs are JSON");
    let sent = timeout(PATIENCE, write_message(stream, &json)).await;
    sent.unwrap_or(Err(ChannelError::Deadline(PATIENCE)))
}

/// `None` at the orderly end; what is not understood is one too: the versions differ.
async fn receive<T: for<'a> Deserialize<'a>>(
    stream: &mut PeerStream,
) -> Result<Option<T>, ChannelError> {
    let message = read_message(stream, MAX_MESSAGE_BYTES).await?;
    Ok(message.and_then(|json| serde_json::from_slice(&json).ok()))
}

async fn stream_end(mut stream: PeerStream) -> Result<(), ChannelError> {
    Ok(stream.shutdown().await?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pbx_doors::NodeView;

    use super::*;

    fn view(own: usize, active: Option<usize>) -> View {
        let node = |name: &str| NodeView {
            name: name.into(),
            address: None,
            is_up: true,
            is_known: true,
            report: None,
        };
        View {
            cluster: "office".into(),
            cluster_started_at: Timestamp::UNIX_EPOCH,
            started_at: Timestamp::UNIX_EPOCH,
            own,
            nodes: vec![node("a"), node("b"), node("c")],
            active,
            epoch: 1,
            keepalive: Duration::from_millis(100),
            warntime: Duration::from_millis(400),
            deadtime: Duration::from_millis(800),
            initdead: Duration::from_secs(30),
        }
    }

    fn switchover(to: Option<&str>) -> Action {
        Action::Switchover {
            to: to.map(Into::into),
            strategy: None,
        }
    }

    #[test]
    fn a_switchover_is_done_by_the_active_wherever_it_is_asked() {
        let asked = switchover(Some("c"));
        assert_eq!(
            route(&view(0, Some(0)), asked.clone()),
            Route::Here(asked.clone())
        );
        assert_eq!(
            route(&view(1, Some(0)), asked.clone()),
            Route::There(0, asked)
        );
        let promoted = Route::There(0, switchover(Some("b")));
        assert_eq!(route(&view(1, Some(0)), Action::Promote), promoted);
        let demoted = Route::Here(Action::Demote);
        assert_eq!(route(&view(0, Some(0)), Action::Demote), demoted);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anybody_is_asked() {
        for (own, active, action) in [
            (0, Some(0), Action::Promote),
            (1, Some(0), Action::Demote),
            (1, None, switchover(None)),
            (1, Some(0), switchover(Some("a"))),
        ] {
            let route = route(&view(own, active), action.clone());
            assert!(
                matches!(route, Route::Nowhere(Refusal::NotPossible(_))),
                "{action:?}"
            );
        }
        let nobody = route(&view(1, Some(0)), switchover(Some("z")));
        assert_eq!(nobody, Route::Nowhere(Refusal::NoSuchNode("z".into())));
    }

    #[test]
    fn what_concerns_asterisk_is_done_here() {
        let here = Route::Here(Action::ReloadAsterisk);
        assert_eq!(route(&view(1, Some(0)), Action::ReloadAsterisk), here);
    }

    #[test]
    fn a_job_whose_node_is_lost_ends_with_a_code() {
        let job = lost(unheard(7, Action::Drill, "http".into()));
        assert_eq!(
            (job.state, job.steps[0].return_code),
            (JobState::Finished, Some(LOST))
        );
    }
}
