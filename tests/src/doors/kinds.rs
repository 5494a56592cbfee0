//! Which kinds of unmodified clients worked through a failover: those of the tests that pass, by running them.

use std::process::Command;

use anyhow::{Context, Result};

use crate::office::repository;

/// A test, and the clients that it takes through a failover.
struct Through {
    test: &'static str,
    clients: &'static [&'static str],
}

const TESTS: [Through; 2] = [
    Through {
        test: "unmodified_clients_see_a_switchover_and_a_failover",
        clients: &[
            "PyPI websockets (SysAdm)",
            "PyPI fluent-logger (Droonga)",
            "npm @fluent-org/logger (Droonga)",
            "curl (HTTP, server-sent events)",
        ],
    },
    Through {
        test: "clients_of_heartbeat_and_haast_see_a_switchover_and_a_death",
        clients: &[
            "cl_status (Heartbeat)",
            "api_test (Heartbeat)",
            "C with libhbclient (Heartbeat)",
            "Python from HAAst's description",
        ],
    },
];

/// Which clients worked, and the tests that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// By name.
    pub clients: Vec<&'static str>,
    /// By name.
    pub failed: Vec<String>,
}

/// Runs the tests: a few minutes.
pub fn measure() -> Result<Worked> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args([
        "test",
        "--package",
        "pbx-tests",
        "--features",
        "e2e",
        "--no-fail-fast",
        "--test",
        "door_events",
        "--test",
        "door_linux_ha",
        "--",
        "--test-threads=1",
    ]);
    let names = TESTS.iter().map(|through| through.test);
    let output = command
        .args(names)
        .output()
        .context("run the tests of the doors")?;
    Ok(worked(&String::from_utf8_lossy(&output.stdout)))
}

/// What the tests' own lines say. Pure.
fn worked(said: &str) -> Worked {
    let mut found = Worked::default();
    for through in &TESTS {
        if has_passed(said, through.test) {
            found.clients.extend(through.clients);
        } else {
            found.failed.push(through.test.to_owned());
        }
    }
    found
}

/// A test's output may stand between its name and its result.
fn has_passed(said: &str, test: &str) -> bool {
    let Some((_, rest)) = said.split_once(&format!("test {test} ... ")) else {
        return false;
    };
    let own = rest.split("\ntest ").next().unwrap_or_default();
    own.lines().any(|line| line == "ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_count_only_when_their_test_passed() {
        let [events, linux_ha] = TESTS.map(|through| through.test);
        let said = format!(
            "running 1 test\ntest {events} ... ok\n\ntest result: ok. 1 passed;\n\
             running 1 test\ntest {linux_ha} ... FAILED\n\nfailures:\n"
        );
        let found = worked(&said);
        assert_eq!(found.clients, TESTS[0].clients);
        assert_eq!(found.failed, [linux_ha]);
        let said = format!("test {linux_ha} ... a word of its own\nok\n");
        assert_eq!(worked(&said).clients, TESTS[1].clients);
        assert_eq!(worked("").clients, [""; 0]);
    }
}
