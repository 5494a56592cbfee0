//! The same care on Kubernetes: calls through the Service while the role moves by annotation, while a `ConfigMap` changes, and while
//! the image is upgraded.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pbx_crds::switchover::{SwitchoverState, SwitchoverStatus};
use serde_json::json;

use super::load::{Carried, Load, PUT_THROUGH, Parties};
use crate::asterisk_chroot;
use crate::call::{Call, refused_status};
use crate::clock::Moment;
use crate::office::{CONFIG_MAP, NAME, NAMESPACE, Office, apply};
use crate::scenario::moves::{Move, Steps, observe};
use crate::scenario::pods::{lives, wait_for_other_lives_within};
use crate::sipp::CALLEE_PORT;

const PJSIP: &str = "[udp]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5060\n\n[anonymous]\ntype=endpoint\ncontext=default\nallow=!all,ulaw\ndirect_media=no\n";
/// The tag of the upgraded image.
const NEXT_IMAGE: &str = "localhost/pbx-ha/asterisk:22-next";
/// An extension that tells that the dialplan is there.
const OPENED: &str = "opened";
const MOVE_LIMIT: Duration = Duration::from_secs(20);
/// kubelet brings changed files, a standby tries them, the active reloads.
const RELOAD_LIMIT: Duration = Duration::from_mins(2);
/// Pods that drain their calls take longer to go.
const REPLACED_LIMIT: Duration = Duration::from_secs(150);
/// Both pods are replaced within it, and calls begun before are still up when the role moves.
const UPGRADE_HOLD: Duration = Duration::from_secs(75);
const DRAIN_HOLD: Duration = Duration::from_secs(15);
const RELOAD_HOLD: Duration = Duration::from_secs(45);
const MOST_ASKS: usize = 4;
const ASK_AGAIN: Duration = Duration::from_secs(5);
const CALL_AGAIN: Duration = Duration::from_millis(200);
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The telephone system with a dialplan that puts calls through to a callee; what it was is given back when this is dropped.
#[derive(Debug)]
pub struct Exchange<'a> {
    office: &'a Office,
    parties: Parties,
}

impl<'a> Exchange<'a> {
    /// Gives it the dialplan, and Drain as its strategy when `drains`: a rollout, then. Whole when it returns.
    pub fn open(office: &'a Office, drains: bool) -> Result<Self> {
        office.wait_whole()?;
        let (namespace, client) = office.client()?;
        let target = office.service()?;
        let exchange = Self {
            office,
            parties: Parties {
                namespace,
                client,
                target,
            },
        };
        exchange.write_dialplan(OPENED)?;
        if drains {
            let old = lives(office);
            exchange.patch(
                r#"{"spec":{"failover":{"switchover":{"strategy":"Drain","timeout":"90s"}}}}"#,
            )?;
            wait_for_other_lives_within(office, &old, REPLACED_LIMIT)?;
        }
        office.wait_whole()?;
        exchange.wait_extension(OPENED)?;
        Ok(exchange)
    }

    /// Moves the role by the annotation, with Drain, under `calls` calls through the Service. Returns the time until the new active, too.
    pub fn drain(&self, calls: u32) -> Result<(Carried, Duration)> {
        let before = self.office.wait_whole()?;
        // A callee's port is free again when the load before has ended.
        let load = Load::begin(&self.parties, calls, DRAIN_HOLD)?;
        let began = Instant::now();
        let (asked, _) = ask(self.office, "any Drain")?;
        self.office
            .watcher
            .wait_until("another active", MOVE_LIMIT, |view| {
                view.status.active.is_some() && view.status.active != before.status.active
            })?;
        let took = began.elapsed();
        ensure!(load.are_all_held()?, "calls ended before the role moved");
        let carried = load.finish()?;
        wait_state(self.office, &asked, SwitchoverState::Done)?;
        self.office.wait_whole()?;
        Ok((carried, took))
    }

    /// Changes the `ConfigMap` under `calls` calls, and waits until the active answers by it. Fails when a pod was replaced or the role moved.
    pub fn reload(&self, calls: u32) -> Result<(Carried, Duration)> {
        let before = self.office.wait_whole()?;
        let old = lives(self.office);
        let load = Load::begin(&self.parties, calls, RELOAD_HOLD)?;
        let began = Instant::now();
        let extension = format!("7{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.write_dialplan(&extension)?;
        self.wait_extension(&extension)?;
        let took = began.elapsed();
        let were_held = load.are_all_held()?;
        let carried = load.finish()?;
        ensure!(
            were_held,
            "calls ended before the files were there: {took:?}"
        );
        let after = self.office.wait_whole()?;
        ensure!(lives(self.office) == old, "a pod was replaced");
        ensure!(after.status.epoch == before.status.epoch, "the role moved");
        Ok((carried, took))
    }

    /// Gives it the other image under `calls` calls: standby first, then the role moves with a drain, then the other pod.
    pub fn upgrade(&self, calls: u32) -> Result<(Carried, Move)> {
        let load = Load::begin(&self.parties, calls, UPGRADE_HOLD)?;
        let found = upgrade(self.office)?;
        let moved = Duration::from_secs_f64(found.promoted_ms / 1e3);
        ensure!(
            moved + MOVE_LIMIT < UPGRADE_HOLD,
            "the role moved after {moved:?}: calls may have ended before"
        );
        Ok((load.finish()?, found))
    }

    fn write_dialplan(&self, extension: &str) -> Result<()> {
        let contact = SocketAddrV4::new(self.parties.client, CALLEE_PORT);
        let pjsip = format!(
            "{PJSIP}\n[callee]\ntype=aor\ncontact=sip:callee@{contact}\n\n[callee]\ntype=endpoint\ncontext=default\nallow=!all,ulaw\ndirect_media=no\naors=callee\n"
        );
        let dialplan = format!(
            "[default]\nexten => 100,1,Answer()\n same => n,Echo()\nexten => {PUT_THROUGH},1,Dial(PJSIP/callee)\nexten => {extension},1,Answer()\n same => n,Hangup()\n"
        );
        write_files(
            self.office,
            &json!({"pjsip.conf": pjsip, "extensions.conf": dialplan}),
        )
    }

    fn wait_extension(&self, extension: &str) -> Result<()> {
        let limit = Instant::now() + RELOAD_LIMIT;
        while let Err(error) = self.call(extension) {
            if Instant::now() > limit {
                return Err(error.context("the active has not read the new files"));
            }
            std::thread::sleep(CALL_AGAIN);
        }
        Ok(())
    }

    fn wait_without_extension(&self, extension: &str) -> Result<()> {
        let limit = Instant::now() + RELOAD_LIMIT;
        let parties = &self.parties;
        let (namespace, client, target) = (&parties.namespace, parties.client, parties.target);
        // Not Found is an answer by the files; silence would be none.
        while refused_status(namespace, client, target, extension).ok() != Some(404) {
            let is_late = Instant::now() > limit;
            ensure!(!is_late, "the active goes on with the files of before");
            std::thread::sleep(CALL_AGAIN);
        }
        Ok(())
    }

    fn call(&self, extension: &str) -> Result<()> {
        let parties = &self.parties;
        let call = Call::begin(
            &parties.namespace,
            parties.client,
            parties.target,
            extension,
        )?;
        // The dialplan may have ended it meanwhile.
        call.hang_up().ok();
        Ok(())
    }

    fn patch(&self, patch: &str) -> Result<()> {
        self.office.patch("pbxcluster", NAME, patch)
    }

    fn give_back(&self) -> Result<()> {
        let old = lives(self.office);
        let before = own_settings(self.office)?;
        self.patch(r#"{"spec":{"failover":{"switchover":null},"asterisk":{"image":null}}}"#)?;
        apply(&self.office.cluster)?;
        if own_settings(self.office)? != before {
            wait_for_other_lives_within(self.office, &old, REPLACED_LIMIT)?;
        }
        // A standby tries the files of before as well, and is not ready meanwhile: the next switchover would be refused.
        self.wait_without_extension(OPENED)?;
        self.office.wait_whole().map(drop)
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            eprintln!("the telephone system keeps what a measurement gave it: {error:#}");
        }
    }
}

/// Gives the telephone system the other one of two images of the same content.
pub fn upgrade(office: &Office) -> Result<Move> {
    let image = asterisk_chroot::image()?;
    office.cluster.tag_image(&image, NEXT_IMAGE)?;
    let is_next = image_of(office)? == NEXT_IMAGE;
    // The image of before is the default.
    let chosen = if is_next {
        json!(null)
    } else {
        json!(NEXT_IMAGE)
    };
    let patch = json!({ "spec": { "asterisk": { "image": chosen } } }).to_string();
    let old = lives(office);
    let cause = |office: &Office| {
        let at = Moment::now();
        office.patch("pbxcluster", NAME, &patch)?;
        Ok(at)
    };
    let repair = |office: &Office| wait_for_other_lives_within(office, &old, REPLACED_LIMIT);
    observe(
        office,
        &Steps {
            cause: &cause,
            repair: &repair,
        },
    )
}

/// Asks for a move by the annotation; returns its text and the moment before it was written. Asked again, as a person would, while
/// no standby is ready: it may be away for seconds to try changed files.
pub fn ask(office: &Office, what: &str) -> Result<(String, Moment)> {
    for _ in 0..MOST_ASKS {
        let at = Moment::now();
        let asked = annotate(office, what)?;
        let view = office
            .watcher
            .wait_until("a word on the annotation", MOVE_LIMIT, |view| {
                let told = view.status.switchover.as_ref();
                // The core may still refuse what is under way.
                let is_word = |state| state != SwitchoverState::Moving;
                told.is_some_and(|told| told.requested_by == asked && is_word(told.state))
            })?;
        let told = view.status.switchover.context("there is a switchover")?;
        if told.state != SwitchoverState::Refused {
            return Ok((asked, at));
        }
        eprintln!("{asked}: {}", told.message);
        let is_without_heir = ["no standby is ready", "the active goes on"];
        let is_for_now = is_without_heir
            .iter()
            .any(|said| told.message.contains(said));
        ensure!(is_for_now, "{told:?}");
        std::thread::sleep(ASK_AGAIN);
        office.wait_whole()?;
    }
    bail!("no standby was ready for {what}, asked {MOST_ASKS} times")
}

/// Writes the annotation, each time another text, so that it is carried out; returns it.
fn annotate(office: &Office, what: &str) -> Result<String> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let asked = format!("{what} #{}-{number}", std::process::id());
    let annotation = format!("pbxha.dev/switchover={asked}");
    let annotate = [
        "annotate",
        "pbxcluster",
        NAME,
        "--overwrite",
        "--namespace",
        NAMESPACE,
    ];
    let annotate = [&annotate[..], &[annotation.as_str()]].concat();
    office.cluster.kubectl(&annotate)?;
    Ok(asked)
}

/// Waits until the status tells of the move that was asked for that it is there.
pub fn wait_state(
    office: &Office,
    asked: &str,
    state: SwitchoverState,
) -> Result<SwitchoverStatus> {
    let what = format!("the switchover to be {state:?}");
    let view = office.watcher.wait_until(&what, MOVE_LIMIT, |view| {
        let told = view.status.switchover.as_ref();
        told.is_some_and(|told| told.state == state && told.requested_by == asked)
    })?;
    view.status.switchover.context("there is a switchover")
}

/// Replaces files of the `ConfigMap`.
pub fn write_files(office: &Office, files: &serde_json::Value) -> Result<()> {
    let patch = json!({ "data": files }).to_string();
    office.patch("configmap", CONFIG_MAP, &patch)
}

/// What a measurement sets.
fn own_settings(office: &Office) -> Result<String> {
    spec(office, "{.spec.failover.switchover}{.spec.asterisk.image}")
}

fn image_of(office: &Office) -> Result<String> {
    spec(office, "{.spec.asterisk.image}")
}

fn spec(office: &Office, path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    let get = [
        "get",
        "pbxcluster",
        NAME,
        "--namespace",
        NAMESPACE,
        "-o",
        &path,
    ];
    office.cluster.kubectl(&get)
}
