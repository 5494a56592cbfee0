//! The secret of our AMI user: drawn once, kept beside the snapshots as the file that manager.conf
//! includes.
//!
//! It outlives a restart of the sidecar, since Asterisk runs on with what it has read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::error::ConfigError;

const SECRET_BYTES: usize = 32;
const PREFIX: &str = "secret = ";

/// Where the secret of a configuration under `out_dir` is.
pub(super) fn file_of(out_dir: &Path) -> PathBuf {
    out_dir.join("ami-secret.conf")
}

/// The secret kept in `out_dir`, drawn and written if there is none.
pub(super) fn load_or_draw(out_dir: &Path) -> Result<String, ConfigError> {
    let path = file_of(out_dir);
    match fs::read_to_string(&path) {
        Ok(text) => {
            if let Some(secret) = text
                .trim_end()
                .strip_prefix(PREFIX)
                .filter(|secret| secret.len() == 2 * SECRET_BYTES)
            {
                return Ok(secret.to_owned());
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(ConfigError::Read { path, source }),
    }
    let secret = draw()?;
    write(&path, &secret).map_err(|source| ConfigError::Write { path, source })?;
    Ok(secret)
}

fn draw() -> Result<String, ConfigError> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_unspecified| ConfigError::DrawSecret)?;
    Ok(super::snapshot::hex(&bytes))
}

fn write(path: &Path, secret: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&partial)?;
    file.write_all(format!("{PREFIX}{secret}\n").as_bytes())?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_outlives_the_sidecar_and_a_torn_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let secret = load_or_draw(dir.path()).unwrap();
        assert_eq!(load_or_draw(dir.path()).unwrap(), secret);
        fs::write(file_of(dir.path()), "secret = 12").unwrap();
        assert_ne!(load_or_draw(dir.path()).unwrap(), secret);
    }
}
