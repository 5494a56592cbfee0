//! Heartbeat's door: the section of the file, and what its clients say to those on other nodes, over the streams between sidecars.

use std::time::Duration;

use pbx_crds::sidecar_doors::HeartbeatDoor;
use pbx_doors::OnDropped;
use pbx_doors::channel::message::{read_message, write_message};
use pbx_doors::channel::{Channel, ChannelError, Incoming, PeerStream, Service};
use pbx_doors::heartbeat::frame::MAX_BODY_BYTES;
use pbx_doors::heartbeat::peers::PeerChannel;
use pbx_doors::heartbeat::{ApiAuth, FromPeer, Rule, Settings, ToPeers};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// What the sidecars add to a client's message.
const ADDED_BYTES: usize = 1024;
/// Messages that wait for one peer; more are lost.
const WAITING: usize = 256;
/// A peer that takes nothing for so long is dialled anew.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach a peer: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);

/// The section of the file as the door is told it.
pub fn settings(door: &HeartbeatDoor, udp_port: u16) -> Settings {
    let rules = door.apiauth.iter().map(|rule| Rule {
        client: rule.name.clone(),
        uids: rule.uids.clone(),
        gids: rule.gids.clone(),
    });
    let auth = ApiAuth {
        rules: rules.collect(),
        own_uid: rustix::process::geteuid().as_raw(),
    };
    Settings { auth, udp_port }
}

/// Carries messages between this node's clients and those of the nodes named, in the order of their seats.
pub async fn carry(
    channel: Channel,
    own: usize,
    names: Vec<String>,
    border: PeerChannel,
    streams: mpsc::Receiver<Incoming>,
    on_dropped: OnDropped,
) {
    let peers = names.iter().enumerate().map(|(seat, name)| {
        let (queue, waiting) = mpsc::channel(WAITING);
        if seat != own {
            tokio::spawn(tell(channel.clone(), seat, waiting));
        }
        (name.clone(), queue)
    });
    let peers: Vec<_> = peers.collect();
    tokio::spawn(hear(streams, names, border.incoming));
    let mut outgoing = border.outgoing;
    while let Some(ToPeers { to, body }) = outgoing.recv().await {
        let others = peers.iter().enumerate().filter(|(seat, _)| *seat != own);
        let meant = others.filter(|(_, (name, _))| to.as_ref().is_none_or(|to| to == name));
        for (_, (_, queue)) in meant {
            if queue.try_send(body.clone()).is_err() {
                on_dropped.tell("HeartbeatMessageLost");
            }
        }
    }
}

/// Tells the node in `seat` what waits for it, over one stream after the other.
async fn tell(channel: Channel, seat: usize, mut waiting: mpsc::Receiver<Vec<u8>>) {
    let mut pause = RETRY_FIRST;
    while !waiting.is_closed() {
        match channel.open(seat, Service::Heartbeat).await {
            Ok(stream) => {
                pause = RETRY_FIRST;
                if let Err(error) = tell_over(stream, &mut waiting).await {
                    tracing::debug!(seat, reason = error.reason(), "a stream to a peer ended");
                }
            }
            Err(error) => tracing::debug!(seat, reason = error.reason(), "a peer is not reached"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

async fn tell_over(
    mut stream: PeerStream,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
) -> Result<(), ChannelError> {
    let mut nothing = [0; 1];
    loop {
        let body = tokio::select! {
            body = waiting.recv() => body,
            // The peer says nothing here: only the end of the connection can come.
            _ = stream.read(&mut nothing) => return Ok(()),
        };
        let Some(body) = body else { return Ok(()) };
        let written = timeout(WRITE_TIMEOUT, write_message(&mut stream, &body));
        written
            .await
            .unwrap_or(Err(ChannelError::Deadline(WRITE_TIMEOUT)))?;
    }
}

/// Takes the streams of peers; a peer has one, and a new one ends the one before.
async fn hear(
    mut streams: mpsc::Receiver<Incoming>,
    names: Vec<String>,
    heard: mpsc::Sender<FromPeer>,
) {
    let mut tasks: Vec<Option<tokio::task::AbortHandle>> = vec![None; names.len()];
    while let Some(Incoming { seat, stream }) = streams.recv().await {
        let (Some(task), Some(name)) = (tasks.get_mut(seat), names.get(seat)) else {
            continue;
        };
        let listening = tokio::spawn(hear_one(name.clone(), stream, heard.clone()));
        if let Some(before) = task.replace(listening.abort_handle()) {
            before.abort();
        }
    }
}

async fn hear_one(from: String, mut stream: PeerStream, heard: mpsc::Sender<FromPeer>) {
    const LONGEST: usize = MAX_BODY_BYTES + ADDED_BYTES;
    while let Ok(Some(body)) = read_message(&mut stream, LONGEST).await {
        let from = from.clone();
        if heard.send(FromPeer { from, body }).await.is_err() {
            return;
        }
    }
}
