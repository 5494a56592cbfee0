//! One answered call, held without a word: begun by INVITE, ended by BYE. Whether the BYE is answered with 200 tells whether the call
//! was still there (an Asterisk that lost it answers 481). No media is sent; nothing but the dialogue is tested.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::clock::Moment;
use crate::netns::run_in;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A call that was answered.
#[derive(Debug)]
pub struct Call {
    socket: UdpSocket,
    target: SocketAddrV4,
    client: SocketAddr,
    callee: String,
    id: String,
    /// The To header of the answer, with the callee's tag.
    to: String,
}

impl Call {
    /// Calls `extension` at `target` from a network namespace, and returns once it is answered.
    pub fn begin(
        namespace: &Path,
        client: Ipv4Addr,
        target: SocketAddrV4,
        extension: &str,
    ) -> Result<Self> {
        let socket = run_in(namespace, || UdpSocket::bind((client, 0)))?
            .context("open the caller's socket")?;
        socket
            .set_read_timeout(Some(RETRY_INTERVAL))
            .context("set up the caller's socket")?;
        let client = socket.local_addr().context("read the caller's address")?;
        let callee = format!("sip:{extension}@{target}");
        let mut call = Self {
            socket,
            target,
            client,
            id: format!("pbxha-call-{}", Moment::now().0),
            to: format!("<{callee}>"),
            callee,
        };
        let (status, answer) = call.ask("INVITE", 1, &session(client))?;
        ensure!(status == 200, "the call to {extension} got {status}");
        let to = header(&answer, "To").context("the answer has no To")?;
        to.clone_into(&mut call.to);
        call.send(&call.request("ACK", 1, ""))?;
        Ok(call)
    }

    /// Ends the call; fails when it was not there any more.
    pub fn hang_up(self) -> Result<()> {
        let (status, _) = self.ask("BYE", 2, "")?;
        ensure!(
            status == 200,
            "the end of the call got {status}: it was lost before"
        );
        Ok(())
    }

    /// Sends a request, again every half second, until a final answer is there.
    fn ask(&self, method: &str, number: u32, body: &str) -> Result<(u16, String)> {
        let request = self.request(method, number, body);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut buffer = [0; 8192];
        self.send(&request)?;
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                self.send(&request)?;
                continue;
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(status) = final_status(&message, &self.id, method) {
                return Ok((status, message));
            }
        }
        bail!(
            "{} did not answer {method} within {ANSWER_TIMEOUT:?}",
            self.target
        )
    }

    fn send(&self, text: &str) -> Result<()> {
        let sent = self.socket.send_to(text.as_bytes(), self.target);
        sent.with_context(|| format!("send to {}", self.target))
            .map(drop)
    }

    fn request(&self, method: &str, number: u32, body: &str) -> String {
        let Self {
            client,
            id,
            to,
            callee,
            ..
        } = self;
        let mut text = format!(
            "{method} {callee} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {client};rport;branch=z9hG4bK-{id}-{method}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:caller@{client}>;tag=caller\r\n\
             To: {to}\r\n\
             Call-ID: {id}\r\n\
             CSeq: {number} {method}\r\n\
             Contact: <sip:caller@{client}>\r\n"
        );
        if !body.is_empty() {
            text += "Content-Type: application/sdp\r\n";
        }
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("a text can grow");
        text
    }
}

/// The status of a call that is not answered, as a caller from `client` gets it.
pub fn refused_status(
    namespace: &Path,
    client: Ipv4Addr,
    target: SocketAddrV4,
    extension: &str,
) -> Result<u16> {
    let error = match Call::begin(namespace, client, target, extension) {
        Ok(call) => {
            call.hang_up()?;
            bail!("{target} answered a call");
        }
        Err(error) => format!("{error:#}"),
    };
    let status = error.rsplit(' ').next().and_then(|word| word.parse().ok());
    status.with_context(|| format!("no status in: {error}"))
}

fn session(client: SocketAddr) -> String {
    let address = client.ip();
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
         m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// The status of a final answer to our `method`.
fn final_status(message: &str, id: &str, method: &str) -> Option<u16> {
    let status: u16 = message.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()?;
    let is_ours = header(message, "Call-ID") == Some(id)
        && header(message, "CSeq").is_some_and(|value| value.ends_with(method));
    (is_ours && status >= 200).then_some(status)
}

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = message.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RINGING: &str =
        "SIP/2.0 180 Ringing\r\nCall-ID: x\r\nTo: <sip:1@h>;tag=t\r\nCSeq: 1 INVITE\r\n\r\n";

    #[test]
    fn only_a_final_answer_to_the_same_request_ends_waiting() {
        assert_eq!(final_status(RINGING, "x", "INVITE"), None);
        let answered = RINGING.replace("180 Ringing", "200 OK");
        assert_eq!(final_status(&answered, "x", "INVITE"), Some(200));
        assert_eq!(final_status(&answered, "y", "INVITE"), None);
        assert_eq!(final_status(&answered, "x", "BYE"), None);
        assert_eq!(header(&answered, "To"), Some("<sip:1@h>;tag=t"));
        assert_eq!(final_status("OPTIONS sip:h SIP/2.0\r\n", "x", "BYE"), None);
    }
}
