//! SysAdm's events (`events.rst` of its handbook): JSON over a websocket. Reading order: [`codec`] (texts), [`session`] (a client's
//! dialogue), [`events`] (what is told), [`hub`] (told once for all clients), [`server`] (clients and bridges). Out of scope: the
//! rest of SysAdm's API; certificates as credentials.

pub mod codec;
pub mod events;
pub mod hub;
pub mod server;
pub mod session;
pub mod storage;

pub use hub::Hub;
pub use server::Sysadm;
