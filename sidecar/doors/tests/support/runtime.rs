//! A runtime as the sidecar's doors have it, for tests.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::mpsc::channel;

/// Runs what `start` spawns on a runtime of one thread, as the sidecar does, until the process ends; returns once it has started.
pub fn on_a_thread(start: impl Future<Output = ()> + Send + 'static) {
    let (started, is_started) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            start.await;
            started.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    is_started.recv().unwrap();
}
