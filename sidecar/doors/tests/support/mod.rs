//! Two nodes' doors in this process, joined by a pipe.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod runtime;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pbx_doors::heartbeat::peers::{PeerChannel, border};
use pbx_doors::heartbeat::{FromPeer, Settings, bind, serve};
use pbx_doors::{OnDropped, View, fixtures};
use pbx_tests::linux_ha::{self, Client, answer_of, compiled, with_socket};
use tokio::sync::watch;

use runtime::on_a_thread;

/// Two nodes, office-0 and office-1, each with its door.
pub struct Nodes {
    folder: tempfile::TempDir,
    views: [watch::Sender<Arc<View>>; 2],
    /// Clients that the doors have dropped.
    pub dropped: Arc<AtomicUsize>,
}

impl Nodes {
    /// Both alive, office-0 the active.
    pub fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// The same with rules of who may.
    pub fn start_with(settings: Settings) -> Self {
        linux_ha::ensure().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let views = [0, 1].map(|own| watch::Sender::new(Arc::new(view_of(own))));
        let dropped = Arc::new(AtomicUsize::new(0));
        let counter = dropped.clone();
        let on_dropped = OnDropped::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (peers_0, channel_0) = border();
        let (peers_1, channel_1) = border();
        let peers = [peers_0, peers_1].into_iter().enumerate();
        let doors = peers.map(|(own, peers)| {
            let path = folder.path().join(own.to_string()).join("register");
            (path, views[own].subscribe(), peers, on_dropped.clone())
        });
        let doors: Vec<_> = doors.collect();
        on_a_thread(async move {
            for (path, view, peers, on_dropped) in doors {
                let listener = bind(&path).unwrap();
                tokio::spawn(serve(listener, settings.clone(), view, peers, on_dropped));
            }
            tokio::spawn(join(channel_0, channel_1));
        });
        Self {
            folder,
            views,
            dropped,
        }
    }

    /// Changes what both nodes know.
    pub fn change(&self, change: impl Fn(&mut View)) {
        for node in 0..2 {
            self.change_on(node, &change);
        }
    }

    /// Changes what one node knows.
    pub fn change_on(&self, node: usize, change: impl Fn(&mut View)) {
        self.views[node].send_modify(|view| change(Arc::make_mut(view)));
    }

    /// The socket of a node.
    pub fn socket(&self, node: usize) -> PathBuf {
        self.folder.path().join(node.to_string()).join("register")
    }

    /// A command for which the node's socket is where the library looks.
    pub fn command(&self, node: usize, client: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let folder = self.folder.path().join(node.to_string());
        with_socket(&mut command, &folder, client);
        command
    }

    /// Runs `cl_status` to its end.
    pub fn cl_status(&self, node: usize, arguments: &[&str]) -> (i32, String) {
        let client = [&["cl_status"], arguments].concat();
        answer_of(&mut self.command(node, &client)).unwrap()
    }

    /// Starts our client; waits until it is ready, or refused.
    pub fn client(&self, node: usize, name: &str) -> Client {
        let program = compiled().unwrap();
        let client = [program.to_str().unwrap(), name];
        Client::start(&mut self.command(node, &client)).unwrap()
    }

    /// The same as another user, of this group.
    pub fn client_of(&self, node: usize, name: &str, (uid, gid): (u32, u32)) -> Client {
        // The cache is not for other users. What runs cannot be written again.
        let program = self.folder.path().join("heartbeat_client");
        if !program.exists() {
            std::fs::copy(compiled().unwrap(), &program).unwrap();
            let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(self.folder.path(), everyone).unwrap();
        }
        let (uid, gid) = (uid.to_string(), gid.to_string());
        let program = program.to_str().unwrap();
        let client = [
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &gid,
            "--clear-groups",
            program,
            name,
        ];
        Client::start(&mut self.command(node, &client)).unwrap()
    }
}

fn view_of(own: usize) -> View {
    let mut view = fixtures::two_nodes();
    view.own = own;
    view
}

async fn join(mut zero: PeerChannel, mut one: PeerChannel) {
    loop {
        tokio::select! {
            Some(message) = zero.outgoing.recv() => {
                let message = FromPeer { from: "office-0".into(), body: message.body };
                one.incoming.send(message).await.unwrap();
            }
            Some(message) = one.outgoing.recv() => {
                let message = FromPeer { from: "office-1".into(), body: message.body };
                zero.incoming.send(message).await.unwrap();
            }
            else => return,
        }
    }
}
