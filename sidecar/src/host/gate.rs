//! Between the core and what ends its service: an armed leash counts only together with a standing fence. A promotion is announced from
//! here, at once. Pure but for the handles.

use pbx_core::{BootTime, Effect, GuardEvent, Notice};

use super::announce::Announcers;
use super::fence::FenceHandle;

/// Joins the two confirmations. Without a fence, what the guard says passes unchanged.
///
/// The fence says a word when a service begins. Later ones would only wake the core: what the kernel was given meanwhile is
/// looked at with the next beat.
#[derive(Debug, Default)]
pub struct FenceGate {
    fence: Option<FenceHandle>,
    announcers: Announcers,
    /// What the leash and the fence have confirmed for the present service.
    leash: Option<BootTime>,
    standing: Option<BootTime>,
    told: Option<BootTime>,
}

impl FenceGate {
    /// A gate of this fence, if there is one, and who announces what passes it.
    pub fn new(fence: Option<FenceHandle>, announcers: Announcers) -> Self {
        Self {
            fence,
            announcers,
            ..Self::default()
        }
    }

    /// Before the effect is carried out: the fence follows what the leash is told. What the core is told of the fence, which said nothing
    /// of it.
    pub fn on_effect(&mut self, effect: &Effect) -> Option<GuardEvent> {
        let fence = self.fence.as_ref()?;
        match effect {
            Effect::Arm { deadline } | Effect::RestartInPlace { deadline } => {
                fence.open(*deadline, self.standing.is_none());
                return self.look();
            }
            Effect::Stop => self.shut(),
            // The services repeat it; on a busy host their turn comes later.
            Effect::Notice(Notice::Promoted { .. }) => self.announcers.announce(),
            _ => {}
        }
        None
    }

    /// What the core is told when the guard reports this.
    pub fn on_guard(&mut self, event: GuardEvent) -> Option<GuardEvent> {
        if self.fence.is_none() {
            return Some(event);
        }
        match event {
            GuardEvent::Armed { deadline } => {
                self.leash = self.leash.max(Some(deadline));
                self.joined()
            }
            // Nothing answers any more: neighbours must not be told that this is still the place to ask.
            GuardEvent::Exited { .. } | GuardEvent::Stopped => {
                self.shut();
                Some(event)
            }
            GuardEvent::Adopted { .. } => Some(event),
        }
    }

    /// What the core is told when the fence stands until then.
    pub fn on_fence(&mut self, deadline: BootTime) -> Option<GuardEvent> {
        self.standing = self.standing.max(Some(deadline));
        self.joined()
    }

    /// At the fence, once its word has begun the service.
    fn look(&mut self) -> Option<GuardEvent> {
        let standing = self.fence.as_ref()?.standing();
        self.standing = Some(self.standing?.max(standing));
        self.joined()
    }

    /// The earlier of the two, when it grew.
    fn joined(&mut self) -> Option<GuardEvent> {
        let deadline = self.leash?.min(self.standing?);
        if self.told >= Some(deadline) {
            return None;
        }
        self.told = Some(deadline);
        Some(GuardEvent::Armed { deadline })
    }

    fn shut(&mut self) {
        if let Some(fence) = &self.fence {
            fence.close();
        }
        (self.leash, self.standing, self.told) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> FenceGate {
        FenceGate::new(Some(FenceHandle::to_nowhere()), Announcers::default())
    }

    fn armed(at: u64) -> GuardEvent {
        GuardEvent::Armed {
            deadline: BootTime(at),
        }
    }

    #[test]
    fn an_armed_leash_alone_promotes_nobody() {
        let mut gate = gate();
        assert_eq!(gate.on_guard(armed(100)), None);
        assert_eq!(gate.on_fence(BootTime(100)), Some(armed(100)));
    }

    #[test]
    fn the_earlier_of_the_two_counts_and_is_told_once() {
        let mut gate = gate();
        assert_eq!(gate.on_fence(BootTime(100)), None);
        assert_eq!(gate.on_guard(armed(200)), Some(armed(100)));
        assert_eq!(gate.on_guard(armed(300)), None);
        assert_eq!(gate.on_fence(BootTime(250)), Some(armed(250)));
    }

    #[test]
    fn after_a_stop_both_are_needed_again() {
        let mut gate = gate();
        gate.on_guard(armed(100));
        gate.on_fence(BootTime(100));
        gate.on_effect(&Effect::Stop);
        assert_eq!(
            gate.on_guard(GuardEvent::Stopped),
            Some(GuardEvent::Stopped)
        );
        assert_eq!(gate.on_guard(armed(200)), None);
    }

    #[test]
    fn what_the_kernel_was_given_without_a_word_counts_once_the_service_has_begun() {
        let fence = FenceHandle::to_nowhere();
        let mut gate = FenceGate::new(Some(fence.clone()), Announcers::default());
        gate.on_guard(armed(300));
        // Of an earlier service: it may have been closed since.
        fence.stand(BootTime(100));
        assert_eq!(gate.look(), None);
        assert_eq!(gate.on_fence(BootTime(150)), Some(armed(150)));
        fence.stand(BootTime(250));
        assert_eq!((gate.look(), gate.look()), (Some(armed(250)), None));
        gate.on_effect(&Effect::Stop);
        gate.on_guard(armed(400));
        assert_eq!(gate.look(), None);
    }

    #[test]
    fn without_a_fence_the_guards_word_passes() {
        let mut gate = FenceGate::default();
        assert_eq!(gate.on_guard(armed(100)), Some(armed(100)));
    }
}
