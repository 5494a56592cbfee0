//! One plain GET from inside a network namespace: for what sidecars and operator serve. Leaves out TLS, redirects and chunks.

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
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let answer = run_in(namespace, || ask(address, path))??;
    let head = answer
        .windows(END_OF_HEAD.len())
        .position(|window| window == END_OF_HEAD)
        .with_context(|| format!("{address} answered without an end of its head"))?;
    let body = answer[head + END_OF_HEAD.len()..].to_vec();
    let head = String::from_utf8_lossy(&answer[..head]);
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.contains(" 200 "),
        "GET {path} of {address} got {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}

fn ask(address: SocketAddrV4, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), TIMEOUT)
        .with_context(|| format!("connect to {address}"))?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("set up the connection")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
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
