//! Step 1: reads what the spec refers to. Decides nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::{Client, ResourceExt};
use pbx_crds::PbxCluster;
use sha2::{Digest, Sha256};

/// The cluster, and what it refers to.
#[derive(Debug)]
pub struct Dereferenced<'a> {
    /// The resource.
    pub cluster: &'a PbxCluster,
    /// What stands in the user's ConfigMap.
    pub config: ConfigFound,
}

/// The user's ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFound {
    /// The spec names none.
    NotAsked,
    /// There is none of that name.
    Missing,
    /// Hash of its entries.
    Hash(String),
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DereferenceError {
    /// The user's ConfigMap.
    #[error("cannot read ConfigMap {namespace}/{name}")]
    GetConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API said.
        source: kube::Error,
    },
}

impl DereferenceError {
    /// A stable reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::GetConfigMap { .. } => "ConfigMapUnreadable",
        }
    }
}

/// Reads the user's ConfigMap. Secrets are not read: the operator has no right to.
pub async fn dereference<'a>(
    client: &Client,
    cluster: &'a PbxCluster,
) -> Result<Dereferenced<'a>, DereferenceError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let config = match &cluster.spec.asterisk.config.config_map {
        None => ConfigFound::NotAsked,
        Some(name) => read_config_map(client, &namespace, name).await?,
    };
    Ok(Dereferenced { cluster, config })
}

async fn read_config_map(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<ConfigFound, DereferenceError> {
    let found = Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(|source| DereferenceError::GetConfigMap {
            namespace: namespace.into(),
            name: name.into(),
            source,
        })?;
    Ok(found.map_or(ConfigFound::Missing, |map| {
        ConfigFound::Hash(content_hash(&map))
    }))
}

/// Of names and contents, in order; lengths are hashed too, so that no two contents run together.
fn content_hash(map: &ConfigMap) -> String {
    let texts = map.data.iter().flatten();
    let binaries = map.binary_data.iter().flatten();
    let entries: BTreeMap<&str, &[u8]> = texts
        .map(|(name, text)| (name.as_str(), text.as_bytes()))
        .chain(binaries.map(|(name, bytes)| (name.as_str(), bytes.0.as_slice())))
        .collect();
    let mut hasher = Sha256::new();
    for (name, content) in entries {
        for part in [name.as_bytes(), content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    short_hex(&hasher.finalize())
}

/// The first 16 bytes: enough against chance, short enough to read.
pub fn short_hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        let data = entries
            .iter()
            .map(|(name, text)| ((*name).into(), (*text).into()))
            .collect();
        ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn the_hash_follows_names_and_contents() {
        let hash = content_hash(&map(&[("a", "1"), ("b", "2")]));
        assert_eq!(hash, content_hash(&map(&[("b", "2"), ("a", "1")])));
        for other in [
            map(&[("a", "1"), ("b", "3")]),
            map(&[("a", "1"), ("c", "2")]),
            map(&[("a", "1b"), ("", "2")]),
        ] {
            assert_ne!(hash, content_hash(&other));
        }
    }
}
