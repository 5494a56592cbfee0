//! Whole builds on a real file system: precedence, snapshots, the switch. What each file means is
//! tested beside its code.

use std::fs;
use std::path::Path;

use super::*;

const USER: &str = "[trunk]\ntype=registration\nserver_uri=sip:a\n\n[100]\ntype=endpoint\n";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for dir in ["etc", "user", "out"] {
            fs::create_dir(world.path(dir)).unwrap();
        }
        world.write("etc/pjsip.conf", "; sample\n");
        world.write("etc/rtp.conf", "[general]\nrtpstart=10000\n");
        world.write("user/pjsip.conf", USER);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn build(&self) -> Snapshot {
        build(&Inputs {
            defaults_dir: self.path("etc"),
            user_dirs: vec![self.path("user")],
            out_dir: self.path("out"),
            trunks: Trunks::ActiveOnly,
            quick_registration: true,
        })
        .unwrap()
    }
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_link_leads_to_the_standby_or_the_active_copy() {
    let world = World::new();
    let snapshot = world.build();
    assert!(
        !snapshot.config_dir.exists(),
        "building alone changes nothing for Asterisk"
    );
    set_trunks(&snapshot, false).unwrap();
    assert!(!read(&snapshot.config_dir, "pjsip.conf").contains("registration"));
    assert!(read(&snapshot.config_dir, "pjsip.conf").contains("[100]\ntype=endpoint"));
    set_trunks(&snapshot, true).unwrap();
    set_trunks(&snapshot, true).unwrap();
    assert!(read(&snapshot.config_dir, "pjsip.conf").starts_with(USER));
    assert_eq!(
        read(&snapshot.config_dir, "rtp.conf"),
        "[general]\nrtpstart=10000\n"
    );
    assert_eq!(snapshot.trunks.registrations, ["trunk"]);
}

#[test]
fn files_that_do_not_differ_are_one_file_and_those_that_do_differ_in_size() {
    use std::os::unix::fs::MetadataExt as _;
    let snapshot = World::new().build_and_keep();
    let metadata =
        |variant: &str, name: &str| fs::metadata(snapshot.1.path.join(variant).join(name)).unwrap();
    assert_eq!(
        metadata("active", "rtp.conf").ino(),
        metadata("standby", "rtp.conf").ino()
    );
    // Asterisk tells a changed file by time and size, and the times may be equal.
    assert_ne!(
        metadata("active", "pjsip.conf").len(),
        metadata("standby", "pjsip.conf").len()
    );
}

impl World {
    fn build_and_keep(self) -> (Self, Snapshot) {
        let snapshot = self.build();
        (self, snapshot)
    }
}

#[test]
fn the_hash_is_of_the_inputs_and_not_of_the_secret() {
    let world = World::new();
    let first = world.build();
    let secret = ami_secret(&world.path("out")).unwrap();
    fs::remove_file(world.path("out/ami-secret.conf")).unwrap();
    assert_eq!(world.build(), first);
    assert_ne!(ami_secret(&world.path("out")).unwrap(), secret);
    world.write("user/extensions.conf", "[default]\n");
    assert_ne!(world.build().hash, first.hash);
}

#[test]
fn nodes_with_equal_inputs_agree_on_the_hash_wherever_they_keep_their_snapshots() {
    let (one, other) = (World::new(), World::new());
    assert_eq!(one.build().hash, other.build().hash);
}

#[test]
fn old_snapshots_go_but_never_the_one_in_use() {
    let world = World::new();
    let used = world.build();
    set_trunks(&used, false).unwrap();
    let later: Vec<_> = (0..5)
        .map(|number| {
            world.write("user/extensions.conf", &format!("[default{number}]\n"));
            world.build()
        })
        .collect();
    assert!(used.path.exists());
    assert!(later[4].path.exists() && later[3].path.exists());
    assert!(!later[0].path.exists() && !later[2].path.exists());
}

#[test]
fn a_build_that_was_interrupted_is_no_hindrance() {
    let world = World::new();
    let snapshot = world.build();
    fs::rename(
        &snapshot.path,
        world.path(&format!("out/.{}.partial", snapshot.hash)),
    )
    .unwrap();
    assert_eq!(world.build(), snapshot);
    assert!(snapshot.path.join("active/pjsip.conf").exists());
}
