//! Calls under which something is done: some that are up before it and last longer than it, and new ones all the time, all by `SIPp`
//! to a callee behind the PBX.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::sipp::{CallCounts, CallPlan, Callee, Callers};

/// Whom the calls are for: the dialplan puts them through to the callee.
pub const PUT_THROUGH: &str = "400";
const HELD_RATE: u32 = 25;
const FRESH_RATE: u32 = 10;
const FRESH_HOLD: Duration = Duration::from_secs(1);
/// More than any measurement takes; they are ended before.
const FRESH_CALLS: u32 = 10 * 600;
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Who calls whom.
#[derive(Clone, Debug)]
pub struct Parties {
    /// The callers' and the callee's network namespace.
    pub namespace: PathBuf,
    /// Their address.
    pub client: Ipv4Addr,
    /// The PBX, as its users know it.
    pub target: SocketAddrV4,
}

/// The calls.
#[derive(Debug)]
pub struct Load {
    callee: Callee,
    held: Callers,
    fresh: Callers,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Those that were up before.
    pub held: CallCounts,
    /// Those begun meanwhile.
    pub fresh: CallCounts,
}

impl Load {
    /// Returns when `calls` are up, for `hold` each, and new ones are being placed.
    pub fn begin(parties: &Parties, calls: u32, hold: Duration) -> Result<Self> {
        let callee = Callee::start(&parties.namespace, parties.client)?;
        let plan = CallPlan {
            namespace: parties.namespace.clone(),
            client: parties.client,
            target: parties.target,
            extension: PUT_THROUGH.into(),
            rate: HELD_RATE,
            calls,
            hold,
        };
        let steady = Callers::start(&plan)?;
        steady.wait_answered(ANSWER_LIMIT)?;
        let fresh = Callers::start(&CallPlan {
            rate: FRESH_RATE,
            calls: FRESH_CALLS,
            hold: FRESH_HOLD,
            ..plan
        })?;
        Ok(Self {
            callee,
            held: steady,
            fresh,
        })
    }

    /// Whether none of the held calls has ended yet.
    pub fn are_all_held(&self) -> Result<bool> {
        self.held.are_all_up()
    }

    /// Waits until the held calls have ended and no new ones are there.
    pub fn finish(self) -> Result<Carried> {
        let held = self.held.finish()?;
        self.fresh.stop_placing()?;
        let fresh = self.fresh.finish()?;
        drop(self.callee);
        ensure!(fresh.answered > 0, "no new call was answered: {fresh:?}");
        Ok(Carried { held, fresh })
    }
}
