//! A connection for one asker who asks one thing after the other, now and then: no task, no events, and nothing is watched between
//! the questions.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::client::{AmiError, accepted, greeted, logged_in};
use super::codec::{self, Decoder};
use super::connection::Response;
use crate::quiet_input::QuietInput;

const READ_BYTES: usize = 4 << 10;

/// A connection that is logged in. It closes when it is dropped, and is of no more use after any error but a refusal, and after a
/// question that was not waited for. Deadlines are the caller's.
#[derive(Debug)]
pub struct QuietAmi {
    socket: QuietInput<TcpStream>,
    decoder: Decoder,
    next_id: u64,
}

impl QuietAmi {
    /// Connects to an Asterisk that is fully booted and logs in (user, secret), without events.
    pub async fn connect(
        address: SocketAddr,
        (user, secret): (&str, &str),
    ) -> Result<Self, AmiError> {
        let (socket, decoder) = greeted(address).await?;
        let socket = socket
            .into_std()
            .map_err(|source| AmiError::Connect { address, source })?;
        let mut ami = Self {
            socket: QuietInput(socket),
            decoder,
            next_id: 1,
        };
        let login = [("Username", user), ("Secret", secret), ("Events", "off")];
        logged_in(user, ami.action("Login", &login).await)?;
        Ok(ami)
    }

    /// Sends an action and waits for its answer, lists included. An answer of `Response: Error` is an error.
    pub async fn action(
        &mut self,
        name: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, AmiError> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        self.send(&codec::encode(name, &id, headers)?)
            .await
            .map_err(|_| lost(name))?;
        accepted(name, self.answer(name, &id).await?)
    }

    /// One who does not read a question of a few lines does not answer it: the caller's patience ends it.
    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match (&self.socket.0).write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::future::pending().await,
            sent => sent,
        }
    }

    async fn answer(&mut self, name: &str, id: &str) -> Result<Response, AmiError> {
        let mut answer = Response::default();
        let mut bytes = [0; READ_BYTES];
        loop {
            while let Some(message) = self.decoder.next_message()? {
                let is_part = message.get("ActionID") == Some(id);
                if is_part && answer.take(message).map_err(|_| lost(name))? {
                    return Ok(answer);
                }
            }
            let read = self.socket.read(|mut socket| socket.read(&mut bytes));
            match read.await {
                Ok(0) | Err(_) => return Err(lost(name)),
                Ok(length) => self.decoder.push(&bytes[..length]),
            }
        }
    }
}

fn lost(action: &str) -> AmiError {
    AmiError::Lost {
        action: action.to_owned(),
    }
}
