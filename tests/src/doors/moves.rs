//! A planned move of the role, from the core's decision until each door tells it. The decision's moment is in the new active's log;
//! all clocks here are the machine's boot clock.

use std::io::Write;
use std::net::{SocketAddrV4, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pbx_crds::names::HTTP_PORT;
use pbx_guard::schedule::take_short_turns;

use super::listener::{Listener, Mark};
use super::{PATIENCE, connect_unix, read_to};
use crate::bare_hosts::{BareHosts, TOKEN};
use crate::clock::Moment;
use crate::http;
use crate::netns::run_in;

/// A door that is asked is asked again after this.
const ASK_EVERY: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(5);

/// The doors, in the order in which [`Moves::once`] tells their times.
pub const DOORS: [(&str, &str); 6] = [
    ("http", "server-sent event `cluster`, on the new active"),
    ("http_third", "the same, on the third node"),
    (
        "heartbeat",
        "Heartbeat's message `resource`, on the new active",
    ),
    (
        "haast",
        "HAAst's `getstatus` says Active (asked every 2 ms)",
    ),
    (
        "droonga",
        "Droonga's `system.status` says active (asked every 2 ms)",
    ),
    (
        "sysadm",
        "SysAdm's event of the finished job, on the old active",
    ),
];

/// Listeners at all hosts.
#[derive(Debug)]
pub struct Moves {
    events: Vec<Listener>,
    heartbeats: Vec<Listener>,
    websockets: Vec<Listener>,
}

impl Moves {
    /// Connects them.
    pub fn new(hosts: &BareHosts) -> Result<Self> {
        let at_all = |connect: fn(&BareHosts, usize) -> Result<Listener>| {
            (0..hosts.count())
                .map(|index| connect(hosts, index))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            events: at_all(Listener::events)?,
            heartbeats: at_all(Listener::heartbeat)?,
            websockets: at_all(Listener::websocket)?,
        })
    }

    /// One switchover to the next host: milliseconds from the decision to each of [`DOORS`].
    pub fn once(&self, hosts: &BareHosts) -> Result<[f64; DOORS.len()]> {
        let from = hosts.wait_whole(PATIENCE)?;
        let (to, third) = ((from + 1) % hosts.count(), (from + 2) % hosts.count());
        let marks = |listeners: &[Listener]| listeners.iter().map(Listener::mark).collect();
        let (events, heartbeats, websockets): (Vec<Mark>, Vec<Mark>, Vec<Mark>) = (
            marks(&self.events),
            marks(&self.heartbeats),
            marks(&self.websockets),
        );
        let epoch_before = hosts.report(from)?.epoch;
        let haast = ask_haast(hosts, to)?;
        let droonga = ask_droonga(hosts, to)?;
        switch_over(hosts, from, to)?;
        // These wait without a look: whatever this process does meanwhile, it does at the cost of what is timed.
        let (haast, droonga) = (finish(haast)?, finish(droonga)?);
        let decided_at = hosts.wait_promotion(&[to], epoch_before, LIMIT)?;
        let active = format!("\"active\":\"pbx-{to}\"");
        let held = format!("t=resource\nrsc_hold=all\nrtype=full\nisstable=1\nsrc=pbx-{to}\n");
        let at = [
            self.events[to].wait(&active, events[to], LIMIT)?,
            self.events[third].wait(&active, events[third], LIMIT)?,
            self.heartbeats[to].wait(&held, heartbeats[to], LIMIT)?,
            haast,
            droonga,
            self.websockets[from].wait("\"state\":\"finished\"", websockets[from], LIMIT)?,
        ];
        Ok(at.map(|at| at.ms_since(decided_at)))
    }
}

fn switch_over(hosts: &BareHosts, from: usize, to: usize) -> Result<()> {
    let host = hosts.host(from);
    let address = SocketAddrV4::new(host.address, HTTP_PORT);
    let body = format!("{{\"to\": \"pbx-{to}\"}}");
    let path = "/v1/actions/switchover";
    let (status, said) = http::post(&host.path(), address, path, Some(TOKEN), &body)?;
    ensure!(status == 202, "the switchover got {status}: {said}");
    Ok(())
}

type Asking = JoinHandle<Result<Moment>>;

fn finish(asking: Asking) -> Result<Moment> {
    asking
        .join()
        .map_err(|_| anyhow::anyhow!("who asked panicked"))?
}

fn ask_haast(hosts: &BareHosts, index: usize) -> Result<Asking> {
    let path = hosts.haast_socket(index);
    let stream = connect_unix(&path, LIMIT)?;
    let mut reader = stream.try_clone().context("share a socket")?;
    read_to(&mut reader, b"ready>")?;
    let question = b"command:getstatus\n\n";
    let answered = move || read_to(&mut reader, b"ready>");
    Ok(ask_until(
        stream,
        question,
        answered,
        "local haast state: 4",
    ))
}

fn ask_droonga(hosts: &BareHosts, index: usize) -> Result<Asking> {
    let host = hosts.host(index);
    let address = SocketAddrV4::new(host.address, HTTP_PORT);
    let stream = run_in(&host.path(), || TcpStream::connect(address))?;
    let stream = stream.with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT)).context("set up")?;
    stream.set_nodelay(true).context("set up")?;
    let question = format!("GET /droonga/system/status HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let wanted = format!("{}:10031/droonga\":{{\"status\":\"active\"}}", host.address);
    let mut reader = stream.try_clone().context("share a socket")?;
    let answered = move || read_to(&mut reader, b"droonga\"}");
    Ok(ask_until(stream, question.as_bytes(), answered, &wanted))
}

/// Asks over and over, on a thread; ends with the moment of the first answer that has `wanted` in it.
fn ask_until(
    mut stream: impl Write + Send + 'static,
    question: &[u8],
    mut answer: impl FnMut() -> Result<Vec<u8>> + Send + 'static,
    wanted: &str,
) -> Asking {
    let (question, wanted) = (question.to_vec(), wanted.to_owned());
    let deadline = Instant::now() + 2 * LIMIT;
    std::thread::spawn(move || {
        // A client on a machine of its own would not wait for a processor.
        take_short_turns();
        let mut last = String::new();
        while Instant::now() < deadline {
            stream.write_all(&question).context("ask a door")?;
            last = String::from_utf8_lossy(&answer()?).into_owned();
            if last.contains(&wanted) {
                return Ok(Moment::now());
            }
            std::thread::sleep(ASK_EVERY);
        }
        anyhow::bail!("no {wanted} was answered, but {last}")
    })
}
