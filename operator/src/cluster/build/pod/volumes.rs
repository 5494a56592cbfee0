//! Volumes and where they are mounted. Token, heartbeat key and the user's files reach the sidecar alone.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pbx_crds::names;

use super::ValidatedCluster;
use crate::cluster::build::{config_map, doors};

/// The sidecar's file.
pub const SIDECAR_FILE: &str = "/etc/pbx-ha/sidecar.yaml";
/// Where the seeding container sees what is later /var/lib/asterisk.
pub const SEED_DIR: &str = "/seed/lib";
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const LIB_VOLUME: &str = "asterisk-lib";

/// Everything that is mounted somewhere.
pub fn all(cluster: &ValidatedCluster) -> Vec<Volume> {
    let mut volumes = vec![
        empty_dir("bin"),
        in_memory("run", "16Mi"),
        in_memory("run-asterisk", "1Mi"),
        empty_dir(LIB_VOLUME),
        empty_dir("asterisk-log"),
        empty_dir("asterisk-spool"),
        empty_dir("tmp"),
        sidecar_file(cluster),
        secret("heartbeat-key", names::heartbeat_secret(&cluster.name)),
        token(),
    ];
    volumes.extend(cluster.config_map.as_deref().map(user_config_map));
    let secrets = cluster.config_secrets.iter().enumerate();
    volumes.extend(secrets.map(|(index, name)| secret(&secret_volume(index), name.clone())));
    let doors = doors::secrets(&cluster.doors);
    volumes.extend(doors.map(|door| secret(door.volume, door.name.clone())));
    volumes
}

/// The guard's folder.
pub fn bin(is_read_only: bool) -> VolumeMount {
    if is_read_only {
        read_only("bin", "/pbx-ha/bin")
    } else {
        mount("bin", "/pbx-ha/bin")
    }
}

/// For the seeding container.
pub fn seed_mounts() -> Vec<VolumeMount> {
    vec![
        bin(true),
        mount("run", "/run/pbx-ha"),
        mount(LIB_VOLUME, SEED_DIR),
    ]
}

/// For Asterisk.
pub fn asterisk_mounts() -> Vec<VolumeMount> {
    vec![
        bin(true),
        mount("run", "/run/pbx-ha"),
        mount("run-asterisk", "/run/asterisk"),
        mount(LIB_VOLUME, "/var/lib/asterisk"),
        mount("asterisk-log", "/var/log/asterisk"),
        mount("asterisk-spool", "/var/spool/asterisk"),
        mount("tmp", "/tmp"),
    ]
}

/// For the sidecar. Its file is a subPath mount: a running pod keeps what it started with, and a new file rolls the pods.
pub fn sidecar_mounts(cluster: &ValidatedCluster) -> Vec<VolumeMount> {
    let mut mounts = vec![
        bin(false),
        mount("run", "/run/pbx-ha"),
        VolumeMount {
            sub_path: Some(config_map::FILE.into()),
            ..read_only("sidecar-config", SIDECAR_FILE)
        },
        read_only("heartbeat-key", config_map::KEY_DIR),
        read_only("token", TOKEN_DIR),
    ];
    if cluster.config_map.is_some() {
        mounts.push(read_only("user-config", &config_map::config_map_dir()));
    }
    for index in 0..cluster.config_secrets.len() {
        mounts.push(read_only(
            &secret_volume(index),
            &config_map::secret_dir(index),
        ));
    }
    // Whole folders: the files in them change with the Secret.
    let doors = doors::secrets(&cluster.doors);
    mounts.extend(doors.map(|door| read_only(door.volume, door.dir)));
    mounts
}

fn secret_volume(index: usize) -> String {
    format!("user-secret-{index}")
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(name, path)
    }
}

fn empty_dir(name: &str) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// In memory: the record must be gone after a power loss, and no disk may delay a vote.
fn in_memory(name: &str, size: &str) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity(size.into())),
        }),
        ..Volume::default()
    }
}

fn sidecar_file(cluster: &ValidatedCluster) -> Volume {
    config_map_volume("sidecar-config", &names::sidecar_config_map(&cluster.name))
}

fn user_config_map(name: &str) -> Volume {
    config_map_volume("user-config", name)
}

fn config_map_volume(volume: &str, name: &str) -> Volume {
    Volume {
        name: volume.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.into(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn secret(volume: &str, name: String) -> Volume {
    Volume {
        name: volume.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What kubelet would mount into every container, here for the sidecar alone.
fn token() -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".into(),
            expiration_seconds: Some(3607),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".into(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".into(),
                path: "ca.crt".into(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".into(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.namespace".into(),
                    api_version: Some("v1".into()),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "token".into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![token, authority, namespace]),
            default_mode: None,
        }),
        ..Volume::default()
    }
}
