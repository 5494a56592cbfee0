//! `cargo xtask fuzz`: the codecs of the doors against bytes that nobody would send. Each input is a sound one with a few bytes
//! changed, cut, doubled or joined with another, from a seed that is printed, so that a failure can be had again. A codec fails by
//! a panic, or by memory that grows.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use pbx_doors::{channel, droonga, haast, heartbeat, sysadm};

/// Inputs stay below this: the codecs' bounds are tested by name.
const MAX_BYTES: usize = 4096;
/// An allocator keeps some; a leak of a byte an input would be more.
const MAX_GROWTH_KIB: u64 = 4096;
const FIRST_SEED: u64 = 1;

/// Random bytes for the codecs.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How many inputs for each codec
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// The first seed
    #[arg(long, default_value_t = FIRST_SEED)]
    from: u64,
    /// Only the codecs whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

struct Target {
    name: &'static str,
    /// Sound inputs.
    samples: &'static [&'static [u8]],
    fuzz_one: fn(&[u8]),
}

const TARGETS: [Target; 6] = [
    Target {
        name: "ami",
        samples: &[
            b"Action: Login\r\nUsername: desk\r\nSecret: s\r\nActionID: 1\r\n\r\nAction: Ping\r\n\r\n",
            b"Response: Success\r\nActionID: m-1.7.x\r\nEventList: start\r\nMessage: list\r\n\r\nEvent: X\r\nPrivilege: call,all\r\n\r\n",
            b"Action: Command\nCommand: core show uptime\n\n\r\n\rx: y\0\r\n",
        ],
        fuzz_one: pbx_ami::wire::fuzz_one,
    },
    Target {
        name: "channel-frame",
        samples: &[b"\0\x100123456789abcdef", b"\0\x11\x00123456789abcdef\0\x12"],
        fuzz_one: channel::frame::fuzz_one,
    },
    Target {
        name: "sysadm",
        samples: &[
            br#"{"namespace": "events", "name": "subscribe", "id": "sampleID", "args": ["dispatcher", "life-preserver"]}"#,
            br#"{"namespace":"rpc","name":"auth_token","id":1,"args":{"token":"secret"}}"#,
            b"office-1\n{\"namespace\":\"events\",\"name\":\"unsubscribe\",\"id\":null,\"args\":\"system_state\"}",
        ],
        fuzz_one: sysadm::codec::fuzz_one,
    },
    Target {
        name: "fluentd-forward",
        samples: &[
            b"\x94\xa1t\x01\x82\xa2id\xa17\xa4type\xadsystem.status\x81\xa5chunk\xa2id",
            b"\x92\xa1t\x92\x92\x01\x82\xa4type\xadsystem.status\xa7replyTo\xa71.2.3:4/t\x92\xd7\0\0\0\0\x01\0\0\0\0\x80",
            b"\x93\xa1t\xc4\x04\x92\x01\x80\xc0\x81\xaacompressed\xa4text",
        ],
        fuzz_one: droonga::forward::fuzz_one,
    },
    Target {
        name: "haast",
        samples: &[
            b"id: 123\ncommand:getstatus\n\n",
            b"token: s\r\ncommand: switchover\r\nto: office-1\r\nstrategy: drain\r\n\r\n",
            b"YYYY\n\n",
        ],
        fuzz_one: haast::fuzz_one,
    },
    Target {
        name: "heartbeat",
        samples: &[
            b"\x34\0\0\0\xcd\xab\0\0>>>\nt=hbapi-req\nreqtype=signon\npid=4\nfrom_id=4\n<<<\n\0",
            b">>>\nt=text\n(1)queryuuid=AAEC/w==\n(3)x=3:one,3:two,\ninfo=\n<<<\n\0",
            b"###\n14:(0)t=hbapi-req,28:(2)child=###\n8:(0)x=yyy,%%%\n,%%%\n",
        ],
        fuzz_one: heartbeat::fuzz_one,
    },
];

/// What a codec did with its inputs.
pub(crate) struct Outcome {
    /// The codec.
    pub(crate) name: &'static str,
    /// Why it failed; none: it took all inputs.
    pub(crate) failure: Option<String>,
    /// How much more memory this process has, KiB.
    pub(crate) grown_kib: u64,
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = TARGETS
        .iter()
        .filter(|target| target.name.contains(&arguments.only));
    let mut count = 0;
    for target in chosen {
        let outcome = fuzz(target, arguments.from, arguments.inputs)?;
        if let Some(failure) = outcome.failure {
            bail!("{} failed with {failure}", target.name);
        }
        println!(
            "{}: {} inputs in {:.0} s, no panic, {} KiB of growth",
            target.name, arguments.inputs, outcome.seconds, outcome.grown_kib
        );
        count += 1;
    }
    if count == 0 {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!(
            "no codec has {} in its name: there are {}",
            arguments.only,
            known.join(", ")
        );
    }
    Ok(())
}

/// Gives each codec `inputs` inputs, beginning with the first seed; a failure ends that codec's alone.
pub(crate) fn outcomes(inputs: u64) -> Result<Vec<Outcome>> {
    TARGETS
        .iter()
        .map(|target| fuzz(target, FIRST_SEED, inputs))
        .collect()
}

fn fuzz(target: &Target, from: u64, inputs: u64) -> Result<Outcome> {
    let start = Instant::now();
    let mut input = Vec::with_capacity(2 * MAX_BYTES);
    let mut resident_before = None;
    let mut failure = None;
    for seed in from..from + inputs {
        make(target, seed, &mut input);
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.fuzz_one)(&input)));
        if outcome.is_err() {
            failure = Some(format!("seed {seed}: {input:02x?}"));
            break;
        }
        if seed == from + inputs / 10 {
            resident_before = Some(resident_kib()?);
        }
    }
    let grown_kib = resident_kib()?.saturating_sub(resident_before.unwrap_or(u64::MAX));
    if grown_kib > MAX_GROWTH_KIB {
        failure = failure.or(Some(format!("{grown_kib} KiB of growth")));
    }
    Ok(Outcome {
        name: target.name,
        failure,
        grown_kib,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The input of a seed: a sample (of every sixteenth seed, nothing), changed a few times.
fn make(target: &Target, seed: u64, input: &mut Vec<u8>) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    input.clear();
    if !seed.is_multiple_of(16) {
        input.extend_from_slice(random.one_of::<&[u8]>(target.samples));
    }
    for _ in 0..=random.below(6) {
        change(target, &mut random, input);
    }
    input.truncate(MAX_BYTES);
}

fn change(target: &Target, random: &mut Random, input: &mut Vec<u8>) {
    const TELLING: [u8; 12] = [
        0, 1, b'"', b'{', b'[', 0x7f, 0x80, 0x90, 0xc0, 0xdd, 0xdf, 0xff,
    ];
    let at = random.below(input.len() + 1);
    match random.below(7) {
        0 => input.insert(at, random.next() as u8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 if at < input.len() => input[at] ^= 1 << random.below(8),
        3 => input.insert(at, *random.one_of(&TELLING)),
        4 => input.truncate(at),
        5 => {
            let end = at + random.below(input.len() - at + 1);
            let piece = input[at..end].to_vec();
            for _ in 0..=random.below(4) {
                input.extend_from_slice(&piece);
            }
        }
        _ => input.extend_from_slice(random.one_of::<&[u8]>(target.samples)),
    }
}

/// Resident memory of this process.
fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("read this process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .context("find this process's memory")
}

/// xorshift64*: the same inputs for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
