//! The client against a socket that says what Asterisk says; the real Asterisk is in the
//! integration tests.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";
const BOOTED: &str = "Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n";
const DEADLINE: Duration = Duration::from_millis(300);

/// The other end of the wire.
struct Peer(TcpStream);

impl Peer {
    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next action, and its identifier.
    async fn hear(&mut self) -> (String, String) {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            text.push(char::from(self.0.read_u8().await.unwrap()));
        }
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("ActionID: "))
            .unwrap()
            .to_owned();
        (text, id)
    }

    async fn accept(&mut self, more: &str) {
        self.say(BANNER).await;
        let (login, id) = self.hear().await;
        assert!(login.starts_with("Action: Login\r\n") && login.contains("Secret: s\r\n"));
        self.say(&format!(
            "Response: Success\r\nActionID: {id}\r\n\r\n{more}"
        ))
        .await;
    }
}

async fn connect(more: &str) -> (Ami, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let mut peer = Peer(listener.accept().await.unwrap().0);
        peer.accept(more).await;
        peer
    };
    let (ami, peer) = tokio::join!(Ami::connect(address, ("u", "s"), DEADLINE, None), accept);
    (ami.unwrap(), peer)
}

#[tokio::test]
async fn nothing_is_sent_before_fully_booted() {
    let (ami, mut peer) = connect("").await;
    assert_eq!(
        ami.action("Ping", &[]).await.unwrap_err().reason(),
        "AsteriskNotBooted"
    );
    peer.say(BOOTED).await;
    ami.fully_booted().await.unwrap();
    let answer = async {
        let (ping, id) = peer.hear().await;
        assert!(ping.starts_with("Action: Ping\r\n"), "{ping}");
        peer.say(&format!(
            "Response: Success\r\nActionID: {id}\r\nPing: Pong\r\n\r\n"
        ))
        .await;
    };
    assert!(tokio::join!(ami.action("Ping", &[]), answer).0.is_ok());
}

#[tokio::test]
async fn a_list_is_collected_and_other_events_pass_by() {
    let (ami, mut peer) = connect(BOOTED).await;
    ami.fully_booted().await.unwrap();
    let answer = async {
        let (_, id) = peer.hear().await;
        peer.say(&format!(
            "Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\nEvent: Hangup\r\n\r\n"
        ))
        .await;
        let entry = format!("Event: CoreShowChannel\r\nActionID: {id}\r\n\r\n");
        peer.say(&format!("{entry}{entry}Event: CoreShowChannelsComplete\r\nActionID: {id}\r\nEventList: Complete\r\n\r\n")).await;
    };
    let listed = tokio::join!(ami.action("CoreShowChannels", &[]), answer).0;
    assert_eq!(listed.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn silence_and_loss_are_told_apart() {
    let (ami, peer) = connect(BOOTED).await;
    ami.fully_booted().await.unwrap();
    assert_eq!(
        ami.action("Ping", &[]).await.unwrap_err().reason(),
        "AmiTimeout"
    );
    drop(peer);
    ami.requests.closed().await;
    assert_eq!(
        ami.action("Ping", &[]).await.unwrap_err().reason(),
        "AmiLost"
    );
}

#[tokio::test]
async fn a_refused_login_and_a_refused_action_carry_asterisks_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refuse = async {
        let mut peer = Peer(listener.accept().await.unwrap().0);
        peer.say(BANNER).await;
        let (_, id) = peer.hear().await;
        peer.say(&format!(
            "Response: Error\r\nActionID: {id}\r\nMessage: Authentication failed\r\n\r\n"
        ))
        .await;
        peer
    };
    let (refused, _peer) = tokio::join!(Ami::connect(address, ("u", "s"), DEADLINE, None), refuse);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "asterisk refused the login of u: Authentication failed"
    );
}

#[tokio::test]
async fn a_port_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Ami::connect(listener.local_addr().unwrap(), ("u", "s"), DEADLINE, None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "AmiTimeout");
}
