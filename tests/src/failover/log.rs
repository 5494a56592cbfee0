//! What a probe saw, and what it means: the longest time without an answer, and answers by two nodes. Pure.

use std::collections::BTreeSet;

use crate::clock::Moment;

/// Two nodes answer at the same time when one's answer lies between two of the other's, both nearer than this. Longer than the
/// interval of any who asks, shorter than any two moves in a row.
const TOGETHER_MS: f64 = 50.0;
/// How often the client and everybody else is asked; a client's own stall beyond this spoils a figure.
const STALL_MS: f64 = 25.0;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFrom {
    /// The client, as any phone.
    Client,
    /// The client that reaches all nodes at once.
    Observer,
    /// A node, itself.
    Node(usize),
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Which request.
    pub number: usize,
    /// When it came.
    pub at: Moment,
    /// The node.
    pub by: usize,
    /// Who had asked.
    pub from: AskedFrom,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct AskLog {
    /// When each request was sent.
    pub sent: Vec<Moment>,
    /// The answers, in the order in which they came.
    pub answers: Vec<Answer>,
    /// When asking ended.
    pub ended_at: Moment,
}

impl AskLog {
    /// The longest time without an answer for the client that ends after `since`, in milliseconds.
    pub fn longest_gap_ms(&self, since: Moment) -> f64 {
        let client = self
            .answers
            .iter()
            .filter(|answer| answer.from == AskedFrom::Client);
        let mut before: Option<Moment> = None;
        let mut longest = 0.0_f64;
        for at in client.map(|answer| answer.at).chain([self.ended_at]) {
            let from = before.unwrap_or(since);
            if at > since {
                longest = longest.max(at.ms_since(from));
            }
            before = Some(at);
        }
        longest
    }

    /// Answers of one node between two of another, by whomever asked.
    pub fn by_two(&self) -> usize {
        let nodes: BTreeSet<usize> = self.answers.iter().map(|answer| answer.by).collect();
        let of = |node: usize| -> Vec<Moment> {
            let own = self.answers.iter().filter(|answer| answer.by == node);
            own.map(|answer| answer.at).collect()
        };
        let all: Vec<(usize, Vec<Moment>)> =
            nodes.into_iter().map(|node| (node, of(node))).collect();
        let is_between = |at: Moment, others: &[Moment]| {
            let next = others.partition_point(|other| *other <= at);
            let before = next.checked_sub(1).map(|at| others[at]);
            let is_near = |other: Option<Moment>| {
                other.is_some_and(|other| other.ms_since(at).abs() < TOGETHER_MS)
            };
            is_near(before) && is_near(others.get(next).copied())
        };
        all.iter()
            .flat_map(|(node, times)| times.iter().map(move |at| (*node, *at)))
            .filter(|(node, at)| {
                all.iter()
                    .any(|(other, times)| other != node && is_between(*at, times))
            })
            .count()
    }

    /// The nodes that answered the client after this, in the order of their first answer.
    pub fn answerers(&self, since: Moment) -> Vec<usize> {
        let mut nodes = Vec::new();
        for answer in &self.answers {
            if answer.from == AskedFrom::Client && answer.at > since && !nodes.contains(&answer.by)
            {
                nodes.push(answer.by);
            }
        }
        nodes
    }

    /// The machine was too busy to ask: what this log says of a gap is not the fault's doing.
    pub fn is_stalled(&self) -> bool {
        self.sent
            .windows(2)
            .any(|pair| pair[1].ms_since(pair[0]) > STALL_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000 + ms * 1_000_000)
    }

    fn log(answers: &[(u64, usize)]) -> AskLog {
        let answers = answers.iter().map(|(ms, by)| Answer {
            number: 0,
            at: at(*ms),
            by: *by,
            from: AskedFrom::Client,
        });
        AskLog {
            sent: Vec::new(),
            answers: answers.collect(),
            ended_at: at(1000),
        }
    }

    #[test]
    fn a_move_is_no_answer_by_two() {
        let moved = log(&[(0, 0), (2, 0), (40, 1), (42, 1), (900, 1), (990, 0)]);
        assert_eq!(moved.by_two(), 0);
        assert_eq!(moved.answerers(at(10)), [1, 0]);
    }

    #[test]
    fn an_answer_between_two_of_another_is_counted() {
        assert_eq!(log(&[(0, 1), (2, 0), (4, 1), (6, 1)]).by_two(), 1);
        assert_eq!(log(&[(0, 1), (1, 0), (2, 1), (3, 0)]).by_two(), 2);
    }

    #[test]
    fn a_gap_lasts_to_the_next_answer_or_the_end() {
        let found = log(&[(0, 0), (100, 1), (980, 1)]).longest_gap_ms(at(50));
        assert!((found - 880.0).abs() < 1e-6, "{found}");
        let never = log(&[(0, 0)]).longest_gap_ms(at(1));
        assert!((never - 1000.0).abs() < 1e-6, "{never}");
        let before = log(&[(0, 0), (500, 0), (502, 0), (998, 0)]).longest_gap_ms(at(501));
        assert!((before - 496.0).abs() < 1e-6, "{before}");
    }

    #[test]
    fn a_stalled_client_is_told() {
        let mut busy = log(&[]);
        busy.sent = vec![at(0), at(2), at(40)];
        assert!(busy.is_stalled());
        busy.sent.pop();
        assert!(!busy.is_stalled());
    }
}
