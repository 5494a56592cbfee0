//! One frame's bytes: written field by field, and read back with every bound checked.

use super::{
    ExitKind, HEADER_SIZE, LENGTH_SIZE, MAX_FRAME_SIZE, ProtocolError, StartRefusal, VERSION,
};

/// A frame under construction; `end` writes its length.
pub(super) struct Frame<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Frame<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>, tag: u8) -> Self {
        let begin = out.len();
        out.extend_from_slice(&[0, 0, VERSION, tag]);
        Self { out, begin }
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn bool(self, value: bool) -> Self {
        self.u8(u8::from(value))
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn i32(self, value: i32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn end(self) {
        let body_start = self.begin + LENGTH_SIZE;
        let length = u16::try_from(self.out.len() - body_start).expect("messages are short");
        self.out[self.begin..body_start].copy_from_slice(&length.to_le_bytes());
    }
}

/// The fields of a complete frame, taken from the front.
pub(super) struct Fields<'a> {
    pub(super) tag: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Splits the first frame off `buf`; also returns its size.
    pub(super) fn split(buf: &'a [u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((length, rest)) = buf.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes(*length));
        if !(HEADER_SIZE..=MAX_FRAME_SIZE - LENGTH_SIZE).contains(&length) {
            return Err(ProtocolError::BadLength { length });
        }
        let Some(&[version, tag, ref rest @ ..]) = rest.get(..length) else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(ProtocolError::UnknownVersion { version });
        }
        Ok(Some((Self { tag, rest }, LENGTH_SIZE + length)))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(ProtocolError::WrongSize { tag: self.tag })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.take().map(|[byte]| byte)
    }

    pub(super) fn bool(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(self.unknown_value(value)),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, ProtocolError> {
        self.take().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn optional_u64(&mut self) -> Result<Option<u64>, ProtocolError> {
        let present = self.bool()?;
        let value = self.u64()?;
        Ok(present.then_some(value))
    }

    pub(super) fn start_refusal(&mut self) -> Result<StartRefusal, ProtocolError> {
        match self.u8()? {
            1 => Ok(StartRefusal::AlreadyRunning),
            2 => Ok(StartRefusal::DeadlinePassed),
            3 => Ok(StartRefusal::SpawnFailed),
            value => Err(self.unknown_value(value)),
        }
    }

    pub(super) fn exit_kind(&mut self) -> Result<ExitKind, ProtocolError> {
        let kind = self.u8()?;
        let value = self.i32()?;
        match kind {
            1 => Ok(ExitKind::Code(value)),
            2 => Ok(ExitKind::Signal(value)),
            3 => Ok(ExitKind::SpawnError(value)),
            kind => Err(self.unknown_value(kind)),
        }
    }

    fn unknown_value(&self, value: u8) -> ProtocolError {
        ProtocolError::UnknownValue {
            tag: self.tag,
            value,
        }
    }

    pub(super) fn end(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ProtocolError::WrongSize { tag: self.tag })
        }
    }
}
