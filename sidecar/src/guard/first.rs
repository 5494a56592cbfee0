//! What the guard says to a sidecar that starts.

use std::time::Duration;

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
