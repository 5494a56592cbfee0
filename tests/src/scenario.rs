//! What can happen to a telephone system, done to a real one and measured: used by demo, bench and tests alike.
//!
//! - [`moves`]: the role goes to another node, and what a SIP client, a watching client and the sidecars saw of it.
//! - [`latency`]: where the time of a failover goes.
//! - [`kills`], [`pods`], [`nodes`], [`freezes`], [`outages`], [`resize`]: one group of causes each.
//!
//! Each function starts from a whole system and leaves a whole one, checks what must hold exactly (roles, counts, no dual), and
//! returns the times for others to judge.

pub mod freezes;
pub mod kills;
pub mod latency;
pub mod moves;
pub mod nodes;
pub mod outages;
pub mod pods;
pub mod resize;
pub mod steady;
