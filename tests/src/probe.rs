//! A SIP client that asks all the time: OPTIONS by UDP from inside a node's network namespace, from a kept port and now
//! and then from a new one, noting for each when it left, when its 200 came, and which pod sent that.
//!
//! One thread does it all, so that no other stands between a packet and its time. Leaves out calls and registrations.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::Timespec;

use crate::clock::Moment;
use crate::cluster::wait_until;
use crate::netns::run_in;

pub use log::{FLOWS, Flow, ProbeLog, Request};
use sip::{answered_number, options};
use wire::Wire;

mod log;
pub(crate) mod sip;
mod wire;

/// The interval that the figures are measured with.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// Every so many requests one has a new port. Each leaves an entry in the connection tracking of the client's node, and
/// kube-proxy reads all of them before it corrects the kept flow's: more would measure the probe.
const NEW_FLOW_EVERY: usize = 4;
/// A new flow's socket waits this long for its answer; what comes later is still seen on the wire.
const ANSWER_WINDOW: Duration = Duration::from_secs(4);
/// After the last request, answers are waited for this long.
const DRAIN: Duration = Duration::from_millis(300);
const WARM_UP_LIMIT: Duration = Duration::from_secs(15);
const OPEN_FILES: u64 = 16384;
const WIRE: u64 = u64::MAX;
const KEPT: u64 = u64::MAX - 1;

/// What to ask, and from where.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// The network namespace of the client.
    pub namespace: PathBuf,
    /// The address of the client in it.
    pub client: Ipv4Addr,
    /// Who is asked: a Service's address or a pod's.
    pub target: SocketAddrV4,
    /// Between two requests.
    pub interval: Duration,
    /// The probe ends by itself after this.
    pub limit: Duration,
}

/// A probe that runs.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    worker: JoinHandle<Result<ProbeLog>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_ended: AtomicBool,
    /// Answers so far, of [`FLOWS`] in their order.
    answered: [AtomicUsize; 2],
    /// The same, by the pod that sent them.
    answered_by: Mutex<BTreeMap<Ipv4Addr, [usize; 2]>>,
}

impl Probe {
    /// Starts one, and returns once both flows have been answered.
    pub fn start(settings: ProbeSettings) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_worker = Arc::clone(&shared);
        let target = settings.target;
        let worker = thread::Builder::new()
            .name("sip-probe".into())
            .spawn(move || {
                let namespace = settings.namespace.clone();
                run_in(&namespace, || Asking::begin(settings, for_worker)?.run())?
            })
            .context("start the probe's thread")?;
        let probe = Self { shared, worker };
        let deadline = Instant::now() + WARM_UP_LIMIT;
        while !probe.is_warm() {
            if probe.worker.is_finished() {
                probe.finish()?;
                bail!("the probe of {target} ended before it was answered");
            }
            if Instant::now() > deadline {
                probe.finish()?;
                bail!("no SIP answer from {target} within {WARM_UP_LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(probe)
    }

    /// Waits until `pod` has answered so many requests of each flow.
    pub fn wait_answered_by(&self, pod: Ipv4Addr, count: usize, timeout: Duration) -> Result<()> {
        wait_until(&format!("{count} answers of {pod}"), timeout, || {
            let answered_by = self.shared.answered_by();
            let counts = answered_by.get(&pod).copied().unwrap_or_default();
            Ok(counts.iter().all(|found| *found >= count))
        })
        .with_context(|| {
            let counts = self.shared.answered_by();
            format!("answers so far from a new port and a kept one, by pod: {counts:?}")
        })
    }

    /// Ends it and returns what it saw.
    pub fn finish(self) -> Result<ProbeLog> {
        self.shared.is_ended.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .map_err(|_| anyhow!("the probe panicked"))?
    }

    fn is_warm(&self) -> bool {
        let counts = &self.shared.answered;
        counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) >= 3)
    }
}

impl Shared {
    fn answered_by(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, [usize; 2]>> {
        // Counting cannot leave it half-done.
        let guard = self.answered_by.lock();
        guard.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the probe's thread.
struct Asking {
    settings: ProbeSettings,
    shared: Arc<Shared>,
    run: u64,
    epoll: OwnedFd,
    kept: UdpSocket,
    /// Sockets of new flows by the number of their request, oldest first.
    new: VecDeque<(usize, UdpSocket)>,
    wire: Wire,
    requests: Vec<Request>,
}

impl Asking {
    fn begin(settings: ProbeSettings, shared: Arc<Shared>) -> Result<Self> {
        allow_open_files()?;
        let run = Moment::now().0;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("create an epoll")?;
        let kept = open_socket(settings.client)?;
        let wire = Wire::open(run)?;
        watch(&epoll, &kept, KEPT)?;
        watch(&epoll, wire.socket(), WIRE)?;
        Ok(Self {
            settings,
            shared,
            run,
            epoll,
            kept,
            new: VecDeque::new(),
            wire,
            requests: Vec::new(),
        })
    }

    fn run(mut self) -> Result<ProbeLog> {
        let started_at = Instant::now();
        let mut due = started_at;
        while !self.shared.is_ended.load(Ordering::Relaxed)
            && started_at.elapsed() < self.settings.limit
        {
            self.send()?;
            // A late thread skips requests: a burst would measure itself.
            due = (due + self.settings.interval).max(Instant::now());
            self.receive_until(due)?;
        }
        let ended_at = Moment::now();
        self.receive_until(Instant::now() + DRAIN)?;
        Ok(ProbeLog {
            requests: self.requests,
            ended_at,
        })
    }

    /// A request that the network refuses (no route while things move) is a lost one.
    fn send(&mut self) -> Result<()> {
        let number = self.requests.len();
        let flow = if number.is_multiple_of(NEW_FLOW_EVERY) {
            Flow::New
        } else {
            Flow::Kept
        };
        let to = SocketAddr::V4(self.settings.target);
        if flow == Flow::New {
            let socket = open_socket(self.settings.client)?;
            watch(&self.epoll, &socket, number as u64)?;
            self.new.push_back((number, socket));
        }
        let socket = match flow {
            Flow::New => &self.new.back().expect("it was just pushed").1,
            Flow::Kept => &self.kept,
        };
        let from = socket.local_addr().context("read the probe's address")?;
        let text = options(self.run, number, from, to);
        self.requests.push(Request {
            flow,
            sent_at: Moment::now(),
            answered_at: None,
            answers: Vec::new(),
        });
        socket.send_to(text.as_bytes(), to).ok();
        self.close_old();
        Ok(())
    }

    fn close_old(&mut self) {
        let window_ms = ANSWER_WINDOW.as_secs_f64() * 1000.0;
        let now = Moment::now();
        while self
            .new
            .front()
            .is_some_and(|(number, _)| now.ms_since(self.requests[*number].sent_at) > window_ms)
        {
            self.new.pop_front();
        }
    }

    fn receive_until(&mut self, due: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            let wait = Timespec::try_from(wait).context("wait for an answer")?;
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for an answer"),
            }
            for event in &events {
                self.receive(event.data.u64());
            }
        }
    }

    fn receive(&mut self, source: u64) {
        if source == WIRE {
            while let Some((number, who)) = self.wire.next() {
                self.note_answerer(number, who);
            }
            return;
        }
        let first = self.new.front().map_or(0, |(number, _)| *number);
        let socket = match source {
            KEPT => Some(&self.kept),
            number => usize::try_from(number)
                .ok()
                .and_then(|number| self.new.get(number.checked_sub(first)? / NEW_FLOW_EVERY))
                .map(|(_, socket)| socket),
        };
        let Some(socket) = socket else { return };
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answered = answered_number(self.run, &buffer[..length]);
            if from == SocketAddr::V4(self.settings.target)
                && let Some(request) = answered.and_then(|number| self.requests.get_mut(number))
            {
                request.answered_at.get_or_insert_with(Moment::now);
                let at = usize::from(request.flow == Flow::Kept);
                self.shared.answered[at].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The same packet is seen once on each link that it passes.
    fn note_answerer(&mut self, number: usize, who: Ipv4Addr) {
        let Some(request) = self.requests.get_mut(number) else {
            return;
        };
        if request.answers.iter().all(|(known, _)| *known != who) {
            request.answers.push((who, Moment::now()));
            let mut answered_by = self.shared.answered_by();
            let counts = answered_by.entry(who).or_default();
            counts[usize::from(request.flow == Flow::Kept)] += 1;
        }
    }
}

fn open_socket(client: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((client, 0)).context("open a socket of the probe")?;
    socket
        .set_nonblocking(true)
        .context("set up a socket of the probe")?;
    Ok(socket)
}

fn watch(epoll: &OwnedFd, socket: &impl AsFd, name: u64) -> Result<()> {
    let name = epoll::EventData::new_u64(name);
    epoll::add(epoll, socket, name, epoll::EventFlags::IN).context("watch a socket of the probe")
}

/// New flows keep their sockets for a while: more than the usual 1,024.
fn allow_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        limit.current = Some(
            limit
                .maximum
                .map_or(OPEN_FILES, |most| most.min(OPEN_FILES)),
        );
        setrlimit(Resource::Nofile, limit).context("allow more open files")?;
    }
    let enough = getrlimit(Resource::Nofile)
        .current
        .is_none_or(|limit| limit >= 4096);
    ensure!(
        enough,
        "the probe needs 4,096 open files: raise the limit (ulimit -n)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Answers as Asterisk would, until dropped.
    fn answering(is_ended: Arc<AtomicBool>) -> (SocketAddrV4, JoinHandle<()>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            panic!("an IPv4 address")
        };
        let worker = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !is_ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let headers = request.split_once("\r\n").unwrap().1;
                    let answer = format!("SIP/2.0 200 OK\r\n{headers}");
                    socket.send_to(answer.as_bytes(), from).unwrap();
                }
            }
        });
        (address, worker)
    }

    #[test]
    fn answers_are_seen_in_both_flows_and_an_end_of_them_is_a_gap() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("packet sockets need root: nothing was tested");
            return;
        }
        let is_ended = Arc::new(AtomicBool::new(false));
        let (target, server) = answering(Arc::clone(&is_ended));
        let probe = Probe::start(ProbeSettings {
            namespace: "/proc/self/ns/net".into(),
            client: Ipv4Addr::LOCALHOST,
            target,
            interval: INTERVAL,
            limit: Duration::from_secs(30),
        })
        .unwrap();
        is_ended.store(true, Ordering::Relaxed);
        server.join().unwrap();
        thread::sleep(Duration::from_millis(200));
        let log = probe.finish().unwrap();
        assert_eq!(log.answerers(), [Ipv4Addr::LOCALHOST]);
        assert!(log.lost() > 10);
        for flow in FLOWS {
            let gap = log.longest_gap(flow).ms;
            assert!((150.0..2000.0).contains(&gap), "{flow:?}: {gap} ms");
        }
    }
}
