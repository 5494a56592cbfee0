//! Clients that keep what they hear, and when: server-sent events, SysAdm's websocket, Heartbeat's messages.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use memchr::memmem;
use pbx_crds::names::HTTP_PORT;
use pbx_guard::schedule::take_short_turns;

use super::{connect_unix, heartbeat_socket, raw};
use crate::bare_hosts::BareHosts;
use crate::clock::Moment;
use crate::netns::run_in;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a listener looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// All that came, and when each piece of it did. Pure.
#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    /// The end of each piece, and its time.
    pieces: Vec<(usize, Moment)>,
}

impl Heard {
    fn push(&mut self, piece: &[u8], at: Moment) {
        self.bytes.extend_from_slice(piece);
        self.pieces.push((self.bytes.len(), at));
    }

    /// When the first `text` behind `from` was whole.
    fn when(&self, text: &str, from: usize) -> Option<Moment> {
        let at = memmem::find(&self.bytes[from..], text.as_bytes())?;
        let end = from + at + text.len();
        let piece = self.pieces.partition_point(|(ends, _)| *ends < end);
        Some(self.pieces[piece].1)
    }
}

/// A client that listens until it is dropped.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    is_wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A place in what a listener has heard.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Listener {
    /// Server-sent events of a host.
    pub fn events(hosts: &BareHosts, index: usize) -> Result<Self> {
        let address = SocketAddrV4::new(hosts.host(index).address, HTTP_PORT);
        let stream = connect(hosts, index, address)?;
        Self::start(stream, &raw::events_head(address), "event: cluster")
    }

    /// All of SysAdm's events of a host.
    pub fn websocket(hosts: &BareHosts, index: usize) -> Result<Self> {
        let address = SocketAddrV4::new(hosts.host(index).address, HTTP_PORT);
        let stream = connect(hosts, index, address)?;
        let mut said = raw::websocket_head(address);
        said.extend(raw::subscription("listener"));
        Self::start(stream, &said, "\"listener\"")
    }

    /// A casual client of Heartbeat's on a host.
    pub fn heartbeat(hosts: &BareHosts, index: usize) -> Result<Self> {
        let stream = connect_unix(&heartbeat_socket(hosts, index), LOOK)?;
        Self::start(stream, &raw::signon(), "result=OK")
    }

    /// Says `said`, and waits until `greeting` has come.
    fn start(
        mut stream: impl Read + Write + Send + 'static,
        said: &[u8],
        greeting: &str,
    ) -> Result<Self> {
        stream.write_all(said).context("ask for events")?;
        let (heard, is_wanted) = (
            Arc::new(Mutex::new(Heard::default())),
            Arc::new(AtomicBool::new(true)),
        );
        let (of_thread, while_wanted) = (heard.clone(), is_wanted.clone());
        let thread = std::thread::spawn(move || listen(&mut stream, &of_thread, &while_wanted));
        let listener = Self {
            heard,
            is_wanted,
            thread: Some(thread),
        };
        listener.wait(greeting, Mark(0), CONNECT_TIMEOUT)?;
        Ok(listener)
    }

    /// This place: what comes from now on is behind it.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().bytes.len())
    }

    /// When the first `text` behind `mark` was whole; waits for it.
    pub fn wait(&self, text: &str, mark: Mark, limit: Duration) -> Result<Moment> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.lock().when(text, mark.0);
            if let Some(at) = found {
                return Ok(at);
            }
            if Instant::now() > deadline {
                let heard = self.lock();
                let rest = String::from_utf8_lossy(&heard.bytes[mark.0..]).into_owned();
                bail!("no {text} within {limit:?}, but {rest:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn connect(hosts: &BareHosts, index: usize, address: SocketAddrV4) -> Result<TcpStream> {
    let connecting = || TcpStream::connect_timeout(&address.into(), CONNECT_TIMEOUT);
    let stream = run_in(&hosts.host(index).path(), connecting)?;
    let stream = stream.with_context(|| format!("connect to {address}"))?;
    stream
        .set_read_timeout(Some(LOOK))
        .context("set up a listener")?;
    Ok(stream)
}

/// Until the end of the stream, or until nobody wants it any more.
fn listen(stream: &mut impl Read, heard: &Mutex<Heard>, is_wanted: &AtomicBool) {
    // A client on a machine of its own would not wait for a processor.
    take_short_turns();
    let mut piece = [0; 8192];
    while is_wanted.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(bytes) => {
                let at = Moment::now();
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(&piece[..bytes], at);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_heard_when_its_last_byte_came() {
        let mut heard = Heard::default();
        heard.push(b"xx epo", Moment(1));
        heard.push(b"ch", Moment(2));
        heard.push(b" epoch", Moment(3));
        assert_eq!(heard.when("epoch", 0), Some(Moment(2)));
        assert_eq!(heard.when("epoch", 8), Some(Moment(3)));
        assert_eq!(heard.when("xx", 0), Some(Moment(1)));
        assert_eq!(heard.when("never", 0), None);
    }
}
