//! AMI, Asterisk's manager interface, as far as the sidecar itself needs it.
//!
//! Reading order: `codec.rs` (bytes, pure), `connection.rs` (the task that owns the socket),
//! `client.rs` (`Ami`), `questions.rs` (what is asked), `quiet.rs` (the sensors' connections). Not here: other people's AMI clients, who
//! talk to the hub.

mod client;
mod codec;
mod connection;
mod questions;
mod quiet;

pub use client::{Ami, AmiError};
pub use codec::Message;
pub use connection::Response;
pub use quiet::QuietAmi;
