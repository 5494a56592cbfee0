//! What Asterisk says, and who hears it: answers go to whoever asked, events to all who may and want to hear them.

use std::time::Instant;

use super::session::{Dirt, Phase, SessionId, write_response};
use super::upstream::{Asker, Phase as UpstreamPhase, Stage};
use super::{ANSWER_LIMIT_BYTES, End, Hub, count};
use crate::class::Classes;
use crate::wire::message::{Kind, ListMark};
use crate::wire::{Message, MessageReader, lines, value_of};

impl Hub {
    /// Asterisk sent something.
    pub fn upstream_bytes(&mut self, bytes: &[u8], now: Instant) {
        if self.upstream.phase() == UpstreamPhase::Down {
            return;
        }
        self.upstream.heard(now);
        let mut reader = std::mem::take(&mut self.upstream.reader);
        reader.push(bytes);
        if let Err(why) = self.read_messages(&mut reader, now) {
            self.give_up = Some(why);
        }
        self.upstream.reader = reader;
        self.take_turns(now);
    }

    fn read_messages(&mut self, reader: &mut MessageReader, now: Instant) -> Result<(), String> {
        if self.upstream.phase() == UpstreamPhase::Greeting {
            let Some(banner) = reader.banner() else {
                return if reader.held() > 1000 {
                    Err("the banner is not AMI's: no line end".to_owned())
                } else {
                    Ok(())
                };
            };
            self.upstream.greet(&banner, now)?;
        }
        while reader.fetch().map_err(|error| error.to_string())? {
            let message = reader.front().expect("just fetched");
            self.on_message(&message, now)?;
            reader.pop();
        }
        Ok(())
    }

    fn on_message(&mut self, message: &Message<'_>, now: Instant) -> Result<(), String> {
        let own = message
            .action_id
            .and_then(|(id, _, _)| self.upstream.own_number(id));
        let asked = own.and_then(|(number, id)| Some((number, id, self.upstream.asked(number)?)));
        match (message.kind, asked) {
            (Kind::Response, Some((number, id, (by, stage)))) => {
                self.on_response(message, number, id, by, stage, now)?;
            }
            (Kind::Event, Some((number, id, (by, Stage::List)))) => {
                self.deliver(message, by, id);
                if message.list == Some(ListMark::End) {
                    self.finish(number, by, true);
                }
            }
            (Kind::Event, Some((number, id, (by, Stage::Called))))
                if message.name == b"OriginateResponse" =>
            {
                self.on_call(message, number, id, by);
            }
            (Kind::Event, _) => {
                if message.name == b"FullyBooted" {
                    self.on_fully_booted(message, now);
                }
                count(&self.counters.events);
                self.broadcast(message, own.map(|(_, id)| id));
            }
            _ => count(&self.counters.stray),
        }
        Ok(())
    }

    fn on_fully_booted(&mut self, message: &Message<'_>, now: Instant) {
        self.upstream.on_fully_booted(message, now);
    }

    fn on_response(
        &mut self,
        message: &Message<'_>,
        number: u64,
        id: &[u8],
        by: Asker,
        stage: Stage,
        now: Instant,
    ) -> Result<(), String> {
        let is_success = message.name != b"Error";
        match stage {
            _ if by == Asker::Hub => {
                self.upstream.finish(number);
                let was_ready = self.upstream.is_ready();
                self.upstream.on_own(message, now)?;
                if self.upstream.is_ready() && !was_ready {
                    count(&self.counters.connections);
                    self.announce("Connected");
                }
            }
            Stage::Calling if is_success => {
                self.upstream.set_stage(number, Stage::Called);
                if let Asker::Client(id) = by {
                    self.answered(id);
                }
            }
            Stage::Unwrapped => {
                self.deliver_text(message, by);
                self.finish(number, by, is_success);
            }
            _ => {
                self.deliver(message, by, id);
                for one in self.upstream.take_joined(number) {
                    self.deliver(message, Asker::Client(one.by), &one.action_id);
                    self.answered(one.by);
                }
                if message.list == Some(ListMark::Start) {
                    self.upstream.set_stage(number, Stage::List);
                } else {
                    self.finish(number, by, is_success);
                }
            }
        }
        Ok(())
    }

    /// The outcome of a call that was made in the background, for one who waits for it: a client hears what Asterisk would have
    /// answered without `Async`.
    fn on_call(&mut self, message: &Message<'_>, number: u64, id: &[u8], by: Asker) {
        let is_success = message.get("Response") == Some(b"Success");
        self.upstream.finish(number);
        match by {
            Asker::Client(client) => {
                if let Some(session) = self.sessions.get_mut(client) {
                    let (kind, text) = if is_success {
                        ("Success", "Originate successfully queued")
                    } else {
                        ("Error", "Originate failed")
                    };
                    write_response(session.output.tail(), kind, id, &[("Message", text)]);
                    self.mark(client);
                }
            }
            Asker::Queue(submission) => {
                self.deliver(message, by, id);
                self.end_submission(submission, End::Answered { is_success });
                self.broadcast(message, Some(id));
            }
            Asker::Hub => {}
        }
    }

    fn finish(&mut self, number: u64, by: Asker, is_success: bool) {
        self.upstream.finish(number);
        match by {
            Asker::Client(id) => self.answered(id),
            Asker::Queue(submission) => {
                self.end_submission(submission, End::Answered { is_success });
            }
            Asker::Hub => {}
        }
    }

    fn deliver(&mut self, message: &Message<'_>, by: Asker, id: &[u8]) {
        match by {
            Asker::Client(client) => {
                self.append(client, |out| message.write_with_id(id, out));
            }
            Asker::Queue(submission) => {
                let Some(answer) = self.answers.get_mut(&submission) else {
                    return;
                };
                if answer.len() + message.bytes.len() <= ANSWER_LIMIT_BYTES {
                    message.write_with_id(id, answer);
                }
            }
            Asker::Hub => {}
        }
    }

    /// The output of a command, as the bare text that the client asked for.
    fn deliver_text(&mut self, message: &Message<'_>, by: Asker) {
        let Asker::Client(client) = by else {
            return;
        };
        let output = lines(message.bytes).filter_map(|line| line.strip_prefix(b"Output:"));
        let output: Vec<&[u8]> = output
            .map(|line| line.strip_prefix(b" ").unwrap_or(line))
            .collect();
        self.append(client, |out| {
            for line in output {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"\r\n");
        });
    }

    /// Appends to what waits for a client, unless it reads too slowly: then it is dropped.
    fn append(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if matches!(session.phase, Phase::Dropped | Phase::Ending) {
            return;
        }
        if session.output.is_over() {
            count(&self.counters.dropped_slow);
            session.output.clear();
            session.phase = Phase::Dropped;
        } else {
            write(session.output.tail());
        }
        self.mark(id);
    }

    /// An event, to all who may and want to hear it. `id`: what the client called the action that it belongs to, if the hub sent it.
    fn broadcast(&mut self, message: &Message<'_>, id: Option<&[u8]>) {
        let classes = Classes::of_privilege(message.privilege.unwrap_or_default());
        for session in self.sessions.iter_mut() {
            if !session.hears(classes, message) {
                continue;
            }
            let place = session.id;
            if session.output.is_over() {
                count(&self.counters.dropped_slow);
                session.output.clear();
                session.phase = Phase::Dropped;
            } else if let Some(id) = id {
                message.write_with_id(id, session.output.tail());
            } else {
                session.output.tail().extend_from_slice(message.bytes);
            }
            if session.dirt == Dirt::None {
                session.dirt = Dirt::Lazy;
                self.lazily_dirty.push(place);
            }
        }
    }

    /// An event of the hub's own: whether there is an Asterisk.
    pub(super) fn announce(&mut self, status: &str) {
        let text =
            format!("Event: PbxHaAsterisk\r\nPrivilege: system,all\r\nStatus: {status}\r\n\r\n");
        let mut reader = MessageReader::default();
        reader.push(text.as_bytes());
        if let Ok(true) = reader.fetch() {
            let event = reader.front().expect("just fetched");
            self.broadcast(&event, None);
        }
    }
}

/// The first value of a header in an answer of several messages.
pub fn first_in<'a>(answer: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(answer).find_map(|line| value_of(line, name.as_bytes()))
}
