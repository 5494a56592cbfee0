//! The AMI hub: one connection to Asterisk's manager, and any number of clients that speak AMI unchanged, over TCP, TLS and a unix
//! socket; and a durable queue of actions.
//!
//! Reading order: [`wire`] (bytes), [`hub`] (the machine), then the shell around it.

pub mod certificate;
pub mod class;
pub mod config;
pub mod filter;
pub mod folder_watch;
pub mod http;
pub mod hub;
pub mod log;
pub mod queue;
mod restrict;
pub mod shell;
pub mod spool;
pub mod user;
pub mod wire;
