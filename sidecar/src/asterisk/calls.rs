//! The calls of this node's Asterisk: how many there are, and how it is closed to new ones.
//!
//! `core stop gracefully` answers new INVITE and OPTIONS with 503, still takes REGISTER (200; measured with 22.10.1), and ends
//! Asterisk about 1.5 s after its last call. Its own AMI session gets no answer before that; every other one is told
//! "Asterisk is shutting down", which is how the closing is confirmed. Nothing here takes it back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::Configured;
use super::ami::{Ami, AmiError, Message};

const CONFIRM_RETRY: Duration = Duration::from_millis(5);
const CLOSED: &str = "shutting down";
/// Ends of channels that wait to be counted.
const HANGUPS: usize = 1024;

/// The channels of the calls that are left, by unique id, with the call that each belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallSet {
    channels: BTreeMap<String, String>,
}

impl CallSet {
    /// From the list of channels: unique id and linked id.
    pub fn new(channels: Vec<(String, String)>) -> Self {
        Self {
            channels: channels.into_iter().collect(),
        }
    }

    /// A channel ended.
    pub fn on_hangup(&mut self, unique_id: &str) {
        self.channels.remove(unique_id);
    }

    /// Calls, not channels: both legs of one have the same linked id.
    pub fn count(&self) -> u32 {
        let calls: std::collections::BTreeSet<&String> = self.channels.values().collect();
        u32::try_from(calls.len()).unwrap_or(u32::MAX)
    }
}

/// An Asterisk that takes no new calls any more, and ends with its last one.
pub struct Closed {
    /// Kept open: Asterisk lets nobody in any more.
    _ami: Ami,
    hangups: mpsc::Receiver<Message>,
    calls: CallSet,
}

impl Closed {
    /// Calls that are left.
    pub fn count(&self) -> u32 {
        self.calls.count()
    }

    /// Waits for the end of a channel; `None` when Asterisk has gone.
    pub async fn next(&mut self) -> Option<u32> {
        let hangup = self.hangups.recv().await?;
        self.calls
            .on_hangup(hangup.get("Uniqueid").unwrap_or_default());
        Some(self.count())
    }
}

/// Closes Asterisk to new calls, for good, and returns once that is certain. On an error it may be closed or not: stop it.
pub async fn close(configured: &Configured, deadline: Duration) -> Result<Closed, AmiError> {
    let closing = close_unbounded(configured, deadline);
    let in_time = tokio::time::timeout(deadline, closing).await;
    in_time.unwrap_or(Err(AmiError::TimedOut {
        action: "core stop gracefully".to_owned(),
        deadline,
    }))
}

/// How many calls there are.
pub async fn count(ami: &Ami) -> Result<u32, AmiError> {
    Ok(CallSet::new(ami.channels().await?).count())
}

async fn close_unbounded(configured: &Configured, deadline: Duration) -> Result<Closed, AmiError> {
    let (heard, hangups) = mpsc::channel(HANGUPS);
    let ami = configured.connect(deadline, Some(heard)).await?;
    let closer = configured.connect_quietly(deadline).await?;
    ami.fully_booted().await?;
    let calls = CallSet::new(ami.channels().await?);
    spawn_local(async move {
        let command = [("Command", "core stop gracefully")];
        // It is answered when the last call has ended, or never.
        let _ = closer.action("Command", &command).await;
    });
    loop {
        match ami.action("Ping", &[]).await {
            Err(AmiError::Refused { message, .. }) if message.contains(CLOSED) => break,
            Err(error) => return Err(error),
            Ok(_) => tokio::time::sleep(CONFIRM_RETRY).await,
        }
    }
    Ok(Closed {
        _ami: ami,
        hangups,
        calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_legs_are_one_call_and_it_ends_with_the_last() {
        let leg = |id: &str| (id.to_owned(), "call-1".to_owned());
        let mut calls = CallSet::new(vec![
            leg("a"),
            leg("b"),
            ("c".to_owned(), "call-2".to_owned()),
        ]);
        assert_eq!(calls.count(), 2);
        calls.on_hangup("a");
        calls.on_hangup("unknown");
        assert_eq!(calls.count(), 2);
        calls.on_hangup("b");
        assert_eq!(calls.count(), 1);
    }
}
