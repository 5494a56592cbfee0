//! The AMI hub as a door: clients of this node reach the manager of whichever Asterisk serves, this node's or a peer's.
//!
//! Each node's manager has a secret of its own. A peer's stream begins with it, authenticated and sealed as everything between the
//! nodes; what follows are the bytes of that node's manager.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use axum::Router;
use pbx_ami::config::{AmiConfig, SpoolConfig, TlsConfig, UserConfig, read_secret, users_of};
use pbx_ami::hub::Account;
use pbx_ami::queue::Queue;
use pbx_ami::shell::{self, Connection, Connector, Stream};
use pbx_ami::user::{Secret, Users};
use pbx_crds::sidecar_doors::AmiDoor;
use pbx_doors::channel::message::{read_message, write_message};
use pbx_doors::channel::{Channel, Incoming, Routes, Service};
use pbx_doors::{Doorway, View};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::Inputs;
use crate::alarm::rest;
use crate::asterisk::config::{AMI_PORT, AMI_USER, ami_secret};

/// What is kept of the queue beside the record: it outlives the sidecar, and the node does not outlive it.
const QUEUE_FILE: &str = "ami-queue.redb";
/// A secret has 64 bytes.
const MAX_SECRET_BYTES: usize = 256;
/// Changed users are noticed within this: kubelet takes up to a minute to write them.
const REREAD: Duration = Duration::from_secs(10);
/// To connect to this node's own manager.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens it, if the file has it; gives what it serves over HTTP.
pub fn open(inputs: &Inputs, doorway: &Doorway, routes: &mut Routes) -> Option<Router> {
    let file = &inputs.checked.file;
    let local = Local {
        config_dir: file.asterisk.config_dir.clone(),
    };
    // Also where this node has no such door: a peer's clients may need its Asterisk.
    tokio::spawn(serve_peers(routes.take(Service::Ami), local.clone()));
    let door = file.doors.ami.as_ref()?;
    let (way, route) = watch::channel(None);
    let ways = Ways {
        local: Arc::new(local),
        channel: doorway.channel.clone(),
    };
    tokio::spawn(follow(doorway.view.clone(), ways, way));
    let opened = start(door, inputs, route);
    opened
        .inspect_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "the AMI hub cannot be opened: the node works, and clients of AMI do not reach it"
            );
        })
        .ok()
}

fn start(door: &AmiDoor, inputs: &Inputs, route: shell::Route) -> anyhow::Result<Router> {
    let file = &inputs.checked.file;
    let users_file = door
        .users_file
        .as_deref()
        .context("doors.ami.usersFile: missing: name a file that lists the users")?;
    let tls = file.doors.tls.as_ref().zip(door.tls_listen);
    let config = AmiConfig {
        listen: door.listen.into_iter().collect(),
        tls: tls.map(|(files, address)| TlsConfig {
            listen: vec![address],
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        }),
        socket: door.socket.clone(),
        users: users(users_file)?,
        queue_file: Some(file.record_dir.join(QUEUE_FILE)),
        spool: door
            .spool_dir
            .clone()
            .map(|dir| SpoolConfig { dir, user: None }),
    };
    let settings = config.check("doors.ami.");
    let settings = settings.map_err(|problems| anyhow!(problems.join("; ")))?;
    let hub = shell::start(&settings, route)?;
    inputs.metrics.ami_hub.set(hub.counters.clone());
    let queue = Queue::start(&file.record_dir.join(QUEUE_FILE), hub)?;
    if let Some((folder, write)) = settings.spool {
        pbx_ami::spool::start(folder, write, queue.clone())?;
    }
    tokio::spawn(follow_users(
        users_file.into(),
        config.users,
        settings.users.clone(),
    ));
    Ok(pbx_ami::http::router(queue, settings.users))
}

/// The list in the file, with the secrets that it names as far as they can be read: whoever checks it says what is wrong.
fn users(path: &Path) -> anyhow::Result<Vec<UserConfig>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("doors.ami.usersFile: cannot read {}", path.display()))?;
    let listed: Vec<UserConfig> = serde_yaml::from_str(&text)
        .with_context(|| format!("{}: write a list of users", path.display()))?;
    Ok(listed.into_iter().map(with_secret).collect())
}

fn with_secret(user: UserConfig) -> UserConfig {
    let read = match (&user.secret, &user.secret_file) {
        (None, Some(path)) => read_secret(path).ok(),
        _ => None,
    };
    let Some(secret) = read else { return user };
    UserConfig {
        secret: Some(secret),
        secret_file: None,
        ..user
    }
}

/// Reads the users again when their file, or a secret that it names, has changed. One that cannot be used changes nothing.
async fn follow_users(path: PathBuf, mut known: Vec<UserConfig>, users: Users) {
    loop {
        rest(REREAD).await;
        match reread(&path, &mut known, &users) {
            Ok(true) => tracing::info!("the AMI hub's users were read again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the AMI hub's new users cannot be used: those before stay"
            ),
        }
    }
}

/// Whether there were new ones.
fn reread(path: &Path, known: &mut Vec<UserConfig>, users: &Users) -> anyhow::Result<bool> {
    let found = self::users(path)?;
    if found == *known {
        return Ok(false);
    }
    let mut problems = Vec::new();
    let checked = users_of(&found, &mut problems);
    ensure!(problems.is_empty(), problems.join("; "));
    users.replace(checked);
    *known = found;
    Ok(true)
}

/// The ways there are.
struct Ways {
    local: Arc<Local>,
    channel: Channel,
}

/// Points the hub at whoever serves, whenever that changes.
async fn follow(
    mut view: watch::Receiver<Arc<View>>,
    ways: Ways,
    way: watch::Sender<Option<Arc<dyn Connector>>>,
) {
    let mut known = None;
    loop {
        let (active, own) = {
            let view = view.borrow_and_update();
            (view.active, view.own)
        };
        if active != known {
            known = active;
            way.send_replace(active.map(|seat| -> Arc<dyn Connector> {
                if seat == own {
                    return ways.local.clone();
                }
                Arc::new(Remote {
                    channel: ways.channel.clone(),
                    seat,
                })
            }));
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// This node's manager.
#[derive(Clone)]
struct Local {
    config_dir: PathBuf,
}

impl Local {
    async fn connect(&self) -> io::Result<(TcpStream, Account)> {
        let secret = ami_secret(&self.config_dir).map_err(io::Error::other)?;
        let account = Account {
            user: AMI_USER.to_owned(),
            secret: Secret::new(secret),
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, AMI_PORT));
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = connect.await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok((stream, account))
    }
}

impl Connector for Local {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + '_>> {
        Box::pin(async {
            let (stream, account) = self.connect().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, account))
        })
    }
}

/// A peer's manager.
struct Remote {
    channel: Channel,
    seat: usize,
}

impl Connector for Remote {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + '_>> {
        Box::pin(async {
            let mut stream = self.channel.open(self.seat, Service::Ami).await?;
            let secret = read_message(&mut stream, MAX_SECRET_BYTES).await?;
            let secret = secret.ok_or(io::ErrorKind::UnexpectedEof)?;
            let secret = String::from_utf8(secret).map_err(io::Error::other)?;
            let account = Account {
                user: AMI_USER.to_owned(),
                secret: Secret::new(secret),
            };
            Ok((Box::new(stream) as Box<dyn Stream>, account))
        })
    }
}

/// Joins the streams of peers to this node's manager. A peer has one, and a new one ends the one before.
async fn serve_peers(mut incoming: mpsc::Receiver<Incoming>, local: Local) {
    let mut tasks: Vec<Option<tokio::task::AbortHandle>> = vec![None; pbx_core::MAX_NODES];
    while let Some(incoming) = incoming.recv().await {
        let Some(task) = tasks.get_mut(incoming.seat) else {
            continue;
        };
        let local = local.clone();
        let joined = tokio::spawn(async move {
            let seat = incoming.seat;
            if let Err(error) = join(incoming, &local).await {
                tracing::debug!(seat, %error, "a peer's way to this node's manager ended");
            }
        });
        if let Some(before) = task.replace(joined.abort_handle()) {
            before.abort();
        }
    }
}

async fn join(incoming: Incoming, local: &Local) -> io::Result<()> {
    let mut peer = incoming.stream;
    let (mut manager, account) = local.connect().await?;
    write_message(&mut peer, account.secret.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut peer, &mut manager)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use pbx_ami::user::Proof;

    use super::*;

    #[test]
    fn changed_users_are_read_again_and_broken_ones_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, secret) = (folder.path().join("users.yaml"), folder.path().join("desk"));
        let list = format!(
            "- {{name: desk, secretFile: {}, read: all}}",
            secret.display()
        );
        std::fs::write(&secret, "first\n").unwrap();
        std::fs::write(&path, &list).unwrap();
        let mut known = users(&path).unwrap();
        let live = Users::new(users_of(&known, &mut Vec::new()));
        let lets_in = |name, secret: &str| {
            let proof = Proof::Secret(secret.as_bytes());
            live.authenticate(name, proof, None).is_some()
        };
        assert!(!reread(&path, &mut known, &live).unwrap() && lets_in("desk", "first"));
        std::fs::write(&secret, "second\n").unwrap();
        assert!(reread(&path, &mut known, &live).unwrap());
        assert!(lets_in("desk", "second") && !lets_in("desk", "first"));
        std::fs::write(&path, format!("{list}\n- {{name: desk, secret: ''}}")).unwrap();
        let problem = reread(&path, &mut known, &live).unwrap_err().to_string();
        assert!(
            problem.contains("users[1].name: desk stands there twice"),
            "{problem}"
        );
        std::fs::write(&path, "- {name: a, secretFile: /none}\n- {name: b}").unwrap();
        let problems = reread(&path, &mut known, &live).unwrap_err().to_string();
        let both = ["users[0].secretFile: /none", "users[1].secret: give either"];
        assert!(
            both.iter().all(|problem| problems.contains(problem)),
            "{problems}"
        );
        assert!(lets_in("desk", "second"));
        std::fs::write(&path, format!("{list}\n- {{name: new, secret: x}}")).unwrap();
        assert!(reread(&path, &mut known, &live).unwrap() && lets_in("new", "x"));
    }
}
