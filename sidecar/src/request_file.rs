//! On a bare host, where there is no resource to annotate: a file `switchover` in the record folder asks for the same things, in
//! the same words, and for a pause. Who may write there may ask. It is taken away when it is read.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use pbx_ami::folder_watch::FolderWatch;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::alarm::rest;
use crate::input_watch::watch_input;
use crate::services::Done;

const FILE: &str = "switchover";
/// The kernel tells of the file; what it does not tell is found by this.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// … and by this, where it cannot tell at all.
const LOOK_ALONE: Duration = Duration::from_millis(500);
const LONGEST_BYTES: u64 = 200;

/// Looks for it until the services are gone.
pub async fn watch(record_dir: PathBuf, done: mpsc::Sender<Done>) {
    let path = record_dir.join(FILE);
    let watch = FolderWatch::new(&record_dir).and_then(watch_input).ok();
    loop {
        wait(watch.as_ref()).await;
        // Almost always absent: it costs one call.
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

/// Until something came into the folder, or it is time to look.
async fn wait(watch: Option<&AsyncFd<FolderWatch>>) {
    let Some(watch) = watch else {
        return rest(LOOK_ALONE).await;
    };
    watch.get_ref().renew();
    tokio::select! {
        ready = watch.readable() => {
            if let Ok(mut ready) = ready {
                // Nothing came after all: a look costs little.
                let _ = ready.try_io(|watch| watch.get_ref().take());
            }
        }
        () = rest(LOOK_INTERVAL) => {}
    }
}
