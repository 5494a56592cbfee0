//! The cluster's objects in Kubernetes as a sidecar uses them: the witness [`lease`], the EndpointSlice ([`slice`]),
//! the peers' [`pods`], and the resource's status as a source of history ([`resource`]).
//!
//! Every call has a deadline; every call says in its error what it was about.

pub mod lease;
pub mod pods;
pub mod resource;
pub mod slice;

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use thiserror::Error;

/// Why something with the API server failed.
#[derive(Debug, Error)]
pub enum KubeError {
    /// The kubeconfig or the pod's ServiceAccount could not be used.
    #[error("cannot configure the Kubernetes client: {0}")]
    Configure(String),
    /// A call failed.
    #[error("failed to {action} {object}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("no answer in {deadline:?} to {action} {object}")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// How long it had.
        deadline: Duration,
    },
}

impl KubeError {
    /// Whether the API server answered at all: then it is reachable, whatever it said.
    pub fn is_answered(&self) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(**source, kube::Error::Api(_)))
    }

    /// The HTTP status of the answer, if it was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A client, from a kubeconfig or from the pod's ServiceAccount.
pub async fn connect(kubeconfig: Option<&PathBuf>) -> Result<Client, KubeError> {
    let configure = |error: &dyn std::fmt::Display| KubeError::Configure(error.to_string());
    let config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(|error| configure(&error))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| configure(&error))?
        }
        None => kube::Config::incluster().map_err(|error| configure(&error))?,
    };
    Client::try_from(config).map_err(|error| configure(&error))
}

/// Awaits `call` for at most `deadline`.
pub(crate) async fn within<T>(
    action: &'static str,
    object: &str,
    deadline: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(KubeError::Call {
            action,
            object: object.to_owned(),
            source: Box::new(source),
        }),
        Err(_) => Err(KubeError::Deadline {
            action,
            object: object.to_owned(),
            deadline,
        }),
    }
}

/// A Kubernetes UID as a number; the core compares them only.
pub fn parse_uid(uid: &str) -> Option<u128> {
    let digits: String = uid.chars().filter(|c| *c != '-').collect();
    (digits.len() == 32)
        .then(|| u128::from_str_radix(&digits, 16).ok())
        .flatten()
}

/// The UID as Kubernetes writes it.
pub fn format_uid(uid: u128) -> String {
    let digits = format!("{uid:032x}");
    [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_written_as_it_was_read() {
        let uid = "0b9f3c1e-7d2a-4c55-9e01-ffd2c3a4b5c6";
        assert_eq!(format_uid(parse_uid(uid).unwrap()), uid);
        assert_eq!(parse_uid("office-0"), None);
    }
}
