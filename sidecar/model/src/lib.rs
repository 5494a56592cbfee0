//! The real core under test: random worlds around it, and a model checker of the very code.
//!
//! Nothing here is part of the product. The nodes are [`pbx_core::Node`]s, the deadlines are judged by the real guard's
//! [`pbx_guard::deadline::Deadline`]; everything else (network, clocks, API server, kernel, operator) is a model of it.
//!
//! - [`world`]: a deterministic virtual world with faults, driven by events in nanoseconds; a seed is a whole story.
//! - [`simulation`]: one random world from its seed to its verdict, and many of them on all cores.
//! - [`checker`]: all interleavings of a few faults, explored with stateright.
//! - [`desk`]: one node alone, its peers, guard and API played by a test, message by message.

pub mod checker;
pub mod desk;
pub mod simulation;
pub mod world;
