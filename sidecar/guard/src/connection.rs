//! The sidecar's connection: bytes in and out, bounded both ways; never waits.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::io::Errno;
use thiserror::Error;

use crate::protocol::{Command, Event, MAX_FRAME_SIZE, ProtocolError};

/// A sidecar that leaves this much unread is stuck: 800 events, 80 s of confirmations.
const MAX_UNSENT_SIZE: usize = 32 * 1024;
/// How much is read at a time; what is left stays in the socket.
const READ_SIZE: usize = 32 * MAX_FRAME_SIZE;

/// Why a connection is over.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("the sidecar closed the connection")]
    Closed,
    #[error("failed to read from the sidecar")]
    Read(#[source] io::Error),
    #[error("failed to write to the sidecar")]
    Write(#[source] io::Error),
    #[error("failed to understand the sidecar")]
    Decode(#[source] ProtocolError),
    #[error("the sidecar does not read: {MAX_UNSENT_SIZE} bytes wait for it")]
    Stuck,
}

impl ConnectionError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Read(_) => "Read",
            Self::Write(_) => "Write",
            Self::Decode(_) => "Decode",
            Self::Stuck => "Stuck",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether it said Hello: before, it gets no event.
    is_greeted: bool,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            unsent: Vec::new(),
            is_greeted: false,
        })
    }

    /// What to wait for on this connection.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    /// The commands that arrived; an error once nothing more can come.
    pub(crate) fn receive(&mut self) -> Result<Vec<Command>, ConnectionError> {
        let mut bytes = [0_u8; READ_SIZE];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.stream, &mut bytes)) {
            Ok(0) => Err(ConnectionError::Closed),
            Ok(size) => {
                self.received.extend_from_slice(&bytes[..size]);
                self.decode()
            }
            Err(Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(ConnectionError::Read(error.into())),
        }
    }

    /// From now on it gets events.
    pub(crate) fn greet(&mut self) {
        self.is_greeted = true;
    }

    /// Sends an event, or keeps what the socket does not take yet.
    pub(crate) fn send(&mut self, event: Event) -> Result<(), ConnectionError> {
        if !self.is_greeted {
            return Ok(());
        }
        event.encode(&mut self.unsent);
        self.flush()
    }

    /// Sends what is kept, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.unsent.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.stream, &self.unsent)) {
                Ok(size) => drop(self.unsent.drain(..size)),
                Err(Errno::AGAIN) if self.unsent.len() > MAX_UNSENT_SIZE => {
                    return Err(ConnectionError::Stuck);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(ConnectionError::Write(error.into())),
            }
        }
        Ok(())
    }

    /// Takes the complete frames; what is left is shorter than one frame.
    fn decode(&mut self) -> Result<Vec<Command>, ConnectionError> {
        let mut commands = Vec::new();
        let mut taken = 0;
        while let Some((command, size)) =
            Command::decode(&self.received[taken..]).map_err(ConnectionError::Decode)?
        {
            commands.push(command);
            taken += size;
        }
        self.received.drain(..taken);
        Ok(commands)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A socket at `path` for the sidecar, instead of what an earlier guard left there.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_sidecar_that_never_reads_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        connection.greet();
        let event = Event::Terminating {
            at_ns: 1,
            grace_ends_ns: 2,
        };
        let outcome = (0..1_000_000).find_map(|_| connection.send(event).err());
        assert!(matches!(outcome, Some(ConnectionError::Stuck)));
        assert!(connection.unsent.len() <= MAX_UNSENT_SIZE + MAX_FRAME_SIZE);
    }

    #[test]
    fn a_command_in_pieces_is_put_together() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        let mut bytes = Vec::new();
        Command::Start {
            deadline_ns: Some(3),
        }
        .encode(&mut bytes);
        for (index, byte) in bytes.iter().enumerate() {
            theirs.write_all(&[*byte]).unwrap();
            assert_eq!(
                connection.receive().unwrap().is_empty(),
                index + 1 < bytes.len()
            );
        }
    }

    #[test]
    fn the_end_of_the_stream_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        drop(theirs);
        assert!(matches!(connection.receive(), Err(ConnectionError::Closed)));
    }

    #[test]
    fn an_event_before_the_greeting_is_not_sent() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        connection
            .send(Event::Terminating {
                at_ns: 1,
                grace_ends_ns: 2,
            })
            .unwrap();
        drop(connection);
        assert_eq!(rustix::io::read(&theirs, &mut [0; 8][..]), Ok(0));
    }
}
