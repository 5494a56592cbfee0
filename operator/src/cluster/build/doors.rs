//! The doors: `spec.doors` as the sidecars' file has it, the ports that they open, and the Secrets that they read.

use std::net::SocketAddr;

use pbx_crds::doors::DoorsSpec;
use pbx_crds::sidecar_doors::{
    AmiDoor, DoorsConfig, DroongaDoor, HaastDoor, HeartbeatDoor, HttpDoor, SysadmDoor, TlsFiles,
};

const TOKEN_DIR: &str = "/etc/pbx-ha/doors/token";
const TLS_DIR: &str = "/etc/pbx-ha/doors/tls";
const AMI_DIR: &str = "/etc/pbx-ha/doors/ami";

/// A Secret of the doors, mounted in the sidecar only.
pub struct DoorSecret<'a> {
    /// Name of the volume.
    pub volume: &'static str,
    /// Name of the Secret.
    pub name: &'a String,
    /// Where it is mounted.
    pub dir: &'static str,
}

/// The Secrets that `doors` need.
pub fn secrets(doors: &DoorsSpec) -> impl Iterator<Item = DoorSecret<'_>> {
    let ami = doors.ami.users_secret.as_ref();
    let all = [
        ("doors-token", doors.token_secret.as_ref(), TOKEN_DIR),
        ("doors-tls", doors.tls_secret.as_ref(), TLS_DIR),
        ("doors-ami", ami.filter(|_| doors.ami.enabled), AMI_DIR),
    ];
    all.into_iter().filter_map(|(volume, name, dir)| {
        let name = name?;
        Some(DoorSecret { volume, name, dir })
    })
}

/// The TCP ports that `doors` open beside HTTP's, by name.
pub fn ports(doors: &DoorsSpec) -> impl Iterator<Item = (&'static str, u16)> {
    let (ami, droonga) = (&doors.ami, &doors.droonga);
    let all = [
        ("https", doors.http.tls_port),
        ("haast", doors.haast.port),
        ("droonga", droonga.enabled.then_some(droonga.port)),
        ("ami", ami.enabled.then_some(ami.port)),
        ("ami-tls", ami.tls_port.filter(|_| ami.enabled)),
    ];
    all.into_iter()
        .filter_map(|(name, port)| port.map(|port| (name, port)))
}

/// The section of the sidecars' file.
pub fn config(doors: &DoorsSpec) -> DoorsConfig {
    let (haast, droonga, ami) = (&doors.haast, &doors.droonga, &doors.ami);
    DoorsConfig {
        token_file: doors
            .token_secret
            .as_ref()
            .map(|_| format!("{TOKEN_DIR}/token").into()),
        tls: doors.tls_secret.as_ref().map(|_| TlsFiles {
            certificate: format!("{TLS_DIR}/tls.crt").into(),
            key: format!("{TLS_DIR}/tls.key").into(),
        }),
        http: HttpDoor {
            tls_listen: doors.http.tls_port.map(anywhere),
        },
        haast: (haast.enabled || haast.port.is_some()).then(|| HaastDoor {
            socket: haast.enabled.then(|| "/run/pbx-ha/haast.sock".into()),
            listen: haast.port.map(anywhere),
        }),
        heartbeat: doors.heartbeat.enabled.then(|| HeartbeatDoor {
            socket: "/run/pbx-ha/heartbeat/register".into(),
            apiauth: Vec::new(),
        }),
        sysadm: doors.sysadm.enabled.then(SysadmDoor::default),
        droonga: droonga.enabled.then(|| DroongaDoor {
            listen: anywhere(droonga.port),
            tag: droonga.tag.clone(),
        }),
        ami: ami.enabled.then(|| AmiDoor {
            listen: Some(anywhere(ami.port)),
            tls_listen: ami.tls_port.map(anywhere),
            socket: Some("/run/pbx-ha/ami.sock".into()),
            spool_dir: None,
            users_file: Some(format!("{AMI_DIR}/users.yaml").into()),
        }),
    }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}
