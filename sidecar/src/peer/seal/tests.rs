//! What opens, and what does not.

use proptest::prelude::*;

use super::super::window::WINDOW_COUNTERS;
use super::*;

fn key(byte: u8) -> ClusterKey {
    ClusterKey::new(&[byte; 32]).unwrap()
}

fn sealed(sealer: &mut Sealer) -> Vec<u8> {
    sealer.begin();
    copy(sealer, 0)
}

fn copy(sealer: &mut Sealer, link: usize) -> Vec<u8> {
    let mut datagram = Vec::new();
    sealer.seal(link, &mut datagram, |out| codec::encode_ledger(b"{}", out));
    datagram
}

fn opened(link: usize, is_copy: bool) -> Opened {
    Opened {
        seat: Seat(1),
        link,
        is_copy,
        payload: Payload::Ledger(b"{}".to_vec()),
    }
}

#[test]
fn a_datagram_opens_once() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    let datagram = sealed(&mut sealer);
    let first = opener.open(&mut datagram.clone());
    assert_eq!(first, Ok(opened(0, false)));
    assert_eq!(opener.open(&mut datagram.clone()), Err(OpenError::Replayed));
}

#[test]
fn a_copy_over_another_link_is_told_from_a_replay() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    for _ in 0..3 {
        sealer.begin();
        let copies = [0, 1].map(|link| copy(&mut sealer, link));
        assert_ne!(copies[0][HEADER_BYTES..], copies[1][HEADER_BYTES..]);
        assert_eq!(opener.open(&mut copies[1].clone()), Ok(opened(1, false)));
        assert_eq!(opener.open(&mut copies[0].clone()), Ok(opened(0, true)));
        for copy in &copies {
            assert_eq!(opener.open(&mut copy.clone()), Err(OpenError::Replayed));
        }
    }
}

#[test]
fn nobody_moves_a_datagram_to_another_link() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    let mut datagram = sealed(&mut sealer);
    assert!(opener.open(&mut datagram.clone()).is_ok());
    datagram[HEADER_BYTES - 1] |= 1 << 4;
    assert_eq!(opener.open(&mut datagram), Err(OpenError::WrongKey));
    datagram[HEADER_BYTES - 1] |= 1 << 7;
    assert_eq!(opener.open(&mut datagram), Err(OpenError::Malformed));
}

#[test]
#[should_panic(expected = "a nonce is used once")]
fn a_message_is_sealed_once_for_each_link() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    sealed(&mut sealer);
    copy(&mut sealer, 0);
}

#[test]
fn datagrams_may_overtake_each_other() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    let mut datagrams: Vec<_> = (0..1000).map(|_| sealed(&mut sealer)).collect();
    datagrams.reverse();
    for datagram in &datagrams {
        assert!(opener.open(&mut datagram.clone()).is_ok());
        assert_eq!(opener.open(&mut datagram.clone()), Err(OpenError::Replayed));
    }
}

#[test]
fn a_counter_below_the_window_is_a_replay() {
    let mut sealer = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    let first = sealed(&mut sealer);
    for _ in 0..WINDOW_COUNTERS {
        assert!(opener.open(&mut sealed(&mut sealer)).is_ok());
    }
    assert_eq!(opener.open(&mut first.clone()), Err(OpenError::Replayed));
}

#[test]
fn an_old_session_never_returns() {
    let mut old = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    let mut opener = Opener::new(key(1));
    assert!(opener.open(&mut sealed(&mut old)).is_ok());
    std::thread::sleep(std::time::Duration::from_millis(1));
    let mut new = Sealer::new(&key(1), Seat(1), Occupant(9)).unwrap();
    assert!(opener.open(&mut sealed(&mut new)).is_ok());
    assert_eq!(opener.open(&mut sealed(&mut old)), Err(OpenError::Replayed));
}

#[test]
fn a_wrong_key_or_an_altered_byte_is_refused() {
    let mut sealer = Sealer::new(&key(2), Seat(1), Occupant(9)).unwrap();
    let datagram = sealed(&mut sealer);
    assert_eq!(
        Opener::new(key(1)).open(&mut datagram.clone()),
        Err(OpenError::WrongKey)
    );
    for at in 1..datagram.len() {
        let mut altered = datagram.clone();
        altered[at] ^= 1;
        assert!(Opener::new(key(2)).open(&mut altered).is_err(), "byte {at}");
    }
}

#[test]
fn a_short_key_is_refused() {
    assert_eq!(
        ClusterKey::new(&[0; 16]).err(),
        Some(KeyError::TooShort(16))
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
        if !bytes.is_empty() { bytes[0] = VERSION; }
        prop_assert!(Opener::new(key(1)).open(&mut bytes).is_err());
    }
}
