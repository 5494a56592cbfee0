//! One plain GET or POST from inside a network namespace: for what sidecars and operator serve. Leaves out TLS, redirects and chunks.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::run_in;

const TIMEOUT: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 4 << 20;

/// The body of a 200, as text; any other answer is an error.
pub fn get(namespace: &Path, address: SocketAddrV4, path: &str) -> Result<String> {
    let body = get_bytes(namespace, address, path)?;
    String::from_utf8(body).with_context(|| format!("read {path} of {address} as text"))
}

/// The body of a 200; any other answer is an error.
pub fn get_bytes(namespace: &Path, address: SocketAddrV4, path: &str) -> Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = run_in(namespace, || ask(address, &request))??;
    let (status, body) = parts(&answer)?;
    ensure!(
        status == 200,
        "GET {path} of {address} got {status}: {}",
        String::from_utf8_lossy(body)
    );
    Ok(body.to_vec())
}

/// Posts `body`, with the token if there is one; the status and what was answered.
pub fn post(
    namespace: &Path,
    address: SocketAddrV4,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> Result<(u16, String)> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n{body}",
        token.unwrap_or_default(),
        body.len()
    );
    let answer = run_in(namespace, || ask(address, &request))??;
    let (status, body) = parts(&answer)?;
    Ok((status, String::from_utf8_lossy(body).into_owned()))
}

/// Status and body.
fn parts(answer: &[u8]) -> Result<(u16, &[u8])> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let mut windows = answer.windows(END_OF_HEAD.len());
    let head = windows.position(|window| window == END_OF_HEAD);
    let head = head.context("the answer has no end of its head")?;
    let line = String::from_utf8_lossy(&answer[..head]);
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no status in {line}"))?;
    Ok((status, &answer[head + END_OF_HEAD.len()..]))
}

fn ask(address: SocketAddrV4, request: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), TIMEOUT)
        .with_context(|| format!("connect to {address}"))?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("set up the connection")?;
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("ask {address}"))?;
    let mut answer = Vec::new();
    stream
        .take(MOST_BYTES)
        .read_to_end(&mut answer)
        .with_context(|| format!("read the answer of {address}"))?;
    Ok(answer)
}
