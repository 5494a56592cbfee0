//! What a probe saw, and what follows from it: gaps, first answers, losses, and whether two nodes answered. Pure.

use std::net::Ipv4Addr;

use crate::clock::Moment;

/// How a client uses its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A new source port for each request: nothing in the network remembers it.
    New,
    /// One source port for all, as a phone has: the nodes' connection tracking remembers where it went.
    Kept,
}

/// Both flows.
pub const FLOWS: [Flow; 2] = [Flow::New, Flow::Kept];

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client's port.
    pub flow: Flow,
    /// When it left.
    pub sent_at: Moment,
    /// When its 200 reached the client.
    pub answered_at: Option<Moment>,
    /// Pods whose 200 arrived, and when, as the wire tells.
    pub answers: Vec<(Ipv4Addr, Moment)>,
}

/// An interval without an answer.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// To whom nothing was answered.
    pub flow: Flow,
    /// The last answer before it.
    pub since: Moment,
    /// Its length in milliseconds.
    pub ms: f64,
}

impl Gap {
    fn longer(self, other: Self) -> Self {
        if other.ms > self.ms { other } else { self }
    }
}

/// All requests of a probe, in the order of sending.
#[derive(Clone, Debug)]
pub struct ProbeLog {
    /// The requests.
    pub requests: Vec<Request>,
    /// When the last was sent.
    pub ended_at: Moment,
}

impl ProbeLog {
    /// The longest interval without an answer to `flow`, from the first answer to the end.
    pub fn longest_gap(&self, flow: Flow) -> Gap {
        let mut answers: Vec<Moment> = self
            .of(flow)
            .filter_map(|request| request.answered_at)
            .filter(|at| *at < self.ended_at)
            .collect();
        answers.sort();
        answers.push(self.ended_at);
        let gaps = answers.windows(2).map(|pair| Gap {
            flow,
            since: pair[0],
            ms: pair[1].ms_since(pair[0]),
        });
        let none = Gap {
            flow,
            since: self.ended_at,
            ms: 0.0,
        };
        gaps.fold(none, Gap::longer)
    }

    /// The worse of both flows' longest gaps.
    pub fn worst_gap(&self) -> Gap {
        let [new, kept] = FLOWS.map(|flow| self.longest_gap(flow));
        new.longer(kept)
    }

    /// When `pod` first answered a request of `flow` that was sent at or after `since`.
    pub fn first_answer_by(&self, pod: Ipv4Addr, flow: Flow, since: Moment) -> Option<Moment> {
        let sent = self.of(flow).filter(|request| request.sent_at >= since);
        sent.filter(|request| request.answers.iter().any(|(who, _)| *who == pod))
            .filter_map(|request| request.answered_at)
            .min()
    }

    /// Requests that were never answered.
    pub fn lost(&self) -> usize {
        let unanswered = |request: &&Request| request.answered_at.is_none();
        self.requests.iter().filter(unanswered).count()
    }

    /// Answers of `old` to requests that were sent after `new` had first answered, and requests that both answered. For a probe
    /// during which the role moved from `old` to `new` once and not back.
    pub fn dual(&self, old: Ipv4Addr, new: Ipv4Addr) -> usize {
        let of_new = |request: &Request| answer_of(request, new);
        let Some(first) = self.requests.iter().filter_map(of_new).min() else {
            return 0;
        };
        let is_late =
            |request: &Request| request.sent_at > first && answer_of(request, old).is_some();
        let is_double =
            |request: &Request| of_new(request).is_some() && answer_of(request, old).is_some();
        let counted = |request: &&Request| is_late(request) || is_double(request);
        self.requests.iter().filter(counted).count()
    }

    /// The same when the role may have stayed with `old`, which is `new` then: nobody else may have answered.
    pub fn dual_if_moved(&self, old: Ipv4Addr, new: Ipv4Addr) -> usize {
        if new == old {
            self.answerers().iter().filter(|who| **who != old).count()
        } else {
            self.dual(old, new)
        }
    }

    /// Every pod that answered, in the order of first answers.
    pub fn answerers(&self) -> Vec<Ipv4Addr> {
        let mut firsts: Vec<(Moment, Ipv4Addr)> = Vec::new();
        for (who, at) in self.requests.iter().flat_map(|request| &request.answers) {
            match firsts.iter_mut().find(|(_, known)| known == who) {
                Some((first, _)) => *first = (*first).min(*at),
                None => firsts.push((*at, *who)),
            }
        }
        firsts.sort();
        firsts.into_iter().map(|(_, who)| who).collect()
    }

    fn of(&self, flow: Flow) -> impl Iterator<Item = &Request> {
        self.requests
            .iter()
            .filter(move |request| request.flow == flow)
    }
}

fn answer_of(request: &Request, pod: Ipv4Addr) -> Option<Moment> {
    let answer = request.answers.iter().find(|(who, _)| *who == pod);
    answer.map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 5);
    const NEW: Ipv4Addr = Ipv4Addr::new(198, 18, 129, 5);

    fn at_ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn request(sent_ms: u64, answered: Option<(u64, Ipv4Addr)>) -> Request {
        Request {
            flow: Flow::New,
            sent_at: at_ms(sent_ms),
            answered_at: answered.map(|(ms, _)| at_ms(ms)),
            answers: answered
                .map(|(ms, who)| (who, at_ms(ms)))
                .into_iter()
                .collect(),
        }
    }

    fn moved() -> ProbeLog {
        ProbeLog {
            requests: vec![
                request(0, Some((1, OLD))),
                request(10, Some((11, OLD))),
                request(20, None),
                request(30, None),
                request(40, Some((45, NEW))),
                request(50, Some((51, NEW))),
            ],
            ended_at: at_ms(60),
        }
    }

    fn assert_ms(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn clean_move_has_a_gap_and_losses_and_no_dual() {
        let log = moved();
        assert_ms(log.longest_gap(Flow::New).ms, 34.0);
        assert_eq!(log.lost(), 2);
        assert_eq!(log.dual(OLD, NEW), 0);
        assert_eq!(log.answerers(), [OLD, NEW]);
        let first = log.first_answer_by(NEW, Flow::New, at_ms(15)).unwrap();
        assert_eq!(first, at_ms(45));
    }

    #[test]
    fn silence_up_to_the_end_is_a_gap() {
        let mut log = moved();
        log.requests.truncate(3);
        assert_ms(log.longest_gap(Flow::New).ms, 49.0);
    }

    #[test]
    fn late_answer_to_an_early_request_is_no_dual() {
        let mut log = moved();
        log.requests[2] = request(20, Some((58, OLD)));
        assert_eq!(log.dual(OLD, NEW), 0);
    }

    #[test]
    fn answer_of_the_old_to_a_request_after_the_first_of_the_new_is_dual() {
        let mut log = moved();
        log.requests.push(request(55, Some((56, OLD))));
        assert_eq!(log.dual(OLD, NEW), 1);
    }

    #[test]
    fn request_that_both_answered_is_dual() {
        let mut log = moved();
        log.requests[4].answers.push((OLD, at_ms(46)));
        assert_eq!(log.dual(OLD, NEW), 1);
    }
}
