//! What the seed's thirty desktops did to Asterisk in 2004, and worse, done to the hub; meanwhile well-behaved clients work.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{Client, action_text};
use super::fanout::resident_kib;
use super::{HUB, SECRET, Stand};

/// Well-behaved clients among the others.
const HONEST: usize = 5;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Actions of well-behaved clients.
    pub asked: usize,
    /// Of these, those without an answer of its own.
    pub unanswered: usize,
    /// Connections of abusers.
    pub abuses: usize,
    /// Of Asterisk's resident memory, in percent of what it was.
    pub asterisk_growth_percent: f64,
    /// Of the hub's, KiB.
    pub hub_growth_kib: i64,
}

/// So many clients, for so long.
pub fn measure(stand: &Stand, clients: usize, time: Duration) -> Result<Seen> {
    let (hub, asterisk) = (stand.hub()?, stand.asterisk());
    stand.run(|| {
        // What everybody costs once (threads, arenas) is no growth.
        let warm_up = Duration::from_secs(5).min(time / 4);
        run(clients, warm_up)?;
        let before = (resident_kib(hub)?, resident_kib(asterisk)?);
        let mut seen = run(clients, time)?;
        seen.hub_growth_kib = resident_kib(hub)? - before.0;
        let grown = resident_kib(asterisk)? - before.1;
        seen.asterisk_growth_percent = percent(grown, before.1);
        Ok(seen)
    })?
}

fn run(clients: usize, time: Duration) -> Result<Seen> {
    let is_over = AtomicBool::new(false);
    let abuses = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (is_over, abuses) = (&is_over, &abuses);
        for number in 0..clients.saturating_sub(HONEST) {
            scope.spawn(move || {
                let mut round = number;
                while !is_over.load(Ordering::Relaxed) {
                    // An abuser's own failure is what it is for.
                    abuse(round).ok();
                    abuses.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        let honest: Vec<_> = (0..HONEST)
            .map(|_| scope.spawn(move || work(is_over)))
            .collect();
        std::thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for worker in honest {
            let (asked, unanswered) = worker
                .join()
                .map_err(|_| anyhow!("a well-behaved client panicked"))??;
            seen.asked += asked;
            seen.unanswered += unanswered;
        }
        seen.abuses = abuses.load(Ordering::Relaxed);
        Ok(seen)
    })
}

/// One after the other, of the kinds that the seed lists; each must be answered under its own identifier.
fn work(is_over: &AtomicBool) -> Result<(usize, usize)> {
    let mut client = Client::connect(HUB)?;
    let (mut asked, mut unanswered) = (0, 0);
    let started_at = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let answer = match asked % 5 {
            0 => client.ask("Ping", &[]),
            1 => client.ask("Command", &[("Command", "core show channels")]),
            2 => client.ask("Status", &[]),
            3 => client.ask("QueueStatus", &[]),
            _ => client.ask(
                "Originate",
                &[
                    ("Channel", "Local/busy@default"),
                    ("Application", "Wait"),
                    ("Data", "0"),
                    ("Async", "true"),
                ],
            ),
        };
        asked += 1;
        let is_answered = answer.is_ok_and(|answer| answer.contains("ActionID: own\r\n"));
        unanswered += usize::from(!is_answered);
        std::thread::sleep(Duration::from_millis(10));
        anyhow::ensure!(
            started_at.elapsed() < Duration::from_mins(10),
            "the abuse has no end"
        );
    }
    Ok((asked, unanswered))
}

/// One connection of an abuser.
fn abuse(kind: usize) -> Result<()> {
    match kind % 10 {
        // In the middle of an action.
        0 => leave(&raw_login()?, b"Action: Originate\r\nChannel: Loc"),
        // With answers under way, by a reset.
        1 => {
            let stream = raw_login()?;
            let burst = action_text("Ping", &[]).repeat(50);
            send(&stream, burst.as_bytes())?;
            let socket = socket2::SockRef::from(&stream);
            socket
                .set_linger(Some(Duration::ZERO))
                .context("make the end a reset")
        }
        // Half a line, and nothing more for a while.
        2 => {
            let stream = raw_login()?;
            send(&stream, b"Action: Ping\r\nActi")?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        }
        3 => leave(&raw_login()?, &vec![b'x'; 1 << 20]),
        4 => leave(&raw_login()?, "A: b\r\n".repeat(10_000).as_bytes()),
        5 => leave(
            &raw_login()?,
            b"Action: Command\r\nCommand: core show uptime\rAction: Logoff\r\n\r\n",
        ),
        6 => leave(
            &connect()?,
            b"Action: Login\r\nUsername: desk\r\nSecret: wrong\r\n\r\n",
        ),
        7 => leave(&connect()?, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        // Asks for much and reads nothing.
        8 => {
            let stream = raw_login()?;
            let burst = action_text("ListCommands", &[]).repeat(100);
            send(&stream, burst.as_bytes())?;
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        }
        _ => leave(&raw_login()?, &[0xff; 4096]),
    }
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect(HUB.address).context("connect")?;
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .context("set up")?;
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .context("set up")?;
    Ok(stream)
}

fn raw_login() -> Result<TcpStream> {
    let stream = connect()?;
    let login = action_text("Login", &[("Username", HUB.user), ("Secret", SECRET)]);
    send(&stream, login.as_bytes())?;
    Ok(stream)
}

fn send(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).context("send")
}

/// Sends, reads a little and closes.
fn leave(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    send(stream, bytes)?;
    let mut some = [0; 512];
    // Whatever was there.
    let _ = stream.read(&mut some);
    stream.shutdown(Shutdown::Both).context("leave")
}

fn percent(part: i64, whole: i64) -> f64 {
    let number = |kib: i64| f64::from(i32::try_from(kib).unwrap_or(i32::MAX));
    number(part) * 100.0 / number(whole).max(1.0)
}
