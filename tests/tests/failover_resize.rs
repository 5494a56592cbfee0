//! From two nodes to three and back on Kubernetes while a client asks: the role stays unless the node that goes has it, and every
//! number of nodes fails over.

use pbx_tests::scenario::kills;
use pbx_tests::scenario::resize::resize;
use support::office;

mod support;

/// What kube-proxy may add when it has just synced (FINDINGS A).
const BUSY_PROXY_MS: f64 = 1500.0;
/// The pod that goes when there are fewer.
const LAST: &str = "office-2";

#[test]
fn two_nodes_become_three_and_two_again_while_they_serve() {
    let more = resize(office(), 3).unwrap();
    let failed_over = kills::kill_asterisk(office());
    let fewer = resize(office(), 2);
    assert_eq!((more.dual, more.moves), (0, 0), "{more:?}");
    assert!(more.gap_ms <= BUSY_PROXY_MS, "{more:?}");
    failed_over.unwrap();
    let fewer = fewer.unwrap();
    let moves = u64::from(fewer.active.0 == LAST);
    assert_eq!((fewer.dual, fewer.moves), (0, moves), "{fewer:?}");
    assert!(fewer.gap_ms <= BUSY_PROXY_MS, "{fewer:?}");
    kills::kill_asterisk(office()).unwrap();
}
