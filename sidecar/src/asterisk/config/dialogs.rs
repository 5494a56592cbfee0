//! Whether calls stay with a node when its floating addresses go: what is sent within a call goes where its Contact and its session
//! description say, and from the socket of its endpoint's transport. Pure but for reading the snapshot. Judged is `PJSIP` alone.
//!
//! Measured with 22.10.1, two transports, one bound to the floating address, this one fenced under a call: requests of the other side
//! arrive when `external_signaling_address` is the node's own address; those of Asterisk leave by the transport that the endpoint
//! names, and by that of the first request when it names none.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::error::ConfigError;
use super::own::SELF_ENDPOINT;
use super::snapshot::Snapshot;
use super::sources::{self, Files};
use super::tree::{Section, Tree};

/// What a transport bound to a floating address says of itself instead.
const EXTERNAL: [&str; 2] = ["external_signaling_address", "external_media_address"];

/// Why calls would go with a floating address, and what to change; none: they stay.
pub fn why_calls_leave(
    snapshot: &Snapshot,
    floating: &[IpAddr],
) -> Result<Option<String>, ConfigError> {
    let files = sources::read(&snapshot.path.join("active"), &[])?;
    why_calls_leave_of(&files, floating)
}

fn why_calls_leave_of(files: &Files, floating: &[IpAddr]) -> Result<Option<String>, ConfigError> {
    let tree = Tree::load(files, "pjsip.conf", false)?;
    let of_kind = |kind: &'static str| {
        let sections = tree.sections.iter();
        sections.filter(move |section| !section.is_template && section.has("type", kind))
    };
    let is_bound = |section: &&Section| {
        let mut binds = section.values("bind");
        binds.any(|bind| host_of(bind).is_some_and(|host| floating.contains(&host)))
    };
    let bound: Vec<&Section> = of_kind("transport").filter(is_bound).collect();
    if let Some(why) = bound
        .iter()
        .find_map(|section| names_itself(section, floating))
    {
        return Ok(Some(why));
    }
    let names: BTreeSet<&str> = bound.iter().map(|section| section.name.as_str()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let goes_along = |section: &&Section| {
        let mut transports = section.values("transport");
        let is_ours = section.name.eq_ignore_ascii_case(SELF_ENDPOINT);
        !is_ours && !transports.any(|transport| !names.contains(transport))
    };
    Ok(of_kind("endpoint").find(goes_along).map(|section| {
        format!(
            "endpoint {} of pjsip.conf names no transport of this host's own address",
            section.name
        )
    }))
}

/// A transport bound to a floating address that names this address in calls.
fn names_itself(section: &Section, floating: &[IpAddr]) -> Option<String> {
    let is_own = |option: &&str| {
        let mut values = section.values(option);
        values.any(|value| host_of(value).is_none_or(|host| !floating.contains(&host)))
    };
    let missing = EXTERNAL.iter().find(|option| !is_own(option))?;
    let name = &section.name;
    Some(format!(
        "transport {name} of pjsip.conf names the floating address in calls: set its {missing} to this host's own address"
    ))
}

/// Of `192.0.2.1`, `192.0.2.1:5060`, `2001:db8::1` and `[2001:db8::1]:5060`; a name has none.
fn host_of(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOATING: &str = "192.0.2.200";
    const SOUND: &str = "[udp]\ntype=transport\nbind=192.0.2.200:5060\nexternal_signaling_address=192.0.2.1\nexternal_media_address=192.0.2.1\n\
                         [own]\ntype=transport\nbind=192.0.2.1:5060\n[phones](!)\ntype=endpoint\ntransport=own\n[100](phones)\ncontext=a\n\
                         [pbx-ha-self]\ntype=endpoint\n";

    fn judged(pjsip: &str) -> Option<String> {
        let files = [("pjsip.conf".to_owned(), pjsip.as_bytes().to_vec())].into();
        let floating = [FLOATING, "2001:db8::200"].map(|ip| ip.parse().unwrap());
        why_calls_leave_of(&files, &floating).unwrap()
    }

    #[test]
    fn calls_stay_where_nothing_of_them_names_the_floating_address() {
        assert_eq!(judged(SOUND), None);
        let any = "[udp]\ntype=transport\nbind=0.0.0.0:5060\n[100]\ntype=endpoint\ntransport=udp\n";
        assert_eq!(judged(any), None);
    }

    #[test]
    fn a_transport_that_names_its_floating_address_takes_them_along() {
        let six = SOUND.replace("192.0.2.200:5060", "[2001:db8::200]:5060");
        assert_eq!(judged(&six), None);
        for pjsip in [
            SOUND.replace("external_media_address=192.0.2.1\n", ""),
            SOUND.replace(
                "signaling_address=192.0.2.1",
                "signaling_address=192.0.2.200",
            ),
            six.replace("external_signaling_address=192.0.2.1\n", ""),
        ] {
            let why = judged(&pjsip).unwrap();
            assert!(
                why.contains("transport udp") && why.contains("external_"),
                "{why}"
            );
        }
    }

    #[test]
    fn an_endpoint_that_sends_from_the_floating_address_takes_them_along() {
        for transport in ["transport=udp\n", ""] {
            let why = judged(&SOUND.replace("transport=own\n", transport)).unwrap();
            assert!(why.contains("endpoint 100"), "{why}");
        }
    }
}
