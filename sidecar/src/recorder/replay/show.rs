//! Prints a story: lines for people, or JSON for programs. Moments are UTC, computed from when the copy was taken.

use std::io::Write;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use pbx_core::BootTime;
use serde::Serialize;

use super::fold::Tally;
use super::words::span;
use super::{Story, Told};
use crate::recorder::file::Header;

/// What of a story is told.
pub(crate) struct Window {
    from: BootTime,
    to: BootTime,
}

impl Window {
    /// Between two moments as people write them; absent: all.
    pub(crate) fn new(
        header: &Header,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, String> {
        let moment = |text: Option<&str>, absent| match text {
            None => Ok(absent),
            Some(text) => read_moment(header, text),
        };
        Ok(Self {
            from: moment(from, BootTime(0))?,
            to: moment(to, BootTime::FAR_FUTURE)?,
        })
    }

    fn holds(&self, told: &Told) -> bool {
        (self.from..=self.to).contains(&told.at)
    }
}

/// Lines for people. A reader that goes away (`| head`) ends it.
pub(crate) fn print_text(header: &Header, story: &Story, window: &Window) {
    let mut out = std::io::stdout().lock();
    for line in lines(header, story, window) {
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// One JSON object a line.
pub(crate) fn print_json(header: &Header, story: &Story, window: &Window) {
    let mut out = std::io::stdout().lock();
    for told in story.told.iter().filter(|told| window.holds(told)) {
        let step = JsonStep {
            time: wall(header, told.at),
            at_ns: told.at.0,
            what: &told.what,
            changes: &told.changes,
            effects: &told.effects,
            is_usual: told.usual.is_some(),
            is_different: told.is_different,
        };
        let line = serde_json::to_string(&step).expect("strings and numbers are JSON");
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

/// The story in lines.
pub(crate) fn lines(header: &Header, story: &Story, window: &Window) -> Vec<String> {
    let mut page = Page {
        header,
        lines: vec![title(header)],
        tally: Tally::default(),
        tallied: None,
    };
    for told in story.told.iter().filter(|told| window.holds(told)) {
        page.add(told);
    }
    page.end_tally();
    page.lines.push(verdict(story));
    page.lines
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonStep<'a> {
    time: Timestamp,
    at_ns: u64,
    what: &'a str,
    changes: &'a [String],
    effects: &'a [String],
    is_usual: bool,
    is_different: bool,
}

struct Page<'a> {
    header: &'a Header,
    lines: Vec<String>,
    tally: Tally,
    tallied: Option<(BootTime, BootTime)>,
}

impl Page<'_> {
    fn add(&mut self, told: &Told) {
        if told.usual.is_some() {
            self.tally.add(told);
            let first = self.tallied.map_or(told.at, |(first, _)| first);
            self.tallied = Some((first, told.at));
            return;
        }
        self.end_tally();
        let sign = if told.is_different {
            "!! NOT AS RECORDED: "
        } else {
            ""
        };
        self.line(told.at, &format!("{sign}{}", told.what));
        let details = told.changes.iter().map(|change| ("-", change));
        let effects = told.effects.iter().map(|effect| (">", effect));
        for (mark, detail) in details.chain(effects) {
            self.lines
                .push(format!("                   {mark} {detail}"));
        }
    }

    fn end_tally(&mut self) {
        if let (Some(words), Some((first, last))) = (self.tally.take(), self.tallied.take()) {
            let took = span(last.since(first));
            self.line(first, &format!("… {took}: {words}"));
        }
    }

    fn line(&mut self, at: BootTime, text: &str) {
        let time = wall(self.header, at).to_zoned(TimeZone::UTC);
        self.lines
            .push(format!("{}  {text}", time.strftime("%H:%M:%S.%6f")));
    }
}

fn title(header: &Header) -> String {
    format!(
        "flight of {} in {}, taken at {} ({}) by pbx-sidecar {}; times are UTC",
        header.node,
        header.cluster,
        rounded(wall(header, header.taken_at)),
        header.occasion,
        header.program
    )
}

fn verdict(story: &Story) -> String {
    if story.different == 0 {
        return format!("the replay went as recorded, all {} steps", story.steps);
    }
    format!(
        "{} of {} steps did NOT go as recorded: another build, or a defect; do not trust what follows the first",
        story.different, story.steps
    )
}

fn wall(header: &Header, at: BootTime) -> Timestamp {
    let taken = i128::from(header.taken_at_unix_ns);
    let nanoseconds = taken + i128::from(at.0) - i128::from(header.taken_at.0);
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MIN)
}

fn rounded(moment: Timestamp) -> Timestamp {
    moment.round(Unit::Millisecond).unwrap_or(moment)
}

/// A timestamp, or a time of the day on which the flight was taken (the day before, if that lies ahead).
fn read_moment(header: &Header, text: &str) -> Result<BootTime, String> {
    let taken = wall(header, header.taken_at);
    let moment = text.parse().or_else(|_| {
        let time: Time = text.parse().map_err(|_| {
            format!("{text}: not a moment: write it as 04:50:12.3 or 2026-01-02T04:50:12Z")
        })?;
        let day = taken.to_zoned(TimeZone::UTC).date();
        let moment = day
            .to_datetime(time)
            .to_zoned(TimeZone::UTC)
            .map_err(|error| error.to_string())?
            .timestamp();
        if moment <= taken {
            return Ok::<_, String>(moment);
        }
        Ok(moment - Duration::from_hours(24))
    })?;
    let ahead = moment.as_nanosecond() - taken.as_nanosecond() + i128::from(header.taken_at.0);
    Ok(BootTime(u64::try_from(ahead.max(0)).unwrap_or(u64::MAX)))
}
