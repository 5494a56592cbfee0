//! `cargo xtask demo`: a telephone system on a real Kubernetes, whose active Asterisk is killed and whose node is powered off, while a
//! SIP client asks all the time and `kubectl get pbx` tells. Leaves everything running for the user.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use pbx_tests::clock::Moment;
use pbx_tests::cluster::own_start;
use pbx_tests::measure::{Figure, Goal};
use pbx_tests::office::{NAME, NAMESPACE, Office, ready};
use pbx_tests::scenario::kills::signal_asterisk;
use pbx_tests::scenario::moves::{Move, Steps, observe};
use pbx_tests::scenario::nodes::{keep_operator_off, power_off_of_active, power_on};
use pbx_tests::tools::{cache_dir, kubectl};

use crate::results::write_json;

/// What a failing demo may have to show.
const WHERE_TO_LOOK: &str = "\
what to look at:
  cargo xtask cluster status                      what runs
  the logs named there                            of every part of Kubernetes
  kubectl -n pbx get pbx,pods; kubectl -n pbx describe pbx office
  kubectl -n pbx logs office-0 -c sidecar         and -c asterisk
  kubectl -n pbx-ha-system logs deployment/pbx-ha-operator
begin anew: cargo xtask cluster down; cargo xtask demo";
const FRESH_GOAL_S: f64 = 1200.0;
const CACHED_GOAL_S: f64 = 60.0;

/// How to show.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the times to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Shows it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    show(arguments).context(WHERE_TO_LOOK)
}

fn show(arguments: &Arguments) -> Result<()> {
    // What cargo compiled before is waited for as well.
    let begun_at = own_start()?;
    let is_fresh = !has_caches()?;
    println!(
        "A telephone system on a real Kubernetes of three nodes, without Docker. Needed: root, Debian, Go."
    );
    if is_fresh {
        println!(
            "The first time, Kubernetes is compiled and Asterisk installed: 10 to 20 minutes. All of it is kept in {}.",
            cache_dir()?.display()
        );
    }
    let office = ready()?;
    explain(&office)?;

    println!("\n## kill -9 of the active Asterisk\n");
    print_state(&office)?;
    let killed = observe(
        &office,
        &Steps {
            cause: &signal_asterisk,
            repair: &|_| Ok(()),
        },
    )?;
    print_move("the signal", &killed);
    print_state(&office)?;

    println!("\n## The node of the active powered off\n");
    let off = show_node_off(&office)?;
    print_state(&office)?;
    let seconds = Moment::now().ms_since(begun_at) / 1000.0;
    println!("\nAll of it took {seconds:.0} s.");
    farewell(&office)?;
    let figures = figures(is_fresh, seconds, &killed, &off);
    write_json(arguments.json.as_deref(), &figures)
}

fn show_node_off(office: &Office) -> Result<Move> {
    let node = office.active_pod()?.node;
    keep_operator_off(office, node)?;
    let repair = |office: &Office| {
        println!("{node} is off, and the standby serves:\n");
        print_state(office)?;
        println!("\n{node} is powered on again:\n");
        power_on(office, node)
    };
    let found = observe(
        office,
        &Steps {
            cause: &power_off_of_active,
            repair: &repair,
        },
    )?;
    print_move("the cut", &found);
    Ok(found)
}

fn explain(office: &Office) -> Result<()> {
    println!(
        "\nInstalled: the chart charts/pbx-ha, and examples/{NAME}.yaml in the namespace {NAMESPACE}."
    );
    println!(
        "A SIP client on another node asks {} every 2 ms, from a kept port, and every fourth time from a new one.",
        office.service()?
    );
    Ok(())
}

fn print_state(office: &Office) -> Result<()> {
    let state = office
        .cluster
        .kubectl(&["get", "pbx", "--namespace", NAMESPACE])?;
    println!("$ kubectl get pbx\n{state}");
    Ok(())
}

fn print_move(cause: &str, found: &Move) {
    println!(
        "{} took over from {}, milliseconds from {cause}:",
        found.to, found.from
    );
    for (ms, what) in [
        (
            found.promoted_ms,
            "promoted: authority held, the kernel's deadline armed",
        ),
        (found.endpoints_ms, "EndpointSlice written"),
        (found.answer_ms, "first answer to a client with a new port"),
        (
            found.answer_kept_ms,
            "first answer to a client that keeps its port",
        ),
        (found.status_ms, "new status at a watching client"),
    ] {
        println!("  {ms:8.1}  {what}");
    }
    println!(
        "The SIP client waited {:.1} ms at most, {} requests were lost, {} answers came from two nodes at once.\n",
        found.gap_ms, found.lost, found.dual
    );
}

fn farewell(office: &Office) -> Result<()> {
    let kubectl = kubectl()?;
    let folder = kubectl.parent().context("kubectl stands in no folder")?;
    println!("\nIt goes on running. To play with it:");
    println!(
        "  export KUBECONFIG={}",
        office.cluster.kubeconfig().display()
    );
    println!("  export PATH={}:$PATH", folder.display());
    println!("  kubectl -n {NAMESPACE} get pbx --watch");
    println!(
        "  cargo xtask cluster crash node-1    # power a node off; start, cut, heal, stop-api, ..."
    );
    println!("To remove it:");
    println!("  cargo xtask cluster down");
    Ok(())
}

/// Whether Kubernetes and Asterisk are there, which take the time.
fn has_caches() -> Result<bool> {
    let entries = fs::read_dir(cache_dir()?).context("list the cache")?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    Ok(has("kube-") && has("asterisk-"))
}

fn figures(is_fresh: bool, seconds: f64, killed: &Move, off: &Move) -> Vec<Figure> {
    let (name, what, goal) = if is_fresh {
        (
            "demo.fresh_s",
            "`cargo xtask demo` on a fresh machine, compiling included",
            FRESH_GOAL_S,
        )
    } else {
        (
            "demo.cached_s",
            "`cargo xtask demo` with caches",
            CACHED_GOAL_S,
        )
    };
    let one = |name: &str, what: &str, unit: &str, most: f64, value: f64| {
        Figure::new(name, what, unit, Goal::Max(most), &[value], &[])
    };
    let of_kill = "from `kill -9` of the active Asterisk, once";
    vec![
        one(name, what, "s", goal, seconds),
        one(
            "demo.kill_promoted_ms",
            of_kill,
            "ms",
            10.0,
            killed.promoted_ms,
        ),
        one(
            "demo.kill_endpoints_ms",
            of_kill,
            "ms",
            25.0,
            killed.endpoints_ms,
        ),
        one(
            "demo.kill_answer_ms",
            of_kill,
            "ms",
            150.0,
            killed.answer_ms,
        ),
        one(
            "demo.kill_status_ms",
            of_kill,
            "ms",
            150.0,
            killed.status_ms,
        ),
        one(
            "demo.node_off_promoted_ms",
            "from the cut of the active's node, once",
            "ms",
            850.0,
            off.promoted_ms,
        ),
    ]
}
