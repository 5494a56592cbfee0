//! The sidecar's one AMI connection: connect, log in, ask, with a deadline on everything.
//!
//! Nothing is sent before FullyBooted but the login: Asterisk takes logins earlier than it can
//! answer. After a loss, the outcome of an action that was sent is unknown; nothing is repeated
//! here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::codec::{self, CodecError, Decoder, Message};
use super::connection::{self, Listener, REQUESTS_LIMIT, Request, Response};

/// What went wrong with AMI.
#[derive(Debug, thiserror::Error)]
pub enum AmiError {
    /// The TCP connection was refused or broke while greeting.
    #[error("failed to connect to asterisk's manager at {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// The error of the socket.
        source: std::io::Error,
    },
    /// What answers is no AMI, or an action cannot be written.
    #[error("failed to speak the manager's protocol")]
    Speak {
        /// What is wrong.
        #[from]
        source: CodecError,
    },
    /// The login was refused.
    #[error("asterisk refused the login of {user}: {message}")]
    LogIn {
        /// The user.
        user: String,
        /// What Asterisk said.
        message: String,
    },
    /// No answer in time.
    #[error("asterisk did not answer {action} within {deadline:?}")]
    TimedOut {
        /// The action.
        action: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The connection ended before the answer; whether the action was carried out is unknown.
    #[error("the manager's connection ended before {action} was answered")]
    Lost {
        /// The action.
        action: String,
    },
    /// Asterisk answered with an error.
    #[error("asterisk refused {action}: {message}")]
    Refused {
        /// The action.
        action: String,
        /// What Asterisk said.
        message: String,
    },
    /// An action was asked for before FullyBooted.
    #[error("asterisk is not fully booted: {action} was not sent")]
    NotBooted {
        /// The action.
        action: String,
    },
}

impl AmiError {
    /// A stable name for metrics, Events and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "AmiUnreachable",
            Self::Speak { .. } => "AmiProtocol",
            Self::LogIn { .. } => "AmiLoginRefused",
            Self::TimedOut { .. } => "AmiTimeout",
            Self::Lost { .. } => "AmiLost",
            Self::Refused { .. } => "AmiRefused",
            Self::NotBooted { .. } => "AsteriskNotBooted",
        }
    }
}

/// A connection that is logged in. It closes when it is dropped.
#[derive(Debug)]
pub struct Ami {
    requests: mpsc::Sender<Request>,
    fully_booted: watch::Receiver<bool>,
    deadline: Duration,
    next_id: AtomicU64,
}

impl Ami {
    /// Connects and logs in (user, secret), all within `deadline`, which later bounds each action as well. The ends of channels are
    /// given to `hangups`.
    pub async fn connect(
        address: SocketAddr,
        login: (&str, &str),
        deadline: Duration,
        hangups: Option<mpsc::Sender<Message>>,
    ) -> Result<Self, AmiError> {
        let attempt = Self::connect_unbounded(address, login, deadline, hangups);
        timeout(deadline, attempt)
            .await
            .map_err(|_elapsed| AmiError::TimedOut {
                action: "the connection".to_owned(),
                deadline,
            })?
    }

    async fn connect_unbounded(
        address: SocketAddr,
        (user, secret): (&str, &str),
        deadline: Duration,
        hangups: Option<mpsc::Sender<Message>>,
    ) -> Result<Self, AmiError> {
        let (socket, decoder) = greeted(address).await?;
        let (requests, queue) = mpsc::channel(REQUESTS_LIMIT);
        let (booted, fully_booted) = watch::channel(false);
        let listener = Listener {
            fully_booted: booted,
            hangups,
        };
        tokio::spawn(connection::serve(socket, decoder, queue, listener));
        let ami = Self {
            requests,
            fully_booted,
            deadline,
            next_id: AtomicU64::new(1),
        };
        ami.log_in(user, secret).await?;
        Ok(ami)
    }

    async fn log_in(&self, user: &str, secret: &str) -> Result<(), AmiError> {
        let login = [("Username", user), ("Secret", secret)];
        logged_in(user, self.ask("Login", &login).await)
    }

    /// Whether FullyBooted has been seen.
    pub fn is_fully_booted(&self) -> bool {
        *self.fully_booted.borrow()
    }

    /// Waits for FullyBooted, as long as the caller likes; ends with an error when the connection
    /// does.
    pub async fn fully_booted(&self) -> Result<(), AmiError> {
        let mut booted = self.fully_booted.clone();
        let outcome = booted.wait_for(|booted| *booted).await.map(drop);
        outcome.map_err(|_closed| AmiError::Lost {
            action: "FullyBooted".to_owned(),
        })
    }

    /// Sends an action and waits for its answer, lists included. An answer of `Response: Error` is
    /// an error.
    pub async fn action(&self, name: &str, headers: &[(&str, &str)]) -> Result<Response, AmiError> {
        if !self.is_fully_booted() {
            return Err(AmiError::NotBooted {
                action: name.to_owned(),
            });
        }
        self.ask(name, headers).await
    }

    async fn ask(&self, name: &str, headers: &[(&str, &str)]) -> Result<Response, AmiError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let bytes = codec::encode(name, &id, headers)?;
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            let lost = || AmiError::Lost {
                action: name.to_owned(),
            };
            self.requests
                .send(Request { id, bytes, answer })
                .await
                .map_err(|_closed| lost())?;
            answered.await.map_err(|_closed| lost())
        };
        let deadline = self.deadline;
        let response =
            timeout(deadline, exchange)
                .await
                .map_err(|_elapsed| AmiError::TimedOut {
                    action: name.to_owned(),
                    deadline,
                })??;
        accepted(name, response)
    }
}

/// The answer, unless it is a refusal.
pub(super) fn accepted(action: &str, response: Response) -> Result<Response, AmiError> {
    if response.message.get("Response") == Some("Error") {
        return Err(AmiError::Refused {
            action: action.to_owned(),
            message: reason_given(&response.message),
        });
    }
    Ok(response)
}

/// What the answer to a login says.
pub(super) fn logged_in(user: &str, answer: Result<Response, AmiError>) -> Result<(), AmiError> {
    match answer {
        Err(AmiError::Refused { message, .. }) => Err(AmiError::LogIn {
            user: user.to_owned(),
            message,
        }),
        answer => answer.map(drop),
    }
}

/// A connection on which Asterisk has said that it is AMI. What came with the banner is in the decoder.
pub(super) async fn greeted(address: SocketAddr) -> Result<(TcpStream, Decoder), AmiError> {
    let broken = |source| AmiError::Connect { address, source };
    let mut socket = TcpStream::connect(address).await.map_err(broken)?;
    socket.set_nodelay(true).map_err(broken)?;
    let decoder = greeting(&mut socket).await.map_err(|error| match error {
        Greeting::Socket(source) => broken(source),
        Greeting::Codec(source) => source.into(),
    })?;
    Ok((socket, decoder))
}

/// A refused command says why in its output, everything else in its message.
fn reason_given(refusal: &Message) -> String {
    let output: Vec<&str> = refusal
        .all("Output")
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match (output.as_slice(), refusal.get("Message")) {
        ([], Some(message)) => message.to_owned(),
        ([], None) => "no reason given".to_owned(),
        _ => output.join(" "),
    }
}

enum Greeting {
    Socket(std::io::Error),
    Codec(CodecError),
}

/// Reads up to the banner. What comes with it stays in the decoder.
async fn greeting(socket: &mut TcpStream) -> Result<Decoder, Greeting> {
    let mut decoder = Decoder::default();
    let mut bytes = [0; 256];
    while decoder.banner().is_none() {
        match socket.read(&mut bytes).await.map_err(Greeting::Socket)? {
            0 => return Err(Greeting::Socket(std::io::ErrorKind::UnexpectedEof.into())),
            length => decoder.push(&bytes[..length]),
        }
        // Asterisk says nothing more before the login, so no message is lost here.
        decoder.next_message().map_err(Greeting::Codec)?;
    }
    Ok(decoder)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
