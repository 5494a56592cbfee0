//! Host mode: floating addresses that only the active answers at, by a fence that the kernel keeps.
//!
//! Reading order: [`plan`] (what the file says), [`fence`] (nothing passes unless authority lasts), [`gate`] (a promotion waits for
//! it), [`network`] (addresses, announcements, other holders) over [`address`], [`announce`], [`conflict`] and [`sysctl`].
//!
//! ```text
//!   core ── deadline ──► guard: leash ──┐
//!     │                                 ├─ both confirmed ──► promoted ──► announce
//!     └──── deadline ──► fence ─────────┘
//! ```

pub mod address;
pub mod announce;
pub mod conflict;
pub mod fence;
pub mod gate;
pub mod network;
pub mod plan;
mod sysctl;
