//! Many clients of one host at once: those who listen, those who never read, those who come and go. What they do to others is
//! measured by [`effects`].

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pbx_crds::names::HTTP_PORT;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::{heartbeat_socket, raw};
use crate::bare_hosts::BareHosts;
use crate::cluster::wait_until;
use crate::netns::run_in;

pub mod effects;

const CONNECT_LIMIT: Duration = Duration::from_mins(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Who comes and goes stays away for so long.
const AWAY: Duration = Duration::from_millis(100);
/// Who is stalled looks so often whether it was cut off.
const LOOK: Duration = Duration::from_millis(500);
/// A write that nobody takes.
const STALLED: Duration = Duration::from_millis(200);
/// Of a stalled client's requests: what comes back is as long, so that little stays in the kernel's buffers.
const LONG_ID: usize = 1000;
const REQUESTS_OF_STALLED: usize = 200;
/// Answers to these fill what may wait for a stalled client of Heartbeat's, without getting it cut off.
const QUESTIONS_OF_STALLED: usize = 400;
/// The kernel's buffer of a stalled client, at its own side; the kernel makes it larger.
const SMALL_BUFFER: u32 = 1;

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Subscribers to all of SysAdm's events that read them.
    pub websockets: usize,
    /// Casual clients of Heartbeat's that read.
    pub heartbeats: usize,
    /// Subscribers that ask much and never read.
    pub stalled_websockets: usize,
    /// The same of Heartbeat's.
    pub stalled_heartbeats: usize,
    /// Those who connect, are answered, and go, over and over; half of them at each door.
    pub reconnecting: usize,
}

impl Size {
    /// Those who stay, kind by kind: readers, then the stalled; of SysAdm's, then of Heartbeat's.
    fn kinds(self) -> [Self; 4] {
        let none = Self::default();
        [
            Self {
                websockets: self.websockets,
                ..none
            },
            Self {
                heartbeats: self.heartbeats,
                ..none
            },
            Self {
                stalled_websockets: self.stalled_websockets,
                ..none
            },
            Self {
                stalled_heartbeats: self.stalled_heartbeats,
                ..none
            },
        ]
    }

    fn all(self) -> usize {
        self.websockets
            + self.heartbeats
            + self.stalled_websockets
            + self.stalled_heartbeats
            + self.reconnecting
    }
}

/// A crowd that stays until it is dropped.
#[derive(Debug)]
pub struct Crowd {
    counts: Arc<Counts>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Connected, and answered once.
    came: AtomicUsize,
    /// Readers that were cut off.
    lost: AtomicUsize,
    /// Visits of those who come and go.
    visits: AtomicUsize,
}

#[derive(Clone)]
struct Where {
    http: SocketAddrV4,
    heartbeat: PathBuf,
    counts: Arc<Counts>,
}

impl Crowd {
    /// Brings it to a host, and waits until all have come.
    pub fn start(hosts: &BareHosts, index: usize, size: Size) -> Result<Self> {
        raise_descriptors()?;
        let place = Where {
            http: SocketAddrV4::new(hosts.host(index).address, HTTP_PORT),
            heartbeat: heartbeat_socket(hosts, index),
            counts: Arc::default(),
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd_is_over = is_over.clone();
        let (namespace, counts) = (hosts.host(index).path(), place.counts.clone());
        let thread = std::thread::spawn(move || {
            // Of this thread alone (Linux). They would be on machines of their own: their work must not keep ours from it.
            if let Err(error) = setpriority_process(None, CLIENTS_NICE) {
                eprintln!("the crowd works like anybody else: {error}");
            }
            let run = || run(&place, size, &crowd_is_over);
            if let Err(error) = run_in(&namespace, run).and_then(|ran| ran) {
                eprintln!("the crowd ended: {error:#}");
            }
        });
        let crowd = Self {
            counts,
            is_over,
            thread: Some(thread),
        };
        wait_until("the crowd to come", CONNECT_LIMIT, || {
            Ok(crowd.counts.came.load(Ordering::Relaxed) >= size.all())
        })
        .with_context(|| format!("{size:?}: {:?}", crowd.counts))?;
        Ok(crowd)
    }

    /// Readers that were cut off.
    pub fn lost(&self) -> usize {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// How often somebody came again.
    pub fn visits(&self) -> usize {
        self.counts.visits.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The least share of a processor.
const CLIENTS_NICE: i32 = 19;

/// Each client is a descriptor of this process.
fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("allow this process more descriptors")
}

/// On one thread, so that every socket is in its namespace.
fn run(place: &Where, size: Size, is_over: &AtomicBool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make a runtime")?;
    runtime.block_on(async {
        for _ in 0..size.websockets {
            tokio::spawn(reading(websocket(place.clone()), place.counts.clone()));
        }
        for _ in 0..size.heartbeats {
            tokio::spawn(reading(heartbeat(place.clone()), place.counts.clone()));
        }
        for _ in 0..size.stalled_websockets {
            tokio::spawn(stalled(place.clone(), stalled_websocket));
        }
        for _ in 0..size.stalled_heartbeats {
            tokio::spawn(stalled(place.clone(), stalled_heartbeat));
        }
        for number in 0..size.reconnecting {
            tokio::spawn(coming_and_going(place.clone(), number % 2 == 0));
        }
        while !is_over.load(Ordering::Relaxed) {
            sleep(LOOK / 5).await;
        }
    });
    Ok(())
}

async fn websocket(place: Where) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(place.http).await.context("connect")?;
    let mut said = raw::websocket_head(place.http);
    said.extend(raw::subscription("crowd"));
    stream.write_all(&said).await.context("subscribe")?;
    read_to(&mut stream, b"\"crowd\"").await?;
    Ok(stream)
}

async fn heartbeat(place: Where) -> Result<UnixStream> {
    let connected = UnixStream::connect(&place.heartbeat).await;
    let mut stream = connected.context("connect")?;
    stream.write_all(&raw::signon()).await.context("sign on")?;
    read_to(&mut stream, raw::END_OF_MESSAGE).await?;
    Ok(stream)
}

/// Reads what comes, for ever. Whoever cannot come tries again: the backlog of a listener is short.
async fn reading<S: AsyncRead + Unpin>(
    connecting: impl Future<Output = Result<S>>,
    counts: Arc<Counts>,
) {
    let Ok(Ok(mut stream)) = timeout(CONNECT_LIMIT, connecting).await else {
        counts.lost.fetch_add(1, Ordering::Relaxed);
        return;
    };
    counts.came.fetch_add(1, Ordering::Relaxed);
    let mut piece = [0; 2048];
    while stream.read(&mut piece).await.is_ok_and(|bytes| bytes > 0) {}
    counts.lost.fetch_add(1, Ordering::Relaxed);
}

/// Comes, asks until nothing is taken any more, and never reads; comes again once it was cut off.
async fn stalled<S, F>(place: Where, connect: impl Fn(Where) -> F)
where
    S: AsyncWrite + Unpin,
    F: Future<Output = Result<(S, Vec<u8>)>>,
{
    let mut is_first = true;
    loop {
        if let Ok((mut stream, question)) = connect(place.clone()).await {
            if std::mem::take(&mut is_first) {
                place.counts.came.fetch_add(1, Ordering::Relaxed);
            }
            // A write that waits, or is taken, is a connection that lasts.
            while !matches!(
                timeout(STALLED, stream.write_all(&question)).await,
                Ok(Err(_))
            ) {
                sleep(LOOK).await;
            }
        }
        sleep(LOOK).await;
    }
}

async fn stalled_websocket(place: Where) -> Result<(TcpStream, Vec<u8>)> {
    let socket = TcpSocket::new_v4().context("make a socket")?;
    socket
        .set_recv_buffer_size(SMALL_BUFFER)
        .context("make its buffer small")?;
    let connected = socket.connect(place.http.into()).await;
    let mut stream = connected.context("connect")?;
    let mut said = raw::websocket_head(place.http);
    let asked = raw::subscription(&"x".repeat(LONG_ID));
    for _ in 0..REQUESTS_OF_STALLED {
        said.extend_from_slice(&asked);
    }
    // What is left over is not taken: as it should be.
    timeout(STALLED, stream.write_all(&said)).await.ok();
    Ok((stream, asked))
}

async fn stalled_heartbeat(place: Where) -> Result<(UnixStream, Vec<u8>)> {
    let connected = UnixStream::connect(&place.heartbeat).await;
    let mut stream = connected.context("connect")?;
    let mut said = raw::signon();
    let question = raw::request("nodestatus", "node=pbx-0\n");
    for _ in 0..QUESTIONS_OF_STALLED {
        said.extend_from_slice(&question);
    }
    timeout(STALLED, stream.write_all(&said)).await.ok();
    Ok((stream, question))
}

async fn coming_and_going(place: Where, is_websocket: bool) {
    let mut is_first = true;
    loop {
        let visit = async {
            if is_websocket {
                websocket(place.clone()).await.map(drop)
            } else {
                heartbeat(place.clone()).await.map(drop)
            }
        };
        if matches!(timeout(ANSWER_LIMIT, visit).await, Ok(Ok(()))) {
            place.counts.visits.fetch_add(1, Ordering::Relaxed);
            if std::mem::take(&mut is_first) {
                place.counts.came.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(AWAY).await;
    }
}

async fn read_to(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Result<()> {
    let mut read = Vec::new();
    let mut piece = [0; 2048];
    while memchr::memmem::find(&read, end).is_none() {
        let bytes = stream.read(&mut piece).await.context("read an answer")?;
        ensure!(bytes > 0, "the door closed");
        read.extend_from_slice(&piece[..bytes]);
    }
    Ok(())
}
