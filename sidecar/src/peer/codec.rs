//! Bytes of a datagram's payload: little-endian, fixed layout, a kind byte first. Pure, bounded, fuzzed by proptest.
//!
//! Who sent it stands in the authenticated header ([`super::seal`]); the payload carries the rest of the core's message
//! a digest of the sender's ledger, so that peers notice when they know different histories, and what measures the link.

use pbx_core::{
    Body, BootTime, Cause, Epoch, Incarnation, MAX_NODES, Message, Occupant, PeerCondition,
    Refusal, Seat,
};
use thiserror::Error;

use super::meter::Probe;

/// The largest payload: what fits an Ethernet frame with the header and the tag.
pub const MAX_PAYLOAD_BYTES: usize = 1300;

/// What a datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A message of the failover protocol.
    Core {
        /// The message.
        message: Message,
        /// Digest of the sender's ledger.
        ledger_digest: u64,
        /// Of the link that it came over.
        probe: Probe,
    },
    /// A part of a ledger, as JSON.
    Ledger(Vec<u8>),
}

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// It ends too early.
    #[error("the payload ends too early")]
    Truncated,
    /// It goes on after its end.
    #[error("the payload goes on after its end")]
    Trailing,
    /// An unknown kind, cause, refusal or seat.
    #[error("the payload has an unknown {0}")]
    Unknown(&'static str),
}

const KIND_LEDGER: u8 = 100;
const FLAG_READY: u8 = 1;
const FLAG_API: u8 = 2;

/// Appends a message of the core to `out`.
pub fn encode_core(message: &Message, ledger_digest: u64, probe: Probe, out: &mut Vec<u8>) {
    let kind = match message.body {
        Body::Hello => 0,
        Body::Beat { .. } => 1,
        Body::Ack { .. } => 2,
        Body::Nack { .. } => 3,
        Body::Handover { .. } => 4,
        Body::Release => 5,
        Body::Leave => 6,
        Body::Dismiss => 7,
    };
    let condition = message.condition;
    let flags =
        u8::from(condition.is_ready) * FLAG_READY + u8::from(condition.is_api_reachable) * FLAG_API;
    out.extend([kind, message.to.0, flags, condition.rank]);
    out.extend(message.incarnation.0.to_le_bytes());
    out.extend(message.to_incarnation.0.to_le_bytes());
    out.extend(message.epoch.0.to_le_bytes());
    out.extend(message.sent_at.0.to_le_bytes());
    out.extend(ledger_digest.to_le_bytes());
    out.extend(probe.echo.0.to_le_bytes());
    out.extend(probe.held_us.to_le_bytes());
    match message.body {
        Body::Beat { is_active } => out.push(u8::from(is_active)),
        Body::Ack { beat_sent_at } => out.extend(beat_sent_at.0.to_le_bytes()),
        Body::Handover {
            echo,
            cause,
            detected_after_us,
        } => {
            out.extend(echo.0.to_le_bytes());
            out.push(cause_code(cause));
            out.extend(detected_after_us.to_le_bytes());
        }
        Body::Nack { because } => out.push(match because {
            Refusal::EpochTooLow => 0,
            Refusal::Committed => 1,
            Refusal::Serving => 2,
        }),
        Body::Hello | Body::Release | Body::Leave | Body::Dismiss => {}
    }
}

/// Appends a part of a ledger to `out`.
pub fn encode_ledger(json: &[u8], out: &mut Vec<u8>) {
    out.push(KIND_LEDGER);
    out.extend(json);
}

/// Reads a payload that `from` and `occupant` sent.
pub fn decode(from: Seat, occupant: Occupant, bytes: &[u8]) -> Result<Payload, CodecError> {
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    if kind == KIND_LEDGER {
        return Ok(Payload::Ledger(reader.0.to_vec()));
    }
    let to = seat(reader.u8()?)?;
    let flags = reader.u8()?;
    let condition = PeerCondition {
        is_ready: flags & FLAG_READY != 0,
        is_api_reachable: flags & FLAG_API != 0,
        rank: reader.u8()?,
    };
    let (incarnation, to_incarnation) = (Incarnation(reader.u64()?), Incarnation(reader.u64()?));
    let (epoch, sent_at) = (Epoch(reader.u64()?), BootTime(reader.u64()?));
    let ledger_digest = reader.u64()?;
    let probe = Probe {
        echo: BootTime(reader.u64()?),
        held_us: reader.u32()?,
    };
    let body = body(kind, &mut reader)?;
    if !reader.0.is_empty() {
        return Err(CodecError::Trailing);
    }
    let message = Message {
        from,
        occupant,
        to,
        incarnation,
        to_incarnation,
        epoch,
        sent_at,
        condition,
        body,
    };
    Ok(Payload::Core {
        message,
        ledger_digest,
        probe,
    })
}

fn body(kind: u8, reader: &mut Reader<'_>) -> Result<Body, CodecError> {
    Ok(match kind {
        0 => Body::Hello,
        1 => Body::Beat {
            is_active: reader.u8()? != 0,
        },
        2 => Body::Ack {
            beat_sent_at: BootTime(reader.u64()?),
        },
        3 => Body::Nack {
            because: refusal(reader.u8()?)?,
        },
        4 => Body::Handover {
            echo: BootTime(reader.u64()?),
            cause: cause(reader.u8()?)?,
            detected_after_us: reader.u32()?,
        },
        5 => Body::Release,
        6 => Body::Leave,
        7 => Body::Dismiss,
        _ => return Err(CodecError::Unknown("kind")),
    })
}

fn refusal(code: u8) -> Result<Refusal, CodecError> {
    match code {
        0 => Ok(Refusal::EpochTooLow),
        1 => Ok(Refusal::Committed),
        2 => Ok(Refusal::Serving),
        _ => Err(CodecError::Unknown("refusal")),
    }
}

/// A seat of a cluster of the largest size.
pub fn seat(number: u8) -> Result<Seat, CodecError> {
    if usize::from(number) < MAX_NODES {
        Ok(Seat(number))
    } else {
        Err(CodecError::Unknown("seat"))
    }
}

/// The wire number of each cause: a twin of the core's enum, so that neither moves unnoticed.
pub(crate) const CAUSES: [Cause; 14] = [
    Cause::Startup,
    Cause::AsteriskExited,
    Cause::AsteriskHung,
    Cause::HealthFailed,
    Cause::NodeSilent,
    Cause::PodDeleted,
    Cause::Switchover,
    Cause::Drill,
    Cause::Preferred,
    Cause::QuorumLost,
    Cause::GuardExpired,
    Cause::SidecarRestarted,
    Cause::Contention,
    Cause::TrafficFailed,
];

fn cause_code(cause: Cause) -> u8 {
    CAUSES
        .iter()
        .position(|known| *known == cause)
        .expect("every cause has a wire number") as u8
}

fn cause(code: u8) -> Result<Cause, CodecError> {
    CAUSES
        .get(usize::from(code))
        .copied()
        .ok_or(CodecError::Unknown("cause"))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CodecError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROBE: Probe = Probe {
        echo: BootTime(12),
        held_us: 13,
    };

    fn message(body: Body) -> Message {
        Message {
            from: Seat(1),
            occupant: Occupant(77),
            to: Seat(0),
            incarnation: Incarnation(3),
            to_incarnation: Incarnation(4),
            epoch: Epoch(5),
            sent_at: BootTime(6),
            condition: PeerCondition {
                is_ready: true,
                is_api_reachable: false,
                rank: 9,
            },
            body,
        }
    }

    #[test]
    fn every_body_is_read_as_it_was_written() {
        let handovers = CAUSES.map(|cause| Body::Handover {
            echo: BootTime(8),
            cause,
            detected_after_us: 70_000,
        });
        let others = [
            Body::Hello,
            Body::Beat { is_active: true },
            Body::Beat { is_active: false },
            Body::Ack {
                beat_sent_at: BootTime(7),
            },
            Body::Nack {
                because: Refusal::EpochTooLow,
            },
            Body::Nack {
                because: Refusal::Committed,
            },
            Body::Nack {
                because: Refusal::Serving,
            },
            Body::Release,
            Body::Leave,
            Body::Dismiss,
        ];
        for body in handovers.into_iter().chain(others) {
            let mut bytes = Vec::new();
            encode_core(&message(body), 11, PROBE, &mut bytes);
            let read = decode(Seat(1), Occupant(77), &bytes);
            assert_eq!(
                read,
                Ok(Payload::Core {
                    message: message(body),
                    ledger_digest: 11,
                    probe: PROBE,
                })
            );
            assert!(bytes.len() <= MAX_PAYLOAD_BYTES);
            for end in 0..bytes.len() {
                assert!(
                    decode(Seat(1), Occupant(77), &bytes[..end]).is_err(),
                    "{body:?} cut at {end}"
                );
            }
            bytes.push(0);
            assert_eq!(
                decode(Seat(1), Occupant(77), &bytes),
                Err(CodecError::Trailing)
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Seat(0), Occupant(1), &bytes);
        }
    }
}
