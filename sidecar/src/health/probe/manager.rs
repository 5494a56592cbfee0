//! Readings through AMI: each sensor has a line of its own, so that a question that hangs holds up no other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::score::{Reading, Verdict};
use super::super::watch::Ground;
use crate::asterisk::ami::{AmiError, QuietAmi, Response};

/// A connection of one sensor, and what the last reading said.
#[derive(Default)]
pub struct Line {
    ami: Option<(u64, QuietAmi)>,
    processed: BTreeMap<String, u64>,
    /// Where SIP is answered, of this life of Asterisk.
    pub(super) sip: Option<(u64, Option<std::net::SocketAddr>)>,
    /// What SIP was asked through last, and answered.
    pub(super) sip_socket: Option<(std::net::SocketAddr, super::sip::SipSocket)>,
}

/// AMI says so while Asterisk ends gracefully.
const SHUTTING_DOWN: &str = "shutting down";

impl Line {
    /// The connection is of no more use.
    pub(super) fn hang_up(&mut self) {
        self.ami = None;
    }

    pub(super) async fn ping(&mut self, ground: &Ground) -> Reading {
        let answer = self.ask(ground, "Ping", &[]).await;
        answer.map_or_else(refused, |_| Reading::new(Verdict::Good, "answered"))
    }

    pub(super) async fn channels(&mut self, ground: &Ground) -> Reading {
        match self.ask(ground, "CoreShowChannels", &[]).await {
            Ok(answer) => counted(Verdict::Good, answer.entries.len(), "channels"),
            Err(error) => refused(error),
        }
    }

    pub(super) async fn registrations(&mut self, ground: &Ground) -> Reading {
        match self.list(ground, "PJSIPShowRegistrationsOutbound").await {
            Ok(answer) => lost(&answer, "registrations", |entry| {
                let is_lost = entry("Status") != Some("Registered");
                is_lost.then(|| entry("ObjectName").unwrap_or("?").to_owned())
            }),
            Err(error) => refused(error),
        }
    }

    /// A permanent contact is named `aor@@hash`, one of a phone that registered `aor;@hash`.
    pub(super) async fn trunks(&mut self, ground: &Ground) -> Reading {
        match self.list(ground, "PJSIPShowContacts").await {
            Ok(answer) => lost(&answer, "trunks", |entry| {
                let name = entry("ObjectName").filter(|name| name.contains("@@"))?;
                let is_lost = matches!(entry("Status"), Some("Unreachable" | "Unavail"));
                is_lost.then(|| name.split("@@").next().unwrap_or(name).to_owned())
            }),
            Err(error) => refused(error),
        }
    }

    pub(super) async fn task_processors(&mut self, ground: &Ground) -> Reading {
        let command = [("Command", "core show taskprocessors")];
        match self.ask(ground, "Command", &command).await {
            Ok(answer) => {
                let rows: Vec<_> = answer
                    .message
                    .all("Output")
                    .filter_map(parse_processor)
                    .collect();
                let reading = judge(&rows, &self.processed);
                self.processed = rows
                    .into_iter()
                    .map(|row| (row.name, row.processed))
                    .collect();
                reading
            }
            Err(error) => refused(error),
        }
    }

    /// Answered means that the dialplan did; without `Async` this line waits for it.
    pub(super) async fn test_call(
        &mut self,
        ground: &Ground,
        extension: &str,
        limit: Duration,
    ) -> Reading {
        let channel = format!("Local/{extension}");
        let timeout = (limit.as_millis() * 9 / 10).to_string();
        let headers = [
            ("Channel", channel.as_str()),
            ("Application", "Wait"),
            ("Data", "0.2"),
            ("Timeout", &timeout),
            ("CallerID", "pbx-ha test call"),
        ];
        match self.ask(ground, "Originate", &headers).await {
            Ok(_) => Reading::new(Verdict::Good, "answered"),
            Err(AmiError::Refused { message, .. }) => {
                Reading::new(Verdict::Critical, format!("{extension}: {message}"))
            }
            Err(error) => refused(error),
        }
    }

    /// The address of the first UDP transport, as one on this machine reaches it; asked once in each life of Asterisk.
    pub(super) async fn sip_address(
        &mut self,
        ground: &Ground,
    ) -> Result<Option<std::net::SocketAddr>, AmiError> {
        let life = ground.asterisk.as_ref().map_or(0, |life| life.number);
        if let Some((of, address)) = self.sip
            && of == life
        {
            return Ok(address);
        }
        let command = [("Command", "pjsip show transports")];
        let answer = self.ask(ground, "Command", &command).await?;
        let address = answer
            .message
            .all("Output")
            .find_map(super::sip::parse_transport);
        self.sip = Some((life, address));
        Ok(address)
    }

    /// An empty list is answered with an error.
    async fn list(&mut self, ground: &Ground, action: &str) -> Result<Response, AmiError> {
        match self.ask(ground, action, &[]).await {
            Err(AmiError::Refused { message, .. }) if is_empty(&message) => Ok(Response::default()),
            answer => answer,
        }
    }

    async fn ask(
        &mut self,
        ground: &Ground,
        action: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, AmiError> {
        let life = ground
            .asterisk
            .as_ref()
            .expect("asked of a running Asterisk");
        let mut ami = match self.ami.take() {
            Some((number, ami)) if number == life.number => ami,
            _ => life.configured.connect_sensor().await?,
        };
        let answer = ami.action(action, headers).await;
        if answer.as_ref().map_or_else(is_alive, |_| true) {
            self.ami = Some((life.number, ami));
        }
        answer
    }
}

/// The line still works after this error.
fn is_alive(error: &AmiError) -> bool {
    matches!(error, AmiError::Refused { .. })
}

fn is_empty(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("no ")
        || message.contains("not found")
        || message.contains("unable to retrieve")
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err` and the like")]
fn refused(error: AmiError) -> Reading {
    let verdict = match &error {
        AmiError::TimedOut { .. } => Verdict::Silent,
        AmiError::Refused { message, .. } if message.contains(SHUTTING_DOWN) => Verdict::Skipped,
        // Asterisk went away: the guard says so, and its next life is asked anew.
        AmiError::Lost { .. } | AmiError::Connect { .. } | AmiError::NotBooted { .. } => {
            Verdict::Skipped
        }
        _ => Verdict::Critical,
    };
    Reading::new(verdict, error.to_string())
}

fn counted(verdict: Verdict, count: usize, what: &str) -> Reading {
    Reading {
        verdict,
        text: format!("{count} {what}"),
        value: u32::try_from(count).ok().map(f64::from),
    }
}

/// Critical when any of them is lost; they are named.
fn lost<'a>(
    answer: &'a Response,
    what: &str,
    name_if_lost: impl Fn(&dyn Fn(&str) -> Option<&'a str>) -> Option<String>,
) -> Reading {
    let entries = answer.entries.iter();
    if answer.entries.is_empty() {
        return Reading::new(Verdict::Skipped, "there are none");
    }
    let names: Vec<String> = entries
        .filter_map(|entry| name_if_lost(&|header| entry.get(header)))
        .collect();
    if names.is_empty() {
        return counted(Verdict::Good, 0, &format!("{what} lost"));
    }
    let shown = names
        .iter()
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    Reading {
        text: format!("{what} lost: {shown}"),
        ..counted(Verdict::Critical, names.len(), what)
    }
}

/// A line of `core show taskprocessors`.
#[derive(Debug, PartialEq, Eq)]
struct Processor {
    name: String,
    processed: u64,
    queued: u64,
    high_water: u64,
}

/// `pjsip/default-00000007    12    0    3    450    500`: name, processed, queued, deepest, low and high water.
fn parse_processor(line: &str) -> Option<Processor> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let numbers: Vec<u64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [processed, queued, _, _, high_water] = numbers[..] else {
        return None;
    };
    Some(Processor {
        name,
        processed,
        queued,
        high_water,
    })
}

/// Above its high-water mark, or with work in its queue and none done since the last reading: one that is blocked.
fn judge(rows: &[Processor], before: &BTreeMap<String, u64>) -> Reading {
    let is_blocked =
        |row: &&Processor| row.queued > 0 && before.get(&row.name) == Some(&row.processed);
    let is_full = |row: &&Processor| row.high_water > 0 && row.queued >= row.high_water;
    let deepest = rows.iter().map(|row| row.queued).max().unwrap_or(0);
    let worst = rows
        .iter()
        .find(is_full)
        .map(|row| format!("{} holds {} tasks", row.name, row.queued))
        .or_else(|| {
            let blocked = rows.iter().find(is_blocked)?;
            Some(format!(
                "{} does nothing and holds {}",
                blocked.name, blocked.queued
            ))
        });
    let verdict = worst.as_ref().map_or(Verdict::Good, |_| Verdict::Critical);
    Reading {
        verdict,
        text: worst.unwrap_or_else(|| format!("{deepest} tasks in the deepest queue")),
        value: u32::try_from(deepest).ok().map(f64::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Asterisk 22.10.1 prints it.
    const LINE: &str = "pjsip/default-00000007                                                         12          3          5        450        500";

    fn row(processed: u64, queued: u64) -> Processor {
        Processor {
            name: "a".into(),
            processed,
            queued,
            high_water: 500,
        }
    }

    #[test]
    fn a_line_of_task_processors_is_read_and_the_head_is_not() {
        let read = parse_processor(LINE).unwrap();
        assert_eq!((read.processed, read.queued, read.high_water), (12, 3, 500));
        assert_eq!(
            parse_processor("Processor  Processed   In Queue  Max Depth  Low water High water"),
            None
        );
        assert_eq!(parse_processor("62 taskprocessors"), None);
    }

    #[test]
    fn a_full_queue_and_one_that_stands_still_are_critical() {
        let before = BTreeMap::from([("a".to_owned(), 7)]);
        assert_eq!(judge(&[row(8, 3)], &before).verdict, Verdict::Good);
        assert_eq!(judge(&[row(7, 0)], &before).verdict, Verdict::Good);
        assert_eq!(judge(&[row(7, 3)], &before).verdict, Verdict::Critical);
        let full = judge(&[row(9, 500)], &before);
        assert_eq!((full.verdict, full.value), (Verdict::Critical, Some(500.0)));
    }
}
