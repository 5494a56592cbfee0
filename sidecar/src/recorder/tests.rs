//! The recorder on a real core: an active node of three, whose peers acknowledge every beat and whose guard confirms at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pbx_core::{
    Body, BootTime, Condition, Effect, Epoch, FoundAtStart, GuardEvent, Incarnation, Input,
    MAX_NODES, Message, Node, Occupant, PeerCondition, Seat, Seats, Settings, Start, Timing,
};
use proptest::prelude::*;

use super::entry::{self, Entry, MAX_ENTRY_BYTES, Mark};
use super::file::{self, Flight, FlightError, FlightStore, Header};
use super::replay::{Story, replay};
use super::ring::Ring;
use super::{AFTERMATH, Kind, REST, Recorder, layout};

const START: BootTime = BootTime(5_000_000_000);

struct World {
    node: Node,
    recorder: Recorder,
    now: BootTime,
    steps: usize,
}

impl World {
    fn new(ring_bytes: usize) -> Self {
        let settings = settings();
        let start = Start {
            now: START,
            incarnation: Incarnation(77),
            record: None,
            guard: FoundAtStart::Nothing,
        };
        let mut effects = Vec::new();
        let node = Node::new(settings, start, &mut effects);
        let mut recorder = Recorder::new(&settings, &start, &effects, &node);
        if ring_bytes != super::RING_BYTES {
            recorder.ring = Ring::new(ring_bytes);
            recorder.ring.push(&Entry::Checkpoint(&node), &node);
        }
        let mut world = Self {
            node,
            recorder,
            now: START,
            steps: 0,
        };
        let is_ready = true;
        world.step(&Input::Condition(Condition {
            is_ready,
            is_api_reachable: true,
            rank: 0,
            is_held_back: false,
        }));
        world
    }

    fn step(&mut self, input: &Input) {
        let mut inputs = VecDeque::from([*input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.node.step(self.now, input, &mut effects);
            self.recorder
                .on_step(self.now, &input, &effects, &self.node);
            self.steps += 1;
            inputs.extend(effects.iter().filter_map(answer));
        }
    }

    /// One tick, with all that follows.
    fn tick(&mut self) {
        self.now = self.node.next_deadline().max(self.now);
        self.step(&Input::Tick);
    }

    fn run_until_active(&mut self) {
        while self.node.view(self.now).role != pbx_core::Role::Active {
            self.tick();
        }
    }

    fn flight(&self) -> Flight {
        let bytes = file::assemble(&header(), &self.recorder.ring.copy());
        file::parse(&bytes, layout()).unwrap()
    }
}

fn settings() -> Settings {
    let mut seats = Seats {
        count: 3,
        occupants: [None; MAX_NODES],
        requested: [false; MAX_NODES],
    };
    for (number, seat) in seats.occupants.iter_mut().take(3).enumerate() {
        *seat = Some(Occupant(u128::MAX - number as u128));
    }
    Settings {
        seat: Seat(0),
        occupant: Occupant(u128::MAX),
        nodes: 3,
        timing: Timing::default(),
        traffic_needs_api: false,
        preferred_seat: None,
        on_quorum_loss: pbx_core::OnQuorumLoss::Demote,
        fixed_seats: Some(seats),
    }
}

fn header() -> Header {
    Header {
        program: "test".into(),
        layout: layout(),
        cluster: "office".into(),
        node: "pbx-0".into(),
        names: vec!["pbx-0".into(), "pbx-1".into(), "pbx-2".into()],
        taken_at: START,
        taken_at_unix_ns: 1_800_000_000_000_000_000,
        occasion: "asked".into(),
    }
}

/// What peers and guard answer to an effect.
fn answer(effect: &Effect) -> Option<Input> {
    match effect {
        Effect::Send(beat) if matches!(beat.body, Body::Beat { .. }) => {
            Some(Input::Message(Message {
                from: beat.to,
                occupant: Occupant(u128::MAX - u128::from(beat.to.0)),
                to: beat.from,
                incarnation: Incarnation(5),
                to_incarnation: beat.incarnation,
                epoch: beat.epoch,
                sent_at: BootTime(u64::MAX / 3),
                condition: PeerCondition {
                    is_ready: true,
                    ..PeerCondition::default()
                },
                body: Body::Ack {
                    beat_sent_at: beat.sent_at,
                },
            }))
        }
        Effect::Arm { deadline } => Some(Input::Guard(GuardEvent::Armed {
            deadline: *deadline,
        })),
        _ => None,
    }
}

fn is_told(story: &Story, part: &str) -> bool {
    story.told.iter().any(|told| {
        let details = told.changes.iter().chain(&told.effects);
        std::iter::once(&told.what)
            .chain(details)
            .any(|text| text.contains(part))
    })
}

#[test]
fn a_promotion_is_replayed_with_its_cause_votes_and_epoch() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    for _ in 0..50 {
        world.tick();
    }
    let story = replay(&world.flight());
    assert_eq!((story.steps, story.different), (world.steps, 0));
    for part in [
        "bids for epoch 5: Startup",
        "counts pbx-1's vote for 792 ms: 2 of 3 votes, a majority",
        "PROMOTED under epoch 5: Startup",
    ] {
        assert!(is_told(&story, part), "{part} is not in {story:#?}");
    }
}

#[test]
fn a_step_that_decides_otherwise_is_noticed() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    let mut flight = world.flight();
    let last = flight
        .entries
        .iter_mut()
        .rev()
        .find_map(|entry| match entry {
            Entry::Step { digest, .. } => Some(digest),
            _ => None,
        });
    *last.unwrap() ^= 1;
    assert_eq!(replay(&flight).different, 1);
}

#[test]
fn a_lost_step_is_noticed_at_the_next_checkpoint_or_before() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    let mut flight = world.flight();
    // An acknowledgement: without it the deadline is never armed, and the guard confirms what nobody ordered.
    let lost = flight.entries.iter().position(|entry| {
        matches!(entry, Entry::Step { input: Input::Message(message), .. } if matches!(message.body, Body::Ack { .. }))
    });
    let lost = lost.unwrap();
    flight.entries.drain(lost..lost + 2);
    assert!(replay(&flight).different > 0);
}

#[test]
fn a_checkpoint_fits() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    let mut bytes = vec![0; 1 << 16];
    let used = entry::encode(&Entry::Checkpoint(&world.node), &mut bytes).unwrap();
    println!("a checkpoint has {used} bytes");
    assert!(used * 2 < MAX_ENTRY_BYTES, "{used}");
}

#[test]
fn a_change_of_roles_is_copied_at_once_and_with_its_aftermath() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    let promoted_at = world.now;
    let first = world.recorder.due(promoted_at).unwrap();
    assert_eq!(
        (first.occasion.kind, first.occasion.epoch),
        (Kind::Promoted, 5)
    );
    assert!(world.recorder.due(promoted_at).is_none());
    assert!(world.recorder.on_asked(promoted_at).is_none(), "too soon");
    assert_eq!(world.recorder.next_deadline(), promoted_at.after(AFTERMATH));
    let rested = promoted_at.after(REST);
    assert_eq!(
        world.recorder.on_asked(rested).unwrap().occasion.kind,
        Kind::Asked
    );
    let second = world.recorder.due(promoted_at.after(AFTERMATH)).unwrap();
    assert_eq!(second.occasion, first.occasion);
    assert_eq!(world.recorder.next_deadline(), BootTime::FAR_FUTURE);
}

#[test]
fn only_the_newest_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = FlightStore::new(folder.path().join("flights"));
    for number in 0..15 {
        store
            .write(&format!("flight-{number:02}"), &[0; 100])
            .unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let names = || {
        let files = std::fs::read_dir(folder.path().join("flights")).unwrap();
        let mut names: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 10);
    assert_eq!(names()[0], "flight-05.pbxflight");
    store.write("flight-15", &vec![0; 4 << 20]).unwrap();
    assert_eq!(names(), ["flight-15.pbxflight"], "four megabytes in all");
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    let world = World::new(super::RING_BYTES);
    let bytes = file::assemble(&header(), &world.recorder.ring.copy());
    assert!(matches!(
        file::parse(b"#!/bin/sh", layout()),
        Err(FlightError::NotAFlight)
    ));
    assert!(matches!(
        file::parse(&bytes[..bytes.len() - 1], layout()),
        Err(FlightError::Damaged)
    ));
    assert!(matches!(
        file::parse(&bytes, layout() ^ 1),
        Err(FlightError::OtherBuild { .. })
    ));
    let empty = file::assemble(&header(), &[]);
    assert!(matches!(
        file::parse(&empty, layout()),
        Err(FlightError::NoBeginning)
    ));
    let torn = file::assemble(&header(), &[200, 0, 1]);
    assert!(matches!(
        file::parse(&torn, layout()),
        Err(FlightError::Entry { .. })
    ));
}

/// `hb cargo test --release -p pbx-sidecar what_a_step_costs -- --nocapture`
#[test]
fn what_a_step_costs() {
    let mut world = World::new(super::RING_BYTES);
    world.run_until_active();
    for _ in 0..200 {
        world.tick();
    }
    let entries = world.flight().entries.into_iter();
    let steps = entries.filter_map(|entry| match entry {
        Entry::Step { at, input, .. } => Some((at, input)),
        _ => None,
    });
    let steps = steps.collect::<Vec<_>>();
    let mut bare = World::new(super::RING_BYTES).node;
    let mut effects = Vec::with_capacity(64);
    let began = Instant::now();
    for (at, input) in &steps {
        effects.clear();
        bare.step(*at, *input, &mut effects);
    }
    let core = began.elapsed() / steps.len() as u32;
    let took = cost_of_recording(&mut world, &steps);
    let began = Instant::now();
    let copied = world.recorder.ring.copy().len();
    println!(
        "a step of the core: {core:?}; keeping it: {took:?}; a copy of {copied} bytes: {:?}",
        began.elapsed()
    );
    assert!(
        cfg!(debug_assertions) || took < Duration::from_micros(2),
        "{took:?}"
    );
}

fn cost_of_recording(world: &mut World, steps: &[(BootTime, Input)]) -> Duration {
    let mut node = World::new(super::RING_BYTES).node;
    let effects: Vec<_> = steps
        .iter()
        .map(|(at, input)| {
            let mut effects = Vec::new();
            node.step(*at, *input, &mut effects);
            effects
        })
        .collect();
    let rounds = 50;
    let began = Instant::now();
    for _ in 0..rounds {
        for ((at, input), effects) in steps.iter().zip(&effects) {
            world.recorder.on_step(*at, input, effects, &node);
        }
    }
    began.elapsed() / (rounds * steps.len() as u32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_ring_has_forgotten_the_rest_replays(ticks in 0..900usize) {
        let mut world = World::new(40_000);
        for _ in 0..ticks {
            world.tick();
            world.recorder.on_mark(world.now, Mark::TrafficAsked(Epoch(3)), &world.node);
        }
        let kept = world.recorder.ring.copy();
        prop_assert!(kept.len() <= 40_000);
        let story = replay(&world.flight());
        prop_assert_eq!(story.different, 0);
        prop_assert!(ticks < 500 || (story.steps < world.steps && story.steps > 100), "{} of {}", story.steps, world.steps);
    }

    #[test]
    fn a_damaged_file_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let world = World::new(40_000);
        let mut bytes = file::assemble(&header(), &world.recorder.ring.copy());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(file::parse(&bytes, layout()).is_err());
    }

    #[test]
    fn arbitrary_entries_never_panic(entries in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = file::parse(&file::assemble(&header(), &entries), layout());
        let _ = file::parse(&entries, layout());
    }
}
