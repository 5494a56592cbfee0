//! What a step changed, in words. A renewal of what stands already is no change.

use std::time::Duration;

use pbx_core::{BidView, BootTime, Seat};

use super::Moment;
use super::words::{Words, span};

/// The differences between two moments of a node, the gravest first.
pub(crate) fn between(words: &Words<'_>, before: &Moment, after: &Moment) -> Vec<String> {
    let mut said = Vec::new();
    if before.view.role != after.view.role {
        said.push(format!(
            "role {:?} → {:?}",
            before.view.role, after.view.role
        ));
    }
    said.extend(bid(words, before, after));
    said.extend(grant(words, before, after));
    said.extend(votes(words, before, after));
    said.extend(deadline(before, after));
    said.extend(epoch(before, after));
    said.extend(active(words, before, after));
    said.extend(peers(words, before, after));
    if before.view.seats != after.view.seats {
        said.push("goes by a new seat map".into());
    }
    said
}

fn bid(words: &Words<'_>, before: &Moment, after: &Moment) -> Option<String> {
    match (&before.ballot.bid, &after.ballot.bid) {
        (None, Some(bid)) => Some(new_bid(words, bid)),
        (Some(bid), None) => Some(format!("gives its bid for epoch {} up", bid.epoch.0)),
        (Some(old), Some(new)) if old.epoch != new.epoch => Some(format!(
            "raises its bid from epoch {} to {}",
            old.epoch.0, new.epoch.0
        )),
        _ => None,
    }
}

fn new_bid(words: &Words<'_>, bid: &BidView) -> String {
    let of = bid
        .from
        .map_or_else(String::new, |from| format!(" of {}", words.name(from)));
    format!(
        "bids for epoch {}: {:?}{of}, {} ago",
        bid.epoch.0,
        bid.cause,
        span(bid.detection)
    )
}

fn grant(words: &Words<'_>, before: &Moment, after: &Moment) -> Option<String> {
    let now = after.at;
    match (before.ballot.grant, after.ballot.grant) {
        (None, Some((to, epoch, until))) => Some(format!(
            "gives its vote to {} (epoch {}) for {}",
            words.name(to),
            epoch.0,
            span(until.since(now))
        )),
        (Some((to, _, until)), None) => Some(format!(
            "its vote comes back from {}: {}",
            words.name(to),
            if now >= until { "lapsed" } else { "released" }
        )),
        (Some((old, old_epoch, _)), Some((new, epoch, _))) if (old, old_epoch) != (new, epoch) => {
            Some(format!(
                "its vote, of {} (epoch {}), is now of {} (epoch {})",
                words.name(old),
                old_epoch.0,
                words.name(new),
                epoch.0
            ))
        }
        _ => None,
    }
}

/// Who counts anew, who counts no more, and what that makes of the majority.
fn votes(words: &Words<'_>, before: &Moment, after: &Moment) -> Option<String> {
    let bid = after.ballot.bid.as_ref()?;
    let had = |until: fn(&BidView, Seat) -> BootTime, seat| {
        before
            .ballot
            .bid
            .is_some_and(|bid| until(&bid, seat) > before.at)
    };
    let counted = |bid: &BidView, seat: Seat| bid.counted[usize::from(seat.0)];
    let witness = |bid: &BidView, _: Seat| bid.witness_until;
    let mut said = Vec::new();
    let mut count = 1;
    for seat in (0..bid.counted.len() as u8).map(Seat) {
        let until = counted(bid, seat);
        count += usize::from(until > after.at);
        let name = format!("{}'s vote", words.name(seat));
        said.extend(vote(&name, had(counted, seat), after.at, until));
    }
    count += usize::from(bid.witness_until > after.at);
    said.extend(vote(
        "the witness",
        had(witness, Seat(0)),
        after.at,
        bid.witness_until,
    ));
    (!said.is_empty()).then(|| {
        let (quorum, voters) = (after.ballot.quorum, after.ballot.voters);
        let verdict = if count >= quorum {
            "a majority"
        } else {
            "no majority"
        };
        format!("{}: {count} of {voters} votes, {verdict}", said.join(", "))
    })
}

fn vote(name: &str, had: bool, now: BootTime, until: BootTime) -> Option<String> {
    match (had, until > now) {
        (false, true) => Some(format!("counts {name} for {}", span(until.since(now)))),
        (true, false) => Some(format!("counts {name} no more")),
        _ => None,
    }
}

fn deadline(before: &Moment, after: &Moment) -> Option<String> {
    match (
        before.ballot.confirmed_deadline,
        after.ballot.confirmed_deadline,
    ) {
        (None, Some(deadline)) => Some(format!(
            "the kernel keeps a deadline, {} ahead",
            span(deadline.since(after.at))
        )),
        (Some(_), None) => Some("no deadline stands".into()),
        _ => None,
    }
}

fn epoch(before: &Moment, after: &Moment) -> Option<String> {
    let (old, new) = (before.view.highest_epoch, after.view.highest_epoch);
    (old != new).then(|| format!("highest epoch {} → {}", old.0, new.0))
}

fn active(words: &Words<'_>, before: &Moment, after: &Moment) -> Option<String> {
    if before.view.active == after.view.active {
        return None;
    }
    Some(match after.view.active {
        Some((seat, epoch)) => format!(
            "takes {} for the active (epoch {})",
            words.name(seat),
            epoch.0
        ),
        None => "knows no active".into(),
    })
}

fn peers(words: &Words<'_>, before: &Moment, after: &Moment) -> Vec<String> {
    let warntime = after.ballot.warntime;
    let is_heard = |at: BootTime, heard_at: Option<BootTime>| {
        heard_at.is_some_and(|heard_at| at.since(heard_at) < warntime)
    };
    let mut said = Vec::new();
    for (seat, (old, new)) in before.view.peers.iter().zip(&after.view.peers).enumerate() {
        let name = words.name(Seat(seat as u8));
        let silence = new
            .heard_at
            .map_or(Duration::ZERO, |heard_at| after.at.since(heard_at));
        match (
            is_heard(before.at, old.heard_at),
            is_heard(after.at, new.heard_at),
        ) {
            (false, true) => said.push(format!("hears {name}")),
            (true, false) => said.push(format!("{name} is silent for {}", span(silence))),
            _ => {}
        }
        if old.condition.is_ready != new.condition.is_ready {
            let not = if new.condition.is_ready { "" } else { "not " };
            said.push(format!("{name} is {not}ready"));
        }
    }
    said
}
