//! That a person keeps this node out: a file beside the record, so that it holds over a restart of the sidecar. In a pod it ends with the
//! pod, whose next life is another node.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use pbx_crds::report::Problem;
use thiserror::Error;

/// Why a node cannot be fenced, or unfenced.
#[derive(Debug, Error)]
#[error("cannot write {path}: {source}")]
pub struct FencingError {
    path: PathBuf,
    source: std::io::Error,
}

/// Whether this node is fenced.
#[derive(Debug)]
pub struct Fencing {
    path: PathBuf,
    /// For whoever looks at the state of the node.
    problem: Option<Problem>,
}

impl Fencing {
    /// As the last life of the sidecar left it in `record_dir`.
    pub fn of(record_dir: &Path) -> Self {
        let path = record_dir.join("fenced");
        Self {
            problem: path.exists().then(problem),
            path,
        }
    }

    /// Whether it is kept out.
    pub fn is_set(&self) -> bool {
        self.problem.is_some()
    }

    /// Why it is not ready, if it is kept out.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Fences or unfences it; twice is as good as once.
    pub fn set(&mut self, is_fenced: bool) -> Result<(), FencingError> {
        let changed = if is_fenced {
            fs::write(&self.path, "")
        } else {
            fs::remove_file(&self.path)
        };
        match changed {
            Err(source) if source.kind() != ErrorKind::NotFound || is_fenced => Err(FencingError {
                path: self.path.clone(),
                source,
            }),
            _ => {
                self.problem = is_fenced.then(problem);
                Ok(())
            }
        }
    }
}

fn problem() -> Problem {
    Problem {
        reason: "Fenced".into(),
        message: "a person keeps this node out: the action unfence ends that".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_node_is_so_until_it_is_unfenced() {
        let folder = tempfile::tempdir().unwrap();
        let mut fencing = Fencing::of(folder.path());
        assert!(!fencing.is_set());
        for is_fenced in [false, true, true, false, false] {
            fencing.set(is_fenced).unwrap();
            assert_eq!(fencing.is_set(), is_fenced);
            assert_eq!(Fencing::of(folder.path()).is_set(), is_fenced);
        }
        let mut nowhere = Fencing::of(&folder.path().join("nowhere"));
        assert!(nowhere.set(true).is_err() && nowhere.set(false).is_ok());
    }
}
