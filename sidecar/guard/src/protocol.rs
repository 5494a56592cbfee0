//! What the sidecar and the guard say to each other over the unix socket: messages and their bytes.
//!
//! A frame is `length: u16`, `version: u8`, `tag: u8`, then the message's fields in the order of
//! their declaration; all numbers are little-endian, `length` counts what follows it. Fields have
//! fixed sizes, so a frame that is longer or shorter than its message is an error.
//! Left out: sockets, and what a message does (`pbx.rs`).
//!
//! Every `Start` is answered by exactly one of [`Event::Started`], [`Event::StartRefused`], and
//! [`Event::Exited`] for a run that was never announced (Asterisk could not be executed, or was
//! stopped or outlived its deadline before it was).

use thiserror::Error;

use self::frame::{Fields, Frame};
use crate::deadline::Termination;

mod frame;

const VERSION: u8 = 1;
const LENGTH_SIZE: usize = 2;
/// Version and tag.
const HEADER_SIZE: usize = 2;

/// The longest frame, its length field included: three times the longest message, so that a later
/// version has room, and so short that no peer can make the other keep much.
pub const MAX_FRAME_SIZE: usize = 128;

/// One life of Asterisk. The guard chooses it; later lives have greater numbers, also after the
/// guard itself was restarted (until the machine reboots).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What the sidecar orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Asks for [`Event::State`]; before it, the guard sends nothing on a connection.
    Hello,
    /// Starts Asterisk. With a deadline the kernel's timer is armed before Asterisk is executed.
    Start {
        /// Absolute `CLOCK_BOOTTIME` nanoseconds; `None` leaves the leash slack (a standby).
        deadline_ns: Option<u64>,
    },
    /// Moves the deadline of a run to a later moment.
    Arm {
        /// The run meant: an order for an earlier life changes nothing in this one.
        run: RunId,
        /// Absolute `CLOCK_BOOTTIME` nanoseconds.
        deadline_ns: u64,
    },
    /// As [`Command::Arm`], but the confirmation is withheld, unless the run ends: then it comes before that. Most of what a
    /// confirmation costs is the waking of who gets it.
    Extend {
        /// The run meant.
        run: RunId,
        /// Absolute `CLOCK_BOOTTIME` nanoseconds.
        deadline_ns: u64,
    },
    /// Kills Asterisk; answered by [`Event::Exited`] once it is gone. If the run is gone already
    /// (or never was), the answer is [`Event::State`].
    Stop {
        /// The run meant.
        run: RunId,
    },
    /// Kills Asterisk if it runs, and ends the guard itself once it is gone.
    Exit,
}

/// What the guard reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The answer to [`Command::Hello`], always the first event of a connection.
    State {
        /// The present run, from the order to start until everything of it is gone.
        run: Option<RunId>,
        /// Asterisk's process id as the guard sees it; 0: none, or not executed yet.
        pid: u32,
        /// The deadline that the leash has confirmed; 0: slack, or no run.
        deadline_ns: u64,
        /// Whether the guard was told to terminate; [`Event::Terminating`] then follows.
        terminating: bool,
        /// The guard's `CLOCK_BOOTTIME`, which must be the sidecar's too.
        boot_now_ns: u64,
    },
    /// Asterisk was executed. If it was started with a deadline, [`Event::Armed`] follows.
    Started {
        /// The new run.
        run: RunId,
        /// Asterisk's process id as the guard sees it.
        pid: u32,
    },
    /// Nothing was started.
    StartRefused {
        /// Why.
        reason: StartRefusal,
    },
    /// The kernel's timer stands at `deadline_ns`. After an order for an earlier moment than the
    /// one that stands already, this is the later one.
    Armed {
        /// The run.
        run: RunId,
        /// Absolute `CLOCK_BOOTTIME` nanoseconds.
        deadline_ns: u64,
    },
    /// The deadline was not accepted: there is no such run any more, or the moment (or the deadline
    /// that stood) has passed. An order that the end of its run overtakes is answered by
    /// [`Event::Exited`] alone.
    ArmRefused {
        /// The run as ordered.
        run: RunId,
        /// The deadline as ordered.
        deadline_ns: u64,
    },
    /// Every thread of Asterisk carries a fatal signal: it executes nothing any more, though the kernel has not taken it
    /// apart yet. Not every end is announced so; [`Event::Exited`] follows in any case.
    Doomed {
        /// The run that ends.
        run: RunId,
        /// When the guard saw it, `CLOCK_BOOTTIME` nanoseconds.
        at_ns: u64,
        /// Whether it was told to, as in [`Event::Exited`].
        asked: bool,
    },
    /// Asterisk, its leash and whatever they left behind are certainly gone: reaped by the guard.
    Exited {
        /// The run that ended.
        run: RunId,
        /// How Asterisk ended.
        status: ExitKind,
        /// When the guard was certain of it, `CLOCK_BOOTTIME` nanoseconds.
        at_ns: u64,
        /// Whether it was told to: by `Stop`, by `Exit`, or by the end of the grace period.
        asked: bool,
    },
    /// The guard was told to terminate (kubelet deletes the pod). Asterisk goes on.
    Terminating {
        /// When, `CLOCK_BOOTTIME` nanoseconds.
        at_ns: u64,
        /// When kubelet will kill everything; the guard stops Asterisk 2 s before.
        grace_ends_ns: u64,
    },
}

/// Why nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRefusal {
    /// A run exists, be it still starting or not quite gone.
    AlreadyRunning,
    /// The deadline that came with the order has passed (R3).
    DeadlinePassed,
    /// The leash could not be started, or the guard is leaving.
    SpawnFailed,
}

/// How Asterisk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It could not be executed; the value is `errno`.
    SpawnError(i32),
}

/// Why bytes are not a message. The stream cannot be followed any further: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The length field is out of bounds.
    #[error("frame announces {length} bytes, allowed are {HEADER_SIZE} to {MAX_FRAME_SIZE}")]
    BadLength {
        /// The length field's value.
        length: usize,
    },
    /// The other side speaks another version.
    #[error(
        "frame has version {version}, this side speaks {VERSION}: use guard and sidecar of one release"
    )]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// No message has this tag.
    #[error("no message has tag {tag}")]
    UnknownTag {
        /// The tag found.
        tag: u8,
    },
    /// The frame is shorter or longer than its message.
    #[error("frame with tag {tag} has the wrong size")]
    WrongSize {
        /// The message's tag.
        tag: u8,
    },
    /// A field has a value without a meaning.
    #[error("frame with tag {tag} has a field with the unknown value {value}")]
    UnknownValue {
        /// The message's tag.
        tag: u8,
        /// The field's value.
        value: u8,
    },
}

impl ProtocolError {
    /// A stable name for metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadLength { .. } => "BadLength",
            Self::UnknownVersion { .. } => "UnknownVersion",
            Self::UnknownTag { .. } => "UnknownTag",
            Self::WrongSize { .. } => "WrongSize",
            Self::UnknownValue { .. } => "UnknownValue",
        }
    }
}

impl Command {
    /// Appends the command's frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello => Frame::begin(out, 1).end(),
            Self::Start { deadline_ns } => Frame::begin(out, 2)
                .bool(deadline_ns.is_some())
                .u64(deadline_ns.unwrap_or(0))
                .end(),
            Self::Arm { run, deadline_ns } => {
                Frame::begin(out, 3).u64(run.0).u64(deadline_ns).end();
            }
            Self::Stop { run } => Frame::begin(out, 4).u64(run.0).end(),
            Self::Exit => Frame::begin(out, 5).end(),
            Self::Extend { run, deadline_ns } => {
                Frame::begin(out, 6).u64(run.0).u64(deadline_ns).end();
            }
        }
    }

    /// Reads the first command of `buf` and returns it with the bytes it took; `None`: the frame is
    /// not complete yet.
    pub fn decode(buf: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((mut fields, size)) = Fields::split(buf)? else {
            return Ok(None);
        };
        let command = match fields.tag {
            1 => Self::Hello,
            2 => Self::Start {
                deadline_ns: fields.optional_u64()?,
            },
            3 => Self::Arm {
                run: RunId(fields.u64()?),
                deadline_ns: fields.u64()?,
            },
            4 => Self::Stop {
                run: RunId(fields.u64()?),
            },
            5 => Self::Exit,
            6 => Self::Extend {
                run: RunId(fields.u64()?),
                deadline_ns: fields.u64()?,
            },
            tag => return Err(ProtocolError::UnknownTag { tag }),
        };
        fields.end()?;
        Ok(Some((command, size)))
    }
}

impl Event {
    /// Appends the event's frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::State {
                run,
                pid,
                deadline_ns,
                terminating,
                boot_now_ns,
            } => {
                Frame::begin(out, 65)
                    .bool(run.is_some())
                    .u64(run.map_or(0, |run| run.0))
                    .u32(pid)
                    .u64(deadline_ns)
                    .bool(terminating)
                    .u64(boot_now_ns)
                    .end();
            }
            Self::Started { run, pid } => Frame::begin(out, 66).u64(run.0).u32(pid).end(),
            Self::StartRefused { reason } => Frame::begin(out, 67).u8(reason.code()).end(),
            Self::Armed { run, deadline_ns } => {
                Frame::begin(out, 68).u64(run.0).u64(deadline_ns).end();
            }
            Self::ArmRefused { run, deadline_ns } => {
                Frame::begin(out, 69).u64(run.0).u64(deadline_ns).end();
            }
            Self::Exited {
                run,
                status,
                at_ns,
                asked,
            } => {
                let (kind, value) = status.parts();
                Frame::begin(out, 70)
                    .u64(run.0)
                    .u8(kind)
                    .i32(value)
                    .u64(at_ns)
                    .bool(asked)
                    .end();
            }
            Self::Terminating {
                at_ns,
                grace_ends_ns,
            } => {
                Frame::begin(out, 71).u64(at_ns).u64(grace_ends_ns).end();
            }
            Self::Doomed { run, at_ns, asked } => {
                Frame::begin(out, 72)
                    .u64(run.0)
                    .u64(at_ns)
                    .bool(asked)
                    .end();
            }
        }
    }

    /// Reads the first event of `buf` and returns it with the bytes it took; `None`: the frame is
    /// not complete yet.
    pub fn decode(buf: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((mut fields, size)) = Fields::split(buf)? else {
            return Ok(None);
        };
        let event = match fields.tag {
            65 => Self::State {
                run: fields.optional_u64()?.map(RunId),
                pid: fields.u32()?,
                deadline_ns: fields.u64()?,
                terminating: fields.bool()?,
                boot_now_ns: fields.u64()?,
            },
            66 => Self::Started {
                run: RunId(fields.u64()?),
                pid: fields.u32()?,
            },
            67 => Self::StartRefused {
                reason: fields.start_refusal()?,
            },
            68 => Self::Armed {
                run: RunId(fields.u64()?),
                deadline_ns: fields.u64()?,
            },
            69 => Self::ArmRefused {
                run: RunId(fields.u64()?),
                deadline_ns: fields.u64()?,
            },
            70 => Self::Exited {
                run: RunId(fields.u64()?),
                status: fields.exit_kind()?,
                at_ns: fields.u64()?,
                asked: fields.bool()?,
            },
            71 => Self::Terminating {
                at_ns: fields.u64()?,
                grace_ends_ns: fields.u64()?,
            },
            72 => Self::Doomed {
                run: RunId(fields.u64()?),
                at_ns: fields.u64()?,
                asked: fields.bool()?,
            },
            tag => return Err(ProtocolError::UnknownTag { tag }),
        };
        fields.end()?;
        Ok(Some((event, size)))
    }
}

impl From<Termination> for Event {
    fn from(termination: Termination) -> Self {
        Self::Terminating {
            at_ns: termination.at_ns,
            grace_ends_ns: termination.grace_ends_ns,
        }
    }
}

impl StartRefusal {
    fn code(self) -> u8 {
        match self {
            Self::AlreadyRunning => 1,
            Self::DeadlinePassed => 2,
            Self::SpawnFailed => 3,
        }
    }
}

impl ExitKind {
    fn parts(self) -> (u8, i32) {
        match self {
            Self::Code(code) => (1, code),
            Self::Signal(signal) => (2, signal),
            Self::SpawnError(errno) => (3, errno),
        }
    }
}

#[cfg(test)]
mod tests;
