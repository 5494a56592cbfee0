//! Free space of a file system, in bytes and in files.

use super::super::score::{Reading, Verdict};

/// Percent that are free.
const WARNING_BELOW: f64 = 10.0;
const CRITICAL_BELOW: f64 = 3.0;

/// Looks at the file system of `path`.
pub(super) fn read(path: &str) -> Reading {
    let found = match rustix::fs::statvfs(path) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => {
            return Reading::new(Verdict::Skipped, format!("{path} does not exist"));
        }
        Err(error) => return Reading::new(Verdict::Critical, format!("{path}: {error}")),
    };
    let bytes = percent(found.f_bavail, found.f_blocks);
    let files = percent(found.f_favail, found.f_files);
    judge(path, bytes.min(files))
}

fn judge(path: &str, free: f64) -> Reading {
    let verdict = match free {
        free if free < CRITICAL_BELOW => Verdict::Critical,
        free if free < WARNING_BELOW => Verdict::Warning,
        _ => Verdict::Good,
    };
    Reading {
        verdict,
        text: format!("{free:.1} % of the disk of {path} are free"),
        value: Some(free),
    }
}

/// Some file systems have no number of files: those never run out.
#[allow(clippy::cast_precision_loss, reason = "a part of the whole")]
fn percent(free: u64, all: u64) -> f64 {
    if all == 0 {
        return 100.0;
    }
    free as f64 * 100.0 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_almost_none_is_critical() {
        assert_eq!(judge("/", 50.0).verdict, Verdict::Good);
        assert_eq!(judge("/", 9.9).verdict, Verdict::Warning);
        assert_eq!(judge("/", 2.9).verdict, Verdict::Critical);
        assert!((percent(0, 0) - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_real_file_system_is_read_and_a_missing_one_is_skipped() {
        assert!(read("/").value.is_some());
        assert_eq!(read("/no/such/folder").verdict, Verdict::Skipped);
    }
}
