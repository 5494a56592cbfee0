//! AMI clients that others wrote, unmodified, from where their users get them: `PyPI`, npm, Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{HUB, SECRET, Stand};
use crate::progress::output_of;
use crate::tools::cached;

const PYTHON: &str = include_str!("../../assets/ami/panoramisk.py");
const NODE: &str = include_str!("../../assets/ami/asterisk-manager.js");
const PERL: &str = include_str!("../../assets/ami/telephony-asterisk-ami.pl");

/// Fetches them, once.
pub fn fetch() -> Result<PathBuf> {
    cached("ami-clients-1", |scratch| {
        let folder = scratch.join("clients");
        fs::create_dir_all(&folder).context("create the clients' folder")?;
        let python = folder.join("python");
        output_of(
            Command::new("pip")
                .args(["install", "--quiet", "--target"])
                .arg(&python)
                .arg("panoramisk"),
        )?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--prefix"]);
        output_of(npm.arg(&folder).arg("asterisk-manager"))?;
        let download = || {
            let mut apt = Command::new("apt-get");
            apt.args(["download", "libtelephony-asterisk-ami-perl"]);
            output_of(apt.current_dir(&folder))
        };
        // A machine that was just made has no lists.
        if download().is_err() {
            output_of(Command::new("apt-get").arg("update"))?;
            download()?;
        }
        for entry in fs::read_dir(&folder).context("list the clients' folder")? {
            let path = entry.context("list the clients' folder")?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                output_of(unpack.arg("-x").arg(path).arg(folder.join("perl")))?;
            }
        }
        Ok(folder)
    })
}

/// Runs all three against the hub; what they print.
pub fn run(stand: &Stand) -> Result<Vec<String>> {
    let folder = fetch()?;
    let scripts = stand.root().join("tmp");
    let script = |name: &str, text: &str| -> Result<PathBuf> {
        let path = scripts.join(name);
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        Ok(path)
    };
    // Not under the names of the packages that they load.
    let python = script("client.py", PYTHON)?;
    let node = script("client.js", NODE)?;
    let perl = script("client.pl", PERL)?;
    let said = [
        output_of(on(stand, "python3", &python).env("PYTHONPATH", folder.join("python"))),
        output_of(on(stand, "node", &node).env("NODE_PATH", folder.join("node_modules"))),
        output_of(on(stand, "perl", &perl).env("PERL5LIB", folder.join("perl/usr/share/perl5"))),
    ];
    said.into_iter().collect()
}

fn on(stand: &Stand, program: &str, script: &Path) -> Command {
    let mut command = stand.command(program);
    command.arg(script).args([
        HUB.address.ip().to_string(),
        HUB.address.port().to_string(),
        HUB.user.to_owned(),
        SECRET.to_owned(),
    ]);
    command
}
