//! A client of a floating address that asks every 2 ms, and everybody else who could be answered: a second client whose requests
//! reach all nodes at once (it takes the broadcast address for the hardware address), and each node itself.
//!
//! Who answered is told by the hardware address of the sender, so nothing is asked of the service but a 200 to OPTIONS. One thread
//! does it all.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

use super::log::{Answer, AskLog, AskedFrom};
use crate::clock::Moment;
use crate::netns::run_in;
use crate::probe::sip::{answered_number, options};

/// Between two requests of the client.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// The others ask at every second request.
const OTHERS_EVERY: usize = 2;
const DRAIN: Duration = Duration::from_millis(300);
/// IPv4 in the link layer's type field, in network order, as packet(7) wants it.
const IPV4: u16 = 0x0800_u16.to_be();
const ETHERNET_BYTES: usize = 14;
const BUFFER_BYTES: usize = 4 << 20;

/// Who asks, and who is asked.
#[derive(Clone, Debug)]
pub struct AskSettings {
    /// The floating address.
    pub target: SocketAddrV4,
    /// Namespace of the client.
    pub client: PathBuf,
    /// Namespace of the client that reaches all nodes.
    pub observer: PathBuf,
    /// Namespaces of the nodes.
    pub nodes: Vec<PathBuf>,
    /// Their hardware addresses.
    pub hardware: Vec<[u8; 6]>,
    /// It ends by itself after this.
    pub limit: Duration,
}

/// A probe that runs.
#[derive(Debug)]
pub struct Asking {
    shared: Arc<Shared>,
    worker: JoinHandle<Result<AskLog>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_ended: AtomicBool,
    /// Answers to the client so far.
    answered: AtomicUsize,
    /// The node that answered the client last.
    last: Mutex<Option<(usize, Moment)>>,
}

impl Asking {
    /// Starts one.
    pub fn start(settings: AskSettings) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name("asking".into())
            .spawn(move || Worker::open(&settings, for_worker)?.run(settings.limit))
            .context("start the probe's thread")?;
        Ok(Self { shared, worker })
    }

    /// Answers to the client so far.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// The node that answered the client last, and when.
    pub fn last(&self) -> Option<(usize, Moment)> {
        *self
            .shared
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it and returns what it saw.
    pub fn finish(self) -> Result<AskLog> {
        self.shared.is_ended.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .map_err(|_| anyhow!("the probe panicked"))?
    }
}

/// One who asks.
struct Asker {
    from: AskedFrom,
    socket: UdpSocket,
    local: SocketAddr,
    /// Sees who answered; a node that asks itself needs none.
    wire: Option<Socket>,
}

struct Worker {
    target: SocketAddrV4,
    hardware: Vec<[u8; 6]>,
    shared: Arc<Shared>,
    askers: Vec<Asker>,
    run: u64,
    log: AskLog,
}

impl Worker {
    fn open(settings: &AskSettings, shared: Arc<Shared>) -> Result<Self> {
        let mut askers = vec![
            Asker::open(AskedFrom::Client, &settings.client)?,
            Asker::open(AskedFrom::Observer, &settings.observer)?,
        ];
        for (node, namespace) in settings.nodes.iter().enumerate() {
            askers.push(Asker::open(AskedFrom::Node(node), namespace)?);
        }
        Ok(Self {
            target: settings.target,
            hardware: settings.hardware.clone(),
            shared,
            askers,
            run: Moment::now().0,
            log: AskLog::default(),
        })
    }

    fn run(mut self, limit: Duration) -> Result<AskLog> {
        let started_at = Instant::now();
        let mut due = started_at;
        while !self.shared.is_ended.load(Ordering::Relaxed) && started_at.elapsed() < limit {
            self.ask();
            // A late thread skips requests: a burst would measure itself.
            due = (due + INTERVAL).max(Instant::now());
            self.receive_until(due)?;
        }
        self.log.ended_at = Moment::now();
        self.receive_until(Instant::now() + DRAIN)?;
        Ok(self.log)
    }

    /// A request that the network refuses is a lost one.
    fn ask(&mut self) {
        let number = self.log.sent.len();
        self.log.sent.push(Moment::now());
        let to = SocketAddr::V4(self.target);
        for asker in &self.askers {
            if asker.from == AskedFrom::Client || number.is_multiple_of(OTHERS_EVERY) {
                let text = options(self.run, number, asker.local, to);
                asker.socket.send_to(text.as_bytes(), to).ok();
            }
        }
    }

    fn receive_until(&mut self, due: Instant) -> Result<()> {
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            let wait = Timespec::try_from(wait).context("wait for an answer")?;
            let mut waiting: Vec<PollFd<'_>> = Vec::with_capacity(self.askers.len());
            for asker in &self.askers {
                waiting.push(match &asker.wire {
                    Some(wire) => PollFd::new(wire, PollFlags::IN),
                    None => PollFd::new(&asker.socket, PollFlags::IN),
                });
            }
            match poll(&mut waiting, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for an answer"),
            }
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(waiting);
            for at in (0..ready.len()).filter(|at| ready[*at]) {
                self.receive(at);
            }
        }
    }

    fn receive(&mut self, at: usize) {
        let mut buffer = [0; 2048];
        loop {
            let asker = &self.askers[at];
            let answer = match (&asker.wire, asker.from) {
                (Some(wire), _) => {
                    let Ok(length) = (&*wire).read(&mut buffer) else {
                        return;
                    };
                    self.of_frame(&buffer[..length])
                }
                (None, AskedFrom::Node(node)) => {
                    let Ok(length) = asker.socket.recv(&mut buffer) else {
                        return;
                    };
                    answered_number(self.run, &buffer[..length]).map(|number| (number, node))
                }
                (None, _) => None,
            };
            if let Some((number, by)) = answer {
                self.note(number, by, asker.from);
            }
        }
    }

    fn note(&mut self, number: usize, by: usize, from: AskedFrom) {
        let at = Moment::now();
        self.log.answers.push(Answer {
            number,
            at,
            by,
            from,
        });
        if from == AskedFrom::Client {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
            *self
                .shared
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some((by, at));
        }
    }

    /// Number of the request, and the node that sent the frame.
    fn of_frame(&self, frame: &[u8]) -> Option<(usize, usize)> {
        let sender: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
        let by = self
            .hardware
            .iter()
            .position(|hardware| *hardware == sender)?;
        let packet = frame.get(ETHERNET_BYTES..)?;
        let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
        let payload = packet.get(header_bytes + 8..)?;
        Some((answered_number(self.run, payload)?, by))
    }
}

impl Asker {
    fn open(from: AskedFrom, namespace: &Path) -> Result<Self> {
        // A node asks itself over loopback: refused where the address is not its own.
        let address = match from {
            AskedFrom::Node(_) => Ipv4Addr::LOCALHOST,
            AskedFrom::Client | AskedFrom::Observer => Ipv4Addr::UNSPECIFIED,
        };
        let opened = run_in(namespace, || -> Result<_> {
            let socket = UdpSocket::bind((address, 0)).context("open a socket of the probe")?;
            let wire = (!matches!(from, AskedFrom::Node(_)))
                .then(open_wire)
                .transpose()?;
            Ok((socket, wire))
        });
        let (socket, wire) = opened??;
        socket
            .set_nonblocking(true)
            .context("set up a socket of the probe")?;
        let local = socket.local_addr().context("read the probe's address")?;
        Ok(Self {
            from,
            socket,
            local,
            wire,
        })
    }
}

fn open_wire() -> Result<Socket> {
    let protocol = Protocol::from(i32::from(IPV4));
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("open a packet socket")?;
    socket
        .set_nonblocking(true)
        .context("set up the packet socket")?;
    socket
        .set_recv_buffer_size(BUFFER_BYTES)
        .context("enlarge the packet socket")?;
    Ok(socket)
}
