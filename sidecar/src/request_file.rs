//! On a bare host, where there is no resource to annotate: a file `switchover` in the record folder asks for the same things, in
//! the same words, and for a pause. Who may write there may ask. It is taken away when it is read.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::services::Done;

const FILE: &str = "switchover";
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const LONGEST_BYTES: u64 = 200;

/// Looks for it until the services are gone.
pub async fn watch(record_dir: PathBuf, done: mpsc::Sender<Done>) {
    let path = record_dir.join(FILE);
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // On tmpfs, and almost always absent: it costs one call.
        let asked = match fs::File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                let read = file.take(LONGEST_BYTES).read_to_string(&mut text);
                read.map(|_| text)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(error),
        };
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a request cannot be taken away: it is not carried out");
            continue;
        }
        let Ok(asked) = asked else { continue };
        let told = Done::Asked(asked.trim().to_owned());
        if done.send(told).await.is_err() {
            return;
        }
    }
}
