//! Who may sign on under which name, by the credentials that the kernel tells of the peer: Heartbeat's `apiauth`.

/// One `apiauth` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A client's name; `anon`: casual clients; `default`: every name without a rule of its own.
    pub client: String,
    /// Users that may.
    pub uids: Vec<u32>,
    /// Groups whose members may, by their effective group.
    pub gids: Vec<u32>,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiAuth {
    /// In any order, one for each name.
    pub rules: Vec<Rule>,
    /// Whom the sidecar runs as: may always, as root may.
    pub own_uid: u32,
}

/// What a door of this kind is told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may.
    pub auth: ApiAuth,
    /// The port of the heartbeats between nodes.
    pub udp_port: u16,
}

/// What the kernel tells of a connected process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Whether this node may send it signals: not across pid namespaces, nor to other users without the right.
    pub can_be_signalled: bool,
}

impl ApiAuth {
    /// Whether a process may sign on under `name`; `None`: as a casual client.
    ///
    /// Without any rule that fits, casual clients may (they can only look), and named ones only as root or the sidecar's user.
    pub fn permits(&self, name: Option<&str>, peer: Credentials) -> bool {
        let own = match name {
            Some(name) => self.rule(name).or_else(|| self.rule("default")),
            None => self.rule("anon"),
        };
        if self.is_privileged(peer) {
            return true;
        }
        match own {
            Some(rule) => rule.uids.contains(&peer.uid) || rule.gids.contains(&peer.gid),
            None => name.is_none(),
        }
    }

    /// Whether a process may see more than is meant for it (Heartbeat's debugging filters).
    pub fn is_privileged(&self, peer: Credentials) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid
    }

    fn rule(&self, client: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.client == client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32, gid: u32) -> Credentials {
        Credentials {
            uid,
            gid,
            can_be_signalled: false,
        }
    }

    fn rule(client: &str, uids: &[u32], gids: &[u32]) -> Rule {
        Rule {
            client: client.into(),
            uids: uids.into(),
            gids: gids.into(),
        }
    }

    #[test]
    fn without_rules_anyone_looks_and_only_root_and_our_user_have_names() {
        let auth = ApiAuth {
            rules: Vec::new(),
            own_uid: 101,
        };
        assert!(auth.permits(None, of(1000, 1000)));
        assert!(!auth.permits(Some("ipfail"), of(1000, 1000)));
        assert!(auth.permits(Some("ipfail"), of(0, 0)) && auth.permits(Some("ipfail"), of(101, 5)));
    }

    #[test]
    fn a_rule_of_its_own_comes_before_the_default() {
        let auth = ApiAuth {
            rules: vec![
                rule("ipfail", &[7], &[]),
                rule("default", &[], &[50]),
                rule("anon", &[8], &[]),
            ],
            own_uid: 101,
        };
        assert!(auth.permits(Some("ipfail"), of(7, 1)) && !auth.permits(Some("ipfail"), of(1, 50)));
        assert!(auth.permits(Some("other"), of(1, 50)) && !auth.permits(Some("other"), of(7, 1)));
        assert!(auth.permits(None, of(8, 8)) && !auth.permits(None, of(9, 9)));
    }
}
