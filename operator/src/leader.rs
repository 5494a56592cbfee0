//! Which of several operators works: the holder of a Lease.
//!
//! Two that work at once for a moment do no harm: they write the same objects, server-side. So the wall clocks of the
//! machines may be trusted here, which lets a fresh start take an expired Lease at once; no failover hangs on this.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, sleep, timeout};

/// A holder that has not renewed for this long has lost the Lease.
const HOLD: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Ends the work before another may begin it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(12);

/// Why the lead was lost or never won.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Reading.
    #[error("cannot read the operator's Lease")]
    Get(#[source] kube::Error),
    /// Writing.
    #[error("cannot write the operator's Lease")]
    Write(#[source] kube::Error),
    /// No answer.
    #[error("the API server did not answer")]
    Timeout,
    /// Somebody else has it.
    #[error("another operator, {0}, took the Lease")]
    Lost(String),
    /// Not renewed in time.
    #[error("the Lease could not be renewed for {} s", GIVE_UP_AFTER.as_secs())]
    Expired,
}

/// A candidate for the Lease.
pub struct Leader {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// What a Lease lets a candidate do. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    Free,
    Held(String),
}

impl Leader {
    /// For the Lease `name` in `namespace`, as `identity`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
        }
    }

    /// Resolves once the Lease is ours.
    pub async fn win(&self) {
        let mut said: Option<String> = None;
        loop {
            match self.try_hold().await {
                Ok(()) => return,
                Err(LeaderError::Lost(holder)) => {
                    if said.as_ref() != Some(&holder) {
                        tracing::info!(%holder, "waiting for the lead");
                        said = Some(holder);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no lead yet");
                }
            }
            sleep(RETRY_EVERY).await;
        }
    }

    /// Renews until the Lease is lost, and says why.
    pub async fn keep(&self) -> LeaderError {
        let mut renewed_at = Instant::now();
        let mut pause = RENEW_EVERY;
        loop {
            sleep(pause).await;
            let asked_at = Instant::now();
            match self.try_hold().await {
                Ok(()) => {
                    renewed_at = asked_at;
                    pause = RENEW_EVERY;
                }
                Err(lost @ LeaderError::Lost(_)) => return lost,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "lead not renewed");
                    pause = RETRY_EVERY;
                }
            }
            if renewed_at.elapsed() > GIVE_UP_AFTER {
                return LeaderError::Expired;
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait.
    pub async fn release(&self) -> Result<(), LeaderError> {
        let Some(mut lease) = self.get().await? else {
            return Ok(());
        };
        if standing(&lease, &self.identity, Timestamp::now()) != Standing::Ours {
            return Ok(());
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        self.replace(&lease).await
    }

    async fn try_hold(&self) -> Result<(), LeaderError> {
        let now = Timestamp::now();
        let Some(mut lease) = self.get().await? else {
            return self.create(now).await;
        };
        let is_new = match standing(&lease, &self.identity, now) {
            Standing::Ours => false,
            Standing::Free => true,
            Standing::Held(holder) => return Err(LeaderError::Lost(holder)),
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(HOLD.as_secs() as i32);
        spec.renew_time = Some(MicroTime(now));
        if is_new {
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        self.replace(&lease).await
    }

    async fn get(&self) -> Result<Option<Lease>, LeaderError> {
        timeout(CALL_TIMEOUT, self.api.get_opt(&self.name))
            .await
            .map_err(|_| LeaderError::Timeout)?
            .map_err(LeaderError::Get)
    }

    async fn create(&self, now: Timestamp) -> Result<(), LeaderError> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(HOLD.as_secs() as i32),
                acquire_time: Some(MicroTime(now)),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        timeout(CALL_TIMEOUT, self.api.create(&params, &lease))
            .await
            .map_err(|_| LeaderError::Timeout)?
            .map(drop)
            .map_err(LeaderError::Write)
    }

    async fn replace(&self, lease: &Lease) -> Result<(), LeaderError> {
        let params = PostParams::default();
        timeout(CALL_TIMEOUT, self.api.replace(&self.name, &params, lease))
            .await
            .map_err(|_| LeaderError::Timeout)?
            .map(drop)
            .map_err(LeaderError::Write)
    }
}

fn standing(lease: &Lease, identity: &str, now: Timestamp) -> Standing {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    if holder == identity {
        return Standing::Ours;
    }
    let hold = SignedDuration::try_from(HOLD).expect("seconds fit");
    let expires_at = spec.renew_time.map(|renewed| renewed.0 + hold);
    if holder.is_empty() || expires_at.is_none_or(|at| at <= now) {
        return Standing::Free;
    }
    Standing::Held(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed_ago_secs: i64, now: Timestamp) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                renew_time: Some(MicroTime(now - SignedDuration::from_secs(renewed_ago_secs))),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_released_or_expired_only() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (holder, renewed_ago, expected) in [
            ("me", 100, Standing::Ours),
            ("", 1, Standing::Free),
            ("other", 15, Standing::Free),
            ("other", 14, Standing::Held("other".into())),
        ] {
            let lease = lease(holder, renewed_ago, now);
            assert_eq!(
                standing(&lease, "me", now),
                expected,
                "{holder} {renewed_ago}"
            );
        }
        assert_eq!(standing(&Lease::default(), "me", now), Standing::Free);
    }
}
