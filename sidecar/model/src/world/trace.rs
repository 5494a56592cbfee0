//! What happens in the world, for whoever looks into a seed.

use super::event::Event;
use super::{MS, World};

impl World {
    pub(super) fn trace(&self, event: &Event) {
        if matches!(
            event,
            Event::Tick { .. } | Event::ShellLooks { .. } | Event::Operator
        ) {
            return;
        }
        println!("{:>10.3} ms {event:?}", self.now as f64 / MS as f64);
        if let Event::Deliver { pod, .. } = event {
            let local = self.pods[*pod].clock.local(self.now);
            if let Some(node) = &self.pods[*pod].node {
                let view = node.view(local);
                println!(
                    "      {pod}: {:?} {:?} {:?}",
                    view.role, view.epoch, view.seats
                );
            }
        }
    }
}
