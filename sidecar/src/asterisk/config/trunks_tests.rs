//! Real-life pjsip, wizard and IAX files, and what a standby reads of them.

use super::*;
use proptest::prelude::*;

fn held(list: &[(&str, &str)]) -> Result<Held, ConfigError> {
    let files = list
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
        .collect();
    hold_back(files, Trunks::ActiveOnly, true)
}

/// A file of a copy, without what is appended to it and without blank lines.
fn kept(files: &Files, name: &str) -> Vec<String> {
    let text = String::from_utf8(files[name].clone()).unwrap();
    let text = text.split("\n; Added by pbx-ha:").next().unwrap();
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

fn check(pjsip: &str, standby: &[&str], registrations: &[&str]) {
    let held = held(&[("pjsip.conf", pjsip)]).unwrap();
    assert_eq!(kept(&held.standby, "pjsip.conf"), standby, "{pjsip}");
    assert_eq!(held.plan.registrations, registrations, "{pjsip}");
    assert!(held.active["pjsip.conf"].starts_with(pjsip.as_bytes()));
}

#[test]
fn a_plain_registration_is_cut_with_its_comments_left() {
    check(
        "[itsp]\ntype=registration ; to the provider\nserver_uri=sip:itsp\n; next\n[itsp]\ntype=endpoint\n",
        &["; next", "[itsp]", "type=endpoint"],
        &["itsp"],
    );
}

#[test]
fn a_type_from_a_template_is_seen_and_the_template_stays() {
    check(
        "[reg](!)\ntype=registration\nretry_interval=10\n[a](reg)\nserver_uri=sip:a\n[b](reg)\nserver_uri=sip:b\n[e](!)\ntype=endpoint\n[c](e)\n",
        &[
            "[reg](!)",
            "type=registration",
            "retry_interval=10",
            "[e](!)",
            "type=endpoint",
            "[c](e)",
        ],
        &["a", "b"],
    );
}

#[test]
fn a_type_that_is_added_later_is_seen() {
    check(
        "[a]\nserver_uri=sip:a\n[e]\ntype=endpoint\n[a](+)\ntype=registration\n",
        &["[e]", "type=endpoint"],
        &["a"],
    );
}

#[test]
fn additions_to_the_endpoint_of_the_same_name_stay() {
    check(
        "[t]\ntype=endpoint\n[t]\ntype=registration\n[t](+type=registration)\nexpiration=60\n[t](+)\nallow=ulaw\n",
        &["[t]", "type=endpoint", "[t](+)", "allow=ulaw"],
        &["t"],
    );
}

#[test]
fn what_inherits_from_a_registration_goes_with_it() {
    check(
        "[a]\ntype=registration\n[t](!,a)\nexpiration=1\n[b](t)\nserver_uri=sip:b\n[e]\ntype=aor\n",
        &["[e]", "type=aor"],
        &["a", "b"],
    );
}

#[test]
fn an_endpoint_made_of_a_registration_is_refused() {
    let text = "[a]\n[d](a)\ntype=endpoint\n[a](+)\ntype=registration\n";
    assert_eq!(
        held(&[("pjsip.conf", text)]).unwrap_err().reason(),
        "InheritsFromRegistration"
    );
}

#[test]
fn a_type_in_a_comment_is_none() {
    let text = "[a]\n;type=registration\n;-- type=registration\n--;\ntype=aor\n";
    let lines: Vec<&str> = text.lines().collect();
    check(text, &lines, &[]);
}

#[test]
fn line_numbers_stay() {
    let held = held(&[("pjsip.conf", "[a]\ntype=registration\n[e]\ntype=aor")]).unwrap();
    assert!(held.standby["pjsip.conf"].starts_with(b"\n\n[e]\ntype=aor\n"));
}

#[test]
fn publishes_are_held_back_too() {
    let held = held(&[(
        "pjsip.conf",
        "[p]\ntype=outbound-publish\nserver_uri=sip:p\n",
    )])
    .unwrap();
    assert!(kept(&held.standby, "pjsip.conf").is_empty());
    assert_eq!(held.plan.publishes, ["p"]);
    assert_eq!(
        held.plan.modules_to_reload(),
        ["res_pjsip_outbound_publish.so"]
    );
}

#[test]
fn includes_are_followed_and_shared_ones_stay_whole() {
    let files = [
        (
            "pjsip.conf",
            "[a]\ntype=registration\n#include \"common.conf\"\n[e]\ntype=endpoint\n#include common.conf\n#include regs.conf\n",
        ),
        ("common.conf", "transport=udp\n"),
        (
            "regs.conf",
            "tail_of_e=1\n[b]\ntype=registration\n[f]\ntype=endpoint\n",
        ),
    ];
    let held = held(&files).unwrap();
    assert_eq!(
        kept(&held.standby, "pjsip.conf"),
        [
            "[e]",
            "type=endpoint",
            "#include common.conf",
            "#include regs.conf"
        ]
    );
    assert_eq!(kept(&held.standby, "common.conf"), ["transport=udp"]);
    assert_eq!(
        kept(&held.standby, "regs.conf"),
        ["tail_of_e=1", "[f]", "type=endpoint"]
    );
    assert_eq!(held.plan.registrations, ["a", "b"]);
}

#[test]
fn an_include_used_in_both_ways_that_opens_sections_is_refused() {
    let text = "[a]\ntype=registration\n#include x.conf\n[e]\ntype=endpoint\n#include x.conf\n";
    let error = held(&[("pjsip.conf", text), ("x.conf", "k=1\n[y]\ntype=aor\n")]).unwrap_err();
    assert_eq!(error.reason(), "SharedInclude");
    assert!(
        error.to_string().starts_with("x.conf:1 is included"),
        "{error}"
    );
}

#[test]
fn the_wizard_is_told_not_to_register() {
    let wizard = "[t](!)\ntype=wizard\nsends_registrations=yes\n[itsp](t)\nremote_hosts=a.example, b.example:5061\n[quiet](t)\nremote_hosts=c\nsends_registrations=no\n";
    let held = held(&[("pjsip_wizard.conf", wizard)]).unwrap();
    assert!(
        !String::from_utf8_lossy(&held.standby["pjsip_wizard.conf"])
            .contains("sends_registrations")
    );
    assert_eq!(held.plan.registrations, ["itsp-reg-0", "itsp-reg-1"]);
    let active = String::from_utf8_lossy(&held.active["pjsip_wizard.conf"]).into_owned();
    assert!(
        active.contains("[itsp](+^type$=^wizard$)\nregistration/max_random_initial_delay = 0\n"),
        "{active}"
    );
}

#[test]
fn iax_registrations_are_held_back() {
    let held = held(&[("iax.conf", "[general]\nbindport=4569\nregister => u:p@host\nRegister = v:p@host\n[register]\ntype=peer\n")]).unwrap();
    assert_eq!(
        kept(&held.standby, "iax.conf"),
        ["[general]", "bindport=4569", "[register]", "type=peer"]
    );
    assert_eq!(held.plan.iax_registrations, 2);
}

#[test]
fn quick_options_are_given_only_where_the_user_has_not_chosen() {
    let active = |text: &str| {
        String::from_utf8(held(&[("pjsip.conf", text)]).unwrap().active["pjsip.conf"].clone())
            .unwrap()
    };
    let text = active(
        "[g]\ntype=global\nmax_initial_qualify_time=9\n[a]\ntype=registration\nmax_random_initial_delay=3\n",
    );
    assert!(!text.contains("Added by"), "{text}");
    let text = active("[g]\ntype=global\n[a]\ntype=registration\n");
    assert!(
        text.contains("[g](+^type$=^global$)\nmax_initial_qualify_time = 1\n"),
        "{text}"
    );
    assert!(
        text.ends_with("[a](+^type$=^registration$)\nmax_random_initial_delay = 0\n"),
        "{text}"
    );
}

#[test]
fn registrations_in_a_database_are_refused() {
    let sorcery = "[res_pjsip_outbound_registration]\nregistration=realtime,ps_registrations\n";
    let error = held(&[("sorcery.conf", sorcery)]).unwrap_err();
    assert_eq!(error.reason(), "RegistrationsElsewhere");
    let usual = "[res_pjsip_outbound_registration]\nregistration=config,pjsip.conf,criteria=type=registration\n";
    assert!(held(&[("sorcery.conf", usual)]).is_ok());
}

fn dialect_text() -> impl Strategy<Value = String> {
    let lines = [
        "[a]",
        "[b](!)",
        "[c](b)",
        "[a](+)",
        "[d](a,b)",
        "type=registration",
        "type = endpoint ;x",
        "type=\\;",
        "k=1 ;-- open",
        "--; type=registration",
        ";-- in --; k=2",
        "#include x.conf",
        "#tryinclude y*.conf",
        "",
        "; note",
        "sends_registrations=yes",
        "register => x",
    ];
    proptest::collection::vec(proptest::sample::select(lines.to_vec()), 0..30)
        .prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn untouched_means_untouched(pjsip in proptest::collection::vec(any::<u8>(), 0..300)) {
        let files = Files::from([("pjsip.conf".to_owned(), pjsip)]);
        let held = hold_back(files.clone(), Trunks::Untouched, true).unwrap();
        prop_assert_eq!(&held.active, &files);
        prop_assert_eq!(&held.standby, &files);
    }

    #[test]
    fn any_bytes_are_answered_without_a_panic(pjsip in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = hold_back(Files::from([("pjsip.conf".to_owned(), pjsip)]), Trunks::ActiveOnly, true);
    }

    /// The rule itself: whatever is in the files, no section that a standby reads registers, and
    /// every other section is as before.
    #[test]
    fn a_standby_reads_everything_but_registrations(pjsip in dialect_text(), included in dialect_text()) {
        let included = included.replace("#include x.conf", "").replace("#tryinclude y*.conf", "");
        let files = Files::from([("pjsip.conf".to_owned(), pjsip.into_bytes()), ("x.conf".to_owned(), included.into_bytes())]);
        let Ok(held) = hold_back(files.clone(), Trunks::ActiveOnly, false) else { return Ok(()) };
        let sections = |files: &Files| -> Vec<(String, Vec<(String, String)>)> {
            let tree = Tree::load(files, "pjsip.conf", true).unwrap();
            tree.sections.into_iter().filter(|section| !section.is_template).map(|section| (section.name, section.variables)).collect()
        };
        let registers = |variables: &[(String, String)]| variables.iter().any(|(name, value)| name == "type" && value == "registration");
        let expected: Vec<_> = sections(&held.active).into_iter().filter(|(_, variables)| !registers(variables)).collect();
        prop_assert_eq!(sections(&held.standby), expected);
    }
}
