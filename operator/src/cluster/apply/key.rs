//! The Secret with the cluster's heartbeat key: created once, never read, never changed.
//!
//! The operator has no right on Secrets in the whole cluster. Its only one, to create them, stands in a `ClusterRole` that it
//! binds to itself in the namespace of a cluster. So it cannot see whether the Secret exists: it remembers that it
//! tried, and tries again when a pod waits, since a deleted key would be why.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use pbx_crds::names;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{ApplyError, KEY_RETRY, Objects};
use crate::cluster::build;

const KEY_BYTES: usize = 32;
/// The API server's view of roles follows a new binding within moments: try for this long.
const BINDING_DELAY: Duration = Duration::from_secs(3);
const BINDING_PAUSE: Duration = Duration::from_millis(50);

/// For which clusters, by UID, a key was created, and when that was tried last.
#[derive(Debug, Default)]
pub struct KeyMemory(Mutex<HashMap<String, Instant>>);

impl KeyMemory {
    fn is_due(&self, uid: &str, is_waiting: bool, now: Instant) -> bool {
        let tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tried.get(uid) {
            None => true,
            Some(at) => is_waiting && now.duration_since(*at) >= KEY_RETRY,
        }
    }

    /// Notes a try, and forgets the clusters that are gone.
    fn note(&self, uid: &str, now: Instant, is_present: impl Fn(&str) -> bool) {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tried.retain(|known, _| is_present(known));
        tried.insert(uid.to_owned(), now);
    }
}

impl Objects<'_> {
    /// Makes sure that the Secret was created.
    pub(super) async fn ensure_key(&self, is_waiting: bool) -> Result<(), ApplyError> {
        let memory = &self.context.keys;
        if !memory.is_due(&self.cluster.uid, is_waiting, Instant::now()) {
            return Ok(());
        }
        self.apply(&self.key_binding()).await?;
        let secret = self.key_secret()?;
        let started = Instant::now();
        loop {
            match self.create(&secret).await {
                Ok(_) => break,
                Err(error) if code(&error) == Some(409) => break,
                Err(error) if code(&error) == Some(403) && started.elapsed() < BINDING_DELAY => {
                    tokio::time::sleep(BINDING_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        let observers = &self.context.observers;
        memory.note(&self.cluster.uid, Instant::now(), |uid| observers.has(uid));
        Ok(())
    }

    /// Binds the right to create Secrets to the operator, in this namespace.
    fn key_binding(&self) -> RoleBinding {
        let settings = &self.context.settings;
        RoleBinding {
            metadata: build::metadata(self.cluster, format!("{}-heartbeat-key", self.cluster.name)),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".into(),
                kind: "ClusterRole".into(),
                name: settings.key_cluster_role.clone(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: settings.service_account.clone(),
                namespace: Some(settings.lease_namespace.clone()),
                ..Subject::default()
            }]),
        }
    }

    fn key_secret(&self) -> Result<Secret, ApplyError> {
        let mut key = [0_u8; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| ApplyError::Random)?;
        Ok(Secret {
            metadata: build::metadata(self.cluster, names::heartbeat_secret(&self.cluster.name)),
            type_: Some("pbxha.dev/heartbeat-key".into()),
            data: Some([("key".to_owned(), ByteString(key.to_vec()))].into()),
            ..Secret::default()
        })
    }
}

fn code(error: &ApplyError) -> Option<u16> {
    match error {
        ApplyError::Write {
            source: kube::Error::Api(status),
            ..
        } => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_again_only_while_a_pod_waits() {
        let memory = KeyMemory::default();
        let start = Instant::now();
        assert!(memory.is_due("u", false, start));
        memory.note("u", start, |_| true);
        assert!(!memory.is_due("u", false, start + KEY_RETRY * 100));
        assert!(!memory.is_due("u", true, start + KEY_RETRY / 2));
        assert!(memory.is_due("u", true, start + KEY_RETRY));
        memory.note("v", start, |_| false);
        assert!(memory.is_due("u", false, start));
    }
}
