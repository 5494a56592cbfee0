//! A socket on which an answer is expected at once, and nothing else: it is looked at a moment after the question instead of being
//! watched.
//!
//! On an idle machine a wake-up costs more than what is done in it. Several questions that left together are answered a millisecond
//! later, each at its own time; watched, each answer wakes the thread, and one that comes in two pieces wakes it twice. So all of
//! them are looked at together, once, and only what is late is watched.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use pbx_core::BootTime;
use pbx_guard::boot_now_ns;

use crate::alarm::sleep_between;
use crate::input_watch::watch_input;

/// An Asterisk on this machine that is well has answered by then.
const GRACE: Duration = Duration::from_millis(3);
/// The answer may wait so much longer for another, to be read in one wake-up.
const COMPANY: Duration = Duration::from_millis(4);

/// A socket that does not block. It needs the runtime in which it is read.
#[derive(Debug)]
pub struct QuietInput<T>(pub T);

impl<T: AsFd> QuietInput<T> {
    /// Repeats `read` until it would not block: now, a moment later, and from then on whenever the kernel says so. Cancel-safe if
    /// `read` is.
    pub async fn read<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let is_late = |done: &io::Result<R>| {
            let error = done.as_ref().err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let at_once = read(&self.0);
        if !is_late(&at_once) {
            return at_once;
        }
        let grace_ends_at = BootTime(boot_now_ns()).after(GRACE);
        sleep_between(grace_ends_at, grace_ends_at.after(COMPANY)).await;
        let in_time = read(&self.0);
        if !is_late(&in_time) {
            return in_time;
        }
        let watched = watch_input(self.0.as_fd())?;
        loop {
            let mut ready = watched.readable().await?;
            if let Ok(done) = ready.try_io(|_| read(&self.0)) {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What comes at once, within the moment, and after it.
    #[tokio::test]
    async fn an_answer_is_read_whenever_it_comes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let input = QuietInput(ours);
        for wait in [Duration::ZERO, GRACE / 3, GRACE * 20] {
            let answer = async {
                tokio::time::sleep(wait).await;
                theirs.write_all(b"yes").unwrap();
            };
            let mut buffer = [0; 16];
            let read = input.read(|mut socket| socket.read(&mut buffer));
            let (length, ()) = tokio::join!(read, answer);
            assert_eq!(
                (length.unwrap(), &buffer[..3]),
                (3, &b"yes"[..]),
                "{wait:?}"
            );
        }
        drop(theirs);
        let ended = input.read(|mut socket| socket.read(&mut [0; 16])).await;
        assert_eq!(ended.unwrap(), 0);
    }
}
