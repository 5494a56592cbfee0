//! The replay: the same core, run again on what the recorder kept, telling step by step what came in, what it changed, and what
//! the core did about it.
//!
//! [`words`] has the sentences, [`changes`] compares two moments, [`fold`] puts what happens all the time into one line, and
//! [`show`] prints. A step whose effects are not the recorded ones, or a checkpoint that the replay does not reach, is said: then
//! another build, or a defect, makes the story untrustworthy from there on.

mod changes;
mod fold;
mod show;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use pbx_core::{Ballot, BootTime, Effect, Input, Node, View};

use super::entry::{self, Entry, Mark};
use super::file::{self, Flight};
use show::Window;
use words::Words;

/// What to replay, and how to tell it.
#[derive(clap::Args)]
pub struct Request {
    /// A file *.pbxflight, or the body of /debug/flight.
    file: PathBuf,
    /// Tell from this moment on, UTC: 04:50:12.3 (of the day the flight was taken) or 2026-01-02T04:50:12Z.
    #[arg(long)]
    from: Option<String>,
    /// Tell up to this moment.
    #[arg(long)]
    to: Option<String>,
    /// One JSON object a line, each step by itself.
    #[arg(long)]
    json: bool,
}

/// Runs a request: 0 told, 1 told but the replay went another way, 2 the file or a moment cannot be used.
pub fn run(request: &Request) -> ExitCode {
    let told = tell(request);
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{}: {problem}", request.file.display());
            ExitCode::from(2)
        }
    }
}

/// One entry, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, by the node's clock.
    pub at: BootTime,
    /// What came in.
    pub what: String,
    /// What it changed.
    pub changes: Vec<String>,
    /// What the core did.
    pub effects: Vec<String>,
    /// What to count it as, where nothing but the usual happened.
    pub usual: Option<String>,
    /// The replay went another way than the recording.
    pub is_different: bool,
}

/// A flight, told.
#[derive(Debug)]
pub struct Story {
    /// In the order of time.
    pub told: Vec<Told>,
    /// Steps of the core.
    pub steps: usize,
    /// Steps and checkpoints that differ from the recording.
    pub different: usize,
}

/// Runs the core on a flight.
pub fn replay(flight: &Flight) -> Story {
    let mut player = Player {
        words: Words::new(&flight.header.names),
        node: None,
        before: None,
        steps: 0,
    };
    let mut told: Vec<Told> = flight
        .entries
        .iter()
        .filter_map(|entry| player.play(entry))
        .collect();
    // A mark may be told to the recorder after what followed it.
    told.sort_by_key(|told| told.at);
    let different = told.iter().filter(|told| told.is_different).count();
    Story {
        told,
        steps: player.steps,
        different,
    }
}

fn tell(request: &Request) -> Result<bool, String> {
    let flight = file::read(&request.file, super::layout()).map_err(|error| error.to_string())?;
    let window = Window::new(
        &flight.header,
        request.from.as_deref(),
        request.to.as_deref(),
    )?;
    let story = replay(&flight);
    if request.json {
        show::print_json(&flight.header, &story, &window);
    } else {
        show::print_text(&flight.header, &story, &window);
    }
    Ok(story.different == 0)
}

/// A node between two steps, as much as is told of it.
pub(crate) struct Moment {
    pub(crate) at: BootTime,
    pub(crate) view: View,
    pub(crate) ballot: Ballot,
}

impl Moment {
    fn of(node: &Node, at: BootTime) -> Self {
        Self {
            at,
            view: node.view(at),
            ballot: node.ballot(),
        }
    }
}

struct Player<'a> {
    words: Words<'a>,
    node: Option<Box<Node>>,
    before: Option<Moment>,
    steps: usize,
}

impl Player<'_> {
    fn play(&mut self, entry: &Entry) -> Option<Told> {
        match entry {
            Entry::Start {
                settings,
                start,
                digest,
            } => {
                let mut effects = Vec::new();
                let node = Box::new(Node::new(*settings, *start, &mut effects));
                let after = Moment::of(&node, start.now);
                let mut told = self.told(start.now, Words::start(start), &effects);
                told.changes = vec![self.words.state(&after)];
                told.is_different = entry::digest_of(&effects) != *digest;
                (self.node, self.before) = (Some(node), Some(after));
                Some(told)
            }
            Entry::Checkpoint(node) => self.on_checkpoint(node),
            Entry::Step { at, input, digest } => Some(self.on_step(*at, input, *digest)),
            Entry::Mark { at, mark } => Some(self.on_mark(*at, *mark)),
        }
    }

    /// The first one begins the story; a later one has to be where the replay is.
    fn on_checkpoint(&mut self, recorded: &Node) -> Option<Told> {
        let is_first = self.node.is_none();
        let is_reached = self
            .node
            .as_ref()
            .is_some_and(|node| entry::digest_of_node(node) == entry::digest_of_node(recorded));
        if is_reached {
            return None;
        }
        let at = recorded.stepped_at();
        let moment = Moment::of(recorded, at);
        let what = if is_first {
            "the recording begins"
        } else {
            "the recorded state is not the replayed one: goes on from the recorded"
        };
        let mut told = self.told(at, what.into(), &[]);
        told.changes = vec![self.words.state(&moment)];
        told.is_different = !is_first;
        (self.node, self.before) = (Some(Box::new(recorded.clone())), Some(moment));
        Some(told)
    }

    fn on_step(&mut self, at: BootTime, input: &Input, digest: u32) -> Told {
        let node = self.node.as_mut().expect("a flight begins with a node");
        let before = self.before.as_ref().expect("set with the node");
        let mut effects = Vec::new();
        node.step(at, *input, &mut effects);
        let at = at.max(before.at);
        let after = Moment::of(node, at);
        self.steps += 1;
        let changes = changes::between(&self.words, before, &after);
        let usual = changes
            .is_empty()
            .then(|| fold::usual(&self.words, input, &effects))
            .flatten();
        let what = self.words.input(at, input, &before.view);
        let mut told = self.told(at, what, &effects);
        told.is_different = entry::digest_of(&effects) != digest;
        told.usual = usual.filter(|_| !told.is_different);
        told.changes = changes;
        self.before = Some(after);
        told
    }

    fn on_mark(&self, at: BootTime, mark: Mark) -> Told {
        let mut told = self.told(at, self.words.mark(mark), &[]);
        told.usual = fold::usual_mark(mark).map(Into::into);
        told
    }

    fn told(&self, at: BootTime, what: String, effects: &[Effect]) -> Told {
        Told {
            at,
            what,
            changes: Vec::new(),
            effects: effects
                .iter()
                .map(|effect| self.words.effect(at, effect))
                .collect(),
            usual: None,
            is_different: false,
        }
    }
}
