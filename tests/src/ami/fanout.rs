//! Events to many clients: whether all arrive, how late, at what cost; also beside clients that do not read.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{Client, Counter, action_text};
use super::{DIRECT, Door, Stand};

/// Between two batches of events.
const PACE: Duration = Duration::from_millis(1);
/// After the last event, until the slowest reader must have it.
const AFTERMATH: Duration = Duration::from_secs(1);
const MARK: &[u8] = b"\r\nSentAt: ";
/// What a trickling reader takes, and how often.
const TRICKLE: (usize, Duration) = (64 << 10, Duration::from_millis(100));

/// What to raise, and who hears it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where they hear it.
    pub door: Door,
    /// Clients that read.
    pub readers: usize,
    /// Clients that never read.
    pub stalled: usize,
    /// Clients that read 64 KiB every 100 ms.
    pub trickling: usize,
    /// Events a second.
    pub rate: usize,
    /// Bytes of each, about.
    pub size: usize,
    /// For how long.
    pub time: Duration,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Events raised.
    pub raised: usize,
    /// Events that a reader did not get, summed over the readers.
    pub lost: usize,
    /// From the event's raising to its arrival, microseconds, sampled.
    pub delays_us: Vec<f64>,
    /// Events a second that were really raised.
    pub rate: f64,
    /// Of the hub, in percent of a core.
    pub hub_cpu_percent: f64,
    /// Growth of the hub's resident memory at its highest, KiB.
    pub hub_growth_kib: i64,
    /// Growth of Asterisk's, KiB.
    pub asterisk_growth_kib: i64,
}

impl Seen {
    /// The delay that 99 of 100 events do not exceed, microseconds.
    pub fn p99_us(&self) -> f64 {
        let mut sorted = self.delays_us.clone();
        sorted.sort_by(f64::total_cmp);
        let at = sorted.len().saturating_sub(1) * 99 / 100;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Raises the events on a connection of its own to Asterisk, and watches.
pub fn measure(stand: &Stand, load: Load) -> Result<Seen> {
    let (hub, asterisk) = (stand.hub()?, stand.asterisk());
    stand.run(|| {
        let origin = Instant::now();
        let is_over = AtomicBool::new(false);
        let readers: Result<Vec<Client>> = (0..load.readers)
            .map(|_| Client::connect_with(load.door, "user"))
            .collect();
        let idle: Result<Vec<Client>> = (0..load.stalled + load.trickling)
            .map(|_| Client::connect_with(load.door, "user"))
            .collect();
        let (readers, mut idle) = (readers?, idle?);
        let tricklers = idle.split_off(load.stalled);
        let before = (resident_kib(hub)?, resident_kib(asterisk)?, cpu_ms(hub)?);
        std::thread::scope(|scope| {
            let is_over = &is_over;
            let listening: Vec<_> = readers
                .into_iter()
                .map(|client| scope.spawn(move || listen(&client, origin, is_over)))
                .collect();
            for client in tricklers {
                scope.spawn(move || trickle(&client, is_over));
            }
            let watching = scope.spawn(move || highest(hub, is_over));
            let started_at = Instant::now();
            let raised = raise(load, origin);
            let took = started_at.elapsed();
            let cpu = cpu_ms(hub);
            let taken = raised.map(|(raised, client)| {
                take_answers(&client);
                raised
            });
            std::thread::sleep(AFTERMATH);
            is_over.store(true, Ordering::Relaxed);
            let raised = taken?;
            let mut seen = Seen {
                raised,
                rate: number(raised) / took.as_secs_f64(),
                hub_cpu_percent: (cpu? - before.2) / took.as_secs_f64() / 10.0,
                ..Seen::default()
            };
            for worker in listening {
                let (count, delays) = worker.join().map_err(|_| anyhow!("a reader panicked"))??;
                seen.lost += raised.saturating_sub(count);
                seen.delays_us.extend(delays);
            }
            let highest = watching
                .join()
                .map_err(|_| anyhow!("the watcher panicked"))?;
            seen.hub_growth_kib = highest - before.0;
            seen.asterisk_growth_kib = resident_kib(asterisk)? - before.1;
            drop(idle);
            Ok(seen)
        })
    })?
}

/// At the wanted rate, in batches; how many, and who did.
fn raise(load: Load, origin: Instant) -> Result<(usize, Client)> {
    let client = Client::connect(DIRECT)?;
    let mut stream = client.stream();
    stream
        .set_nonblocking(true)
        .context("set up the connection")?;
    let padding = "x".repeat(900);
    let fill = load.size.saturating_sub(120);
    let mut raised = 0;
    let mut answers = vec![0; 64 << 10];
    let started_at = Instant::now();
    while started_at.elapsed() < load.time {
        let due = started_at.elapsed().as_micros() as usize * load.rate / 1_000_000;
        if due > raised {
            let sent_at = origin.elapsed().as_micros().to_string();
            let mut headers = vec![("UserEvent", "Load"), ("SentAt", sent_at.as_str())];
            headers.extend(vec![("Fill", padding.as_str()); fill / 900]);
            headers.push(("Fill", &padding[..fill % 900]));
            let batch = action_text("UserEvent", &headers).repeat(due - raised);
            write_all(&mut stream, batch.as_bytes(), &mut answers)?;
            raised = due;
        }
        while stream.read(&mut answers).is_ok_and(|count| count > 0) {}
        std::thread::sleep(PACE);
    }
    Ok((raised, client))
}

/// Asterisk waits for whoever does not read.
fn take_answers(client: &Client) {
    let mut stream = client.stream();
    let mut answers = vec![0; 64 << 10];
    let deadline = Instant::now() + AFTERMATH;
    while Instant::now() < deadline {
        if !stream.read(&mut answers).is_ok_and(|count| count > 0) {
            std::thread::sleep(PACE);
        }
    }
}

/// Reads the answers meanwhile, since Asterisk would wait for that.
fn write_all(
    stream: &mut &std::net::TcpStream,
    mut bytes: &[u8],
    answers: &mut [u8],
) -> Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if stream.read(answers).is_err() {
                    std::thread::sleep(PACE / 10);
                }
            }
            Err(error) => return Err(error).context("raise events"),
        }
    }
    Ok(())
}

/// How many events came, and the delay of the last one of each read.
fn listen(client: &Client, origin: Instant, is_over: &AtomicBool) -> Result<(usize, Vec<f64>)> {
    let mut stream = client.stream();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .context("set up a reader")?;
    let (mut counter, mut delays) = (Counter::default(), Vec::new());
    let mut bytes = vec![0; 64 << 10];
    while !is_over.load(Ordering::Relaxed) {
        let count = match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(_) => continue,
        };
        let now = origin.elapsed().as_secs_f64() * 1e6;
        if let Some(sent_at) = first_mark(&bytes[..count]) {
            delays.push(now - sent_at);
        }
        counter.push(&bytes[..count]);
    }
    Ok((counter.messages, delays))
}

/// The time in the first event of what was read: the one that has waited longest.
fn first_mark(bytes: &[u8]) -> Option<f64> {
    let at = memchr::memmem::find(bytes, MARK)? + MARK.len();
    let end = at + memchr::memchr(b'\r', &bytes[at..])?;
    std::str::from_utf8(&bytes[at..end]).ok()?.parse().ok()
}

fn trickle(client: &Client, is_over: &AtomicBool) {
    let mut stream = client.stream();
    let mut bytes = vec![0; TRICKLE.0];
    while !is_over.load(Ordering::Relaxed) {
        if stream.read(&mut bytes).is_ok_and(|count| count == 0) {
            return;
        }
        std::thread::sleep(TRICKLE.1);
    }
}

fn highest(pid: u32, is_over: &AtomicBool) -> i64 {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(resident_kib(pid).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Resident memory of a process, KiB.
pub fn resident_kib(pid: u32) -> Result<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.with_context(|| format!("no VmRSS of {pid}"))
}

/// Processor time of a process so far, milliseconds.
fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read processor time")?;
    let (_, rest) = stat.rsplit_once(')').context("read processor time")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: Vec<u32> = ticks.filter_map(|tick| tick.parse().ok()).collect();
    // A tick of /proc is 10 ms on every architecture in use.
    Ok(f64::from(ticks.iter().sum::<u32>()) * 10.0)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "fewer than 2^52 events are counted"
)]
fn number(count: usize) -> f64 {
    count as f64
}
