//! Who serves, who does so by right, and what the world remembers of it.

use pbx_core::OnQuorumLoss;

use super::World;

impl World {
    /// I1, and the gaps, at every change of what serves.
    pub fn note_serving(&mut self) {
        let serving = self.serving();
        self.note_contention(serving.len() > 1);
        let by_right: Vec<usize> = serving
            .iter()
            .copied()
            .filter(|pod| self.serves_by_right(*pod))
            .collect();
        if by_right.len() > 1 && self.overlap.is_none() {
            self.overlap = Some((self.now, by_right));
        }
        let now_serves = serving.first().copied();
        let (since, before) = self.serving_since;
        if before != now_serves {
            if before.is_none() {
                self.longest_gap = self.longest_gap.max(self.now - since);
            }
            self.serving_since = (self.now, now_serves);
        }
    }

    fn note_contention(&mut self, is_contended: bool) {
        if is_contended {
            self.contended_since.get_or_insert(self.now);
        } else if let Some(since) = self.contended_since.take() {
            self.contended_until = self.now;
            if let Some(healed_at) = self.healed_at {
                let since = since.max(healed_at).max(self.thawed_at);
                let lasted = self.now.saturating_sub(since);
                self.longest_contention = self.longest_contention.max(lasted);
            }
        }
    }

    /// No clock that stood still a moment ago makes it count on votes that are over, and it does not do without votes.
    fn serves_by_right(&self, pod: usize) -> bool {
        let p = &self.pods[pod];
        let local = p.clock.local(self.now);
        let has_quorum = match (&p.node, self.on_quorum_loss) {
            (_, OnQuorumLoss::Demote) => true,
            (Some(node), OnQuorumLoss::Continue) => !node.view(local).is_without_quorum,
            (None, OnQuorumLoss::Continue) => false,
        };
        has_quorum && local >= p.behind_until
    }

    /// The time without service since then, if it goes on or has ended after it.
    pub fn longest_gap_since(&self, start: u64) -> u64 {
        let (since, serving) = self.serving_since;
        if since > start || serving.is_none() {
            self.now - since.max(start)
        } else {
            0
        }
    }
}
