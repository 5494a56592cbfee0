//! What is said, and that it is said once.

use super::*;
use crate::observe::status::status_of;
use crate::testing::{now, observed, pod_of, take_over};

#[test]
fn a_takeover_is_announced_once_with_its_cause() {
    let mut observed = observed();
    take_over(&mut observed);
    let (status, _) = status_of(&observed, now());
    let changes = new_changes(&observed.status, &status);
    let announcements: Vec<_> = changes.iter().map(of_change).collect();
    let expected = Announcement {
        type_: EventType::Warning,
        reason: "NodeSilent".into(),
        message: "office-1 became active in place of office-0 (NodeSilent), epoch 5".into(),
        action: "Epoch5".into(),
    };
    assert_eq!(announcements, [expected]);
    assert!(new_changes(&status, &status).is_empty());
}

#[test]
fn a_problem_is_announced_once_until_its_pod_is_well() {
    let mut announced = Announced::default();
    let mut observed = observed();
    let problem = Problem {
        reason: "ImageUnavailable".into(),
        message: "correct the image".into(),
    };
    let pod = pod_of(&mut observed, "office-1");
    pod.is_ready = false;
    pod.problem = Some(problem.clone());
    assert_eq!(announced.news(&observed).len(), 1);
    assert!(announced.news(&observed).is_empty());
    pod_of(&mut observed, "office-1").problem = None;
    assert!(announced.news(&observed).is_empty());
    pod_of(&mut observed, "office-1").problem = Some(problem.clone());
    assert!(announced.news(&observed).is_empty(), "it never was well");
    let pod = pod_of(&mut observed, "office-1");
    pod.problem = None;
    pod.is_ready = true;
    assert!(announced.news(&observed).is_empty());
    pod_of(&mut observed, "office-1").problem = Some(problem);
    assert_eq!(announced.news(&observed).len(), 1);
}
