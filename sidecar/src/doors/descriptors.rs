//! How many descriptors this process may have. Clients of the doors must not use them up: the core opens a file for each record, and
//! a record that cannot be written ends the sidecar.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows as many as the process may allow itself: a service's usual limit is 1,024, a container's a million.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?limit, "the limit of open files stays as it is: fewer clients are served");
    }
}

/// How many it may have.
pub fn allowed() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| limit as usize)
}
