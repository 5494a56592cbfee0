//! Follows the report stream of one sidecar: HTTP/1.1, one JSON document a line, an empty line as a sign of life.
//!
//! No polling: the sidecar sends the newest state first and then every change. Everything is bounded: the connection and
//! the silence in time, a line in length, and the queue to the observer, which makes a fast sidecar wait.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pbx_crds::names;
use pbx_crds::report::Report;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Three of the sidecar's signs of life.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_LINE_BYTES: usize = 256 * 1024;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A sidecar that was killed is back within this, its role kept: nobody is told of the gap.
const RESTART_GRACE: Duration = Duration::from_millis(500);
const RESTART_RETRY: Duration = Duration::from_millis(50);

/// What a follower tells.
#[derive(Debug)]
pub enum Word {
    /// The sidecar said this.
    Report(Box<Report>),
    /// The stream broke; it is being made again.
    Lost,
}

/// Why a stream broke.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Connecting.
    #[error("cannot connect to the sidecar")]
    Connect(#[source] std::io::Error),
    /// Asking.
    #[error("the sidecar did not answer as expected")]
    Request(#[source] hyper::Error),
    /// Another answer than 200.
    #[error("the sidecar answered {0}")]
    Status(hyper::StatusCode),
    /// Reading.
    #[error("the stream broke")]
    Read(#[source] hyper::Error),
    /// The end.
    #[error("the sidecar ended the stream")]
    Ended,
    /// Neither a report nor a sign of life.
    #[error("the sidecar was silent for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
    /// A line without end.
    #[error("the sidecar sent a line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// A line that is no report.
    #[error("the sidecar sent what is no report")]
    NoReport(#[source] serde_json::Error),
    /// Nobody listens any more.
    #[error("the observer is gone")]
    Closed,
}

/// Follows the sidecar at `address` and tells `words`, with `uid`, until nobody listens.
pub async fn follow(address: IpAddr, uid: String, words: mpsc::Sender<(String, Word)>) {
    let mut backoff = FIRST_BACKOFF;
    let mut broken_at: Option<Instant> = None;
    loop {
        let mut has_spoken = false;
        let target = SocketAddr::new(address, names::HTTP_PORT);
        let error = session(target, &uid, &words, &mut has_spoken).await;
        if matches!(error, StreamError::Closed) {
            return;
        }
        tracing::debug!(%address, error = &error as &dyn std::error::Error, "report stream lost");
        if has_spoken {
            backoff = FIRST_BACKOFF;
            broken_at = Some(Instant::now());
        }
        let Some(since) = broken_at else {
            sleep(backoff).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            continue;
        };
        if since.elapsed() < RESTART_GRACE {
            sleep(RESTART_RETRY).await;
            continue;
        }
        broken_at = None;
        if words.send((uid.clone(), Word::Lost)).await.is_err() {
            return;
        }
    }
}

/// One connection, until it breaks.
async fn session(
    target: SocketAddr,
    uid: &str,
    words: &mpsc::Sender<(String, Word)>,
    has_spoken: &mut bool,
) -> StreamError {
    match try_session(target, uid, words, has_spoken).await {
        Ok(()) => StreamError::Ended,
        Err(error) => error,
    }
}

async fn try_session(
    target: SocketAddr,
    uid: &str,
    words: &mpsc::Sender<(String, Word)>,
    has_spoken: &mut bool,
) -> Result<(), StreamError> {
    let mut body = timeout(CONNECT_TIMEOUT * 2, open(target))
        .await
        .map_err(|_| StreamError::Silent)??;
    let mut lines = Lines::default();
    loop {
        let Some(frame) = timeout(SILENCE_TIMEOUT, body.frame())
            .await
            .map_err(|_| StreamError::Silent)?
        else {
            return Ok(());
        };
        let frame = frame.map_err(StreamError::Read)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        for line in lines.push(&data)? {
            let report: Report = serde_json::from_slice(&line).map_err(StreamError::NoReport)?;
            *has_spoken = true;
            let word = (uid.to_owned(), Word::Report(Box::new(report)));
            words.send(word).await.map_err(|_| StreamError::Closed)?;
        }
    }
}

async fn open(target: SocketAddr) -> Result<hyper::body::Incoming, StreamError> {
    let connection = timeout(CONNECT_TIMEOUT, TcpStream::connect(target))
        .await
        .map_err(|elapsed| StreamError::Connect(elapsed.into()))?
        .map_err(StreamError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection))
        .await
        .map_err(StreamError::Request)?;
    tokio::spawn(connection);
    let request = hyper::Request::get(names::REPORT_STREAM_PATH)
        .header(hyper::header::HOST, target.to_string())
        .body(Empty::<Bytes>::new())
        .expect("the request is made of constants and an address");
    let response = sender
        .send_request(request)
        .await
        .map_err(StreamError::Request)?;
    if response.status() != hyper::StatusCode::OK {
        return Err(StreamError::Status(response.status()));
    }
    Ok(response.into_body())
}

/// Bytes in, whole lines out.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that `bytes` complete, without empty ones.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, StreamError> {
        let mut complete = Vec::new();
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.begun.len() + part.len() > MAX_LINE_BYTES {
                return Err(StreamError::LineTooLong);
            }
            self.begun.extend_from_slice(part);
            if parts.peek().is_some() {
                complete.push(std::mem::take(&mut self.begun));
            }
        }
        complete.retain(|line| !line.trim_ascii().is_empty());
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_over_frames() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").unwrap().is_empty());
        assert_eq!(
            lines.push(b":1}\n\n{}\n").unwrap(),
            [b"{\"a\":1}".to_vec(), b"{}".to_vec()]
        );
        assert!(lines.push(b"\n").unwrap().is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE_BYTES]).unwrap();
        assert!(matches!(lines.push(b"x"), Err(StreamError::LineTooLong)));
    }
}
