//! What no client should send, at every door of a real sidecar: it is answered in the door's own form of an error, or the connection
//! is closed and counted; nothing of it changes the node, and the next client is answered.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pbx_tests::bare_hosts::{BareHosts, TOKEN};
use pbx_tests::doors::raw;
use pbx_tests::netns::run_in;

const PATIENCE: Duration = Duration::from_mins(1);
/// An answer is there by then, or none comes.
const QUIET: Duration = Duration::from_millis(400);
const MEGABYTE: usize = 1 << 20;
const HTTP: u16 = 8081;
const DROONGA: u16 = 10031;

/// One thing to send, and what is to come of it.
struct Case {
    name: &'static str,
    input: Vec<u8>,
    /// In one piece, or byte by byte.
    is_split: bool,
    /// The answer has this in it; empty: there is none.
    says: &'static str,
    closes: bool,
    /// The reason that is counted.
    counts: Option<&'static str>,
}

/// Answered, and the connection stays.
fn answered(name: &'static str, input: impl Into<Vec<u8>>, says: &'static str) -> Case {
    Case {
        name,
        input: input.into(),
        is_split: false,
        says,
        closes: false,
        counts: None,
    }
}

/// Closed and counted, perhaps after an answer.
fn closed(name: &'static str, input: impl Into<Vec<u8>>, counts: &'static str) -> Case {
    Case {
        closes: true,
        counts: Some(counts),
        ..answered(name, input, "")
    }
}

fn split(case: Case) -> Case {
    Case {
        is_split: true,
        ..case
    }
}

trait Connection: Read + Write {
    fn set_patience(&self, patience: Duration);
}

impl Connection for TcpStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
        self.set_nodelay(true).unwrap();
    }
}

impl Connection for UnixStream {
    fn set_patience(&self, patience: Duration) {
        self.set_read_timeout(Some(patience)).unwrap();
    }
}

#[test]
fn bad_input_is_refused_closed_and_counted_and_changes_nothing() {
    let hosts = BareHosts::start("badinput", 3).unwrap();
    let active = hosts.wait_whole(PATIENCE).unwrap();
    let epoch = hosts.report(0).unwrap().epoch;
    let half = half_a_request(&hosts);
    check(
        &hosts,
        "haast",
        &haast(),
        &|| unix(&hosts, "haast.sock"),
        b"",
    );
    let register = || unix(&hosts, "heartbeat/register");
    check(&hosts, "heartbeat", &heartbeat(), &register, b"");
    check(&hosts, "droonga", &droonga(), &|| tcp(&hosts, DROONGA), b"");
    check(&hosts, "http", &http(), &|| tcp(&hosts, HTTP), b"");
    let address = SocketAddrV4::new(hosts.host(0).address, HTTP);
    let head = raw::websocket_head(address);
    check(&hosts, "sysadm", &sysadm(), &|| tcp(&hosts, HTTP), &head);
    half_a_request_is_closed(half);
    let report = hosts.report(0).unwrap();
    assert_eq!((report.epoch, hosts.actives()), (epoch, vec![active]));
    let (_, jobs) = talk(&mut *tcp(&hosts, HTTP), &get("/v1/jobs"), false);
    assert!(
        String::from_utf8_lossy(&jobs).ends_with("\r\n\r\n[]"),
        "a job was begun"
    );
}

fn unix(hosts: &BareHosts, name: &str) -> Box<dyn Connection> {
    Box::new(UnixStream::connect(hosts.folder(0).join(name)).unwrap())
}

fn tcp(hosts: &BareHosts, port: u16) -> Box<dyn Connection> {
    let address = SocketAddrV4::new(hosts.host(0).address, port);
    let connected = run_in(&hosts.host(0).path(), || TcpStream::connect(address));
    Box::new(connected.unwrap().unwrap())
}

/// Each case over a connection of its own, which begins with `head`.
fn check(
    hosts: &BareHosts,
    door: &str,
    cases: &[Case],
    connect: &dyn Fn() -> Box<dyn Connection>,
    head: &[u8],
) {
    let actives = hosts.actives();
    for case in cases {
        let name = format!("{door}: {}", case.name);
        let before = case.counts.map(|reason| dropped(hosts, reason));
        let mut connection = connect();
        connection.set_patience(QUIET);
        if !head.is_empty() {
            connection.write_all(head).unwrap();
            read_to(&mut *connection, b"\r\n\r\n");
        }
        let (closes, said) = talk(&mut *connection, &case.input, case.is_split);
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(case.says), "{name}: {said:?}");
        assert_eq!(closes, case.closes, "{name}: {said:?}");
        drop(connection);
        if let (Some(reason), Some(before)) = (case.counts, before) {
            // It closes before it counts.
            let deadline = Instant::now() + PATIENCE;
            while dropped(hosts, reason) == before && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(dropped(hosts, reason), before + 1, "{name}: {reason}");
        }
        assert_eq!(hosts.actives(), actives, "{name}");
    }
}

/// Sends, and reads until it is quiet; whether the connection was closed, and what came.
fn talk(connection: &mut dyn Connection, input: &[u8], is_split: bool) -> (bool, Vec<u8>) {
    connection.set_patience(QUIET);
    let piece = if is_split { 1 } else { input.len().max(1) };
    for piece in input.chunks(piece) {
        // A door that has closed takes no more.
        if connection.write_all(piece).is_err() {
            break;
        }
    }
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match connection.read(&mut piece) {
            Ok(0) => return (true, said),
            Ok(bytes) => said.extend_from_slice(&piece[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return (false, said);
            }
            Err(_) => return (true, said),
        }
    }
}

fn read_to(connection: &mut dyn Connection, end: &[u8]) {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(end) {
        connection.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
}

/// The counter of clients that were dropped for this reason.
fn dropped(hosts: &BareHosts, reason: &str) -> u64 {
    let metrics = hosts.metrics(0).unwrap();
    let line = format!("pbxha_doors_dropped_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|text| text.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

fn haast() -> Vec<Case> {
    let long_line = [&b"command: "[..], &vec![b'x'; MEGABYTE]].concat();
    let refused = "result: error";
    vec![
        answered("half a command", "command: getsta", "ready>"),
        answered("no command", "YYYY\n\n", "valid commands"),
        answered("invalid UTF-8", b"command: \xff\xfe\n\n", refused),
        answered(
            "an unknown node",
            "command: switchover\nto: nobody\n\n",
            refused,
        ),
        answered(
            "an unknown strategy",
            "command: switchover\nstrategy: x\n\n",
            refused,
        ),
        split(answered("split", "command:getstatus\n\n", "result: ok")),
        answered(
            "joined",
            "id: 1\ncommand:help\n\nid: 2\ncommand:help\n\n",
            "id: 2\nresult: ok",
        ),
        Case {
            says: "longer than 1000 bytes",
            ..closed("a line of a megabyte", long_line, "HaastRefused")
        },
        Case {
            says: refused,
            ..closed("many lines", "a: b\n".repeat(64), "HaastRefused")
        },
    ]
}

fn heartbeat() -> Vec<Case> {
    let (signon, question) = (raw::signon(), raw::request("numnodes", ""));
    let framed = |length: u32, magic: u32| {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&magic.to_ne_bytes());
        bytes.extend_from_slice(b">>>\nt=x\n<<<\n\0");
        bytes
    };
    let bad = "HeartbeatMalformed";
    let refused = "HeartbeatRefused";
    let lie = raw::request("signon", "pid=1\nfrom_id=1\nuid=4711\ngid=0\n");
    vec![
        answered("half a frame", &signon[..20], ""),
        closed("a length above all bounds", framed(u32::MAX, 0xabcd), bad),
        closed("a length of a megabyte", framed(1 << 20, 0xabcd), bad),
        closed("another mark", framed(13, 0xdead), bad),
        closed(
            "a body that is none",
            raw::heartbeat_frame(b"\xff\xfe\0"),
            refused,
        ),
        closed("no signon", question.clone(), refused),
        Case {
            says: "result=badreq",
            ..closed("false credentials", lie, refused)
        },
        split(answered("split", signon.clone(), "result=OK")),
        answered("joined", [&signon[..], &question].concat(), "numnodes=3"),
        answered(
            "an unknown request",
            [&signon[..], &raw::request("\u{fffd}", "")].concat(),
            "result=badreq",
        ),
        closed(
            "a message of a casual client",
            [&signon[..], &raw::heartbeat_frame(b">>>\nt=text\n<<<\n\0")].concat(),
            refused,
        ),
    ]
}

fn droonga() -> Vec<Case> {
    // ["m", 1, {"type": ..., "id": "1"}]
    let request = |name: &str| {
        let mut bytes = b"\x93\xa1m\x01\x82\xa4type".to_vec();
        bytes.push(0xa0 | u8::try_from(name.len()).unwrap());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\xa2id\xa11");
        bytes
    };
    let status = request("system.status");
    let bomb = b"\x93\xa1m\x01\xdd\xff\xff\xff\xff".to_vec();
    let endless = [b"\xdb\xff\xff\xff\xff", &vec![b'x'; 2 * MEGABYTE][..]].concat();
    let invalid = b"\x93\xa1m\x01\x81\xa4type\xa2\xff\xfe".to_vec();
    vec![
        answered("half a request", &status[..9], ""),
        answered("an unknown type", request("explode"), "UnknownType"),
        answered("no text as its type", invalid, ""),
        closed("no MessagePack", b"\xc1".to_vec(), "BadMessage"),
        closed("deep", vec![0x91; 100_000], "BadMessage"),
        answered("a bomb, still to come", bomb, ""),
        closed("a text of 4 GB", endless, "TooLong"),
        split(answered("split", status.clone(), "system.status.result")),
        answered(
            "joined",
            [&status[..], &request("explode")].concat(),
            "UnknownType",
        ),
    ]
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

fn post(token: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/actions/demote HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// HTTP has an answer for all of it: nothing is counted.
fn http() -> Vec<Case> {
    let at_end = |case: Case| Case {
        closes: true,
        ..case
    };
    let long_line = [b"GET / HTTP/1.1\r\nX: ", &vec![b'x'; MEGABYTE][..]].concat();
    vec![
        at_end(answered("no HTTP", "rubbish\r\n\r\n", "400 Bad Request")),
        at_end(answered("a line of a megabyte", long_line, "")),
        answered("no such path", get("/nothing"), "404"),
        answered("a wrong token", post("wrong", b""), "Unauthorized"),
        answered("no JSON", post(TOKEN, b"{"), "BadBody"),
        answered(
            "invalid UTF-8",
            post(TOKEN, b"{\"to\": \"\xff\"}"),
            "BadBody",
        ),
        answered("deep JSON", post(TOKEN, &[b'['; 1000]), "BadBody"),
        at_end(answered(
            "a body of a megabyte",
            post(TOKEN, &vec![b' '; MEGABYTE]),
            "413",
        )),
        split(answered("split", get("/v1/jobs"), "200 OK")),
        answered("joined", [get("/v1/jobs"), get("/nothing")].concat(), "404"),
    ]
}

fn sysadm() -> Vec<Case> {
    let text = raw::frame_of_text;
    let bad = "BadWebsocket";
    let mut huge = vec![0x81, 0x80 | 127];
    huge.extend_from_slice(&(1_u64 << 20).to_be_bytes());
    huge.extend_from_slice(&[0; 4]);
    huge.extend_from_slice(&vec![b'x'; MEGABYTE]);
    let wrong_token =
        br#"{"namespace":"rpc","name":"auth_token","id":"t","args":{"token":"wrong"}}"#;
    let refused = "BADREQUEST";
    vec![
        answered("half a frame", &raw::subscription("x")[..10], ""),
        answered("no JSON", text(b"rubbish"), refused),
        answered("deep JSON", text(&[b'['; 50_000]), refused),
        answered("a wrong token", text(wrong_token), "UNAUTHORIZED"),
        answered("no subject", text(br#"{"namespace":"events"}"#), refused),
        split(answered("split", raw::subscription("once"), "\"once\"")),
        answered(
            "joined",
            [raw::subscription("one"), raw::subscription("two")].concat(),
            "\"two\"",
        ),
        closed("a text of a megabyte", huge, bad),
        closed("invalid UTF-8", text(b"\xff\xfe"), bad),
        closed("no mask", b"\x81\x01x".to_vec(), bad),
        closed("no frame", [0xff; 32], bad),
    ]
}

fn half_a_request(hosts: &BareHosts) -> (Box<dyn Connection>, Instant) {
    let mut connection = tcp(hosts, HTTP);
    connection
        .write_all(b"GET /v1/status HTTP/1.1\r\nHo")
        .unwrap();
    (connection, Instant::now())
}

/// A request's head arrives within ten seconds, or not at all.
fn half_a_request_is_closed((mut connection, begun_at): (Box<dyn Connection>, Instant)) {
    connection.set_patience(Duration::from_secs(15));
    let mut said = Vec::new();
    connection.read_to_end(&mut said).unwrap();
    assert!(begun_at.elapsed() >= Duration::from_secs(9), "{said:?}");
}
