//! Droonga's `system.status`: over HTTP the body alone, over Fluentd's forward protocol request and response. Reading order:
//! [`status`] (what is told), [`msgpack`] (values in bytes), [`forward`] (Fluentd's three modes), [`message`] (requests and
//! responses), [`server`]. Out of scope: everything else that Droonga does; the forward protocol's own authentication and gzip.

pub mod forward;
pub mod message;
pub mod msgpack;
pub mod server;
pub mod status;

pub use server::Droonga;
