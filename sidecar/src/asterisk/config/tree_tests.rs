//! Sections, templates, additions and includes, as Asterisk reads them.

use std::fmt::Write as _;

use super::*;

fn files(list: &[(&str, &str)]) -> Files {
    list.iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
        .collect()
}

fn load(list: &[(&str, &str)]) -> Result<Tree, ConfigError> {
    Tree::load(&files(list), list[0].0, true)
}

fn section<'a>(tree: &'a Tree, name: &str) -> &'a Section {
    tree.sections
        .iter()
        .find(|section| section.name == name)
        .unwrap()
}

#[test]
fn templates_and_additions_are_followed() {
    let tree = load(&[(
        "a.conf",
        "[t](!)\ntype=registration\n[x](t)\nk=1\n[x](+)\nk=2\n[t](+TEMPLATES=restrict)\nlate=1\n",
    )])
    .unwrap();
    assert!(section(&tree, "x").has("type", "registration"));
    assert_eq!(
        section(&tree, "x").values("k").collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert!(!section(&tree, "x").has("late", "1"));
    assert!(section(&tree, "t").has("late", "1"));
}

#[test]
fn a_filter_chooses_between_sections_of_one_name() {
    let tree = load(&[(
        "a.conf",
        "[x]\ntype=endpoint\n[x]\ntype=auth\n[x](+type=auth)\npassword=1\n",
    )])
    .unwrap();
    assert!(tree.sections[1].has("password", "1"));
    assert!(!tree.sections[0].has("password", "1"));
}

#[test]
fn an_included_file_goes_on_with_the_open_section_and_the_includer_keeps_its_own() {
    let tree = load(&[
        ("a.conf", "[x]\n#include \"b*.conf\"\nafter=1\n"),
        ("b1.conf", "head=1\n[y]\n"),
        ("b2.conf", "tail=1\n"),
    ])
    .unwrap();
    assert_eq!(
        section(&tree, "x").variables,
        [("head".into(), "1".into()), ("after".into(), "1".into())]
    );
    assert!(section(&tree, "y").has("tail", "1"));
    assert_eq!(
        tree.placements[1].kind,
        Kind::Include {
            opens_sections: true
        }
    );
}

#[test]
fn includes_that_cannot_be_followed_are_refused_with_their_place() {
    for include in ["/etc/asterisk/x.conf", "../x.conf", "x[0-9].conf"] {
        let error = load(&[("a.conf", &format!("\n#include {include}\n"))]).unwrap_err();
        assert_eq!(error.reason(), "UnseenInclude", "{include}");
        assert!(
            error.to_string().starts_with("a.conf:2 includes"),
            "{error}"
        );
    }
    assert_eq!(
        load(&[("a.conf", "#exec /bin/x\n")]).unwrap_err().reason(),
        "UnseenInclude"
    );
    assert_eq!(
        load(&[("a.conf", "#include x.conf\n")])
            .unwrap_err()
            .reason(),
        "MissingInclude"
    );
    assert!(load(&[("a.conf", "#tryinclude x.conf\n")]).is_ok());
    assert!(load(&[("a.conf", ";#include /x.conf\n")]).is_ok());
}

#[test]
fn what_asterisk_refuses_is_refused_with_its_place() {
    for text in [
        "\n[x](t)\n",
        "\n[x](+)\n",
        "\nk=1\n",
        "\n[x\n",
        "\n[x](x)\n",
    ] {
        let error = load(&[("a.conf", text)]).unwrap_err();
        assert_eq!(error.reason(), "ConfigRefused", "{text}");
        assert!(error.to_string().starts_with("a.conf:2: "), "{error}");
    }
}

#[test]
fn a_loop_of_includes_ends_in_an_error() {
    let error = load(&[("a.conf", "#include a.conf\n#include a.conf\n")]).unwrap_err();
    assert_eq!(error.reason(), "IncludeLoop");
    let mut doubling = String::from("[t0]\nk=1\n");
    for n in 1..60 {
        let _ = writeln!(doubling, "[t{n}](t{0},t{0})", n - 1);
    }
    assert_eq!(
        load(&[("a.conf", &doubling)]).unwrap_err().reason(),
        "IncludeLoop"
    );
    assert_eq!(
        load(&[("a.conf", "\0")]).unwrap_err().reason(),
        "ConfigNotText"
    );
}

#[test]
fn patterns_match_as_a_shell_would() {
    for (pattern, name, expected) in [
        ("*.conf", "a.conf", true),
        ("*.conf", ".a.conf", false),
        ("*.conf", "d/a.conf", false),
        ("d/*.conf", "d/a.conf", true),
        ("a?c", "abc", true),
        ("a*b*c", "axxbxbxc", true),
        ("a*b", "axxbx", false),
        ("a", "ab", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}
