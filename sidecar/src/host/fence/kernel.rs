//! The fence in the kernel: a netlink socket for what is done at every beat, and `nft` for loading the rules, which is rare.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use thiserror::Error;

use super::lease::{Fill, Slot};
use super::wire::{self, Answer, Family, Request};

/// The kernel answers within the call; longer means that somebody else holds its lock, loading a large rule set.
const PATIENCE: Duration = Duration::from_secs(1);
/// `nft` took 6 to 10 ms here.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);
const MOST_SAID_BYTES: u64 = 2000;

/// What failed.
#[derive(Debug, Error)]
pub enum FenceError {
    /// No socket of nftables.
    #[error("cannot open a netlink socket of nftables: the sidecar needs CAP_NET_ADMIN")]
    Open(#[source] Errno),
    /// A message to it, or its answer, was lost.
    #[error("cannot talk to nftables")]
    Talk(#[source] Errno),
    /// Somebody changed some rule set of this network namespace since it was looked at; nothing was done.
    #[error("the rule sets were changed meanwhile")]
    Overtaken,
    /// A set, a map or a table is gone, or may not be changed.
    #[error("nftables refused: {0}")]
    Refused(Errno),
    /// `nft` cannot be started.
    #[error("cannot start nft: install the package nftables")]
    Start(#[source] std::io::Error),
    /// `nft` refused the rules.
    #[error("nft refused the rules of the fence: {said}")]
    Load {
        /// Its first lines.
        said: String,
    },
    /// `nft` did not end.
    #[error("nft did not end within {LOAD_PATIENCE:?}")]
    Stuck,
}

impl FenceError {
    /// A stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open(_) => "FenceNotAllowed",
            Self::Talk(_) => "FenceUnreachable",
            Self::Overtaken | Self::Refused(_) => "FenceChanged",
            Self::Start(_) | Self::Load { .. } | Self::Stuck => "FenceNotLoaded",
        }
    }
}

/// The kernel's side of one fence.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
    table: String,
    sequence: u32,
    /// The number of the rule sets, as it is unless somebody else changed some; none when it is not known.
    generation: Option<u32>,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Opens the socket, for the network namespace of this thread.
    pub fn open(table: &str) -> Result<Self, FenceError> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )
        .map_err(FenceError::Open)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(FenceError::Open)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(FenceError::Open)?;
        Ok(Self {
            socket,
            table: table.to_owned(),
            sequence: 1,
            generation: None,
            buffer: vec![0; 32_768],
        })
    }

    /// First phase of a refresh. [`FenceError::Overtaken`] if somebody has changed any rule set since the
    /// [rules](Self::fingerprint) were read.
    pub fn fill(&mut self, fill: Fill) -> Result<(), FenceError> {
        let number = self.generation;
        let request = wire::fill(&self.table, fill.slot, fill.timeout, self.sequence, number);
        self.change(&request)
    }

    /// Second phase, refused as the first.
    pub fn point(&mut self, slot: Slot) -> Result<(), FenceError> {
        let request = wire::point(&self.table, slot, self.sequence, self.generation);
        self.change(&request)
    }

    /// Lets nothing pass any more.
    pub fn close(&mut self) -> Result<(), FenceError> {
        let request = wire::close(&self.table, self.sequence);
        // What takes nothing away is no change, and has no number.
        self.generation = None;
        self.ask(&request).map(drop)
    }

    /// Where the fence points, as an earlier sidecar left it.
    pub fn pointer(&mut self) -> Result<Option<Slot>, FenceError> {
        let request = wire::read_pointer(&self.table, self.sequence);
        let objects = self.ask(&request)?;
        Ok(objects.iter().find_map(|object| wire::pointer_of(object)))
    }

    /// Whether nobody else has changed any rule set of this network namespace since its [rules](Self::fingerprint) were read.
    pub fn is_unchanged(&mut self) -> Result<bool, FenceError> {
        let number = self.read_generation()?;
        Ok(self.knows_generation() && number == self.generation)
    }

    /// Whether it is known as what number of the rule sets its rules were read.
    pub fn knows_generation(&self) -> bool {
        self.generation.is_some()
    }

    /// What is done next is done whatever the number is.
    pub fn forget_generation(&mut self) {
        self.generation = None;
    }

    /// Tables and rules as they stand, to be compared with what stood after loading. Sets and their elements are left out.
    pub fn fingerprint(&mut self) -> Result<Vec<u8>, FenceError> {
        // Read before they are: a change meanwhile shows in the next one.
        let number = self.read_generation()?;
        let mut print = Vec::new();
        for family in Family::ALL {
            let table = wire::read_table(family, &self.table, self.sequence);
            print.extend(self.ask(&table)?.concat());
            let rules = wire::read_rules(family, &self.table, self.sequence);
            print.extend(self.ask(&rules)?.concat());
        }
        self.generation = number;
        Ok(print)
    }

    /// The number of the rule sets.
    fn read_generation(&mut self) -> Result<Option<u32>, FenceError> {
        let objects = self.ask(&wire::read_generation(self.sequence))?;
        Ok(objects
            .iter()
            .find_map(|object| wire::generation_of(object)))
    }

    /// Elements are added by each of these batches: each is one change. The number is never zero.
    fn change(&mut self, request: &Request) -> Result<(), FenceError> {
        let before = self.generation.take();
        self.ask(request)?;
        self.generation = before.map(|number| number.checked_add(1).unwrap_or(1));
        Ok(())
    }

    /// Sends and waits for the end of the answer; returns the objects that came.
    fn ask(&mut self, request: &Request) -> Result<Vec<Vec<u8>>, FenceError> {
        let (first, last) = request.sequence;
        // One more than the last: the end of a batch has a number as well.
        self.sequence = last.wrapping_add(2);
        send(&self.socket, &request.bytes, SendFlags::empty()).map_err(FenceError::Talk)?;
        let mut objects = Vec::new();
        loop {
            let (received, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())
                .map_err(FenceError::Talk)?;
            for (sequence, answer) in wire::answers(&self.buffer[..received]) {
                match answer {
                    // What an earlier request that was given up left behind.
                    _ if !(first..=last).contains(&sequence) => {}
                    Answer::Object(object) => objects.push(object.to_vec()),
                    Answer::Result(0) if sequence != last => {}
                    Answer::Done | Answer::Result(0) => return Ok(objects),
                    Answer::Result(wire::OVERTAKEN) => return Err(FenceError::Overtaken),
                    Answer::Result(error) => {
                        return Err(FenceError::Refused(Errno::from_raw_os_error(-error)));
                    }
                }
            }
        }
    }
}

/// Gives these commands to `nft`: all of them or none take effect.
pub fn load(commands: &str) -> Result<(), FenceError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(FenceError::Start)?;
    let mut input = nft.stdin.take().expect("its input was asked for");
    // An nft that ended early says why below.
    let _ = input.write_all(commands.as_bytes());
    drop(input);
    let deadline = Instant::now() + LOAD_PATIENCE;
    let status = loop {
        if let Some(status) = nft.try_wait().map_err(FenceError::Start)? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = nft.kill();
            let _ = nft.wait();
            return Err(FenceError::Stuck);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(errors) = nft.stderr.take() {
        let _ = errors.take(MOST_SAID_BYTES).read_to_string(&mut said);
    }
    Err(FenceError::Load {
        said: said.lines().take(3).collect::<Vec<_>>().join(" "),
    })
}
