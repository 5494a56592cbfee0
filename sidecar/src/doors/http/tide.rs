//! When to give memory back: a crowd of listeners that went, and the start itself, left holes in it, which nothing else fills.
//! Connections without an upgrade are not counted: they are short, or few.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::alarm::rest;

/// How often clients are counted.
const LOOK: Duration = Duration::from_secs(10);
/// So many looks after the start all has come to rest: what was used once or twice until then is let go, too,
const SETTLED: u32 = 6;
/// … and after each five minutes what a move or a reload needed. Both take less than a millisecond.
const AGAIN: u32 = 30;
/// A client costs about 20 KiB: below this, what could be given back is not worth a look at all memory.
const CROWD: usize = 128;

/// The most clients since memory was given back. Pure.
#[derive(Debug)]
struct Tide {
    most: usize,
}

impl Default for Tide {
    /// What a start has used and freed is a crowd that has gone, too.
    fn default() -> Self {
        Self { most: CROWD }
    }
}

impl Tide {
    /// Whether a crowd has gone, with so many clients here now.
    fn has_gone_out(&mut self, here: usize) -> bool {
        self.most = self.most.max(here);
        let has_gone = self.most - here >= CROWD;
        if has_gone {
            self.most = here;
        }
        has_gone
    }
}

/// Watches the `places` of clients, `all` when nobody is here, until the process ends.
pub async fn watch(places: Arc<Semaphore>, all: usize) {
    let mut tide = Tide::default();
    for look in 1_u32.. {
        rest(LOOK).await;
        let here = all.saturating_sub(places.available_permits());
        if tide.has_gone_out(here) || look == SETTLED || look.is_multiple_of(AGAIN) {
            pbx_guard::memory::give_back();
            pbx_guard::memory::forget_unused_code();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_crowd_that_goes() {
        let mut tide = Tide::default();
        let counts = [
            (0, true),
            (0, false),
            (1000, false),
            (900, false),
            (800, true),
        ];
        let later = [
            (800, false),
            (700, false),
            (0, true),
            (0, false),
            (50, false),
            (0, false),
        ];
        for (here, expected) in counts.into_iter().chain(later) {
            assert_eq!(tide.has_gone_out(here), expected, "{here}");
        }
    }
}
