//! Keys and handshake: Noise `NNpsk0` under a key derived from the cluster's. Who holds the key is a node of the cluster; which
//! one, it says itself within the handshake, bound to whom it speaks to: a hello that is sent on to another node, or back to its
//! sender, is refused.

use snow::{Builder, HandshakeState, TransportState};

use super::frame::{MAX_TEXT_BYTES, TAG_BYTES};
use super::{ChannelError, Service};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Another version is another protocol: nothing is authentic then.
const PROLOGUE: &[u8] = b"pbx-ha channel v1";
/// An ephemeral key, the payload, the tag.
const HELLO_BYTES: usize = 32 + 2 + TAG_BYTES;
const ANSWER_BYTES: usize = 32 + 1 + TAG_BYTES;

/// The key of all streams of a cluster.
#[derive(Clone)]
pub struct ChannelKey([u8; 32]);

impl ChannelKey {
    /// From 32 secret bytes that serve nothing else.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn builder(&self) -> Builder<'_> {
        let pattern = PATTERN.parse().expect("the pattern is one of Noise's");
        Builder::new(pattern)
            .prologue(PROLOGUE)
            .and_then(|builder| builder.psk(0, &self.0))
            .expect("a prologue and a key of 32 bytes are set once")
    }
}

/// The side that dials, between its hello and the answer.
pub struct Dialling {
    state: HandshakeState,
    to: u8,
}

impl Dialling {
    /// The hello of seat `own` to seat `to`.
    pub fn new(key: &ChannelKey, own: u8, to: u8) -> Result<(Self, Vec<u8>), ChannelError> {
        let state = key.builder().build_initiator();
        let mut state = state.map_err(|_| ChannelError::NotAuthentic)?;
        let hello = write(&mut state, &[own, to], HELLO_BYTES)?;
        Ok((Self { state, to }, hello))
    }

    /// The answer has come: the session, and the first frame, which names the service.
    pub fn on_answer(mut self, answer: &[u8]) -> Result<Session, ChannelError> {
        let said = read::<1>(&mut self.state, answer, ANSWER_BYTES)?;
        if said != [self.to] {
            return Err(ChannelError::NotAuthentic);
        }
        Session::begin(self.state)
    }
}

/// The side that listens, between its answer and the first frame.
pub struct Answering {
    session: Session,
    from: u8,
}

impl Answering {
    /// The answer of seat `own` to `hello`; an error is answered by nothing.
    pub fn new(key: &ChannelKey, own: u8, hello: &[u8]) -> Result<(Self, Vec<u8>), ChannelError> {
        let state = key.builder().build_responder();
        let mut state = state.map_err(|_| ChannelError::NotAuthentic)?;
        let [from, to] = read::<2>(&mut state, hello, HELLO_BYTES)?;
        if to != own || from == own {
            return Err(ChannelError::NotAuthentic);
        }
        let answer = write(&mut state, &[own], ANSWER_BYTES)?;
        let session = Session::begin(state)?;
        Ok((Self { session, from }, answer))
    }

    /// The first frame has come: only now is the dialler known to hold the key. The session, the dialler's seat, the service.
    pub fn on_first(mut self, frame: &[u8]) -> Result<(Session, u8, Service), ChannelError> {
        let mut text = Vec::new();
        self.session.open(frame, &mut text)?;
        let [byte] = text[..] else {
            return Err(ChannelError::Length(text.len()));
        };
        let service = Service::from_byte(byte).ok_or(ChannelError::UnknownService(byte))?;
        Ok((self.session, self.from, service))
    }
}

/// Seals and opens the frames of a stream.
pub struct Session(TransportState);

impl Session {
    fn begin(state: HandshakeState) -> Result<Self, ChannelError> {
        let transport = state.into_transport_mode();
        transport.map(Self).map_err(|_| ChannelError::NotAuthentic)
    }

    /// Seals `text`, at most [`MAX_TEXT_BYTES`], into `room`, which has [`TAG_BYTES`] more; returns the bytes used.
    pub fn seal(&mut self, text: &[u8], room: &mut [u8]) -> usize {
        assert!(text.len() <= MAX_TEXT_BYTES, "text is cut before");
        let sealed = self.0.write_message(text, room);
        sealed.expect("the room is large enough, and no stream has 2^64 frames")
    }

    /// Opens `frame` into `text`, whose earlier content is gone.
    pub fn open(&mut self, frame: &[u8], text: &mut Vec<u8>) -> Result<(), ChannelError> {
        text.resize(frame.len(), 0);
        let opened = self.0.read_message(frame, text);
        let length = opened.map_err(|_| ChannelError::NotAuthentic)?;
        text.truncate(length);
        Ok(())
    }
}

fn write(state: &mut HandshakeState, said: &[u8], length: usize) -> Result<Vec<u8>, ChannelError> {
    let mut message = vec![0; length];
    let written = state.write_message(said, &mut message);
    let written = written.map_err(|_| ChannelError::NotAuthentic)?;
    assert_eq!(written, length, "a handshake's lengths are fixed");
    Ok(message)
}

fn read<const N: usize>(
    state: &mut HandshakeState,
    message: &[u8],
    length: usize,
) -> Result<[u8; N], ChannelError> {
    if message.len() != length {
        return Err(ChannelError::Length(message.len()));
    }
    let mut said = [0; HELLO_BYTES];
    let read = state.read_message(message, &mut said);
    let read = read.map_err(|_| ChannelError::NotAuthentic)?;
    let said = said[..read].first_chunk().copied();
    said.ok_or(ChannelError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ChannelKey {
        ChannelKey::new([byte; 32])
    }

    fn sealed(session: &mut Session, text: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; text.len() + TAG_BYTES];
        let length = session.seal(text, &mut frame);
        frame.truncate(length);
        frame
    }

    #[test]
    fn both_sides_have_a_session_and_know_each_other() {
        let (dialling, hello) = Dialling::new(&key(1), 0, 1).unwrap();
        let (answering, answer) = Answering::new(&key(1), 1, &hello).unwrap();
        let mut session = dialling.on_answer(&answer).unwrap();
        let first = sealed(&mut session, &[Service::Ami.byte()]);
        let (mut other, from, service) = answering.on_first(&first).unwrap();
        assert_eq!((from, service), (0, Service::Ami));
        let mut text = Vec::new();
        let frame = sealed(&mut session, b"Action: Ping");
        other.open(&frame, &mut text).unwrap();
        assert_eq!(text, b"Action: Ping");
        assert!(other.open(&frame, &mut text).is_err(), "a frame opens once");
    }

    #[test]
    fn another_key_gets_no_answer() {
        let (_, hello) = Dialling::new(&key(2), 0, 1).unwrap();
        assert!(Answering::new(&key(1), 1, &hello).is_err());
    }

    #[test]
    fn a_hello_for_another_node_or_ones_own_is_refused() {
        let (_, hello) = Dialling::new(&key(1), 0, 1).unwrap();
        assert!(Answering::new(&key(1), 2, &hello).is_err(), "sent on");
        assert!(Answering::new(&key(1), 0, &hello).is_err(), "sent back");
        let (_, hello) = Dialling::new(&key(1), 1, 1).unwrap();
        assert!(Answering::new(&key(1), 1, &hello).is_err(), "of itself");
    }

    #[test]
    fn a_replayed_hello_gets_no_further_than_an_answer() {
        let (dialling, hello) = Dialling::new(&key(1), 0, 1).unwrap();
        let (_, answer) = Answering::new(&key(1), 1, &hello).unwrap();
        let mut session = dialling.on_answer(&answer).unwrap();
        let first = sealed(&mut session, &[Service::Report.byte()]);
        let (again, _) = Answering::new(&key(1), 1, &hello).unwrap();
        assert!(again.on_first(&first).is_err());
    }

    #[test]
    fn an_altered_answer_is_refused() {
        let (_, hello) = Dialling::new(&key(1), 0, 1).unwrap();
        let (_, answer) = Answering::new(&key(1), 1, &hello).unwrap();
        for at in 0..answer.len() {
            let mut altered = answer.clone();
            altered[at] ^= 1;
            let (dialling, _) = Dialling::new(&key(1), 0, 1).unwrap();
            assert!(dialling.on_answer(&altered).is_err());
        }
    }
}
