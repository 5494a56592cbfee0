//! What holds after every step. A broken one ends the sidecar: the guard starts it again, with its record.

use crate::OnQuorumLoss;
use crate::node::Node;
use crate::rule::all_hold;

impl Node {
    /// Asserts the invariants, each named by its rule.
    pub(crate) fn check_invariants(&self) {
        if !all_hold() {
            return;
        }
        self.check_votes();
        self.check_asterisk();
    }

    fn check_votes(&self) {
        let now = self.stepped_at;
        assert!(
            self.bid.is_none() || self.grant.is_none(),
            "R6: one vote, to oneself or to another"
        );
        if let Some(bid) = &self.bid {
            assert!(
                bid.epoch <= self.highest_epoch,
                "I2: a bid is not above the highest epoch seen"
            );
        }
        if let Some(grant) = &self.grant {
            assert!(
                grant.epoch <= self.highest_epoch,
                "I2: a grant is not above the highest epoch seen"
            );
        }
        if now < self.quarantine_until {
            assert!(
                self.bid.is_none() && self.grant.is_none(),
                "R7: no vote in quarantine"
            );
        }
        if self.has_departed() {
            assert!(
                self.bid.is_none() && self.grant.is_none(),
                "R13: who has left votes no more"
            );
        }
        if let Some(heir) = &self.heir {
            let vote = self.grant.expect("R5: the heir has the vote");
            assert!(vote.candidate == heir.seat, "R5: the vote is the heir's");
        }
    }

    fn check_asterisk(&self) {
        let now = self.stepped_at;
        let Some(deadline) = self.asterisk.latest_deadline() else {
            return;
        };
        if self.bid.is_none() {
            assert!(
                self.asterisk.is_stopping(),
                "R4: what no bid stands behind is stopping"
            );
        } else if !self.asterisk.is_inherited()
            && !self.asterisk.is_stopping()
            && self.settings.on_quorum_loss == OnQuorumLoss::Demote
        {
            assert!(
                self.covers_deadline(self.authority(now)),
                "R3: the deadline rests on votes"
            );
        }
        let latest = now.after(self.settings.timing.deadtime);
        assert!(
            deadline <= latest,
            "lone active: the deadline is at most T ahead"
        );
    }
}
