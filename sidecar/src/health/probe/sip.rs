//! A SIP OPTIONS to this node's own Asterisk, over UDP: any final answer will do. It passes through the threads and task
//! processors that phones' requests pass through, so it finds what a Ping does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::super::score::{Reading, Verdict};
use super::super::watch::Ground;
use super::manager::Line;
use crate::alarm;
use crate::asterisk::config::SELF_ENDPOINT;
use crate::quiet_input::QuietInput;

/// A socket to this machine's own SIP.
pub(super) type SipSocket = QuietInput<UdpSocket>;

/// Loopback loses a datagram when a buffer is full.
const REPEAT: Duration = Duration::from_millis(250);
const ANSWER_BYTES: usize = 4096;

/// Asks once, within the time of the caller.
pub(super) async fn read(line: &mut Line, ground: &Ground, limit: Duration) -> Reading {
    let target = match line.sip_address(ground).await {
        Ok(Some(target)) => target,
        Ok(None) => return Reading::new(Verdict::Skipped, "there is no UDP transport"),
        // AMI's own sensors judge AMI.
        Err(error) => return Reading::new(Verdict::Skipped, error.to_string()),
    };
    if ground.floating.contains(&target.ip()) && !ground.is_active {
        return Reading::new(Verdict::Skipped, "SIP is bound to an address of the active");
    }
    match ask_through(line, target, limit).await {
        Ok(status) => Reading {
            verdict: Verdict::Good,
            text: format!("answered with {status}"),
            value: Some(f64::from(status)),
        },
        // Nobody listens: Asterisk lives, and SIP does not.
        Err(error) => Reading::new(Verdict::Critical, format!("{target}: {error}")),
    }
}

/// Through the socket of the last answer. While it is asked it belongs to nobody: who gives up waiting begins with a new one.
async fn ask_through(line: &mut Line, target: SocketAddr, limit: Duration) -> std::io::Result<u16> {
    let kept = line.sip_socket.take().filter(|(of, _)| *of == target);
    let socket = match kept {
        Some((_, socket)) => socket,
        None => connect(target)?,
    };
    let status = ask(target, &socket, limit).await?;
    line.sip_socket = Some((target, socket));
    Ok(status)
}

fn connect(target: SocketAddr) -> std::io::Result<SipSocket> {
    let socket = UdpSocket::bind((target.ip(), 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(QuietInput(socket))
}

/// `Transport:  udp  udp  0  0  0.0.0.0:5060`: where this machine reaches a UDP transport.
pub(super) fn parse_transport(line: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["Transport:", _, "udp", .., bind] = words[..] else {
        return None;
    };
    let bind: SocketAddr = bind.parse().ok()?;
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    Some(SocketAddr::new(ip, bind.port()))
}

async fn ask(target: SocketAddr, socket: &SipSocket, limit: Duration) -> std::io::Result<u16> {
    let own = socket.0.local_addr()?;
    let id = format!("pbxha-{}-{}", own.port(), pbx_guard::boot_now_ns());
    let request = options(target, own, &id);
    let mut buffer = vec![0; ANSWER_BYTES];
    let repeats = limit.as_millis() / REPEAT.as_millis() + 1;
    for _ in 0..repeats {
        socket.0.send(request.as_bytes())?;
        let answered = alarm::timeout(REPEAT, answer(socket, &id, &mut buffer)).await;
        if let Some(status) = answered {
            return status;
        }
    }
    // The caller's patience ends about now.
    std::future::pending().await
}

async fn answer(socket: &SipSocket, id: &str, buffer: &mut [u8]) -> std::io::Result<u16> {
    loop {
        let length = socket.read(|socket| socket.recv(buffer)).await?;
        if let Some(status) = final_status(&buffer[..length], id) {
            return Ok(status);
        }
    }
}

/// The status of a final answer to the request with this Call-ID.
fn final_status(datagram: &[u8], id: &str) -> Option<u16> {
    let text = std::str::from_utf8(datagram).ok()?;
    let status: u16 = text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let is_ours = text
        .lines()
        .any(|line| line.strip_prefix("Call-ID: ") == Some(id));
    (is_ours && status >= 200).then_some(status)
}

/// From the endpoint that our own part of the configuration makes: an unknown one would be logged each time.
fn options(target: SocketAddr, own: SocketAddr, id: &str) -> String {
    format!(
        "OPTIONS sip:{target} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};rport;branch=z9hG4bK{id}\r\n\
         Max-Forwards: 1\r\n\
         From: <sip:{SELF_ENDPOINT}@{own}>;tag={id}\r\n\
         To: <sip:{target}>\r\n\
         Call-ID: {id}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Contact: <sip:{SELF_ENDPOINT}@{own}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_read_as_asterisk_prints_them() {
        let udp = "Transport:  udp                       udp      0      0  0.0.0.0:5060";
        assert_eq!(
            parse_transport(udp),
            Some(SocketAddr::from(([127, 0, 0, 1], 5060)))
        );
        let six = "Transport:  udp6    udp      3      96  [fd00::2]:5062";
        assert_eq!(
            parse_transport(six),
            Some("[fd00::2]:5062".parse().unwrap())
        );
        for other in [
            "Transport:  tcp  tcp  0  0  0.0.0.0:5060",
            "Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress....................>",
            "",
            "udp udp",
        ] {
            assert_eq!(parse_transport(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_final_answer_to_the_same_request_counts() {
        let answer = |status| format!("SIP/2.0 {status} X\r\nCall-ID: a\r\n\r\n");
        assert_eq!(final_status(answer(404).as_bytes(), "a"), Some(404));
        assert_eq!(final_status(answer(100).as_bytes(), "a"), None);
        assert_eq!(final_status(answer(200).as_bytes(), "b"), None);
        assert_eq!(final_status(b"\xff\xfe", "a"), None);
    }

    #[tokio::test]
    async fn a_server_that_answers_is_heard() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let serve = async {
            let mut buffer = [0; 2000];
            // The first datagram is lost.
            server.recv_from(&mut buffer).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let id = text
                .lines()
                .find(|line| line.starts_with("Call-ID"))
                .unwrap();
            let answer = format!("SIP/2.0 200 OK\r\n{id}\r\n\r\n");
            server.send_to(answer.as_bytes(), from).await.unwrap();
        };
        let socket = connect(target).unwrap();
        let (status, ()) = tokio::join!(ask(target, &socket, Duration::from_secs(1)), serve);
        assert_eq!(status.unwrap(), 200);
    }
}
