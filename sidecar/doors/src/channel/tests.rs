//! Streams between two nodes over loopback.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::message::{read_message, write_message};
use super::{Channel, ChannelKey, Incoming, Listeners, Routes, Service};

struct Node {
    address: std::net::SocketAddr,
    incoming: mpsc::Receiver<Incoming>,
    refused: Arc<Mutex<Vec<&'static str>>>,
}

/// Listens as seat 1.
async fn node() -> Node {
    let mut routes = Routes::default();
    let incoming = routes.take(Service::Ami);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let noted = refused.clone();
    let note = move |reason| noted.lock().unwrap().push(reason);
    let listeners = Listeners::new(ChannelKey::new([7; 32]), 1, routes, note);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { listeners.serve(listener).await });
    Node {
        address,
        incoming,
        refused,
    }
}

fn channel(node: &Node, key: u8) -> Channel {
    let (_, addresses) = watch::channel(vec![vec![], vec![node.address]]);
    Channel::new(ChannelKey::new([key; 32]), 0, addresses)
}

#[tokio::test]
async fn bytes_arrive_in_order_in_both_directions() {
    let mut node = node().await;
    let mut here = channel(&node, 7).open(1, Service::Ami).await.unwrap();
    let Incoming {
        seat,
        stream: mut there,
    } = node.incoming.recv().await.unwrap();
    assert_eq!(seat, 0);
    let sent: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    let expected = sent.clone();
    let echo = tokio::spawn(async move {
        let mut found = Vec::new();
        there.read_to_end(&mut found).await.unwrap();
        there.write_all(&found).await.unwrap();
        there.shutdown().await.unwrap();
    });
    here.write_all(&sent).await.unwrap();
    here.shutdown().await.unwrap();
    let mut back = Vec::new();
    here.read_to_end(&mut back).await.unwrap();
    assert!(back == expected);
    echo.await.unwrap();
}

#[tokio::test]
async fn messages_keep_their_borders_and_their_bound() {
    let mut node = node().await;
    let mut here = channel(&node, 7).open(1, Service::Ami).await.unwrap();
    let mut there = node.incoming.recv().await.unwrap().stream;
    write_message(&mut here, b"one").await.unwrap();
    write_message(&mut here, b"").await.unwrap();
    write_message(&mut here, &[1; 100]).await.unwrap();
    assert_eq!(read_message(&mut there, 99).await.unwrap().unwrap(), b"one");
    assert_eq!(read_message(&mut there, 99).await.unwrap().unwrap(), b"");
    let error = read_message(&mut there, 99).await.unwrap_err();
    assert_eq!(error.reason(), "TooLong");
}

#[tokio::test]
async fn a_cut_connection_is_no_orderly_end() {
    let mut node = node().await;
    let here = channel(&node, 7).open(1, Service::Ami).await.unwrap();
    let mut there = node.incoming.recv().await.unwrap().stream;
    drop(here);
    let mut found = Vec::new();
    assert!(there.read_to_end(&mut found).await.is_err());
}

#[tokio::test]
async fn strangers_are_refused_and_keep_nobody_out() {
    let mut node = node().await;
    assert!(channel(&node, 8).open(1, Service::Ami).await.is_err());
    assert!(channel(&node, 7).open(1, Service::Heartbeat).await.is_ok());
    // A crowd that says nothing.
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(node.address).await.unwrap());
    }
    let open = channel(&node, 7);
    let opened = tokio::time::timeout(Duration::from_millis(900), open.open(1, Service::Ami));
    assert!(opened.await.unwrap().is_ok());
    assert!(node.incoming.recv().await.is_some());
    let refused = node.refused.lock().unwrap().clone();
    for reason in ["NotAuthentic", "UnknownService", "GaveWay"] {
        assert!(refused.contains(&reason), "{reason} is not in {refused:?}");
    }
}
