//! Everything that may wait, on one thread beside the core's: API calls, traffic, Asterisk's boot and trunks, history, report.
//!
//! One owner of all state: events come in through one bounded queue, what takes time is a task that ends in an event.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use pbx_core::{BootTime, Command, Condition, Epoch, Input, Notice, Role};
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Problem, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use crate::asterisk::supervisor::{Action, Phase, Supervisor};
use crate::asterisk::{self, Booted, Configured};
use crate::config::Checked;
use crate::daemon::{CoreView, FromCore, ToCore};
use crate::guard::GuardNote;
use crate::history::{History, Promotion};
use crate::kubernetes::KubeError;
use crate::kubernetes::lease::WitnessLease;
use crate::kubernetes::slice::{Moved, Traffic, TrafficView};
use crate::metrics::{Metrics, Reason};
use crate::report::{Known, build_report};
use crate::{api_watch, asterisk::supervisor};

/// Below it, a crash is an accident; from it on, a loop that a person has to look at.
const CRASH_LOOP: u32 = 3;
/// A move of the traffic is tried for so long before the role is handed back.
const TRAFFIC_PATIENCE: Duration = Duration::from_secs(2);
const TRAFFIC_RETRY: Duration = Duration::from_millis(50);
const TRAFFIC_DEADLINE: Duration = Duration::from_millis(500);

/// What a task found out.
pub enum Done {
    /// The API server answers, or does not.
    ApiReachable(bool),
    /// The slice as a watch or a read shows it.
    TrafficSeen(TrafficView),
    /// The supervisor's uncached read.
    TrafficRead(Option<TrafficView>),
    /// The traffic points here.
    TrafficMoved(Epoch, TrafficView, Duration),
    /// Somebody with a newer epoch wrote first.
    Overtaken(Epoch),
    /// The traffic could not be moved.
    TrafficFailed(Epoch, KubeError),
    /// Asterisk is fully booted.
    Booted(Booted),
    /// What the status of the resource tells of the past.
    History(Ledger),
    /// Trunks are unregistered: the node may leave.
    MayLeave,
}

/// The cluster's objects.
#[derive(Clone)]
pub struct Objects {
    /// The client.
    pub client: Client,
    /// The witness.
    pub lease: WitnessLease,
    /// The traffic, in Pod mode.
    pub traffic: Option<Traffic>,
}

/// The ends of the queues that the services hold.
pub struct Channels {
    /// To the core.
    pub to_core: mpsc::Sender<ToCore>,
    /// From the core.
    pub from_core: mpsc::Receiver<FromCore>,
    /// The core's view.
    pub view: watch::Receiver<CoreView>,
    /// The report, for HTTP.
    pub report: watch::Sender<Arc<Report>>,
}

/// The services.
pub struct Services {
    checked: Arc<Checked>,
    objects: Option<Objects>,
    channels: Channels,
    metrics: Metrics,
    done: mpsc::Sender<Done>,
    history: History,
    supervisor: Supervisor,
    configured: Option<Configured>,
    booted: Option<Booted>,
    boot_task: Option<AbortHandle>,
    /// The epoch this node serves under.
    active_epoch: Option<Epoch>,
    traffic: Option<TrafficView>,
    is_api_reachable: bool,
    /// What the core knows; it forgets readiness with every end of Asterisk.
    told_condition: Option<Condition>,
    is_terminating: bool,
    has_left: bool,
    crash: Option<Problem>,
    fault: Option<Problem>,
}

impl Services {
    /// Builds the configuration and starts the tasks that look at the API.
    pub fn start(
        checked: Arc<Checked>,
        objects: Option<Objects>,
        channels: Channels,
        metrics: Metrics,
        history: History,
    ) -> (Self, mpsc::Receiver<Done>) {
        let (done, done_rx) = mpsc::channel(256);
        let needs_traffic_read = objects
            .as_ref()
            .is_some_and(|objects| objects.traffic.is_some());
        let mut services = Self {
            supervisor: Supervisor::new(needs_traffic_read),
            checked,
            objects,
            channels,
            metrics,
            done,
            history,
            configured: None,
            booted: None,
            boot_task: None,
            active_epoch: None,
            traffic: None,
            is_api_reachable: false,
            told_condition: None,
            is_terminating: false,
            has_left: false,
            crash: None,
            fault: None,
        };
        services.configure();
        services.note_ledger();
        if let Some(objects) = &services.objects {
            api_watch::spawn(
                objects.clone(),
                services.checked.clone(),
                services.channels.view.clone(),
                services.channels.to_core.clone(),
                services.done.clone(),
            );
        }
        (services, done_rx)
    }

    /// Runs until this node has left and its containers may end.
    pub async fn run(
        mut self,
        mut done: mpsc::Receiver<Done>,
        mut terminate: tokio::signal::unix::Signal,
    ) {
        loop {
            let wait = self
                .supervisor
                .next_deadline()
                .map_or(Duration::from_secs(3600), |due| due.since(now()));
            tokio::select! {
                from_core = self.channels.from_core.recv() => match from_core {
                    Some(message) => self.on_core(message),
                    None => return,
                },
                Some(done) = done.recv() => self.on_done(done),
                changed = self.channels.view.changed() => if changed.is_err() { return },
                _ = terminate.recv() => if self.has_left { return } else { self.on_terminating() },
                () = tokio::time::sleep(wait) => {}
            }
            self.tend_asterisk();
            self.tell_condition();
            self.publish();
        }
    }

    fn configure(&mut self) {
        match asterisk::configure(&self.checked.file.asterisk) {
            Ok(configured) => {
                if !configured.is_linked() {
                    configured.link(false);
                }
                self.configured = Some(configured);
                self.supervisor.on_config();
            }
            Err(error) => {
                tracing::error!(
                    reason = error.reason(),
                    error = &error as &dyn std::error::Error,
                    "Asterisk's configuration cannot be built"
                );
                self.fault = Some(Problem {
                    reason: "ConfigInvalid".into(),
                    message: error.to_string(),
                });
            }
        }
    }

    fn on_core(&mut self, message: FromCore) {
        match message {
            FromCore::Call(id, call) => self.call_api(id, call),
            FromCore::Notice(notice) => self.on_notice(notice),
            FromCore::Guard(note) => self.on_guard(note),
            FromCore::Ledger(part) => {
                if self.history.on_part(&part) {
                    self.note_ledger();
                }
            }
            FromCore::LedgerDiffers(seat) => {
                if let Some(parts) = self.history.parts_for(seat, now()) {
                    self.send(ToCore::SendLedger(seat, parts));
                }
            }
        }
    }

    fn call_api(&self, id: pbx_core::CallId, call: pbx_core::ApiCall) {
        let Some(objects) = &self.objects else { return };
        let (lease, to_core, done, metrics) = (
            objects.lease.clone(),
            self.channels.to_core.clone(),
            self.done.clone(),
            self.metrics.clone(),
        );
        spawn_local(async move {
            let (answer, is_reachable) = lease.call(call).await;
            Metrics::count(
                &metrics.api_calls,
                if is_reachable { "Answered" } else { "Failed" },
            );
            let _ = to_core
                .send(ToCore::Input(Input::Api { call: id, answer }))
                .await;
            let _ = done.send(Done::ApiReachable(is_reachable)).await;
        });
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Promoted {
                epoch,
                from,
                cause,
                detection_us,
                promotion_us,
            } => {
                let promotion = Promotion {
                    epoch: epoch.0.cast_signed(),
                    cause,
                    detection: Duration::from_micros(detection_us),
                    promotion: Duration::from_micros(promotion_us),
                };
                let from = from.map(|seat| self.checked.name_of(seat));
                self.history
                    .on_promoted(Time(Timestamp::now()), from, promotion);
                self.note_ledger();
                self.on_active(epoch);
            }
            Notice::Resumed { epoch } => self.on_active(epoch),
            Notice::EpochRaised { epoch } => self.active_epoch = self.active_epoch.map(|_| epoch),
            Notice::Demoted { .. } => {
                self.active_epoch = None;
                self.supervisor.on_role(false);
            }
            Notice::RestartedInPlace { .. } => {
                self.history.on_restarted_in_place();
                self.note_ledger();
            }
            Notice::SwitchoverRefused { .. } => {
                self.history.on_suppressed();
                self.note_ledger();
            }
            Notice::SeatsChanged => {}
            Notice::Left => {
                self.has_left = true;
                self.send(ToCore::EndGuard);
            }
        }
    }

    fn on_active(&mut self, epoch: Epoch) {
        self.active_epoch = Some(epoch);
        self.supervisor.on_role(true);
        self.move_traffic(epoch);
        if let Some(configured) = &self.configured {
            configured.link(true);
        }
        self.register_trunks();
    }

    fn register_trunks(&self) {
        if let (Some(configured), Some(booted), Some(_)) =
            (&self.configured, &self.booted, self.active_epoch)
        {
            spawn_local(configured.clone().register_trunks(booted.clone()));
        }
    }

    fn move_traffic(&self, epoch: Epoch) {
        let Some(traffic) = self
            .objects
            .as_ref()
            .and_then(|objects| objects.traffic.clone())
        else {
            return;
        };
        if self
            .traffic
            .as_ref()
            .is_some_and(|view| traffic.is_here(view) && view.epoch == epoch)
        {
            return;
        }
        let (known, done, began) = (
            self.traffic.clone(),
            self.done.clone(),
            tokio::time::Instant::now(),
        );
        spawn_local(async move {
            let mut known = known;
            let result = loop {
                match traffic
                    .move_here(epoch, known.take(), TRAFFIC_DEADLINE)
                    .await
                {
                    Ok(Moved::Here(view)) => {
                        break Done::TrafficMoved(epoch, view, began.elapsed());
                    }
                    Ok(Moved::Overtaken(newer)) => break Done::Overtaken(newer),
                    Err(error) if began.elapsed() > TRAFFIC_PATIENCE => {
                        break Done::TrafficFailed(epoch, error);
                    }
                    Err(_) => tokio::time::sleep(TRAFFIC_RETRY).await,
                }
            };
            let _ = done.send(result).await;
        });
    }

    fn on_guard(&mut self, note: GuardNote) {
        match note {
            GuardNote::Started => {
                self.metrics.asterisk_starts.inc();
                self.end_boot();
                let Action::Boot = self.supervisor.on_started() else {
                    return;
                };
                self.boot();
            }
            GuardNote::Exited {
                asked,
                status,
                quick_exits,
            } => {
                tracing::info!(asked, ?status, quick_exits, "Asterisk ended");
                self.end_boot();
                self.supervisor.on_exited(now(), quick_exits);
                self.told_condition = None;
                self.crash = (quick_exits >= CRASH_LOOP).then(|| Problem {
                    reason: "AsteriskCrashLoop".into(),
                    message: format!("Asterisk on {} ended {quick_exits} times within seconds of its start ({status:?}): see the log of its container", self.checked.node),
                });
            }
            GuardNote::Idle => {
                self.end_boot();
                self.supervisor.on_exited(now(), 0);
                self.told_condition = None;
            }
            GuardNote::Terminating { .. } => self.on_terminating(),
        }
    }

    fn boot(&mut self) {
        let Some(configured) = self.configured.clone() else {
            return;
        };
        let done = self.done.clone();
        let task = spawn_local(async move {
            let boot = configured.boot();
            tokio::pin!(boot);
            let booted = match tokio::time::timeout(asterisk::SLOW_BOOT, &mut boot).await {
                Ok(booted) => booted,
                Err(_) => {
                    tracing::warn!(
                        "Asterisk is not fully booted after {:?}: see the log of its container",
                        asterisk::SLOW_BOOT
                    );
                    boot.await
                }
            };
            let _ = done.send(Done::Booted(booted)).await;
        });
        self.boot_task = Some(task.abort_handle());
    }

    fn end_boot(&mut self) {
        self.booted = None;
        if let Some(task) = self.boot_task.take() {
            task.abort();
        }
    }

    fn on_terminating(&mut self) {
        if std::mem::replace(&mut self.is_terminating, true) {
            return;
        }
        tracing::info!("the pod ends: handing over and leaving");
        self.supervisor.on_leaving();
        let (configured, booted, done) = (
            self.configured.clone(),
            self.booted.clone(),
            self.done.clone(),
        );
        let is_active = self.active_epoch.is_some();
        spawn_local(async move {
            if let (true, Some(configured), Some(booted)) = (is_active, configured, booted) {
                configured.unregister_trunks(&booted).await;
            }
            let _ = done.send(Done::MayLeave).await;
        });
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::ApiReachable(is_reachable) => self.is_api_reachable = is_reachable,
            Done::TrafficSeen(view) => self.on_traffic_seen(view),
            Done::TrafficRead(view) => {
                let traffic = self
                    .objects
                    .as_ref()
                    .and_then(|objects| objects.traffic.as_ref());
                let is_here = view
                    .as_ref()
                    .zip(traffic)
                    .map(|(view, traffic)| traffic.is_here(view));
                self.supervisor.on_traffic(now(), is_here);
                if let Some(view) = view {
                    self.on_traffic_seen(view);
                }
            }
            Done::TrafficMoved(epoch, view, took) => {
                self.traffic = Some(view);
                self.fault = self
                    .fault
                    .take()
                    .filter(|fault| fault.reason != "TrafficFailed");
                self.history.on_traffic_moved(epoch.0.cast_signed(), took);
                self.note_ledger();
            }
            Done::Overtaken(newer) => {
                self.send(ToCore::Input(Input::Command(Command::SeenEpoch(newer))))
            }
            Done::TrafficFailed(epoch, error) => self.on_traffic_failed(epoch, &error),
            Done::Booted(booted) => {
                self.booted = Some(booted);
                self.supervisor.on_booted();
                self.crash = None;
                self.register_trunks();
            }
            Done::History(ledger) => {
                if self.history.merge(&ledger) {
                    self.note_ledger();
                }
            }
            Done::MayLeave => self.send(ToCore::Input(Input::Command(Command::Leave))),
        }
    }

    fn on_traffic_seen(&mut self, view: TrafficView) {
        let highest = self.channels.view.borrow().epoch;
        if view.epoch.0 > highest {
            self.send(ToCore::Input(Input::Command(Command::SeenEpoch(
                view.epoch,
            ))));
        }
        self.traffic = Some(view);
    }

    fn on_traffic_failed(&mut self, epoch: Epoch, error: &KubeError) {
        if self.active_epoch != Some(epoch) {
            return;
        }
        tracing::error!(
            error = error as &dyn std::error::Error,
            epoch = epoch.0,
            "the traffic cannot be moved here"
        );
        self.fault = Some(Problem {
            reason: "TrafficFailed".into(),
            message: format!("{error}: check the sidecar's Role and the API server"),
        });
        self.send(ToCore::Input(Input::Command(Command::TrafficFailed {
            epoch,
        })));
        self.move_traffic(epoch);
    }

    fn tend_asterisk(&mut self) {
        match self.supervisor.on_tick(now()) {
            Some(Action::ReadTraffic) => self.read_traffic(),
            Some(Action::StartSlack) => {
                if let Some(configured) = &self.configured {
                    configured.link(false);
                }
                self.send(ToCore::StartSlack);
            }
            Some(Action::Boot) | None => {}
        }
    }

    fn read_traffic(&self) {
        let Some(traffic) = self
            .objects
            .as_ref()
            .and_then(|objects| objects.traffic.clone())
        else {
            return;
        };
        let done = self.done.clone();
        spawn_local(async move {
            let view = traffic.read(supervisor::SETTLING).await.ok();
            let _ = done.send(Done::TrafficRead(view)).await;
        });
    }

    fn tell_condition(&mut self) {
        let condition = Condition {
            is_ready: self.supervisor.is_ready(),
            is_api_reachable: self.is_api_reachable,
            rank: 0,
        };
        if self.told_condition != Some(condition) {
            self.told_condition = Some(condition);
            self.send(ToCore::Input(Input::Condition(condition)));
        }
    }

    fn send(&self, message: ToCore) {
        if self.channels.to_core.try_send(message).is_err() {
            self.metrics.queue_full.inc();
        }
    }

    fn note_ledger(&self) {
        self.metrics
            .ledger_digest
            .store(self.history.digest(), Ordering::Relaxed);
        for record in self.history.ledger().entries.values() {
            let gauge = self.metrics.moves.get_or_create(&Reason {
                reason: record.cause.as_str(),
            });
            let count = self
                .history
                .ledger()
                .entries
                .values()
                .filter(|other| other.cause == record.cause)
                .count();
            gauge.set(count as i64);
        }
    }

    fn publish(&mut self) {
        let view = *self.channels.view.borrow_and_update();
        self.metrics
            .active
            .set(i64::from(view.role == Role::Active));
        self.metrics.epoch.set(view.epoch.cast_signed());
        let known = Known {
            view,
            phase: self.supervisor.phase(),
            is_ready: self.supervisor.is_ready(),
            is_terminating: self.is_terminating,
            version: self
                .booted
                .as_ref()
                .and_then(|booted| booted.version.as_deref()),
            config_hash: self
                .configured
                .as_ref()
                .map(|configured| configured.snapshot.hash.as_str()),
            problem: self.crash.as_ref().or(self.fault.as_ref()),
            ledger: self.history.ledger(),
        };
        let checked = self.checked.clone();
        self.channels.report.send_if_modified(|before| {
            let report = build_report(&checked, &known, Some(before));
            let is_new = **before != report;
            if is_new {
                *before = Arc::new(report);
            }
            is_new
        });
    }
}

/// The report of a node of which nothing is known yet.
pub fn first_report(checked: &Checked, history: &History) -> Report {
    let known = Known {
        view: crate::daemon::view_before_start(),
        phase: Phase::Held,
        is_ready: false,
        is_terminating: false,
        version: None,
        config_hash: None,
        problem: None,
        ledger: history.ledger(),
    };
    build_report(checked, &known, None)
}

fn now() -> BootTime {
    BootTime(pbx_guard::boot_now_ns())
}
