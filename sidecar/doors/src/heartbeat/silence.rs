//! When a silent node is dead: the view tells who was silent for warntime, Heartbeat's clients are told after deadtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::view::View;

/// Nodes that are silent, and when each is dead, as time since the door was opened: wall clocks are set. `None`: it was silent
/// when the door was opened, and is dead already.
#[derive(Debug, Default)]
pub struct Silences {
    deaths: BTreeMap<String, Option<Duration>>,
}

impl Silences {
    /// The view with those still up that have not been silent for deadtime. `is_first`: what is silent now is so for long.
    pub fn apply(&mut self, view: &Arc<View>, uptime: Duration, is_first: bool) -> Arc<View> {
        let new = (!is_first).then(|| uptime + grace(view));
        let silent = view.nodes.iter().filter(|node| !node.is_up);
        let deaths = silent.map(|node| {
            let known = self.deaths.get(&node.name).copied();
            (node.name.clone(), known.unwrap_or(new))
        });
        self.deaths = deaths.collect();
        let lives = |name: &str| self.deaths.get(name).is_some_and(|at| *at > Some(uptime));
        if !view.nodes.iter().any(|node| lives(&node.name)) {
            return view.clone();
        }
        let mut shown = View::clone(view);
        for node in shown.nodes.iter_mut().filter(|node| lives(&node.name)) {
            node.is_up = true;
        }
        Arc::new(shown)
    }

    /// The time until the next of them is dead.
    pub fn next_death(&self, uptime: Duration) -> Option<Duration> {
        let deaths = self.deaths.values().flatten();
        let next = deaths.filter(|at| **at > uptime).min();
        next.map(|at| at.saturating_sub(uptime))
    }
}

/// What is left of deadtime when the view tells of a silence.
fn grace(view: &View) -> Duration {
    view.deadtime.saturating_sub(view.warntime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn silent() -> Arc<View> {
        let mut view = fixtures::two_nodes();
        view.nodes[1].is_up = false;
        Arc::new(view)
    }

    #[test]
    fn a_silent_node_is_dead_after_deadtime_and_not_before() {
        let mut silences = Silences::default();
        let heard = Arc::new(fixtures::two_nodes());
        silences.apply(&heard, ms(0), true);
        assert!(silences.apply(&silent(), ms(5000), false).nodes[1].is_up);
        assert_eq!(silences.next_death(ms(5000)), Some(ms(400)));
        assert!(silences.apply(&silent(), ms(5399), false).nodes[1].is_up);
        assert!(!silences.apply(&silent(), ms(5400), false).nodes[1].is_up);
        assert_eq!(silences.next_death(ms(5400)), None);
    }

    #[test]
    fn who_is_heard_again_begins_anew() {
        let mut silences = Silences::default();
        let heard = Arc::new(fixtures::two_nodes());
        silences.apply(&silent(), ms(1000), false);
        silences.apply(&heard, ms(1300), false);
        assert_eq!(silences.next_death(ms(1300)), None);
        assert!(silences.apply(&silent(), ms(1500), false).nodes[1].is_up);
    }

    #[test]
    fn whoever_is_silent_at_the_start_is_so_for_long() {
        let mut silences = Silences::default();
        assert!(!silences.apply(&silent(), ms(0), true).nodes[1].is_up);
        assert!(!silences.apply(&silent(), ms(1), false).nodes[1].is_up);
        assert_eq!(silences.next_death(ms(1)), None);
    }
}
