//! A small AMI client for measurements: what is written is prepared before, what is read is scanned no further than needed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Door, SECRET};

/// A measurement that hears nothing for so long has failed.
const TIMEOUT: Duration = Duration::from_secs(20);
const END: &[u8] = b"\r\n\r\n";

/// A connection that is logged in.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    /// Logs in without events.
    pub fn connect(door: Door) -> Result<Self> {
        Self::connect_with(door, "off")
    }

    /// Logs in and hears events of these classes.
    pub fn connect_with(door: Door, events: &str) -> Result<Self> {
        let address = std::net::SocketAddr::V4(door.address);
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("connect to {}", door.address))?;
        stream.set_nodelay(true).context("set up the connection")?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .context("set up the connection")?;
        let mut client = Self {
            stream,
            held: Vec::new(),
        };
        client.banner()?;
        let answer = client.ask(
            "Login",
            &[
                ("Username", door.user),
                ("Secret", SECRET),
                ("Events", events),
            ],
        )?;
        ensure!(answer.contains("Success"), "login refused: {answer}");
        Ok(client)
    }

    fn banner(&mut self) -> Result<()> {
        while memchr::memchr(b'\n', &self.held).is_none() {
            self.read_more()?;
        }
        let end = memchr::memchr(b'\n', &self.held).context("no banner")?;
        self.held.drain(..=end);
        Ok(())
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends an action, and gives its response with all the entries of its list; events between them are left out.
    pub fn ask(&mut self, action: &str, headers: &[(&str, &str)]) -> Result<String> {
        self.write(action_text(action, headers).as_bytes())?;
        let mut answer = String::new();
        let mut is_list = false;
        loop {
            let message = self.message()?;
            if answer.is_empty() && !message.starts_with("Response: ") {
                continue;
            }
            let is_own = answer.is_empty() || message.contains("\r\nActionID: own\r\n");
            if is_own {
                is_list |= message.contains("\r\nEventList: start\r\n");
                answer.push_str(&message);
            }
            if !is_list || (is_own && message.contains("\r\nEventList: Complete\r\n")) {
                return Ok(answer);
            }
        }
    }

    /// Waits for an event that has all of these in it.
    pub fn wait_event(&mut self, parts: &[&str]) -> Result<String> {
        loop {
            let message = self
                .message()
                .with_context(|| format!("wait for an event with {parts:?}"))?;
            if parts.iter().all(|part| message.contains(part)) {
                return Ok(message);
            }
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.held, END) {
                let message = self.held.drain(..at + END.len()).collect();
                return String::from_utf8(message).context("read a message as text");
            }
            self.read_more()?;
        }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("write to the manager")
    }

    fn read_more(&mut self) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        match self
            .stream
            .read(&mut bytes)
            .context("read from the manager")?
        {
            0 => bail!("the manager closed the connection"),
            count => self.held.extend_from_slice(&bytes[..count]),
        }
        Ok(())
    }
}

/// An action as on the wire, named `own`.
pub fn action_text(action: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("Action: {action}\r\nActionID: own\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    text
}

/// Counts messages in a stream of bytes, split anywhere.
#[derive(Debug, Default)]
pub struct Counter {
    /// How many so far.
    pub messages: usize,
    tail: Vec<u8>,
}

impl Counter {
    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let ends = memchr::memmem::find_iter(&self.tail, END).count();
        let last = memchr::memmem::rfind(&self.tail, END);
        self.messages += ends;
        if let Some(last) = last {
            self.tail.drain(..last + END.len());
        }
    }
}
