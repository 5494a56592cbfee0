//! Builds the configuration directory that Asterisk reads, since it never reads the mounted
//! ConfigMap (that changes under both nodes at once).
//!
//! **Precedence**, later over earlier:
//! 1. the image's defaults (`defaults_dir`, a copy of its /etc/asterisk);
//! 2. the user's files (`user_dirs`, in order): a file replaces the default of the same name as a
//!    whole;
//! 3. ours, added to what is there (`own.rs` says what; AMI and HTTP end up on loopback whatever
//!    the user says).
//!
//! **Trunks**: of every snapshot there are two copies, the active's and the standby's, which differ
//! only in the registrations that are held back (`trunks.rs`). Asterisk reads through one link; a
//! promotion switches it and reloads the modules concerned. The user's bytes are never rewritten:
//! the active's copy is what the user wrote with statements appended, the standby's has lines
//! blanked, so that line numbers in Asterisk's messages stay right.
//!
//! Reading order: `dialect.rs` (one file), `tree.rs` (with includes), `trunks.rs`, `own.rs`,
//! `snapshot.rs` (disk), `change.rs` (reload or start), `dialogs.rs` (what a drain keeps). Not here: when to build, when to switch, and the reload itself (`ami`).

mod change;
mod dialect;
mod dialogs;
mod error;
mod own;
mod secret;
mod snapshot;
mod sources;
mod tree;
mod trunks;

use std::path::PathBuf;

pub use change::needs_start;
pub use dialogs::why_calls_leave;
pub use error::ConfigError;
pub use own::{AMI_PORT, AMI_USER, SELF_ENDPOINT};
pub use snapshot::{Snapshot, set_trunks};
pub use trunks::Trunks;

/// Where everything comes from and goes to.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The image's own configuration, as the seeding init container left it.
    pub defaults_dir: PathBuf,
    /// The mounted `ConfigMaps` and Secrets; later ones win.
    pub user_dirs: Vec<PathBuf>,
    /// Where snapshots are written; its path must be the same for the sidecar and for Asterisk, and
    /// short (Asterisk cuts paths at 255 bytes).
    pub out_dir: PathBuf,
    /// Whether a standby is kept from registering.
    pub trunks: Trunks,
    /// Whether this Asterisk knows `max_random_initial_delay` of a registration; one that does not
    /// would refuse to load it. Without it, the first REGISTER after a promotion is up to ten
    /// seconds late.
    pub quick_registration: bool,
}

/// Builds the snapshot of what the inputs are now. It changes nothing for Asterisk until
/// `set_trunks`.
pub fn build(inputs: &Inputs) -> Result<Snapshot, ConfigError> {
    let own = own::Own {
        config_dir: snapshot::config_dir_of(&inputs.out_dir),
        secret_file: secret::file_of(&inputs.out_dir),
    };
    let mut files = sources::read(&inputs.defaults_dir, &inputs.user_dirs)?;
    own::overlay(&mut files, &own)?;
    let held = trunks::hold_back(files, inputs.trunks, inputs.quick_registration)?;
    ami_secret(&inputs.out_dir)?;
    snapshot::write(held, &inputs.out_dir)
}

/// The secret of the AMI user that every snapshot below `out_dir` has; drawn at the first call.
pub fn ami_secret(out_dir: &std::path::Path) -> Result<String, ConfigError> {
    secret::load_or_draw(out_dir)
}

#[cfg(test)]
mod tests;
