//! Clients of other systems, unmodified, as their users install them: from `PyPI`, npm and Debian; and small programs that use them
//! (`assets/clients`). Needs python3 with venv, node and npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::{Step, output_of};
use crate::tools::{cached, log_path};

/// Part of the names in the cache: changed with the packages below.
const VERSION: &str = "2";
const PYTHON_PACKAGES: [&str; 4] = [
    "websockets>=14",
    "fluent-logger==0.11.1",
    "msgpack",
    "panoramisk",
];
const NPM_PACKAGES: [&str; 2] = ["@fluent-org/logger@1", "asterisk-manager"];

/// A Python program of `assets/clients`, to be run in a host's namespace: interpreter and script.
pub fn python(script: &str) -> Result<[PathBuf; 2]> {
    // A virtual environment holds its own path, so it is made in place and only marked as whole by the cache.
    let folder = crate::tools::cache_dir()?.join(format!("clients-python-{VERSION}.venv"));
    cached(&format!("clients-python-{VERSION}"), |scratch| {
        let step = Step::begin("Python clients: installing from PyPI", "20 s");
        let log = log_path("clients-python")?;
        step.run(
            Command::new("python3").args(["-m", "venv"]).arg(&folder),
            &log,
        )?;
        let mut pip = Command::new(folder.join("bin/pip"));
        step.run(pip.args(["install", "--quiet"]).args(PYTHON_PACKAGES), &log)?;
        step.done();
        mark(scratch)
    })?;
    Ok([folder.join("bin/python3"), asset(script)])
}

/// A program of `assets/clients` for node, and the folder of its packages (for `NODE_PATH`).
pub fn node(script: &str) -> Result<[PathBuf; 2]> {
    let folder = cached(&format!("clients-npm-{VERSION}"), |scratch| {
        let step = Step::begin("Node clients: installing from npm", "20 s");
        let log = log_path("clients-npm")?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--prefix"]).arg(scratch);
        step.run(npm.args(NPM_PACKAGES), &log)?;
        step.done();
        Ok(scratch.to_owned())
    })?;
    Ok([asset(script), folder.join("node_modules")])
}

/// A folder with the files of a Debian package, which is not installed.
pub fn debian(package: &str) -> Result<PathBuf> {
    cached(&format!("clients-{package}-{VERSION}"), |scratch| {
        let download = || {
            let mut apt = Command::new("apt-get");
            output_of(apt.args(["download", package]).current_dir(scratch))
        };
        // A machine that was just made has no lists.
        if download().is_err() {
            output_of(Command::new("apt-get").arg("update"))?;
            download()?;
        }
        let files = scratch.join("files");
        for entry in fs::read_dir(scratch).context("list what was downloaded")? {
            let path = entry.context("list what was downloaded")?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                output_of(unpack.arg("-x").arg(path).arg(&files))?;
            }
        }
        Ok(files)
    })
}

/// What a client said, line by line; it must end well.
pub fn said(client: &mut Command) -> Result<Vec<String>> {
    let text = output_of(client)?;
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

/// A file of `assets/clients`.
pub fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("assets/clients")
        .join(name)
}

fn mark(scratch: &Path) -> Result<PathBuf> {
    let path = scratch.join("whole");
    fs::write(&path, "").context("mark the clients as installed")?;
    Ok(path)
}
