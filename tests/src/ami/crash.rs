//! A thousand queued actions and a `kill -9` of the hub: each is done once, or reported unknown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::client::Client;
use super::{DIRECT, HTTP, HUB, SECRET, Stand};

/// For all to end.
const PATIENCE: Duration = Duration::from_mins(2);
/// Threads that hand actions in.
const HANDS: usize = 8;

/// How the actions ended.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Handed in.
    pub actions: usize,
    /// Told as done, and done once.
    pub done: usize,
    /// Told as unknown.
    pub unknown: usize,
    /// Of these, those that Asterisk did.
    pub unknown_but_done: usize,
    /// Told as failed, and not done.
    pub failed: usize,
    /// Done twice, lost, or done although told otherwise.
    pub wrong: usize,
}

/// Hands actions in while Asterisk stands still, kills the hub so many times, and counts what Asterisk did.
pub fn measure(stand: &mut Stand, actions: usize, kills: usize) -> Result<Seen> {
    let is_over = AtomicBool::new(false);
    let (ids, done) = std::thread::scope(|scope| -> Result<_> {
        // Also when something fails below: the scope waits for the listener.
        let ending = Ending(&is_over);
        let is_over = &is_over;
        let listener = stand.run(|| Client::connect_with(DIRECT, "user"))??;
        let counting = scope.spawn(move || count(listener, is_over));
        stand.signal_asterisk(Signal::STOP)?;
        let ids = hand_in(stand, actions);
        let killed = ids.and_then(|ids| {
            stand.kill_hub()?;
            Ok(ids)
        });
        stand.signal_asterisk(Signal::CONT)?;
        let ids = killed?;
        for kill in 1..kills {
            stand.start_hub()?;
            // Each life gets a little further.
            std::thread::sleep(Duration::from_millis(30 + 10 * kill as u64));
            stand.kill_hub()?;
        }
        stand.start_hub()?;
        stand.wait_ready(HUB, "the hub")?;
        wait_ends(stand, &ids)?;
        std::thread::sleep(Duration::from_millis(500));
        drop(ending);
        let done = counting
            .join()
            .map_err(|_| anyhow!("the listener panicked"))??;
        Ok((ids, done))
    })?;
    judge(stand, &ids, &done)
}

/// Tells the listener that it is over, when dropped.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The record of each action, and what Asterisk did of it.
fn judge(stand: &Stand, ids: &[u64], done: &HashMap<u64, usize>) -> Result<Seen> {
    let mut seen = Seen {
        actions: ids.len(),
        ..Seen::default()
    };
    for (number, id) in ids.iter().enumerate() {
        let times = done.get(&(number as u64)).copied().unwrap_or(0);
        match (state(stand, *id)?.as_str(), times) {
            ("done", 1) => seen.done += 1,
            ("unknown", 0) => seen.unknown += 1,
            ("unknown", 1) => {
                seen.unknown += 1;
                seen.unknown_but_done += 1;
            }
            ("failed", 0) => seen.failed += 1,
            (state, times) => {
                eprintln!("action {number}, record {id}: {state}, done {times} times");
                seen.wrong += 1;
            }
        }
    }
    Ok(seen)
}

/// How often Asterisk raised the event of each action.
fn count(mut listener: Client, is_over: &AtomicBool) -> Result<HashMap<u64, usize>> {
    let stream = listener.stream();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .context("set up the listener")?;
    let mut done = HashMap::new();
    while !is_over.load(Ordering::Relaxed) {
        let Ok(message) = listener.message() else {
            continue;
        };
        let number = message
            .lines()
            .find_map(|line| line.strip_prefix("Number: ")?.trim().parse().ok());
        if let Some(number) = number {
            *done.entry(number).or_default() += 1;
        }
    }
    Ok(done)
}

fn hand_in(stand: &Stand, actions: usize) -> Result<Vec<u64>> {
    stand.run(|| {
        let share = |hand: usize| -> Result<Vec<(usize, u64)>> {
            let numbers = (0..actions).filter(|number| number % HANDS == hand);
            numbers
                .map(|number| Ok((number, hand_in_one(number)?)))
                .collect()
        };
        std::thread::scope(|scope| {
            let hands: Vec<_> = (0..HANDS)
                .map(|hand| scope.spawn(move || share(hand)))
                .collect();
            let mut ids = vec![0; actions];
            for hand in hands {
                for (number, id) in hand.join().map_err(|_| anyhow!("a hand panicked"))?? {
                    ids[number] = id;
                }
            }
            Ok(ids)
        })
    })?
}

fn hand_in_one(number: usize) -> Result<u64> {
    let body = format!(
        r#"{{"action": "UserEvent", "headers": {{"UserEvent": "Once", "Number": {number}}}}}"#
    );
    let answer = ureq::post(format!("http://{HTTP}/v1/ami/actions"))
        .header("Authorization", authorization())
        .header("Content-Type", "application/json")
        .send(body)
        .context("hand an action in")?
        .body_mut()
        .read_to_string()
        .context("hand an action in")?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("read the answer")?;
    answer["id"].as_u64().context("no id in the answer")
}

fn authorization() -> String {
    use base64::Engine as _;
    let pair = format!("{}:{SECRET}", HUB.user);
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}

fn record(stand: &Stand, id: u64, wait: u64) -> Result<serde_json::Value> {
    let text = stand.run(|| -> Result<String> {
        let mut answer = ureq::get(format!("http://{HTTP}/v1/ami/actions/{id}?wait={wait}"))
            .header("Authorization", authorization())
            .call()
            .with_context(|| format!("ask for action {id}"))?;
        let text = answer.body_mut().read_to_string();
        text.with_context(|| format!("ask for action {id}"))
    })??;
    serde_json::from_str(&text).context("read the record")
}

fn state(stand: &Stand, id: u64) -> Result<String> {
    let record = record(stand, id, 0)?;
    Ok(record["state"].as_str().unwrap_or_default().to_owned())
}

fn wait_ends(stand: &Stand, ids: &[u64]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for id in ids {
        while !["done", "failed", "unknown"].contains(&state(stand, *id)?.as_str()) {
            if Instant::now() > deadline {
                bail!("action {id} has not ended within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Hands in one action and waits for its record's end.
pub fn transact(stand: &Stand, body: &str) -> Result<serde_json::Value> {
    let answer = stand.run(|| -> Result<String> {
        ureq::post(format!("http://{HTTP}/v1/ami/actions"))
            .header("Authorization", authorization())
            .header("Content-Type", "application/json")
            .send(body)
            .context("hand an action in")?
            .body_mut()
            .read_to_string()
            .context("hand an action in")
    })??;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("read the answer")?;
    ensure!(answer["id"].is_u64(), "no id in {answer}");
    record(stand, answer["id"].as_u64().unwrap_or_default(), 30)
}
