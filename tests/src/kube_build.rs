//! The cluster's own binaries, built from source once: Kubernetes with etcd and `CoreDNS` from
//! the Go module proxy, the pause container from 20 lines of C. No download of any binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use crate::packages::{self, COMPILER};
use crate::progress::{Step, output_of};
use crate::tools::{cached, log_path};

/// The Kubernetes that everything is tested with.
pub const KUBERNETES_VERSION: &str = "1.35.4";
const COREDNS_VERSION: &str = "1.15.0";
/// Raised when `pause.c` changes.
const PAUSE_REVISION: u32 = 1;

/// The one binary that is etcd, every part of Kubernetes, and kubectl: the first argument says
/// which.
pub fn kubernetes() -> Result<PathBuf> {
    cached(&format!("kube-{KUBERNETES_VERSION}"), |scratch| {
        packages::ensure_go()?;
        packages::ensure(&[COMPILER])?;
        let step = Step::begin(
            format!("Kubernetes {KUBERNETES_VERSION} and etcd: building from Go modules, once"),
            "6 to 11 minutes on 2 cores",
        );
        build_kubernetes(&step, scratch)?;
        step.done();
        Ok(scratch.join("kube"))
    })
}

/// `CoreDNS` with the plugins for a cluster's own names, linked statically.
pub fn coredns() -> Result<PathBuf> {
    cached(&format!("coredns-{COREDNS_VERSION}"), |scratch| {
        packages::ensure_go()?;
        let step = Step::begin(
            format!("CoreDNS {COREDNS_VERSION}: building from Go modules, once"),
            "1 to 4 minutes on 2 cores",
        );
        build_coredns(&step, scratch)?;
        step.done();
        Ok(scratch.join("coredns"))
    })
}

/// The process that holds a pod's namespaces, linked statically.
pub fn pause() -> Result<PathBuf> {
    cached(&format!("pause-{PAUSE_REVISION}"), |scratch| {
        packages::ensure(&[COMPILER])?;
        let source = scratch.join("pause.c");
        write(&source, include_str!("../assets/pause/pause.c"))?;
        let binary = scratch.join("pause");
        output_of(
            Command::new("gcc")
                .args(["-static", "-Os", "-s", "-o"])
                .arg(&binary)
                .arg(&source),
        )
        .context("compile the pause container")?;
        Ok(binary)
    })
}

fn build_kubernetes(step: &Step, folder: &Path) -> Result<()> {
    let log = log_path("kube-build")?;
    write(
        &folder.join("main.go"),
        include_str!("../assets/kube/main.go"),
    )?;
    let upstream = upstream_go_mod()?;
    write(&folder.join("go.mod"), &kubernetes_go_mod(&upstream)?)?;
    step.run(go(folder).args(["mod", "tidy"]), &log)?;
    let linked = kubernetes_version_flags();
    step.run(
        go(folder).args([
            "build",
            "-v",
            "-trimpath",
            "-ldflags",
            &linked,
            "-o",
            "kube",
            ".",
        ]),
        &log,
    )
}

fn build_coredns(step: &Step, folder: &Path) -> Result<()> {
    let log = log_path("coredns-build")?;
    write(
        &folder.join("main.go"),
        include_str!("../assets/coredns/main.go"),
    )?;
    let go_mod = format!(
        "module coredns\n\ngo 1.25.0\n\nrequire github.com/coredns/coredns v{COREDNS_VERSION}\n"
    );
    write(&folder.join("go.mod"), &go_mod)?;
    step.run(go(folder).args(["mod", "tidy"]), &log)?;
    step.run(
        go(folder).env("CGO_ENABLED", "0").args([
            "build",
            "-v",
            "-trimpath",
            "-ldflags",
            "-s -w",
            "-o",
            "coredns",
            ".",
        ]),
        &log,
    )
}

/// The text of Kubernetes' own go.mod, from the module proxy.
fn upstream_go_mod() -> Result<String> {
    let module = format!("k8s.io/kubernetes@v{KUBERNETES_VERSION}");
    let answer = output_of(Command::new("go").args(["mod", "download", "-json", &module]))
        .context("download Kubernetes from the Go module proxy")?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("read Go's answer")?;
    let path = answer["GoMod"]
        .as_str()
        .ok_or_else(|| anyhow!("Go's answer names no GoMod"))?;
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// A go.mod for our binary. Kubernetes replaces its staging modules by folders of its own tree;
/// outside that tree each is the module published as v0.MINOR.PATCH.
fn kubernetes_go_mod(upstream: &str) -> Result<String> {
    let staging_version = KUBERNETES_VERSION.replacen("1.", "0.", 1);
    let replacements: Vec<String> = upstream
        .lines()
        .filter_map(|line| line.trim().split_once(" => ./staging/"))
        .map(|(module, _)| format!("\t{module} => {module} v{staging_version}"))
        .collect();
    ensure!(
        !replacements.is_empty(),
        "the go.mod of Kubernetes replaces no staging module"
    );
    Ok(format!(
        "module kube\n\ngo 1.25.0\n\ngodebug default=go1.25\n\n\
         require k8s.io/kubernetes v{KUBERNETES_VERSION}\n\nreplace (\n{}\n)\n",
        replacements.join("\n")
    ))
}

/// Without these the parts call themselves v0.0.0, and clients refuse them as too old.
fn kubernetes_version_flags() -> String {
    let minor = KUBERNETES_VERSION
        .split('.')
        .nth(1)
        .expect("a version has three numbers");
    let server = "k8s.io/component-base/version";
    let client = "k8s.io/client-go/pkg/version";
    format!(
        "-s -w -X {server}.gitVersion=v{KUBERNETES_VERSION} -X {server}.gitMajor=1 \
         -X {server}.gitMinor={minor} -X {client}.gitVersion=v{KUBERNETES_VERSION}"
    )
}

fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder);
    command
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_become_published_ones() {
        let upstream = "module k8s.io/kubernetes\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\
                        \tk8s.io/kubelet => ./staging/src/k8s.io/kubelet\n)\n";
        let text = kubernetes_go_mod(upstream).unwrap();
        assert!(text.contains("k8s.io/api => k8s.io/api v0.35.4"), "{text}");
        assert!(
            text.contains("k8s.io/kubelet => k8s.io/kubelet v0.35.4"),
            "{text}"
        );
        assert!(kubernetes_go_mod("module other\n").is_err());
    }
}
