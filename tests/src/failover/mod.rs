//! Failovers of different systems, measured alike: the same switch, the same faults, the same client that asks every 2 ms.
//!
//! Reading order: [`log`] (what was seen, and what it means), [`probe`] (who asks), this file (a fault and its figures),
//! [`weather`] (faults that the kernel lacks), then the systems: [`ours`], [`keepalived`], [`heartbeat`], [`pacemaker`], [`fixed`] (a control that cannot fail over).
//!
//! What is left out: Kubernetes. `cargo xtask bench e2e` measures that.

pub mod cost;
pub mod fixed;
pub mod heartbeat;
pub mod keepalived;
pub mod log;
pub mod ours;
pub mod pacemaker;
pub mod probe;
pub mod responder;
mod simple_hosts;
pub mod weather;

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::log::AskLog;
use self::probe::{AskSettings, Asking};
use self::weather::{Storm, Weather};
use crate::clock::Moment;
use crate::cluster::freeze::{Freezer, freeze_by, stop};
use crate::cluster::{Process, wait_until};
use crate::netns::{HOST_LINK, Host, Lan};
use crate::progress::output_of;

/// So many answers in a row by one node before a fault.
const WARM_ANSWERS: usize = 250;
const WARM_LIMIT: Duration = Duration::from_secs(20);
/// How long a partition or another lasting fault lasts.
const LASTING: Duration = Duration::from_secs(3);
/// Asked for so long after the first answer behind a fault, or after its end.
const AFTERWARDS: Duration = Duration::from_millis(1500);
const LONGEST: Duration = Duration::from_mins(1);
/// Of the nodes' ears, at 30 % loss.
const LOSS_PERCENT: u32 = 30;

/// A system that keeps a floating address served. The last two hosts of its switch are clients.
pub trait Contender {
    /// The address that is asked.
    fn target(&self) -> SocketAddrV4;
    /// Nodes, then two clients.
    fn lan(&self) -> &Lan;
    /// Waits until one node serves and the others could.
    fn wait_whole(&mut self) -> Result<()>;
    /// Kills the service of a node, as a crash of Asterisk.
    fn kill_service(&mut self, node: usize) -> Result<()>;
    /// Ends everything on a node at once.
    fn crash(&mut self, node: usize) -> Result<()>;
    /// Asks for the role to be moved from a node, as a person would.
    fn switch_over(&mut self, node: usize) -> Result<()>;
    /// Starts what a fault ended on a node, and takes back what a switchover asked for.
    fn restore(&mut self, node: usize) -> Result<()>;
    /// Everything that runs on a node.
    fn processes(&self, node: usize) -> Result<Vec<Process>>;
    /// Longest wait for an answer after a fault.
    fn patience(&self) -> Duration;
}

/// What happens to the node that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: shows what the machine itself adds.
    None,
    /// The service dies.
    Kill,
    /// A person asks for it.
    Switchover,
    /// The node dies.
    Crash,
    /// The switch passes nothing from and to it; its carrier stays.
    Partition,
    /// The whole node stands still.
    Pause(Freezer, Duration),
    /// The same by SIGSTOP.
    Stop(Duration),
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// All nodes lose a third of what they should hear.
    Loss,
    /// What nodes send to each other is disturbed.
    Weather(Weather),
}

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Longest time without an answer for the client, milliseconds.
    pub gap_ms: f64,
    /// Answers by two nodes at the same time.
    pub by_two: usize,
    /// Whether another node served in the end, or in between.
    pub has_moved: bool,
    /// The machine was too busy to ask: the gap means nothing.
    pub is_stalled: bool,
}

/// Applies a fault to the node that serves, and measures what a client sees of it.
pub fn measure(contender: &mut dyn Contender, fault: Fault) -> Result<Run> {
    contender.wait_whole()?;
    let asking = Asking::start(settings(contender))?;
    let active = match wait_warm(&asking) {
        Ok(active) => active,
        Err(error) => {
            asking.finish()?;
            return Err(error);
        }
    };
    let begun_at = Moment::now();
    let result = suffer(contender, fault, active, &asking, begun_at);
    let log = asking.finish()?;
    contender.restore(active)?;
    result?;
    Ok(run_of(&log, begun_at, active))
}

fn run_of(log: &AskLog, begun_at: Moment, active: usize) -> Run {
    Run {
        gap_ms: log.longest_gap_ms(begun_at),
        by_two: log.by_two(),
        has_moved: log.answerers(begun_at).iter().any(|node| *node != active),
        is_stalled: log.is_stalled(),
    }
}

/// The clients of a contender: the one that asks, and the one that reaches all nodes.
pub fn clients(lan: &Lan) -> (&Host, &Host) {
    let [.., client, observer] = lan.hosts() else {
        panic!("a contender has two clients");
    };
    (client, observer)
}

/// For the observer, the address is at the hardware address that all hear.
pub fn broadcast_neighbour(lan: &Lan, target: SocketAddrV4) -> Result<()> {
    let (_, observer) = clients(lan);
    let ip = target.ip().to_string();
    let mut command = observer.command("ip");
    command.args([
        "neigh",
        "replace",
        &ip,
        "lladdr",
        "ff:ff:ff:ff:ff:ff",
        "dev",
        HOST_LINK,
        "nud",
        "permanent",
    ]);
    output_of(&mut command).map(drop)
}

fn settings(contender: &dyn Contender) -> AskSettings {
    let lan = contender.lan();
    let nodes = &lan.hosts()[..lan.hosts().len() - 2];
    let (client, observer) = clients(lan);
    AskSettings {
        target: contender.target(),
        client: client.path(),
        observer: observer.path(),
        nodes: nodes.iter().map(Host::path).collect(),
        hardware: nodes.iter().map(Host::hardware).collect(),
        limit: LONGEST,
    }
}

/// Waits for a row of answers and returns the node that gave them.
fn wait_warm(asking: &Asking) -> Result<usize> {
    let mut since = None;
    wait_until("answers before the fault", WARM_LIMIT, || {
        let Some((node, _)) = asking.last() else {
            return Ok(false);
        };
        let (first, count) = *since.get_or_insert((node, asking.answered()));
        if first != node {
            since = None;
        }
        Ok(first == node && asking.answered() >= count + WARM_ANSWERS)
    })?;
    let (node, _) = asking.last().context("nobody answered")?;
    Ok(node)
}

fn suffer(
    contender: &mut dyn Contender,
    fault: Fault,
    active: usize,
    asking: &Asking,
    begun_at: Moment,
) -> Result<()> {
    match fault {
        Fault::None => std::thread::sleep(LASTING),
        Fault::Kill => contender.kill_service(active)?,
        Fault::Switchover => {
            contender.switch_over(active)?;
            wait_until("the role to move", contender.patience(), || {
                Ok(asking.last().is_some_and(|(node, _)| node != active))
            })?;
        }
        Fault::Crash => contender.crash(active)?,
        Fault::Partition => {
            let host = contender.lan().hosts()[active].clone();
            host.silence()?;
            std::thread::sleep(LASTING);
            host.unsilence()?;
        }
        Fault::Pause(freezer, time) => {
            let frozen = freeze_by(freezer, &contender.processes(active)?)?;
            std::thread::sleep(time);
            frozen.thaw()?;
        }
        Fault::Stop(time) => {
            let stopped = stop(&contender.processes(active)?)?;
            std::thread::sleep(time);
            stopped.proceed();
        }
        Fault::Deaf => during(contender, &[active], "ingress", 100)?,
        Fault::Mute => during(contender, &[active], "egress", 100)?,
        Fault::Loss => {
            let nodes: Vec<usize> = (0..contender.lan().hosts().len() - 2).collect();
            during(contender, &nodes, "ingress", LOSS_PERCENT)?;
        }
        Fault::Weather(weather) => {
            let nodes = contender.lan().hosts().len() - 2;
            let storm = Storm::begin(contender.lan(), nodes, weather)?;
            std::thread::sleep(LASTING);
            storm.end()?;
        }
    }
    wait_answered(asking, begun_at, contender.patience())
}

/// Loses packets at the links of some nodes for a while.
fn during(contender: &dyn Contender, nodes: &[usize], hook: &str, percent: u32) -> Result<()> {
    let hosts = contender.lan().hosts();
    for node in nodes {
        hosts[*node].nft(&lossy(hook, percent))?;
    }
    std::thread::sleep(LASTING);
    for node in nodes {
        hosts[*node].nft("delete table netdev fault")?;
    }
    Ok(())
}

/// Behind everybody else's rules.
fn lossy(hook: &str, percent: u32) -> String {
    // nft refuses a chance of a hundred in a hundred.
    let chance = if percent < 100 {
        format!("numgen random mod 100 < {percent} ")
    } else {
        String::new()
    };
    format!(
        "table netdev fault {{ chain {hook} {{ type filter hook {hook} device \"{HOST_LINK}\" priority 500; {chance}drop; }}; }}"
    )
}

/// Until the client is answered again, steadily.
fn wait_answered(asking: &Asking, begun_at: Moment, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    // An answer that was under way when the fault began is none.
    let least = Moment(begun_at.0 + 15_000_000);
    let mut count_at = None;
    loop {
        let is_answered = asking.last().is_some_and(|(_, at)| at > least);
        if is_answered {
            let (count, since) = *count_at.get_or_insert((asking.answered(), Instant::now()));
            if since.elapsed() > AFTERWARDS {
                if asking.answered() > count + WARM_ANSWERS {
                    return Ok(());
                }
                // For a moment only.
                count_at = None;
            }
        }
        if Instant::now() > deadline {
            bail!("nobody answered within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
