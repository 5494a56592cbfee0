//! The token that clients show before they may ask for anything. Its file is read again when it changes, and compared in constant
//! time: how long a wrong one takes tells nothing of the right one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// A changed file is noticed within this: kubelet takes up to a minute to write one.
pub(crate) const REREAD: Duration = Duration::from_secs(10);
/// Shorter ones are guessed.
const MIN_BYTES: usize = 16;
const MAX_BYTES: u64 = 4096;

/// What a client's token is compared with. Cheap to clone.
#[derive(Clone)]
pub struct Token {
    /// Digest of the present token, since digests have one length.
    known: watch::Receiver<Option<[u8; 32]>>,
}

impl Token {
    /// The token in the file at `path`, and the task that reads it again; without a path no token is right.
    pub fn follow(path: Option<PathBuf>) -> (Self, impl Future<Output = ()>) {
        let (known, known_rx) = watch::channel(path.as_deref().and_then(read));
        let task = async move {
            let Some(path) = path else { return };
            while !known.is_closed() {
                tokio::time::sleep(REREAD).await;
                let now = read(&path);
                known.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
        };
        (Self { known: known_rx }, task)
    }

    /// Whether there is a token at all.
    pub fn is_set(&self) -> bool {
        self.known.borrow().is_some()
    }

    /// Whether `shown` is the token.
    pub fn is(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        let known = *self.known.borrow();
        known.is_some_and(|known| known.ct_eq(shown.as_ref()).into())
    }

    /// Whether the value of an `Authorization` header is `Bearer` and the token.
    pub fn is_bearer(&self, header: &[u8]) -> bool {
        let shown = header.split_at_checked(7);
        shown.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case(b"bearer ") && self.is(token.trim_ascii())
        })
    }
}

fn read(path: &Path) -> Option<[u8; 32]> {
    let bytes = read_bounded(path);
    let problem = match &bytes {
        Ok(bytes) if bytes.trim_ascii().len() >= MIN_BYTES => None,
        Ok(_) => Some(format!("it has less than {MIN_BYTES} bytes")),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        tracing::warn!(path = %path.display(), problem, "the doors' token cannot be used: nobody may ask for actions");
        return None;
    }
    let digest = digest(&SHA256, bytes.ok()?.trim_ascii());
    digest.as_ref().try_into().ok()
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn only_the_token_itself_is_right() {
        let (_folder, path) = file("0123456789abcdef\n");
        let (token, _) = Token::follow(Some(path));
        assert!(token.is(b"0123456789abcdef"));
        assert!(token.is_bearer(b"bearer 0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "Bearer"] {
            assert!(!token.is(wrong.as_bytes()) && !token.is_bearer(wrong.as_bytes()));
        }
    }

    #[test]
    fn without_a_file_or_with_a_short_token_nothing_is_right() {
        let (_folder, path) = file("short");
        for token in [Token::follow(None).0, Token::follow(Some(path)).0] {
            assert!(!token.is(b"") && !token.is(b"short") && !token.is_set());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let (_folder, path) = file("0123456789abcdef");
        let (token, task) = Token::follow(Some(path.clone()));
        tokio::spawn(task);
        std::fs::write(&path, "fedcba9876543210").unwrap();
        tokio::time::sleep(REREAD * 2).await;
        assert!(token.is(b"fedcba9876543210") && !token.is(b"0123456789abcdef"));
    }
}
