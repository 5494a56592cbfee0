//! What the services do about the traffic: point it here after a promotion, and see where it points.

use std::time::Duration;

use pbx_core::{Command, Epoch, Input};
use pbx_crds::report::Problem;
use tokio::task::spawn_local;

use super::{Done, Services, now};
use crate::asterisk::supervisor;
use crate::daemon::ToCore;
use crate::kubernetes::KubeError;
use crate::kubernetes::slice::{Moved, Traffic, TrafficView};
use crate::recorder::entry::Mark;

/// A move of the traffic is tried for so long before the role is handed back.
const TRAFFIC_PATIENCE: Duration = Duration::from_secs(2);
const TRAFFIC_RETRY: Duration = Duration::from_millis(50);
const TRAFFIC_DEADLINE: Duration = Duration::from_millis(500);

impl Services {
    /// The EndpointSlice, where traffic is moved by one.
    pub(super) fn slice(&self) -> Option<Traffic> {
        self.objects.as_ref()?.traffic.clone()
    }

    pub(super) fn move_traffic(&mut self, epoch: Epoch) {
        self.announce_addresses();
        let Some(traffic) = self.slice() else {
            return;
        };
        if self
            .traffic
            .as_ref()
            .is_some_and(|view| traffic.is_here(view) && view.epoch <= epoch)
        {
            return;
        }
        self.is_moving = true;
        let (known, done, began) = (
            self.traffic.clone(),
            self.done.clone(),
            tokio::time::Instant::now(),
        );
        let to_core = self.channels.to_core.clone();
        spawn_local(async move {
            let mut known = known;
            let mark = |mark| to_core.try_send(ToCore::Mark(now(), mark));
            let _ = mark(Mark::TrafficAsked(epoch));
            let result = loop {
                match traffic
                    .move_here(epoch, known.take(), TRAFFIC_DEADLINE)
                    .await
                {
                    Ok(Moved::Here(view)) => {
                        let _ = mark(Mark::TrafficWritten(epoch));
                        break Done::TrafficMoved(epoch, view, began.elapsed());
                    }
                    Ok(Moved::Overtaken(newer)) => break Done::Overtaken(newer),
                    Err(error) if began.elapsed() > TRAFFIC_PATIENCE => {
                        break Done::TrafficFailed(epoch, error);
                    }
                    Err(_) => tokio::time::sleep(TRAFFIC_RETRY).await,
                }
            };
            let _ = done.send(result).await;
        });
    }

    pub(super) fn on_traffic_seen(&mut self, view: TrafficView) {
        let highest = self.channels.view.borrow().epoch;
        if view.epoch.0 > highest {
            self.ask(&Input::Command(Command::SeenEpoch(view.epoch)));
        }
        let is_older = |known: &TrafficView| known.version_number() > view.version_number();
        if self.traffic.as_ref().is_some_and(is_older) {
            return;
        }
        self.traffic = Some(view);
        // Somebody took the endpoint away, such as by deleting the slice: while this node serves, it points here.
        if let (Some(epoch), false) = (self.active_epoch, self.is_moving) {
            self.move_traffic(epoch);
        }
    }

    pub(super) fn on_traffic_failed(&mut self, epoch: Epoch, error: &KubeError) {
        self.is_moving = false;
        if self.active_epoch != Some(epoch) {
            return;
        }
        tracing::error!(
            error = error as &dyn std::error::Error,
            epoch = epoch.0,
            "the traffic cannot be moved here"
        );
        self.fault = Some(Problem {
            reason: "TrafficFailed".into(),
            message: format!("{error}: check the sidecar's Role and the API server"),
        });
        self.ask(&Input::Command(Command::TrafficFailed { epoch }));
        self.move_traffic(epoch);
    }

    pub(super) fn read_traffic(&self) {
        let Some(traffic) = self.slice() else {
            return;
        };
        let done = self.done.clone();
        spawn_local(async move {
            let view = traffic.read(supervisor::SETTLING).await.ok();
            let _ = done.send(Done::TrafficRead(view)).await;
        });
    }
}
