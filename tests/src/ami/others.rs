//! AMI clients that others wrote, unmodified, from where their users get them: `PyPI`, npm, Debian.

use std::process::Command;

use anyhow::Result;

use super::{HUB, SECRET, Stand};
use crate::clients;
use crate::progress::output_of;

const PERL_PACKAGE: &str = "libtelephony-asterisk-ami-perl";

/// Runs all three against the hub; what they print.
pub fn run(stand: &Stand) -> Result<Vec<String>> {
    let [python, panoramisk] = clients::python("ask_panoramisk.py")?;
    let [manager, node_modules] = clients::node("ask_asterisk_manager.js")?;
    let perl = clients::debian(PERL_PACKAGE)?.join("usr/share/perl5");
    let script = clients::asset("ask_telephony_asterisk_ami.pl");
    let on = |program: &str| stand.command(program);
    let said = [
        ask(on(&python.to_string_lossy()).arg(panoramisk)),
        ask(on("node").env("NODE_PATH", node_modules).arg(manager)),
        ask(on("perl").env("PERL5LIB", perl).arg(script)),
    ];
    said.into_iter().collect()
}

fn ask(client: &mut Command) -> Result<String> {
    output_of(client.args([
        HUB.address.ip().to_string(),
        HUB.address.port().to_string(),
        HUB.user.to_owned(),
        SECRET.to_owned(),
    ]))
}
