//! A real Asterisk 22 from Debian's packages: a root file system made by debootstrap, trimmed to
//! what a PBX runs, and the image of it.
//!
//! Trimmed are package management, documentation, and the modules that drag in tens of megabytes
//! for things no test uses (Calendar brings ICU, SNMP brings Perl). What is left starts as it does
//! in Debian, configuration included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use crate::images::{FileContent, Image, ImageFile, ImageSpec, build_image};
use crate::packages::{self, ASTERISK_CHROOT};
use crate::progress::{Step, output_of};
use crate::tools::{cached, cached_at_any_version, log_path};

/// The name of the Asterisk image on the nodes.
pub const IMAGE: &str = "localhost/pbx-ha/asterisk:22";
/// Debian's release that carries Asterisk 22.
const SUITE: &str = "forky";
const PREFIX: &str = "asterisk-forky-";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// Raised when [`TRIMMED`] or the image's settings change.
const IMAGE_REVISION: u32 = 3;
/// The modules that a SIP telephone system needs; the same file as the Dockerfile puts there.
const MODULES: &[u8] = include_bytes!("../../docker/asterisk-modules.conf");
/// What Asterisk reads at every start, and what is left of it in the image.
const DOCUMENTATION: &str = "usr/share/asterisk/documentation/core-en_US.xml";
const DOCUMENTATION_LEFT: &str = include_str!("../../docker/asterisk-documentation.xsl");

/// Left out of the image: a path, or all paths that begin with it when it ends with `*`.
const TRIMMED: &[&str] = &[
    "etc/asterisk/modules.conf",
    DOCUMENTATION,
    "etc/apt*",
    "etc/cron*",
    "etc/systemd*",
    "usr/bin/perl*",
    "usr/lib/apt*",
    "usr/lib/gnupg*",
    "usr/lib/systemd*",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/app_jack.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/cdr_radius.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/cdr_tds.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/cel_radius.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/cel_tds.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/chan_console.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/codec_codec2.so",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/res_calendar*",
    "usr/lib/x86_64-linux-gnu/asterisk/modules/res_snmp.so",
    "usr/lib/x86_64-linux-gnu/libapt*",
    "usr/lib/x86_64-linux-gnu/libasound*",
    "usr/lib/x86_64-linux-gnu/libcodec2*",
    "usr/lib/x86_64-linux-gnu/libdb-5*",
    "usr/lib/x86_64-linux-gnu/libicu*",
    "usr/lib/x86_64-linux-gnu/libjack*",
    "usr/lib/x86_64-linux-gnu/libnetsnmp*",
    "usr/lib/x86_64-linux-gnu/libperl*",
    "usr/lib/x86_64-linux-gnu/libsnmp*",
    "usr/lib/x86_64-linux-gnu/perl*",
    "usr/sbin/policy-rc.d",
    "usr/share/bash-completion*",
    "usr/share/doc*",
    "usr/share/info*",
    "usr/share/keyrings*",
    "usr/share/lintian*",
    "usr/share/locale*",
    "usr/share/man*",
    "usr/share/perl*",
    "usr/share/snmp*",
    "var/cache*",
    "var/lib/apt*",
    "var/lib/dpkg*",
    "var/log*",
];

/// The root file system with Asterisk in it, made when missing.
pub fn rootfs() -> Result<PathBuf> {
    cached_at_any_version(PREFIX, |scratch| {
        packages::ensure(&[ASTERISK_CHROOT])?;
        let root = scratch.join("root");
        bootstrap(&root)?;
        install_asterisk(&root)?;
        let version = installed_version(&root)?;
        ensure!(
            version.starts_with("22."),
            "Debian {SUITE} now carries Asterisk {version}, and this project is made for 22"
        );
        Ok((root, version))
    })
}

/// The image of [`rootfs`], named [`IMAGE`], which starts `asterisk -f` as user 101.
pub fn image() -> Result<Image> {
    let root = rootfs()?;
    let version = root
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix(PREFIX))
        .ok_or_else(|| anyhow!("{} is not named after its version", root.display()))?;
    let archive = cached(
        &format!("image-asterisk-{version}-{IMAGE_REVISION}.tar"),
        |scratch| {
            let step = Step::begin(format!("Image of Asterisk {version}"), "5 s");
            let archive = scratch.join("image.tar");
            let documentation = short_documentation(&root, scratch)?;
            build_image(&spec(root.clone(), documentation), &archive)?;
            step.done();
            Ok(archive)
        },
    )?;
    Image::open(&archive)
}

/// By the same stylesheet as in the Dockerfile.
fn short_documentation(root: &Path, scratch: &Path) -> Result<Vec<u8>> {
    packages::ensure(&[ASTERISK_CHROOT])?;
    let stylesheet = scratch.join("documentation.xsl");
    fs::write(&stylesheet, DOCUMENTATION_LEFT).context("write the stylesheet")?;
    let text = output_of(
        Command::new("xsltproc")
            .args(["--novalid", "--nonet"])
            .arg(&stylesheet)
            .arg(root.join(DOCUMENTATION)),
    )
    .context("shorten Asterisk's documentation")?;
    Ok(text.into_bytes())
}

fn spec(root: PathBuf, documentation: Vec<u8>) -> ImageSpec {
    ImageSpec {
        entrypoint: vec!["/usr/sbin/asterisk".into(), "-f".into()],
        user: Some("101:101".into()),
        rootfs: Some(root),
        left_out: TRIMMED,
        files: vec![
            readable("etc/asterisk/modules.conf", MODULES.to_vec()),
            readable(DOCUMENTATION, documentation),
        ],
        empty_folders: vec![
            ("var/log/asterisk".into(), 101),
            ("var/cache/asterisk".into(), 101),
            ("run/asterisk".into(), 101),
        ],
        ..ImageSpec::named(IMAGE)
    }
}

fn readable(path: &str, bytes: Vec<u8>) -> ImageFile {
    ImageFile {
        path: path.into(),
        content: FileContent::Bytes(bytes),
        mode: 0o644,
    }
}

fn bootstrap(root: &Path) -> Result<()> {
    let step = Step::begin(
        format!("Debian {SUITE} for Asterisk: debootstrap, once"),
        "20 to 60 s",
    );
    step.run(
        Command::new("debootstrap")
            .args(["--variant=minbase", SUITE])
            .arg(root)
            .arg(mirror())
            // An older debootstrap has no script for a newer release; it is that of sid.
            .arg("/usr/share/debootstrap/scripts/sid"),
        &log_path("asterisk-chroot")?,
    )?;
    step.done();
    Ok(())
}

fn install_asterisk(root: &Path) -> Result<()> {
    let step = Step::begin("Asterisk 22 from Debian packages, once", "15 to 45 s");
    // A mirror's snapshot may be older than the validity of its Release file.
    write(
        &root.join("etc/apt/apt.conf.d/90local"),
        "Acquire::Check-Valid-Until \"false\";\n",
    )?;
    // Nothing may be started in the chroot.
    let policy = root.join("usr/sbin/policy-rc.d");
    write(&policy, "#!/bin/sh\nexit 101\n")?;
    crate::tools::make_executable(&policy)?;
    step.run(
        Command::new("chroot")
            .arg(root)
            .args([
                "apt-get",
                "install",
                "-y",
                "--no-install-recommends",
                "asterisk",
            ])
            .env("DEBIAN_FRONTEND", "noninteractive"),
        &log_path("asterisk-chroot")?,
    )?;
    step.run(
        Command::new("chroot").arg(root).args(["apt-get", "clean"]),
        &log_path("asterisk-chroot")?,
    )?;
    step.done();
    Ok(())
}

fn installed_version(root: &Path) -> Result<String> {
    let full = output_of(Command::new("chroot").arg(root).args([
        "dpkg-query",
        "-W",
        "-f",
        "${Version}",
        "asterisk",
    ]))?;
    upstream_version(&full).ok_or_else(|| anyhow!("no version of Asterisk in {full:?}"))
}

/// `22.10.1` in a Debian version such as `1:22.10.1+dfsg+~cs6.17.60671434-1`.
fn upstream_version(debian: &str) -> Option<String> {
    let without_epoch = debian.rsplit(':').next()?;
    let numbers: String = without_epoch
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// The mirror that the machine's own apt uses for Debian, which is the one surely reachable.
fn mirror() -> String {
    let mut sources: Vec<String> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .collect();
    sources.extend(fs::read_to_string("/etc/apt/sources.list"));
    sources
        .iter()
        .find_map(|text| mirror_in(text))
        .unwrap_or_else(|| DEFAULT_MIRROR.into())
}

fn mirror_in(sources: &str) -> Option<String> {
    sources
        .lines()
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_without_epoch_and_debian_suffix() {
        let version = upstream_version("1:22.10.1+dfsg+~cs6.17.60671434-1");
        assert_eq!(version.as_deref(), Some("22.10.1"));
        assert_eq!(upstream_version("unknown"), None);
    }

    #[test]
    fn mirror_is_found_in_both_formats_of_sources() {
        let deb822 = "Types: deb\n# http://snapshot.example/archive/debian\nURIs: http://one.example/debian\n";
        assert_eq!(
            mirror_in(deb822).as_deref(),
            Some("http://one.example/debian")
        );
        let one_line = "deb [signed-by=/k] http://two.example/debian/ bookworm main\n";
        assert_eq!(
            mirror_in(one_line).as_deref(),
            Some("http://two.example/debian/")
        );
        assert_eq!(
            mirror_in("URIs: https://deb.nodesource.com/node_20.x\n"),
            None
        );
    }
}
