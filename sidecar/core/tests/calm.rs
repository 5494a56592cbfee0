//! How often who serves beats: seldom while every peer answers, often as soon as one does not.

use std::time::Duration;

use pbx_core::{Body, BootTime, Epoch, Input};
use pbx_model::desk::Desk;

/// Who serves, three nodes, the defaults: keepalive 100 ms.
struct Office {
    desk: Desk,
    epoch: Epoch,
    beats: Vec<BootTime>,
}

impl Office {
    fn open() -> Self {
        let desk = Desk::active();
        let epoch = desk.view().epoch.expect("an active has one");
        let mut office = Self {
            desk,
            epoch,
            beats: Vec::new(),
        };
        office.next_beat();
        office
    }

    /// Milliseconds from the beat before to the next one.
    fn next_beat(&mut self) -> u128 {
        self.desk.effects.clear();
        while !self.desk.sent_to(1).iter().any(is_beat) {
            self.desk.pass(1);
        }
        let before = self.beats.last().copied();
        self.beats.push(self.desk.now);
        before.map_or(0, |before| self.desk.now.since(before).as_millis())
    }

    /// The newest beat is acknowledged, so much later.
    fn acknowledge(&mut self, seats: &[u8], after_ms: u64) {
        let beat_sent_at = *self.beats.last().expect("a beat has left");
        self.desk.pass(after_ms);
        for seat in seats {
            self.desk
                .hear(*seat, self.epoch, Body::Ack { beat_sent_at });
        }
    }
}

fn is_beat(body: &Body) -> bool {
    matches!(body, Body::Beat { .. })
}

#[test]
fn while_all_answer_beats_leave_a_repeat_its_time_before_warntime() {
    let mut office = Office::open();
    for _ in 0..5 {
        office.acknowledge(&[1, 2], 1);
        assert_eq!(office.next_beat(), 330);
    }
}

#[test]
fn a_beat_that_one_peer_misses_is_repeated_before_it_warns_and_from_then_on_every_keepalive() {
    let mut office = Office::open();
    office.acknowledge(&[1, 2], 1);
    assert_eq!(office.next_beat(), 330);
    office.acknowledge(&[1], 1);
    assert_eq!(office.next_beat(), 50, "its peers have waited already");
    for _ in 0..4 {
        office.acknowledge(&[1], 1);
        assert_eq!(office.next_beat(), 100);
    }
    office.acknowledge(&[1, 2], 1);
    assert_eq!(office.next_beat(), 330, "and calm again");
}

/// A path of 60 ms answers after the repetition of a calm beat, and before the next of any other.
#[test]
fn a_slow_path_is_calm_now_and_then_and_never_asked_more_often_than_with_every_keepalive() {
    let mut office = Office::open();
    for round in 0..3 {
        office.acknowledge(&[1, 2], 60);
        assert_eq!(office.next_beat(), 330, "{round}");
        assert_eq!(office.next_beat(), 50, "{round}");
    }
}

#[test]
fn an_answer_to_an_older_beat_calms_nobody() {
    let mut office = Office::open();
    let older = office.beats[0];
    assert_eq!(office.next_beat(), 100);
    for seat in [1, 2] {
        let body = Body::Ack {
            beat_sent_at: older,
        };
        office.desk.hear(seat, office.epoch, body);
    }
    assert_eq!(office.next_beat(), 100);
}

/// A timer is always a little late: what was planned a keepalive after the last beat is no beat after a pause.
#[test]
fn a_late_timer_is_no_calm() {
    let mut office = Office::open();
    for _ in 0..6 {
        office.desk.effects.clear();
        let before = office.desk.now;
        while !office.desk.sent_to(1).iter().any(is_beat) {
            office.desk.now = office.desk.now.after(Duration::from_millis(7));
            office.desk.input(Input::Tick);
        }
        assert_eq!(office.desk.now.since(before), Duration::from_millis(105));
    }
}

/// Milliseconds until the next message to `seat`, which is a hello.
fn next_hello(desk: &mut Desk, seat: u8) -> u128 {
    desk.effects.clear();
    let before = desk.now;
    while desk.sent_to(seat).is_empty() {
        desk.pass(1);
    }
    assert_eq!(desk.sent_to(seat), [Body::Hello]);
    desk.now.since(before).as_millis()
}

#[test]
fn a_standby_greets_the_other_with_the_ack_of_a_beat() {
    let mut desk = Desk::hot_standby(3);
    desk.pass(330);
    for _ in 0..4 {
        desk.effects.clear();
        desk.hear(1, Epoch(5), Body::Beat { is_active: true });
        assert_eq!(desk.sent_to(2), [Body::Hello]);
        desk.effects.clear();
        desk.pass(330);
        assert_eq!(desk.sent_to(2), [], "the next beat is due now");
    }
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    let gaps = [(); 3].map(|()| next_hello(&mut desk, 2));
    assert_eq!(gaps, [380, 150, 150], "no beat comes any more");
}

#[test]
fn beats_of_every_keepalive_are_not_all_answered_with_a_hello_to_the_other() {
    let mut desk = Desk::hot_standby(3);
    let mut hellos = 0;
    for _ in 0..12 {
        desk.effects.clear();
        desk.pass(100);
        hellos += desk.sent_to(2).len();
        desk.hear(1, Epoch(5), Body::Beat { is_active: true });
        hellos += desk.sent_to(2).len();
    }
    assert_eq!(hellos, 4);
}
