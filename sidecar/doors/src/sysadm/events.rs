//! The events of SysAdm, made from what the sidecar knows. Pure.

use serde_json::{Map, Value, json};

use super::codec::{Topic, event};
use crate::job::{Action, Job, JobState};

/// The id of every event that nobody asked for.
const NONE: &str = "none";
/// Gibibytes and the like, each 1,024 times the one before.
const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];

/// A file system on which a node keeps data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Its name: what it is for.
    pub name: String,
    /// All of it.
    pub size_bytes: u64,
    /// What is not free.
    pub used_bytes: u64,
    /// What an ordinary user may still fill.
    pub free_bytes: u64,
    /// It takes no writes.
    pub is_read_only: bool,
}

impl Storage {
    /// Percent that is used.
    pub fn capacity_percent(&self) -> u64 {
        let filled = self.used_bytes.saturating_add(self.free_bytes);
        (self.used_bytes * 100)
            .checked_div(filled)
            .map_or(0, |percent| percent.min(100))
    }

    fn priority(&self) -> &'static str {
        match self.capacity_percent() {
            percent if percent >= 95 || self.is_read_only => "9 - CRITICAL",
            90.. => "6 - WARNING",
            _ => "0 - INFO",
        }
    }

    fn args(&self) -> Value {
        json!({
            "size": human(self.size_bytes),
            "alloc": human(self.used_bytes),
            "free": human(self.free_bytes),
            "frag": "-",
            "expandsz": "-",
            "dedup": "1.00x",
            "altroot": "-",
            "capacity": format!("{}%", self.capacity_percent()),
            "health": if self.is_read_only { "DEGRADED" } else { "ONLINE" },
            "priority": self.priority(),
        })
    }
}

/// A line of the snapshots' log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preserved {
    /// What happened.
    pub message: String,
    /// How much it matters.
    pub priority: Priority,
    /// Which part it is of.
    pub class: Class,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// All is well.
    Info,
    /// Somebody should look.
    Critical,
}

/// The two parts of the Life Preserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A configuration was taken into use.
    Snapshot,
    /// A copy came to another node.
    Replication,
}

/// Under which names and forms a job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The fields themselves.
    Plain,
    /// Within `process_details`, beside `event_system`.
    Class,
}

/// The dispatcher's event of `job`, and in which form: what concerns the cluster as a whole is told as a class.
pub fn dispatcher(job: &Job, form: Form) -> String {
    let details = Value::Object(process_details(job));
    let args = match form {
        Form::Plain => details,
        Form::Class => json!({
            "event_system": format!("pbxha/{}", action_name(&job.action)),
            "state": details["state"],
            "requested_by": job.who,
            "process_details": details,
        }),
    };
    event(Topic::Dispatcher.name(), NONE, &args)
}

fn process_details(job: &Job) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.into(), value);
    let commands: Vec<&str> = job.steps.iter().map(|step| &*step.command).collect();
    put("cmd_list", json!(commands));
    put("process_id", json!(job.id.to_string()));
    match job.state {
        JobState::Pending => {
            put("state", json!("pending"));
        }
        JobState::Running { current } => {
            put("state", json!("running"));
            put("time_started", json!(iso(job.started_at)));
            put("current_cmd", json!(commands.get(current)));
            for step in &job.steps[..job.steps.len().min(current + 1)] {
                put(&step.command, json!(step.log));
            }
        }
        JobState::Finished => {
            put("state", json!("finished"));
            put("time_started", json!(iso(job.started_at)));
            put("time_finished", json!(iso(job.finished_at)));
            for step in &job.steps {
                put(&step.command, json!(step.log));
            }
        }
    }
    for step in &job.steps {
        if let (Some(code), false) = (step.return_code, job.state == JobState::Pending) {
            put(
                &format!("return_codes/{}", step.command),
                json!(code.to_string()),
            );
        }
    }
    fields
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Promote => "promote",
        Action::Demote => "demote",
        Action::Switchover { .. } => "switchover",
        Action::CancelSwitchover => "cancel-switchover",
        Action::Drill => "drill",
        Action::StartAsterisk => "start",
        Action::StopAsterisk => "stop",
        Action::RestartAsterisk => "restart",
        Action::ReloadAsterisk => "reload",
        Action::Fence => "fence",
        Action::Unfence => "unfence",
        Action::Pause => "pause",
        Action::Resume => "resume",
    }
}

/// Whole seconds, in UTC; empty when it has not come yet.
fn iso(at: Option<jiff::Timestamp>) -> String {
    at.map_or_else(String::new, |at| {
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    })
}

/// The event of a host's name and storage.
pub fn system_state(hostname: &str, has_hostname_changed: bool, storage: &[Storage]) -> String {
    let pools: Map<String, Value> = storage
        .iter()
        .map(|storage| (storage.name.clone(), storage.args()))
        .collect();
    let args = json!({
        "hostname": hostname,
        "hostnamechanged": if has_hostname_changed { "true" } else { "false" },
        "zpools": pools,
    });
    event(Topic::SystemState.name(), NONE, &args)
}

/// The event of a snapshot or of a copy.
pub fn life_preserver(preserved: &Preserved) -> String {
    let args = json!({
        "message": preserved.message,
        "priority": match preserved.priority {
            Priority::Info => "2/INFO",
            Priority::Critical => "9/CRITICAL",
        },
        "class": match preserved.class {
            Class::Snapshot => "snapshot",
            Class::Replication => "replication",
        },
    });
    event(Topic::LifePreserver.name(), NONE, &args)
}

/// The event of the connections behind a bridge: always all of them.
pub fn bridge(connections: &[String]) -> String {
    event(
        "bridge",
        "",
        &json!({ "available_connections": connections }),
    )
}

/// Three digits at least, as `zpool list` has them: 107G, 13.1G.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn human(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let decimals = match amount {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{amount:.decimals$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Step;

    fn job(state: JobState, codes: [Option<i32>; 2]) -> Job {
        let step = |command: &str, log: &str, return_code| Step {
            command: command.into(),
            log: log.into(),
            return_code,
        };
        let at = |text: &str| Some(text.parse().unwrap());
        Job {
            id: 7,
            action: Action::Drill,
            who: "http".into(),
            state,
            steps: vec![
                step("check office-1", "ready", codes[0]),
                step("switchover office-1", "", codes[1]),
            ],
            started_at: at("2026-11-22T08:30:00.5Z"),
            finished_at: at("2026-11-22T08:30:02Z"),
        }
    }

    fn args(text: &str) -> Value {
        let event: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            (&event["namespace"], &event["id"]),
            (&json!("events"), &json!("none"))
        );
        event["args"].clone()
    }

    #[test]
    fn the_three_states_have_the_fields_of_the_specification() {
        let pending = dispatcher(&job(JobState::Pending, [None, None]), Form::Plain);
        assert_eq!(
            args(&pending),
            json!({"state": "pending", "cmd_list": ["check office-1", "switchover office-1"], "process_id": "7"})
        );
        let running = JobState::Running { current: 1 };
        let running = dispatcher(&job(running, [Some(0), None]), Form::Plain);
        assert_eq!(
            args(&running),
            json!({
                "state": "running", "cmd_list": ["check office-1", "switchover office-1"], "process_id": "7",
                "time_started": "2026-11-22T08:30:00Z", "current_cmd": "switchover office-1",
                "check office-1": "ready", "switchover office-1": "", "return_codes/check office-1": "0",
            })
        );
        let finished = dispatcher(&job(JobState::Finished, [Some(0), Some(2)]), Form::Plain);
        let finished = args(&finished);
        assert_eq!(finished["time_finished"], "2026-11-22T08:30:02Z");
        assert_eq!(finished["return_codes/check office-1"], "0");
        assert_eq!(finished["return_codes/switchover office-1"], "2");
    }

    #[test]
    fn the_class_form_holds_the_plain_one() {
        let job = job(JobState::Pending, [None, None]);
        let class = args(&dispatcher(&job, Form::Class));
        assert_eq!(class["event_system"], "pbxha/drill");
        assert_eq!(class["state"], "pending");
        assert_eq!(
            class["process_details"],
            args(&dispatcher(&job, Form::Plain))
        );
    }

    #[test]
    fn storage_has_the_ten_fields() {
        let storage = Storage {
            name: "data".into(),
            size_bytes: 107 << 30,
            used_bytes: 13_400 << 20,
            free_bytes: 96_168 << 20,
            is_read_only: false,
        };
        let state = args(&system_state("office-0", false, &[storage]));
        assert_eq!(state["hostnamechanged"], "false");
        assert_eq!(
            state["zpools"]["data"],
            json!({
                "size": "107G", "alloc": "13.1G", "free": "93.9G", "frag": "-", "expandsz": "-", "dedup": "1.00x",
                "altroot": "-", "capacity": "12%", "health": "ONLINE", "priority": "0 - INFO",
            })
        );
    }

    #[test]
    fn a_bridge_event_has_an_empty_id_and_all_connections() {
        let text = bridge(&["office-0".into(), "office-1".into()]);
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["id"], "");
        assert_eq!(
            event["args"],
            json!({"available_connections": ["office-0", "office-1"]})
        );
    }
}
