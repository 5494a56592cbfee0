//! The images of this project's own programs, built from the working tree. The programs are
//! linked statically, so their images hold nothing but them; the sidecar's also has nft.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::{FileContent, Image, ImageFile, ImageSpec, build_image};
use crate::asterisk_chroot;
use crate::progress::{Step, output_of};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const CONTAINER_PACKAGES: [&str; 3] = ["pbx-operator", "pbx-sidecar", "pbx-guard"];
/// Without it, glibc asks the network for names that /etc/hosts has.
const NSSWITCH: &[u8] = b"passwd: files\ngroup: files\nhosts: files dns\n";
const PASSWD: &[u8] =
    b"root:x:0:0:root:/:/sbin/nologin\npbx:x:65532:65532:pbx-ha:/:/sbin/nologin\n";

const NFT: &str = "/usr/sbin/nft";

/// How the programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimised, built in a third of the time: what one works with.
    Local,
    /// What is released.
    Release,
}

/// Everything that a PBX cluster runs.
#[derive(Clone, Debug)]
pub struct ProjectImages {
    /// The operator.
    pub operator: Image,
    /// Sidecar and guard, both in /usr/bin.
    pub sidecar: Image,
    /// Asterisk 22.
    pub asterisk: Image,
}

impl Profile {
    /// What a benchmark measures: what is released, if that was asked for.
    pub fn measured(is_release: bool) -> Self {
        if is_release {
            Self::Release
        } else {
            Self::Local
        }
    }

    /// Its name for cargo, and of its folder below `target`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Release => "release",
        }
    }
}

impl ProjectImages {
    /// All of them.
    pub fn all(&self) -> [&Image; 3] {
        [&self.asterisk, &self.operator, &self.sidecar]
    }
}

/// Compiles operator, sidecar and guard and makes their images and that of Asterisk, the archives
/// below `target/images`. Quick when nothing changed.
pub fn build_project_images(profile: Profile) -> Result<ProjectImages> {
    let target = target_folder()?;
    thread::scope(|scope| {
        // Mostly waiting for the network, while the compiler uses the cores.
        let asterisk = scope.spawn(asterisk_chroot::image);
        let (operator, sidecar) = build_own_images(profile, &target)?;
        let asterisk = asterisk
            .join()
            .map_err(|_| anyhow!("making the Asterisk image panicked"))??;
        Ok(ProjectImages {
            operator,
            sidecar,
            asterisk,
        })
    })
}

/// Compiles operator, sidecar and guard, and returns the folder that holds them: static programs, which run on the machine as well.
pub fn build_programs(profile: Profile) -> Result<PathBuf> {
    let target = target_folder()?;
    compile(profile, &target)?;
    Ok(target.join(TARGET).join(profile.name()))
}

/// Compiles the AMI hub alone, and returns the program.
pub fn build_ami_hub(profile: Profile) -> Result<PathBuf> {
    let target = target_folder()?;
    let step = Step::begin(
        "The AMI hub: compiling",
        "1 minute, seconds when little changed",
    );
    // As the sidecar is: what both are made of is compiled once.
    let mut command = static_build(profile, &["pbx-ami"], &target);
    step.run(&mut command, &crate::tools::log_path("ami-hub")?)?;
    step.done();
    Ok(target.join(TARGET).join(profile.name()).join("pbx-ami"))
}

/// Operator and sidecar.
fn build_own_images(profile: Profile, target: &Path) -> Result<(Image, Image)> {
    compile(profile, target)?;
    let programs = target.join(TARGET).join(profile.name());
    let archives = target.join("images");
    std::fs::create_dir_all(&archives).with_context(|| format!("create {}", archives.display()))?;
    let operator = small_image("operator", &programs, &["pbx-operator"]);
    let mut sidecar = small_image("sidecar", &programs, &["pbx-sidecar", "pbx-guard"]);
    sidecar.files.extend(nft_files()?);
    Ok((
        build_image(&operator, &archives.join("operator.tar"))?,
        build_image(&sidecar, &archives.join("sidecar.tar"))?,
    ))
}

/// An image of static programs in /usr/bin, started by the first, as an unprivileged user.
fn small_image(name: &str, folder: &Path, programs: &[&str]) -> ImageSpec {
    let version = env!("CARGO_PKG_VERSION");
    let file = |path: &str, bytes: &[u8]| ImageFile {
        path: path.into(),
        content: FileContent::Bytes(bytes.to_vec()),
        mode: 0o644,
    };
    let spec = ImageSpec {
        entrypoint: vec![format!("/usr/bin/{}", programs[0])],
        user: Some("65532:65532".into()),
        files: vec![
            file("etc/nsswitch.conf", NSSWITCH),
            file("etc/passwd", PASSWD),
        ],
        ..ImageSpec::named(format!("localhost/pbx-ha/{name}:{version}"))
    };
    programs.iter().fold(spec, |spec, program| {
        spec.with_program(&format!("usr/bin/{program}"), &folder.join(program))
    })
}

/// This machine's nft and its libraries: what loads the fence of floating addresses, as in `docker/sidecar.Dockerfile`.
fn nft_files() -> Result<Vec<ImageFile>> {
    let libraries = output_of(Command::new("ldd").arg(NFT)).context("list the libraries of nft")?;
    let paths = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let file = |path: &str| ImageFile {
        path: path.trim_start_matches('/').into(),
        content: FileContent::Host(path.into()),
        mode: 0o755,
    };
    Ok(paths.chain([NFT]).map(file).collect())
}

fn compile(profile: Profile, target: &Path) -> Result<()> {
    let step = Step::begin(
        format!(
            "Operator, sidecar and guard: compiling ({})",
            profile.name()
        ),
        "1 to 4 minutes, seconds when little changed",
    );
    let mut command = static_build(profile, &CONTAINER_PACKAGES, target);
    step.run(&mut command, &target.join("images").join("compile.log"))?;
    step.done();
    Ok(())
}

fn static_build(profile: Profile, packages: &[&str], target: &Path) -> Command {
    let mut command = cargo();
    command.args(["build", "--profile", profile.name(), "--target", TARGET]);
    for package in packages {
        command.args(["--package", package]);
    }
    // RUSTFLAGS reach only what is built for --target, not build scripts. Who aborts on a panic needs no tables to unwind by.
    command
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C force-unwind-tables=no",
        )
        .env("CARGO_TARGET_DIR", target);
    command
}

/// Cargo's target folder of this repository, as `CARGO_TARGET_DIR` and its settings have it.
fn target_folder() -> Result<PathBuf> {
    let text = output_of(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("read cargo metadata")?;
    let folder = metadata["target_directory"].as_str();
    folder
        .map(PathBuf::from)
        .ok_or_else(|| anyhow!("cargo metadata names no target_directory"))
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}
