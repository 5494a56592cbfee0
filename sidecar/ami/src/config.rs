//! The hub's part of a configuration file, and its check: every problem at once, each with its path.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::class::Classes;
use crate::filter::Filters;
use crate::user::{Network, Secret, User, Users};

/// The hub as it is written in a file. Unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AmiConfig {
    /// Addresses for plain AMI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<SocketAddr>,
    /// AMI over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// A unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// Who may use it.
    pub users: Vec<UserConfig>,
    /// The file of the durable queue. Left out: no queue, hence no action files and no HTTP transactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_file: Option<PathBuf>,
    /// Action files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
}

/// AMI over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// Addresses.
    pub listen: Vec<SocketAddr>,
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A user, as a section of manager.conf has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserConfig {
    /// The name.
    pub name: String,
    /// The secret. Either this or `secretFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A file with the secret in its first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Classes of events that it hears, such as `call,reporting` or `all`.
    #[serde(default)]
    pub read: String,
    /// Classes of actions that it may ask for.
    #[serde(default)]
    pub write: String,
    /// Networks that it may come from; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permit: Vec<String>,
    /// As `eventfilter` in manager.conf: regular expressions, `!` in front of what is not wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_filters: Vec<String>,
}

/// Action files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpoolConfig {
    /// The folder that they are moved into.
    pub dir: PathBuf,
    /// Whose rights they have; left out: all, since whoever may write there is trusted as with call files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For plain AMI.
    pub listen: Vec<SocketAddr>,
    /// For AMI over TLS.
    pub tls: Option<(Vec<SocketAddr>, Certificate)>,
    /// The unix socket.
    pub socket: Option<PathBuf>,
    /// Who may use it.
    pub users: Users,
    /// The durable queue.
    pub queue_file: Option<PathBuf>,
    /// The folder of action files, and what they may do.
    pub spool: Option<(PathBuf, Classes)>,
}

impl AmiConfig {
    /// Checks it, and reads the files that it names. The error has every problem, each with its path below `path`, and the fix.
    pub fn check(&self, path: &str) -> Result<Settings, Vec<String>> {
        let mut problems = Vec::new();
        let users = Users::new(users_of(&self.users, &mut problems));
        let tls = self.tls.as_ref().and_then(|tls| {
            let read = Certificate::read(tls).inspect_err(|problem| problems.push(problem.clone()));
            Some((tls.listen.clone(), read.ok()?))
        });
        let spool = self.spool(&users, &mut problems);
        if self.listen.is_empty() && self.tls.is_none() && self.socket.is_none() {
            problems.push("listen: nothing is listened on: give listen, tls or socket".into());
        }
        if !problems.is_empty() {
            let with_path = problems.iter().map(|problem| format!("{path}{problem}"));
            return Err(with_path.collect());
        }
        Ok(Settings {
            listen: self.listen.clone(),
            tls,
            socket: self.socket.clone(),
            users,
            queue_file: self.queue_file.clone(),
            spool,
        })
    }

    fn spool(&self, users: &Users, problems: &mut Vec<String>) -> Option<(PathBuf, Classes)> {
        let spool = self.spool.as_ref()?;
        if self.queue_file.is_none() {
            problems.push("spool: needs queueFile, where its actions are kept".into());
        }
        let classes = match &spool.user {
            None => Some(Classes::ALL),
            Some(name) => users.get(name).map(|user| user.write),
        };
        if classes.is_none() {
            problems
                .push("spool.user: is not among users: name one of them, or leave it out".into());
        }
        Some((spool.dir.clone(), classes?))
    }
}

/// Checks a list of users; the problems have their paths.
pub fn users_of(configs: &[UserConfig], problems: &mut Vec<String>) -> Vec<User> {
    let mut users = Vec::new();
    for (at, config) in configs.iter().enumerate() {
        let mut own = Vec::new();
        users.extend(user(config, &mut own));
        if configs[..at].iter().any(|other| other.name == config.name) {
            own.push(format!(
                "name: {} stands there twice: names are unique",
                config.name
            ));
        }
        problems.extend(own.iter().map(|problem| format!("users[{at}].{problem}")));
    }
    users
}

fn user(config: &UserConfig, problems: &mut Vec<String>) -> Option<User> {
    let before = problems.len();
    let secret = secret(config).map_err(|problem| problems.push(problem));
    let mut classes = |field: &str, text: &str| {
        Classes::parse(text).unwrap_or_else(|word| {
            problems.push(format!(
                "{field}: {word} is no class: write such as call,reporting or all"
            ));
            Classes::NONE
        })
    };
    let (read, write) = (
        classes("read", &config.read),
        classes("write", &config.write),
    );
    let mut permit = Vec::new();
    for text in &config.permit {
        match Network::parse(text) {
            Ok(network) => permit.push(network),
            Err(problem) => problems.push(format!("permit: {problem}")),
        }
    }
    let mut filters = Filters::default();
    for text in &config.event_filters {
        if let Err(error) = filters.add(text) {
            problems.push(format!("eventFilters: {error}"));
        }
    }
    (problems.len() == before).then_some(())?;
    Some(User {
        name: config.name.clone(),
        secret: Secret::new(secret.ok()?),
        read,
        write,
        permit,
        filters,
    })
}

fn secret(config: &UserConfig) -> Result<String, String> {
    let secret = match (&config.secret, &config.secret_file) {
        (Some(secret), None) => secret.clone(),
        (None, Some(path)) => {
            read_secret(path).map_err(|error| format!("secretFile: {}: {error}", path.display()))?
        }
        _ => return Err("secret: give either secret or secretFile".into()),
    };
    if secret.is_empty() {
        return Err("secret: is empty: anybody could log in".into());
    }
    Ok(secret)
}

/// The first line of a file.
pub fn read_secret(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_said_with_its_path() {
        let text = "
users:
- {name: a, secret: x, read: telepathy, permit: [ten], eventFilters: ['a(']}
- {name: a, secret: ''}
- {name: b}
tls: {listen: ['127.0.0.1:0'], certificate: /none, key: /none}
spool: {dir: /tmp, user: z}
";
        let config: AmiConfig = serde_yaml::from_str(text).unwrap();
        let problems = config.check("doors.ami.").unwrap_err().join("\n");
        for path in [
            "doors.ami.users[0].read: telepathy",
            "users[0].permit: ten",
            "users[0].eventFilters",
            "users[1].secret: is empty",
            "users[1].name: a stands there twice",
            "users[2].secret: give either",
            "tls.certificate: /none",
            "spool: needs queueFile",
            "spool.user:",
        ] {
            assert!(problems.contains(path), "{path} is missing in\n{problems}");
        }
        let nothing = AmiConfig::default().check("").unwrap_err();
        assert!(nothing[0].contains("nothing is listened on"));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(serde_yaml::from_str::<AmiConfig>("colour: blue").is_err());
    }
}
