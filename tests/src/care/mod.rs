//! Asterisk under care, on bare hosts: it hangs, its role moves under calls, its files change under calls. What is measured here is
//! asserted by the tests and shown by the benchmark.

pub mod blocked;
pub mod kubernetes;
pub mod load;
pub mod slowed;

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pbx_crds::Cause;
use pbx_crds::report::Report;
use pbx_crds::switchover::{SwitchoverState, SwitchoverStatus};
use rustix::process::Signal;

use crate::bare_hosts::{BareHosts, BareSettings, VIP};
use crate::call::{Call, refused_status};
use crate::care::blocked::BlockedThreads;
use crate::care::load::{Carried, Load, Parties};
use crate::cluster::wait_until;

/// The dialplan of the test's calls: 100 answers and stays, 400 is the callee.
pub const DIALPLAN: &str = "[default]\nexten => 100,1,Answer()\n same => n,Wait(3600)\nexten => 200,1,Answer()\n same => n,Hangup()\nexten => 400,1,Dial(PJSIP/callee)\n";
const SIP_PORT: u16 = 5060;
const WHOLE_WITHIN: Duration = Duration::from_secs(40);
const DRAIN_HOLD: Duration = Duration::from_secs(12);

/// How an Asterisk hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// All of it stands still.
    Stopped,
    /// The threads that work for its task processors stand still: AMI still answers, SIP does not.
    Blocked,
}

/// Hosts for calls: a dialplan, and a namespace for the callers.
pub fn settings(name: &str) -> BareSettings {
    BareSettings {
        clients: 1,
        files: vec![("extensions.conf".into(), DIALPLAN.into())],
        ..BareSettings::plain(name, 3)
    }
}

/// The same with floating addresses.
pub fn floating_settings(name: &str) -> BareSettings {
    BareSettings {
        has_vip: true,
        ..settings(name)
    }
}

/// Makes the active's Asterisk hang; returns the time until another node is active, and the cause that it tells.
pub fn hang(hosts: &BareHosts, hang: Hang) -> Result<(Duration, Cause)> {
    let active = hosts.wait_whole(WHOLE_WITHIN)?;
    let asterisk = hosts.asterisk(active)?;
    let began = Instant::now();
    let blocked = match hang {
        Hang::Stopped => {
            asterisk.signal(Signal::STOP)?;
            None
        }
        Hang::Blocked => {
            let host = hosts.host(active);
            let target = SocketAddrV4::new(host.address, SIP_PORT);
            Some(BlockedThreads::of(
                asterisk.pid.cast_signed(),
                &host.path(),
                target,
            )?)
        }
    };
    let began = blocked.as_ref().map_or(began, BlockedThreads::since);
    let heir = wait_for_other(hosts, active, Duration::from_secs(10))?;
    let took = began.elapsed();
    let report = hosts.report(heir)?;
    let cause = last_cause(&report).context("the heir tells no cause")?;
    wait_until(
        "the hung Asterisk to be gone",
        Duration::from_secs(5),
        || Ok(hosts.asterisk(active).map(|now| now.pid).ok() != Some(asterisk.pid)),
    )?;
    Ok((took, cause))
}

/// What a drain did.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Calls that were not there any more when they were to be ended.
    pub cut: usize,
    /// The status that a new call to the old node got.
    pub refusal: u16,
    /// From the request to the new active.
    pub moved_after: Duration,
}

/// Moves the role away under `calls` calls, by a drain, then ends them in peace.
pub fn drain(hosts: &BareHosts, calls: usize) -> Result<Drained> {
    let active = hosts.wait_whole(WHOLE_WITHIN)?;
    let held = begin_calls(hosts, active, calls)?;
    let began = Instant::now();
    hosts.ask_for(active, "any Drain")?;
    let heir = wait_for_other(hosts, active, Duration::from_secs(10))?;
    let moved_after = began.elapsed();
    wait_state(hosts, active, SwitchoverState::Draining)?;
    let new = begin_calls(hosts, heir, 1).context("a new call to the new active")?;
    let caller = &hosts.lan().hosts()[hosts.count()];
    let target = SocketAddrV4::new(hosts.host(active).address, SIP_PORT);
    let refusal = refused_status(&caller.path(), caller.address, target, "100")?;
    // Longer than every deadline of the role: what keeps the calls is the drain.
    std::thread::sleep(Duration::from_secs(3));
    let cut = end_calls(held);
    ensure!(end_calls(new) == 0, "the new active lost its call");
    let done = wait_state(hosts, active, SwitchoverState::Done)?;
    ensure!(done.calls_left == Some(0), "{done:?}");
    Ok(Drained {
        cut,
        refusal,
        moved_after,
    })
}

/// Moves the role and its floating address away under `calls` calls, by a drain, while new calls to the address go on; returns the
/// time until the new active, too.
pub fn drain_floating(hosts: &BareHosts, calls: u32) -> Result<(Carried, Duration)> {
    let active = hosts.wait_whole(WHOLE_WITHIN)?;
    let caller = &hosts.lan().hosts()[hosts.count()];
    let parties = Parties {
        namespace: caller.path(),
        client: caller.address,
        target: SocketAddrV4::new(VIP, SIP_PORT),
    };
    let load = Load::begin(&parties, calls, DRAIN_HOLD)?;
    let began = Instant::now();
    hosts.ask_for(active, "any Drain")?;
    wait_for_other(hosts, active, Duration::from_secs(10))?;
    let took = began.elapsed();
    wait_state(hosts, active, SwitchoverState::Draining)?;
    // Longer than every deadline of the role: what keeps the calls is the drain.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(load.are_all_held()?, "calls ended long before their time");
    let carried = load.finish()?;
    wait_state(hosts, active, SwitchoverState::Done)?;
    Ok((carried, took))
}

/// Changes the dialplan on all hosts under `calls` calls, to one that ends with `mark`; returns how many of them were lost, and the time until the active had it.
pub fn reload(hosts: &BareHosts, calls: usize, mark: &str) -> Result<(usize, Duration)> {
    let active = hosts.wait_whole(WHOLE_WITHIN)?;
    let before = hosts.report(active)?;
    let held = begin_calls(hosts, active, calls)?;
    let began = Instant::now();
    write_dialplan(hosts, mark)?;
    wait_files(hosts, active, &before)?;
    let took = began.elapsed();
    let caller = &hosts.lan().hosts()[hosts.count()];
    let target = SocketAddrV4::new(hosts.host(active).address, SIP_PORT);
    wait_until("the new extension", Duration::from_secs(5), || {
        Ok(Call::begin(&caller.path(), caller.address, target, "300").is_ok())
    })?;
    let lost = end_calls(held);
    let after = hosts.report(active)?;
    ensure!(after.epoch == before.epoch, "the role moved: {after:?}");
    Ok((lost, took))
}

/// Gives every host a new dialplan, in which `mark` is a comment.
pub fn write_dialplan(hosts: &BareHosts, mark: &str) -> Result<()> {
    for index in 0..hosts.count() {
        let text = format!("{DIALPLAN}exten => 300,1,Answer()\n same => n,Hangup()\n; {mark}\n");
        hosts.write_file(index, "extensions.conf", &text)?;
    }
    Ok(())
}

/// Until the active gives other files to its Asterisk than `before`.
pub fn wait_files(hosts: &BareHosts, active: usize, before: &Report) -> Result<()> {
    wait_until(
        "the active to have the new files",
        Duration::from_mins(1),
        || Ok(hosts.report(active)?.config_hash != before.config_hash),
    )
}

/// Answered calls from the client to a host.
pub fn begin_calls(hosts: &BareHosts, index: usize, count: usize) -> Result<Vec<Call>> {
    let caller = &hosts.lan().hosts()[hosts.count()];
    let target = SocketAddrV4::new(hosts.host(index).address, SIP_PORT);
    (0..count)
        .map(|_| Call::begin(&caller.path(), caller.address, target, "100"))
        .collect()
}

/// Ends calls; returns how many were not there any more.
pub fn end_calls(calls: Vec<Call>) -> usize {
    calls
        .into_iter()
        .map(Call::hang_up)
        .filter(Result::is_err)
        .count()
}

/// Waits until a host other than `old` is active.
pub fn wait_for_other(hosts: &BareHosts, old: usize, limit: Duration) -> Result<usize> {
    let mut found = None;
    wait_until("another active", limit, || {
        found = hosts.actives().into_iter().find(|index| *index != old);
        Ok(found.is_some())
    })?;
    found.context("another is active")
}

/// Waits until a host tells of its planned move that it is there.
pub fn wait_state(
    hosts: &BareHosts,
    index: usize,
    state: SwitchoverState,
) -> Result<SwitchoverStatus> {
    let mut found = None;
    wait_until("a state of the switchover", Duration::from_secs(15), || {
        found = hosts.report(index)?.switchover;
        Ok(found.as_ref().is_some_and(|one| one.state == state))
    })
    .with_context(|| format!("waited for {state:?}"))?;
    found.context("there is a switchover")
}

/// Why the role moved last, as a node knows it.
pub fn last_cause(report: &Report) -> Option<Cause> {
    report.ledger.history().first().map(|record| record.cause)
}
