//! What the sidecar itself writes into the configuration, after and above the user's files.
//!
//! - asterisk.conf: the directories are ours (the image's places of modules and data are kept), all
//!   other sections stay the user's.
//! - manager.conf: our user `[pbx-ha]`, and AMI on loopback whatever the user says: people reach
//!   AMI through the sidecar, not past it.
//! - http.conf: on loopback likewise, plain and TLS.
//! - pjsip.conf: an endpoint for the sidecar's own OPTIONS.
//! - modules.conf: the user's choice; the modules that health and trunks need are added where the
//!   user does not name them.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::dialect;
use super::error::ConfigError;
use super::sources::Files;
use super::tree::{Kind, Tree};

/// The AMI user of the sidecar.
pub const AMI_USER: &str = "pbx-ha";
/// Where Asterisk listens for it, on loopback. Not AMI's usual port, which is the hub's, on every address of the node.
pub const AMI_PORT: u16 = 15038;

/// The endpoint that the sidecar's own OPTIONS come from. It can do nothing: its context does not exist, and it has no address.
pub const SELF_ENDPOINT: &str = "pbx-ha-self";

/// SIP, its OPTIONS and its registrations: what the sidecar asks Asterisk for. With `autoload =
/// no`, Asterisk 22 does not load what a module depends on (its symbols are then missing), so that
/// stands here too.
const NEEDED_MODULES: [&str; 10] = [
    "res_pjproject.so",
    "res_sorcery_astdb.so",
    "res_sorcery_config.so",
    "res_sorcery_memory.so",
    "res_pjsip.so",
    "res_pjsip_pubsub.so",
    "res_pjsip_session.so",
    "res_rtp_asterisk.so",
    "res_pjsip_outbound_registration.so",
    "chan_pjsip.so",
];

/// The directories that a read-only root leaves writable; the others are the image's.
const OWN_DIRECTORIES: [(&str, &str); 7] = [
    ("astvarlibdir", "/var/lib/asterisk"),
    ("astdbdir", "/var/lib/asterisk"),
    ("astkeydir", "/var/lib/asterisk"),
    ("astspooldir", "/var/spool/asterisk"),
    ("astrundir", "/run/asterisk"),
    ("astlogdir", "/var/log/asterisk"),
    ("astcachedir", "/var/lib/asterisk/cache"),
];

/// What our part of the files depends on.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// Where Asterisk finds its configuration: the link that `set_trunks` switches.
    pub(super) config_dir: PathBuf,
    /// The file with the AMI user's secret; outside of the snapshot, so that its hash does not
    /// depend on it.
    pub(super) secret_file: PathBuf,
}

/// Lays our part over the files.
pub(super) fn overlay(files: &mut Files, own: &Own) -> Result<(), ConfigError> {
    overlay_asterisk(files, own)?;
    overlay_manager(files, own)?;
    overlay_http(files)?;
    overlay_pjsip(files)?;
    overlay_modules(files)
}

fn overlay_asterisk(files: &mut Files, own: &Own) -> Result<(), ConfigError> {
    const FILE: &str = "asterisk.conf";
    let tree = Tree::load(files, FILE, false)?;
    let mut text = directories(&tree, own).into_bytes();
    if let Some(lines) = tree.lines.get(FILE) {
        let theirs = &files[FILE];
        for (index, line) in lines.iter().enumerate() {
            if is_of_directories(&tree, FILE, index) {
                text.extend(dialect::blanked(line, theirs));
            } else {
                text.extend(&theirs[line.bytes.clone()]);
            }
        }
    }
    files.insert(FILE.to_owned(), text);
    Ok(())
}

/// In front of everything else, since Asterisk reads the first section of a name.
fn directories(tree: &Tree, own: &Own) -> String {
    let theirs = tree
        .sections
        .iter()
        .filter(|section| section.name.eq_ignore_ascii_case("directories"));
    let kept = theirs
        .flat_map(|section| &section.variables)
        .filter(|(name, _)| {
            !name.eq_ignore_ascii_case("astetcdir")
                && !OWN_DIRECTORIES
                    .iter()
                    .any(|(own, _)| name.eq_ignore_ascii_case(own))
        });
    let mut text = format!(
        "; Directories by pbx-ha:\n[directories]\nastetcdir => {}\n",
        own.config_dir.display()
    );
    let ours = OWN_DIRECTORIES.iter().map(|(name, path)| (*name, *path));
    for (name, path) in ours.chain(kept.map(|(name, path)| (name.as_str(), path.as_str()))) {
        let _ = writeln!(text, "{name} => {path}");
    }
    text.push('\n');
    text
}

fn is_of_directories(tree: &Tree, file: &str, line: usize) -> bool {
    tree.placements
        .iter()
        .filter(|placement| placement.file == file && placement.line == line)
        .any(|placement| {
            let name = placement
                .section
                .map(|section| tree.sections[section].name.as_str());
            name.is_some_and(|name| name.eq_ignore_ascii_case("directories"))
                && !matches!(
                    placement.kind,
                    Kind::Include {
                        opens_sections: true
                    }
                )
        })
}

fn overlay_manager(files: &mut Files, own: &Own) -> Result<(), ConfigError> {
    let tree = Tree::load(files, "manager.conf", false)?;
    if tree
        .sections
        .iter()
        .any(|section| section.name.eq_ignore_ascii_case(AMI_USER))
    {
        return Err(ConfigError::ReservedSection {
            section: AMI_USER.to_owned(),
        });
    }
    // The write timeout bounds how long a stalled sidecar is queued for; by default it is 100 ms,
    // after which it is cut off.
    let addition = format!(
        "{}enabled = yes\nport = {AMI_PORT}\nbindaddr = 127.0.0.1\ntlsbindaddr = 127.0.0.1\n\
         [{AMI_USER}]\n#include \"{}\"\ndeny = 0.0.0.0/0.0.0.0\npermit = 127.0.0.1/255.255.255.255\n\
         read = all\nwrite = all\nwritetimeout = 5000\ndisplayconnects = no\n",
        general(&tree),
        own.secret_file.display(),
    );
    append(files, "manager.conf", &tree, &addition);
    Ok(())
}

fn overlay_http(files: &mut Files) -> Result<(), ConfigError> {
    let tree = Tree::load(files, "http.conf", false)?;
    let addition = format!(
        "{}bindaddr = 127.0.0.1\ntlsbindaddr = 127.0.0.1:{}\n",
        general(&tree),
        https_port(&tree)
    );
    append(files, "http.conf", &tree, &addition);
    Ok(())
}

/// Without an endpoint of its own, each OPTIONS of the sidecar would be logged as one of a stranger.
fn overlay_pjsip(files: &mut Files) -> Result<(), ConfigError> {
    const FILE: &str = "pjsip.conf";
    let tree = Tree::load(files, FILE, false)?;
    let is_ours = |name: &str| name.eq_ignore_ascii_case(SELF_ENDPOINT);
    if tree.sections.iter().any(|section| is_ours(&section.name)) {
        return Err(ConfigError::ReservedSection {
            section: SELF_ENDPOINT.to_owned(),
        });
    }
    if files.contains_key(FILE) {
        let addition = format!(
            "[{SELF_ENDPOINT}]\ntype = endpoint\nidentify_by = username\ncontext = {SELF_ENDPOINT}\n\
             allow_subscribe = no\nallow_transfer = no\n"
        );
        append(files, FILE, &tree, &addition);
    }
    Ok(())
}

/// The port that the user chose for HTTPS, or Asterisk's usual one.
fn https_port(tree: &Tree) -> u16 {
    let general = tree
        .sections
        .iter()
        .find(|section| !section.is_template && section.name.eq_ignore_ascii_case("general"));
    general
        .and_then(|section| section.values("tlsbindaddr").last())
        .and_then(|address| address.rsplit_once(':')?.1.parse().ok())
        .unwrap_or(8089)
}

fn overlay_modules(files: &mut Files) -> Result<(), ConfigError> {
    let tree = Tree::load(files, "modules.conf", false)?;
    let modules = tree
        .sections
        .iter()
        .find(|section| !section.is_template && section.name.eq_ignore_ascii_case("modules"));
    let Some(modules) = modules else {
        append(files, "modules.conf", &tree, "[modules]\nautoload = yes\n");
        return Ok(());
    };
    let is_named = |module: &str| {
        modules
            .variables
            .iter()
            .any(|(_, value)| value.trim_end_matches(".so") == module.trim_end_matches(".so"))
    };
    let loads_all = modules
        .values("autoload")
        .last()
        .is_some_and(super::trunks::is_true);
    let mut addition = String::new();
    for module in NEEDED_MODULES
        .into_iter()
        .filter(|module| !loads_all && !is_named(module))
    {
        let _ = writeln!(addition, "load = {module}");
    }
    if !addition.is_empty() {
        append(
            files,
            "modules.conf",
            &tree,
            &format!("[modules](+)\n{addition}"),
        );
    }
    Ok(())
}

/// The head under which options are added to `[general]`: the last value counts, but only in the
/// first section of the name.
fn general(tree: &Tree) -> &'static str {
    if tree.has_section("general") {
        "[general](+)\n"
    } else {
        "[general]\n"
    }
}

fn append(files: &mut Files, name: &str, tree: &Tree, addition: &str) {
    let lines = tree.lines.get(name).map_or(&[][..], |lines| lines);
    dialect::append(files.entry(name.to_owned()).or_default(), lines, addition);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(list: &[(&str, &str)]) -> Result<Files, ConfigError> {
        let own = Own {
            config_dir: "/run/c/current".into(),
            secret_file: "/run/c/ami-secret.conf".into(),
        };
        let mut files: Files = list
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect();
        overlay(&mut files, &own).map(|()| files)
    }

    fn last(files: &Files, file: &str, section: &str, name: &str) -> Option<String> {
        let mut files = files.clone();
        files.insert("/run/c/ami-secret.conf".into(), Vec::new());
        let text = String::from_utf8(files[file].clone())
            .unwrap()
            .replace("#include \"/run/c/", "#tryinclude \"");
        files.insert(file.into(), text.into_bytes());
        let tree = Tree::load(&files, file, false).unwrap();
        let first = tree
            .sections
            .iter()
            .find(|known| known.name == section && !known.is_template)?;
        first.values(name).last().map(str::to_owned)
    }

    #[test]
    fn ami_and_http_are_on_loopback_whatever_the_user_says() {
        let users = "[general]\nenabled=no\nbindaddr=0.0.0.0\nport=5039\ntlsbindaddr=0.0.0.0:8443\ndebug=on\n[admin]\nsecret=x\n;-- open";
        let files = overlaid(&[("manager.conf", users), ("http.conf", users)]).unwrap();
        for (name, value) in [
            ("enabled", "yes"),
            ("bindaddr", "127.0.0.1"),
            ("port", "15038"),
            ("debug", "on"),
        ] {
            assert_eq!(
                last(&files, "manager.conf", "general", name).as_deref(),
                Some(value),
                "{name}"
            );
        }
        assert_eq!(
            last(&files, "http.conf", "general", "bindaddr").as_deref(),
            Some("127.0.0.1")
        );
        assert_eq!(
            last(&files, "http.conf", "general", "tlsbindaddr").as_deref(),
            Some("127.0.0.1:8443")
        );
        assert_eq!(
            last(&files, "manager.conf", "admin", "secret").as_deref(),
            Some("x")
        );
        assert_eq!(
            last(&files, "manager.conf", AMI_USER, "read").as_deref(),
            Some("all")
        );
    }

    #[test]
    fn without_any_file_asterisk_still_gets_ours() {
        let files = overlaid(&[]).unwrap();
        assert_eq!(
            last(&files, "manager.conf", "general", "enabled").as_deref(),
            Some("yes")
        );
        assert_eq!(
            last(&files, "modules.conf", "modules", "autoload").as_deref(),
            Some("yes")
        );
        assert_eq!(
            last(&files, "asterisk.conf", "directories", "astetcdir").as_deref(),
            Some("/run/c/current")
        );
    }

    #[test]
    fn a_section_of_our_name_is_refused() {
        let error = overlaid(&[("manager.conf", "[general]\n[PBX-HA]\nsecret=1\n")]).unwrap_err();
        assert_eq!(error.reason(), "ReservedSection");
    }

    #[test]
    fn directories_are_ours_but_the_images_places_and_the_users_options_stay() {
        let debian = "[directories](!)\nastetcdir => /etc/asterisk\nastmoddir => /usr/lib/m\nastrundir => /var/run/x\n\n[options]\nverbose = 3\n";
        let files = overlaid(&[("asterisk.conf", debian)]).unwrap();
        for (name, value) in [
            ("astetcdir", "/run/c/current"),
            ("astmoddir", "/usr/lib/m"),
            ("astrundir", "/run/asterisk"),
        ] {
            assert_eq!(
                last(&files, "asterisk.conf", "directories", name).as_deref(),
                Some(value),
                "{name}"
            );
        }
        assert_eq!(
            last(&files, "asterisk.conf", "options", "verbose").as_deref(),
            Some("3")
        );
        assert_eq!(
            String::from_utf8_lossy(&files["asterisk.conf"])
                .matches("[directories]")
                .count(),
            1
        );
    }

    #[test]
    fn modules_that_we_need_are_added_only_where_the_user_names_them_not() {
        let files = overlaid(&[(
            "modules.conf",
            "[modules]\nautoload=no\nload = res_pjsip.so\nnoload => chan_pjsip.so\n",
        )])
        .unwrap();
        let text = String::from_utf8(files["modules.conf"].clone()).unwrap();
        assert!(text.contains("load = res_pjsip_outbound_registration.so\n"));
        assert!(!text.contains("load = chan_pjsip.so\n"));
        assert_eq!(text.matches("load = res_pjsip.so").count(), 1);
        let all = "[modules]\nautoload=yes\n";
        assert_eq!(
            overlaid(&[("modules.conf", all)]).unwrap()["modules.conf"],
            all.as_bytes()
        );
    }
}
