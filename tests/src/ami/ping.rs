//! Pings: as many as go through, and how long one takes.

use std::io::{Read, Write};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::client::{Client, Counter, action_text};
use super::{Door, Stand};

/// Pings that a client has under way.
const DEPTH: usize = 64;

/// Headers of a ping.
pub type Headers = &'static [(&'static str, &'static str)];
/// A ping that the hub takes for an action like any other: only those without further headers share an answer.
pub const ALONE: Headers = &[("Note", "for itself")];

/// Pings a second of so many clients at a time, each with several under way.
pub fn rate(
    stand: &Stand,
    door: Door,
    headers: Headers,
    clients: usize,
    time: Duration,
) -> Result<f64> {
    stand.run(|| {
        // One after the other: of many at once Asterisk, which listens with a queue of five, forgets some without a word.
        let clients: Result<Vec<Client>> = (0..clients).map(|_| Client::connect(door)).collect();
        let clients = clients?;
        let start = Barrier::new(clients.len());
        let one = |client: &Client| -> Result<(usize, Duration)> {
            start.wait();
            flood(client, headers, time)
        };
        std::thread::scope(|scope| {
            let one = &one;
            let workers = clients
                .iter()
                .map(|client| scope.spawn(move || one(client)));
            let workers: Vec<_> = workers.collect();
            let mut sum = 0.0;
            for worker in workers {
                let (count, took) = worker.join().map_err(|_| anyhow!("a client panicked"))??;
                sum += number(count) / took.as_secs_f64();
            }
            Ok(sum)
        })
    })?
}

/// Half of the depth is written when half of it is answered, so that there is always something to do.
fn flood(client: &Client, headers: Headers, time: Duration) -> Result<(usize, Duration)> {
    let burst = action_text("Ping", headers).repeat(DEPTH / 2).into_bytes();
    let mut stream = client.stream();
    let mut answers = Counter::default();
    let mut bytes = vec![0; 64 << 10];
    let started_at = Instant::now();
    let mut sent = 0;
    while started_at.elapsed() < time {
        while sent < answers.messages + DEPTH {
            stream.write_all(&burst).context("write pings")?;
            sent += DEPTH / 2;
        }
        let count = stream.read(&mut bytes).context("read answers")?;
        anyhow::ensure!(count > 0, "the manager closed the connection");
        answers.push(&bytes[..count]);
    }
    Ok((answers.messages, started_at.elapsed()))
}

/// How long each of so many pings took, one after the other, in microseconds.
pub fn times_us(stand: &Stand, door: Door, count: usize) -> Result<Vec<f64>> {
    stand.run(|| {
        let client = Client::connect(door)?;
        let mut stream = client.stream();
        let ping = action_text("Ping", &[]).into_bytes();
        let mut bytes = [0; 4096];
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let started_at = Instant::now();
            stream.write_all(&ping).context("write a ping")?;
            let mut answer = Counter::default();
            while answer.messages == 0 {
                let count = stream.read(&mut bytes).context("read an answer")?;
                anyhow::ensure!(count > 0, "the manager closed the connection");
                answer.push(&bytes[..count]);
            }
            times.push(started_at.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    })?
}

#[allow(
    clippy::cast_precision_loss,
    reason = "fewer than 2^52 pings are counted"
)]
fn number(count: usize) -> f64 {
    count as f64
}
