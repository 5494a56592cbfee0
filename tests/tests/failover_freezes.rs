//! I1 under pauses: the active's pod stands still, by the freezer and by SIGSTOP, shorter and longer than its authority lasts; never do
//! two nodes answer, not even in the instant of the thaw.

use std::time::Duration;

use pbx_tests::scenario::freezes::{Hold, freeze_active};
use support::office;

mod support;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(3);

#[test]
fn short_freeze_by_the_freezer_moves_nothing() {
    let found = freeze_active(office(), Hold::Freezer, SHORT).unwrap();
    assert_eq!((found.moved, found.dual), (false, 0));
}

#[test]
fn short_stop_by_a_signal_moves_nothing() {
    let found = freeze_active(office(), Hold::Signal, SHORT).unwrap();
    assert_eq!((found.moved, found.dual), (false, 0));
}

#[test]
fn long_freeze_by_the_freezer_moves_the_role_and_thaws_silent() {
    let found = freeze_active(office(), Hold::Freezer, LONG).unwrap();
    assert_eq!((found.moved, found.dual), (true, 0));
}

#[test]
fn long_stop_by_a_signal_moves_the_role_and_thaws_silent() {
    let found = freeze_active(office(), Hold::Signal, LONG).unwrap();
    assert_eq!((found.moved, found.dual), (true, 0));
}
