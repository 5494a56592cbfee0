//! What the guard says to a sidecar that starts.

use std::time::Duration;

use pbx_core::{BootTime, FoundAtStart};
use pbx_guard::protocol::Event;

use super::{GuardLink, LinkEvent};

/// The guard's state, if a guard is there. A guard that is not there runs nothing: its end is the end of its pid namespace.
pub async fn first_state(link: &mut GuardLink, patience: Duration) -> Option<Event> {
    if !link.is_connected() {
        return None;
    }
    match tokio::time::timeout(patience, link.next()).await {
        Ok(LinkEvent::Event(event @ Event::State { .. })) => Some(event),
        _ => None,
    }
}

/// What a core that starts is told of it.
pub fn found(event: &Event) -> FoundAtStart {
    match event {
        Event::State {
            run: Some(_),
            deadline_ns,
            ..
        } => FoundAtStart::Running {
            deadline: (*deadline_ns > 0).then_some(BootTime(*deadline_ns)),
        },
        _ => FoundAtStart::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_runs_nothing_is_told_from_one_that_does() {
        let state = |run, deadline_ns| Event::State {
            run,
            pid: 0,
            deadline_ns,
            terminating: false,
            boot_now_ns: 0,
        };
        let run = Some(pbx_guard::protocol::RunId(1));
        assert_eq!(found(&state(None, 0)), FoundAtStart::Nothing);
        assert_eq!(
            found(&state(run, 0)),
            FoundAtStart::Running { deadline: None }
        );
        assert_eq!(
            found(&state(run, 9)),
            FoundAtStart::Running {
                deadline: Some(BootTime(9))
            }
        );
    }
}
