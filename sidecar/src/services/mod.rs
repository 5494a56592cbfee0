//! Everything that may wait, on one thread beside the core's: API calls, traffic, Asterisk's boot and trunks, history, report.
//!
//! Reading order: this file (state, loop, dispatch), [`pbx`] (Asterisk), [`traffic`] (the EndpointSlice), [`host`] (floating addresses),
//! [`actions`] (what doors ask for).
//!
//! One owner of all state: events come in through one bounded queue, what takes time is a task that ends in an event.

mod actions;
mod health;
mod host;
mod moves;
mod notices;
mod pbx;
mod reload;
mod settings;
mod tell;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use pbx_core::{ApiCall, BootTime, CallId, Command, Condition, Epoch, Input, Seat};
use pbx_crds::cluster::StandbyMode;
use pbx_crds::ledger::Ledger;
use pbx_crds::report::{Problem, Report};
use pbx_crds::switchover::{LiveSettings, SwitchoverStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use crate::api_watch;
use crate::asterisk::config::ConfigError;
use crate::asterisk::reload::{Rollover, TELL_INTERVAL};
use crate::asterisk::supervisor::Supervisor;
use crate::asterisk::{Booted, Configured, files};
use crate::config::Checked;
use crate::daemon::{CoreView, FromCore, ToCore};
use crate::drills::Schedule;
use crate::fencing::Fencing;
use crate::health::Reading;
use crate::history::History;
use crate::hooks::Hooks;
use crate::kubernetes::KubeError;
use crate::kubernetes::lease::WitnessLease;
use crate::kubernetes::resource::Wanted;
use crate::kubernetes::slice::{Traffic, TrafficView};
use crate::metrics::Metrics;
use crate::recorder::entry::Mark;
use crate::request_file;
use crate::switchover::Desk;

pub use self::actions::Jobs;
use self::health::Health;
pub use self::host::Host;
pub use self::tell::first_report;

/// Nothing is due: the loop waits for events.
const IDLE: Duration = Duration::from_hours(1);

/// What a task found out.
pub enum Done {
    /// The API server answers, or does not.
    ApiReachable(bool),
    /// The Lease has another seat map than the core.
    SeatsDiffer,
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
    /// A sensor was read.
    Sensor(String, Reading),
    /// Trunks are unregistered for a planned move.
    Unregistered,
    /// So many calls are left here.
    Calls(u32),
    /// What people want of the running cluster.
    Wanted(Box<Wanted>),
    /// A file of a bare host asks for something.
    Asked(String),
    /// The user's files have changed: what was built of them.
    Files(Box<Result<Configured, ConfigError>>),
    /// Asterisk has read its files again; or why not.
    Reloaded(reload::ReloadEnd),
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

/// How far the orderly end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotAsked,
    Leaving,
    Left,
}

/// The services.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Services {
    checked: Arc<Checked>,
    objects: Option<Objects>,
    host: Option<Host>,
    channels: Channels,
    jobs: Jobs,
    metrics: Metrics,
    done: mpsc::Sender<Done>,
    history: History,
    supervisor: Supervisor,
    fencing: Fencing,
    configured: Option<Configured>,
    booted: Option<Booted>,
    boot_task: Option<AbortHandle>,
    /// The epoch this node serves under.
    active_epoch: Option<Epoch>,
    traffic: Option<TrafficView>,
    /// A task is pointing the traffic here.
    is_moving: bool,
    is_api_reachable: bool,
    /// What the core knows; it forgets readiness with every end of Asterisk.
    told_condition: Option<Condition>,
    end: End,
    /// The core is, or will be, told to leave.
    is_leave_begun: bool,
    /// This process itself was told to end; in a pod that comes after the PBX container has ended.
    is_signalled: bool,
    crash: Option<Problem>,
    fault: Option<Problem>,
    /// What may change while this runs.
    live: LiveSettings,
    /// The annotation that asks for a move, as last seen; none before the resource was read.
    #[allow(
        clippy::option_option,
        reason = "nothing seen yet, or seen that nothing is asked for"
    )]
    seen_request: Option<Option<String>>,
    /// A person lets this node take over until then.
    may_take_over_until: moves::Word,
    health: Health,
    hooks: Hooks,
    desk: Desk,
    /// What was told of the present move, and when its number of calls was.
    told_move: Option<(SwitchoverStatus, BootTime)>,
    schedule: Option<Schedule>,
    schedule_problem: Option<Problem>,
    rollover: Rollover,
    /// What was built of the files that changed last.
    candidate: Option<Configured>,
    /// What ran before the candidate that is being tried or applied.
    before_candidate: Option<Configured>,
    is_reloading: bool,
    config_problem: Option<Problem>,
    told_config: Option<(Seat, BootTime)>,
    /// Asterisk has been fully booted here.
    was_booted: bool,
}

impl Services {
    /// Starts the tasks that look at the API.
    pub fn start(
        checked: Arc<Checked>,
        objects: Option<Objects>,
        host: Option<Host>,
        channels: Channels,
        jobs: Jobs,
        metrics: Metrics,
        history: History,
    ) -> (Self, mpsc::Receiver<Done>) {
        let (done, done_rx) = mpsc::channel(256);
        let needs_traffic_read = objects
            .as_ref()
            .is_some_and(|objects| objects.traffic.is_some());
        let live = checked.file.live_settings();
        let is_cold = checked.file.asterisk.standby == StandbyMode::Cold;
        let fencing = Fencing::of(&checked.file.record_dir);
        let mut supervisor = Supervisor::new(needs_traffic_read, is_cold);
        supervisor.halt(fencing.is_set());
        let mut services = Self {
            supervisor,
            fencing,
            health: Health::start(&live.health, &checked, &metrics, &done),
            hooks: Hooks::start(live.hooks.clone(), metrics.clone()),
            live,
            seen_request: None,
            may_take_over_until: None,
            desk: Desk::default(),
            told_move: None,
            schedule: None,
            schedule_problem: None,
            rollover: Rollover::default(),
            candidate: None,
            before_candidate: None,
            is_reloading: false,
            config_problem: None,
            told_config: None,
            was_booted: false,
            checked,
            objects,
            host,
            channels,
            jobs,
            metrics,
            done,
            history,
            configured: None,
            booted: None,
            boot_task: None,
            active_epoch: None,
            traffic: None,
            is_moving: false,
            is_api_reachable: false,
            told_condition: None,
            end: End::NotAsked,
            is_leave_begun: false,
            is_signalled: false,
            crash: None,
            fault: None,
        };
        services.note_ledger();
        services.apply_schedule();
        services.watch_outside(needs_traffic_read);
        (services, done_rx)
    }

    /// What changes without us: the user's files, requests, the cluster's objects.
    fn watch_outside(&self, is_asked_by_resource: bool) {
        // In a pod people ask by the resource.
        if !is_asked_by_resource {
            let record_dir = self.checked.file.record_dir.clone();
            spawn_local(request_file::watch(record_dir, self.done.clone()));
        }
        let interval = if is_asked_by_resource {
            files::LOOK_IN_POD
        } else {
            files::LOOK_ON_HOST
        };
        spawn_local(files::watch(
            self.checked.file.asterisk.clone(),
            interval,
            self.done.clone(),
        ));
        if let Some(objects) = &self.objects {
            api_watch::spawn(
                objects.clone(),
                self.checked.clone(),
                self.channels.view.clone(),
                self.channels.to_core.clone(),
                self.done.clone(),
            );
        }
    }

    /// Runs until this node has left and its containers may end.
    pub async fn run(
        mut self,
        mut done: mpsc::Receiver<Done>,
        mut terminate: tokio::signal::unix::Signal,
    ) {
        loop {
            let wait = self.next_wait();
            tokio::select! {
                // A notice before the view that it explains: one report tells both.
                biased;
                from_core = self.channels.from_core.recv() => match from_core {
                    Some(message) => self.on_core(message),
                    None => return,
                },
                Some(done) = done.recv() => self.on_done(done),
                event = host::next_event(&mut self.host) => self.on_host(event),
                request = self.jobs.next_request() => self.on_request(request),
                changed = self.channels.view.changed() => if changed.is_err() { return },
                _ = terminate.recv() => {
                    self.is_signalled = true;
                    self.on_terminating(None);
                }
                () = tokio::time::sleep(wait) => {}
            }
            if self.end == End::Left && self.is_signalled {
                self.take_addresses_away().await;
                return;
            }
            self.tend_asterisk();
            self.tend_health();
            self.tend_moves();
            self.tend_reload();
            self.tend_end();
            self.tend_job();
            self.tell_condition();
            self.publish();
        }
    }

    fn on_core(&mut self, message: FromCore) {
        match message {
            FromCore::Call(id, call) => self.call_api(id, call),
            FromCore::Notice(notice) => self.on_notice(notice),
            FromCore::Guard(note) => self.on_guard(note),
            FromCore::Close => self.close_asterisk(),
            FromCore::Ledger(part) => {
                if !self.on_told(&part) && self.history.on_part(&part) {
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

    fn call_api(&self, id: CallId, call: Box<ApiCall>) {
        let Some(objects) = &self.objects else { return };
        let (lease, to_core, done, metrics) = (
            objects.lease.clone(),
            self.channels.to_core.clone(),
            self.done.clone(),
            self.metrics.clone(),
        );
        spawn_local(async move {
            let _ = to_core.try_send(ToCore::Mark(now(), Mark::LeaseAsked(id)));
            let (answer, is_reachable) = lease.call(&call).await;
            let _ = to_core.try_send(ToCore::Mark(now(), Mark::LeaseAnswered(id)));
            Metrics::count(
                &metrics.api_calls,
                if is_reachable { "Answered" } else { "Failed" },
            );
            let _ = to_core
                .send(ToCore::Input(Box::new(Input::Api { call: id, answer })))
                .await;
            let _ = done.send(Done::ApiReachable(is_reachable)).await;
        });
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::ApiReachable(is_reachable) => self.is_api_reachable = is_reachable,
            Done::TrafficSeen(view) => self.on_traffic_seen(view),
            Done::TrafficRead(view) => {
                let is_here = view
                    .as_ref()
                    .zip(self.slice())
                    .map(|(view, traffic)| traffic.is_here(view));
                self.supervisor.on_traffic(now(), is_here);
                if let Some(view) = view {
                    self.on_traffic_seen(view);
                }
            }
            Done::TrafficMoved(epoch, view, took) => {
                self.is_moving = false;
                self.traffic = Some(view);
                self.fault = self
                    .fault
                    .take()
                    .filter(|fault| fault.reason != "TrafficFailed");
                self.history.on_traffic_moved(epoch.0.cast_signed(), took);
                self.note_ledger();
            }
            Done::Overtaken(newer) => {
                self.is_moving = false;
                self.ask(&Input::Command(Command::SeenEpoch(newer)));
            }
            Done::TrafficFailed(epoch, error) => self.on_traffic_failed(epoch, &error),
            Done::Booted(booted) => {
                self.booted = Some(booted);
                self.was_booted = true;
                self.supervisor.on_booted();
                self.send(ToCore::Mark(now(), Mark::AsteriskBooted));
                self.crash = None;
                self.note_life();
                self.register_trunks();
            }
            Done::History(ledger) => {
                if self.history.merge(&ledger) {
                    self.note_ledger();
                }
            }
            Done::SeatsDiffer => self.ask(&Input::Command(Command::LookAtSeats)),
            Done::MayLeave => self.ask(&Input::Command(Command::Leave)),
            Done::Sensor(name, reading) => self.on_sensor(&name, reading),
            Done::Unregistered => self.on_unregistered(),
            Done::Calls(calls) => self.on_calls(calls),
            Done::Wanted(wanted) => self.on_wanted(*wanted),
            Done::Asked(value) => self.on_asked(&value),
            Done::Files(built) => self.on_files(*built),
            Done::Reloaded(end) => self.on_reloaded(end),
        }
    }

    /// Until something is due.
    fn next_wait(&self) -> Duration {
        let deadlines = [
            self.supervisor.next_deadline(),
            self.health_deadline(),
            self.jobs.next_deadline(),
            self.rollover.next_deadline(),
        ];
        let at = now();
        // These two may pass without anything to do.
        let told = self.told_config.map(|(_, at)| at.after(TELL_INTERVAL));
        let passing = [told, self.may_take_over_until].into_iter().flatten();
        let passing = passing.filter(|due| *due > at);
        let deadlines = deadlines.into_iter().flatten().chain(passing);
        let waits = deadlines.map(|due| due.since(at));
        waits
            .chain(self.moves_wait())
            .min()
            .unwrap_or(IDLE)
            .min(IDLE)
    }

    /// Whether this node could take over, or serves as it should.
    fn is_ready(&self) -> bool {
        let is_on_trial = self.rollover.is_trying();
        self.supervisor.is_ready() && self.is_network_ready() && !is_on_trial
    }

    /// All others.
    fn other_seats(&self) -> Vec<Seat> {
        let own = self.checked.settings.seat;
        let count = self.checked.file.nodes.len() as u8;
        (0..count).map(Seat).filter(|seat| *seat != own).collect()
    }

    fn ask(&self, input: &Input) {
        self.send(ToCore::Input(Box::new(*input)));
    }

    fn send(&self, message: ToCore) {
        if self.channels.to_core.try_send(message).is_err() {
            self.metrics.queue_full.inc();
        }
    }
}

fn now() -> BootTime {
    BootTime(pbx_guard::boot_now_ns())
}
