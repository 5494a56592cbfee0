//! A bare host as its administrator would set it up: files, root file system, the two processes under the guard.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use pbx_crds::cluster::TrunkPolicy;
use pbx_crds::names::{HEARTBEAT_PORT, HTTP_PORT};
use pbx_crds::sidecar_config::{
    AsteriskConfig, FenceConfig, HeartbeatConfig, LinkAddress, NetworkConfig, PeerConfig,
    SidecarConfig, VipConfig,
};
use pbx_crds::sidecar_doors::{
    AmiDoor, DoorsConfig, DroongaDoor, HaastDoor, HeartbeatDoor, SysadmDoor,
};

use super::{BareHosts, VIP, VIP6, name_of, write};
use crate::netns::HOST_LINK;
use crate::progress::output_of;
use crate::sipp::CALLEE_PORT;

/// Where an Asterisk without a floating address listens.
const ANY: &str = "0.0.0.0";
/// Of the AMI hub.
const AMI_PORT: u16 = 5038;
const AMI_USERS: &str = "- {name: desk, secret: s3cret, read: all, write: all}\n";
const KEY: [u8; 32] = [0x5a; 32];
/// HAAst's socket in a host's home.
pub(super) const HAAST_SOCKET: &str = "haast.sock";
/// What the doors of each host ask for.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

impl BareHosts {
    pub(super) fn prepare(&self, index: usize) -> Result<()> {
        let home = self.home(index);
        for part in ["root", "upper", "work", "config", "record", "user", "spool"] {
            let path = home.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        mount_root(&home, &self.rootfs)?;
        write(&home.join("user/pjsip.conf"), self.pjsip(index).as_bytes())?;
        write(&home.join("ami-users.yaml"), AMI_USERS.as_bytes())?;
        for (name, text) in &self.settings.files {
            write(&home.join("user").join(name), text.as_bytes())?;
        }
        write(&home.join("key"), &KEY)?;
        write(&home.join("token"), TOKEN.as_bytes())?;
        let settings = serde_yaml::to_string(&self.settings(index, &home))
            .context("write the sidecar's file")?;
        write(&home.join("sidecar.yaml"), settings.as_bytes())?;
        if self.settings.has_vip {
            // An address in the floating one's network, as a host has it.
            let own = format!("{}/64", own_six(index));
            let host = self.host(index);
            output_of(
                host.command("ip")
                    .args(["addr", "add", &own, "dev", HOST_LINK, "nodad"]),
            )?;
        }
        Ok(())
    }

    pub(super) fn start_host(&mut self, index: usize) -> Result<()> {
        let (home, programs) = (self.home(index), self.programs.clone());
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let guard = text(programs.join("pbx-guard"));
        let asterisk = [
            "pbx".to_owned(),
            "--socket".to_owned(),
            text(home.join("guard.sock")),
            "--".to_owned(),
            "chroot".to_owned(),
            text(home.join("root")),
            "asterisk".to_owned(),
            "-f".to_owned(),
            "-C".to_owned(),
            text(home.join("config/current/asterisk.conf")),
        ];
        let sidecar = [
            "sidecar".to_owned(),
            "--".to_owned(),
            text(programs.join("pbx-sidecar")),
            "run".to_owned(),
            "--config".to_owned(),
            text(home.join("sidecar.yaml")),
        ];
        self.spawn(index, &guard, &asterisk, &home.join("asterisk.log"))?;
        self.spawn(index, &guard, &sidecar, &home.join("sidecar.log"))
    }

    fn spawn(&mut self, index: usize, guard: &str, arguments: &[String], log: &Path) -> Result<()> {
        let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone().context("share the log")?;
        let mut command = self.lan.hosts()[index].command(guard);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        self.children[index].push(command.spawn().context("start the guard")?);
        Ok(())
    }

    /// With floating addresses, calls name the host's own ones, so that a drain keeps them.
    fn pjsip(&self, index: usize) -> String {
        let (four, six) = (self.host(index).address, own_six(index));
        let transport = |name: &str, bind: &str| {
            format!("[{name}]\ntype=transport\nprotocol=udp\nbind={bind}:5060\n")
        };
        let external = |own: &str| {
            format!("external_signaling_address={own}\nexternal_media_address={own}\n\n")
        };
        let endpoint =
            "[anonymous]\ntype=endpoint\ncontext=default\nallow=!all,ulaw\ndirect_media=no\n";
        let (transports, chosen) = if self.settings.has_vip {
            let floating = transport("udp", &VIP.to_string()) + &external(&four.to_string());
            let floating = floating + &transport("udp6", &format!("[{VIP6}]")) + &external(&six);
            (
                floating + &transport("own", &four.to_string()),
                "transport=own\n",
            )
        } else {
            (transport("udp", ANY), "")
        };
        let mut text = format!("{transports}\n{endpoint}{chosen}");
        // Whom extension 400 calls: the last client.
        if let Some(callee) = self.lan.hosts().get(self.count()..).and_then(<[_]>::last) {
            let contact = format!("sip:callee@{}:{CALLEE_PORT}", callee.address);
            let callee = endpoint.replace("anonymous", "callee");
            text.extend([
                "\n[callee]\ntype=aor\ncontact=",
                &contact,
                "\n\n",
                &callee,
                "aors=callee\n",
                chosen,
            ]);
        }
        text
    }

    fn network(&self) -> Option<NetworkConfig> {
        let vip = |address: String| VipConfig {
            address,
            interface: HOST_LINK.into(),
        };
        self.settings.has_vip.then(|| NetworkConfig {
            vip: vec![vip(format!("{VIP}/24")), vip(format!("{VIP6}/64"))],
            fence: FenceConfig::default(),
        })
    }

    fn settings(&self, index: usize, home: &Path) -> SidecarConfig {
        let nodes = (0..self.count()).map(|index| self.peer(index));
        let any = Ipv4Addr::UNSPECIFIED;
        SidecarConfig {
            cluster: "office".into(),
            node: Some(name_of(index)),
            nodes: nodes.collect(),
            heartbeat: HeartbeatConfig {
                listen: None,
                key_file: home.join("key"),
            },
            failover: self.settings.failover.clone(),
            health: self.settings.health.clone(),
            drills: self.settings.drills.clone(),
            hooks: self.settings.hooks.clone(),
            paused: false,
            http: SocketAddr::from((any, HTTP_PORT)),
            doors: doors(home),
            asterisk: AsteriskConfig {
                guard_socket: home.join("guard.sock"),
                defaults_dir: self.rootfs.join("etc/asterisk"),
                user_dirs: vec![home.join("user")],
                config_dir: home.join("config"),
                trunks: TrunkPolicy::default(),
                standby: self.settings.standby,
            },
            record_dir: home.join("record"),
            network: self.network(),
            kubernetes: None,
        }
    }

    /// In the short form of one link, or with a name for each.
    fn peer(&self, index: usize) -> PeerConfig {
        let at = |address: Ipv4Addr| SocketAddr::from((address, HEARTBEAT_PORT));
        let first = at(self.lan.hosts()[index].address);
        let link = |name: &str, address| LinkAddress {
            name: name.to_owned(),
            address,
        };
        let second = self.lan.cables().get(index);
        PeerConfig {
            name: name_of(index),
            address: second.is_none().then_some(first),
            addresses: second.map_or_else(Vec::new, |cable| {
                vec![link("wan", at(cable.address)), link("lan", first)]
            }),
        }
    }
}

/// A host's own address in the floating one's network.
fn own_six(index: usize) -> String {
    format!("fd00:65::{}", index + 1)
}

/// All that need nothing but a token.
fn doors(home: &Path) -> DoorsConfig {
    DoorsConfig {
        token_file: Some(home.join("token")),
        haast: Some(HaastDoor {
            socket: Some(home.join(HAAST_SOCKET)),
            listen: None,
        }),
        heartbeat: Some(HeartbeatDoor {
            socket: home.join("heartbeat/register"),
            apiauth: Vec::new(),
        }),
        sysadm: Some(SysadmDoor::default()),
        droonga: Some(DroongaDoor::default()),
        ami: Some(AmiDoor {
            listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, AMI_PORT))),
            users_file: Some(home.join("ami-users.yaml")),
            spool_dir: Some(home.join("spool")),
            ..AmiDoor::default()
        }),
        ..DoorsConfig::default()
    }
}

/// A root file system of the host's own, so that three Asterisks do not share a database; the configuration is at the same path in it.
fn mount_root(home: &Path, rootfs: &Path) -> Result<()> {
    let root = home.join("root");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.display(),
        home.join("upper").display(),
        home.join("work").display()
    );
    let mut overlay = Command::new("mount");
    overlay.args(["-t", "overlay", "overlay", "-o", &layers]);
    output_of(overlay.arg(&root))?;
    let bound = bound_config(&root);
    fs::create_dir_all(&bound).with_context(|| format!("create {}", bound.display()))?;
    for folder in ["run/asterisk", "var/log/asterisk", "var/lib/asterisk/cache"] {
        let path = root.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let mut bind = Command::new("mount");
    bind.arg("--bind").arg(home.join("config")).arg(&bound);
    output_of(&mut bind).map(drop)
}

/// Where the configuration folder beside `root` is found inside it.
pub(super) fn bound_config(root: &Path) -> PathBuf {
    let config = root.with_file_name("config");
    let inside = config.strip_prefix("/").unwrap_or(&config);
    root.join(inside)
}
