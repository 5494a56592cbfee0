//! Questions and answers: `getstatus` over HAAst's socket, `cl_status` as a user runs it, here and under the real heartbeat.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{connect_unix, heartbeat_socket, raw, read_to};
use crate::bare_hosts::BareHosts;
use crate::failover::heartbeat::Heartbeat;
use crate::linux_ha::with_socket;
use crate::progress::output_of;

const PATIENCE: Duration = Duration::from_secs(5);
/// Runs a command `$1` times, the rest being its words, and says how long one took, in microseconds.
const TIMED: &str = r#"count=$1; shift; begin=$EPOCHREALTIME
for ((i = 0; i < count; i++)); do "$@" >/dev/null || exit 1; done
end=$EPOCHREALTIME; echo $(( (${end/./} - ${begin/./}) / count ))"#;

/// The median of `count` answers to `getstatus` over one connection, in microseconds. The client's own part is in it.
pub fn getstatus_us(hosts: &BareHosts, index: usize, count: usize) -> Result<f64> {
    let mut stream = connect_unix(&hosts.haast_socket(index), PATIENCE)?;
    read_to(&mut stream, b"ready>")?;
    median_us(&mut stream, b"command:getstatus\n\n", b"ready>", count)
}

/// The same of `nodestatus` over Heartbeat's socket.
pub fn nodestatus_us(hosts: &BareHosts, index: usize, count: usize) -> Result<f64> {
    let mut stream = connect_unix(&heartbeat_socket(hosts, index), PATIENCE)?;
    stream.write_all(&raw::signon()).context("sign on")?;
    read_to(&mut stream, raw::END_OF_MESSAGE)?;
    let question = raw::request("nodestatus", "node=pbx-0\n");
    median_us(&mut stream, &question, raw::END_OF_MESSAGE, count)
}

/// One `cl_status nodestatus` of a host, process and all, in microseconds.
pub fn cl_status_us(hosts: &BareHosts, index: usize, count: usize) -> Result<f64> {
    let mut command = hosts.host(index).command("unshare");
    let count = count.to_string();
    let words = [
        "bash",
        "-c",
        TIMED,
        "bash",
        &count,
        "cl_status",
        "nodestatus",
        "pbx-0",
    ];
    with_socket(&mut command, &hosts.heartbeat_folder(index), &words);
    number(&mut command)
}

/// The same under the real heartbeat.
pub fn cl_status_of_peer_us(nodes: &Heartbeat, count: usize) -> Result<f64> {
    let mut command = nodes.inside(0)?;
    command.args(["bash", "-c", TIMED, "bash", &count.to_string()]);
    number(command.args(["cl_status", "nodestatus", "node0"]))
}

fn number(command: &mut Command) -> Result<f64> {
    let said = output_of(command)?;
    said.trim()
        .parse()
        .with_context(|| format!("read a number of microseconds from {said:?}"))
}

fn median_us(stream: &mut UnixStream, question: &[u8], end: &[u8], count: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        stream.write_all(question).context("ask")?;
        read_to(stream, end)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
