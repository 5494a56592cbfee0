//! Reads the image's defaults and the user's mounted files into memory, within limits.
//!
//! A mounted ConfigMap is a directory of links into `..data`, which kubelet swaps as a whole; so a
//! directory is read through one `..data` and again if that was swapped meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::ConfigError;

/// File contents by their path relative to the configuration directory.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Debian's package brings 115.
const FILES_LIMIT: usize = 1000;
/// A ConfigMap holds 1 MiB; several may be given.
const FILE_LIMIT_BYTES: usize = 4 << 20;
/// All files together; they are kept in memory while a snapshot is built.
const TOTAL_LIMIT_BYTES: usize = 16 << 20;
/// Images have `manager.d/` and its like.
const DEPTH_LIMIT: usize = 4;
/// Kubelet swaps at most every few seconds: a second reading succeeds.
const READ_ATTEMPTS: usize = 3;

/// The defaults with the user's files laid over them, later directories over earlier ones.
pub(super) fn read(defaults_dir: &Path, user_dirs: &[PathBuf]) -> Result<Files, ConfigError> {
    let mut files = Files::new();
    collect(defaults_dir, "", DEPTH_LIMIT, &mut files)?;
    for dir in user_dirs {
        files.extend(read_mounted(dir)?);
        check_limits(&files)?;
    }
    Ok(files)
}

fn read_mounted(dir: &Path) -> Result<Files, ConfigError> {
    for _ in 0..READ_ATTEMPTS {
        let before = data_link(dir)?;
        let root = before
            .as_ref()
            .map_or_else(|| dir.to_owned(), |data| dir.join(data));
        let mut files = Files::new();
        let outcome = collect(&root, "", DEPTH_LIMIT, &mut files);
        if data_link(dir)? == before {
            return outcome.map(|()| files);
        }
    }
    Err(ConfigError::KeepsChanging {
        path: dir.to_owned(),
        attempts: READ_ATTEMPTS,
    })
}

/// Where `..data` leads, if the directory is mounted by kubelet.
fn data_link(dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let link = dir.join("..data");
    match fs::read_link(&link) {
        Ok(target) => Ok(Some(target)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path: link, source }),
    }
}

fn collect(
    dir: &Path,
    prefix: &str,
    depth_left: usize,
    files: &mut Files,
) -> Result<(), ConfigError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ConfigError::Read { path, source }
    };
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| !name.starts_with(".."))
        else {
            continue;
        };
        let name = format!("{prefix}{name}");
        let metadata = fs::metadata(&path).map_err(unreadable(&path))?;
        if metadata.is_dir() && depth_left > 0 {
            collect(&path, &format!("{name}/"), depth_left - 1, files)?;
        } else if metadata.is_file() {
            files.insert(name.clone(), read_bounded(&path, &name)?);
            check_limits(files)?;
        }
    }
    Ok(())
}

fn read_bounded(path: &Path, name: &str) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| {
            file.take(FILE_LIMIT_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() > FILE_LIMIT_BYTES {
        return Err(ConfigError::TooLarge {
            name: name.to_owned(),
            limit_bytes: FILE_LIMIT_BYTES,
        });
    }
    Ok(bytes)
}

fn check_limits(files: &Files) -> Result<(), ConfigError> {
    if files.len() > FILES_LIMIT {
        return Err(ConfigError::TooManyFiles { limit: FILES_LIMIT });
    }
    let mut total_bytes = 0;
    for (name, bytes) in files {
        total_bytes += bytes.len();
        if total_bytes > TOTAL_LIMIT_BYTES {
            return Err(ConfigError::TooLarge {
                name: name.clone(),
                limit_bytes: TOTAL_LIMIT_BYTES,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_users_file_replaces_the_default_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("etc/pjsip.conf"), "default");
        write(&dir.path().join("etc/manager.d/a.conf"), "kept");
        write(&dir.path().join("one/pjsip.conf"), "one");
        write(&dir.path().join("two/pjsip.conf"), "two");
        let files = read(
            &dir.path().join("etc"),
            &[dir.path().join("one"), dir.path().join("two")],
        )
        .unwrap();
        assert_eq!(files["pjsip.conf"], b"two");
        assert_eq!(files["manager.d/a.conf"], b"kept");
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_directory_as_kubelet_mounts_it_is_read_through_its_data_link() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("user/..2026_01/pjsip.conf"), "mounted");
        symlink("..2026_01", dir.path().join("user/..data")).unwrap();
        symlink("..data/pjsip.conf", dir.path().join("user/pjsip.conf")).unwrap();
        let files = read_mounted(&dir.path().join("user")).unwrap();
        assert_eq!(
            files,
            Files::from([("pjsip.conf".into(), b"mounted".to_vec())])
        );
    }

    #[test]
    fn limits_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        write(
            &dir.path().join("big.conf"),
            &"x".repeat(FILE_LIMIT_BYTES + 1),
        );
        let error = read(dir.path(), &[]).unwrap_err();
        assert_eq!(error.reason(), "ConfigTooLarge");
        assert!(error.to_string().starts_with("big.conf makes"), "{error}");
        let many = tempfile::tempdir().unwrap();
        for index in 0..=FILES_LIMIT {
            write(&many.path().join(format!("{index}.conf")), "");
        }
        assert_eq!(
            read(many.path(), &[]).unwrap_err().reason(),
            "TooManyConfigFiles"
        );
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = read(Path::new("/nonexistent"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "failed to read /nonexistent");
    }
}
