//! Images on the nodes: imported into each containerd unless it has the same digest already, and
//! remembered, so that a node which was off gets them when it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::layout::{Layout, NodeId};
use super::node::{self, ctr};
use super::process::wait_until;
use crate::images::Image;
use crate::progress::output_of;

/// containerd's Kubernetes side takes notice of an import by an event, a moment later.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(20);
const NOTICED: &str = "io.cri-containerd.image=managed";

/// Imports `images` into those of `nodes` that are on, all nodes at once.
pub(super) fn load(layout: &Layout, nodes: &[NodeId], images: &[Image]) -> Result<()> {
    for image in images {
        remember(layout, image)?;
    }
    thread::scope(|scope| {
        let running = nodes
            .iter()
            .copied()
            .filter(|node| node::is_on(layout, *node));
        let workers: Vec<_> = running
            .map(|node| scope.spawn(move || load_into(layout, node, images)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("an import panicked"))?)
    })
}

/// Imports what was loaded into the cluster and this node lacks.
pub(super) fn load_remembered(layout: &Layout, node: NodeId) -> Result<()> {
    let entries = fs::read_dir(folder(layout))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let archives = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let images: Vec<Image> = archives
        .map(|archive| Image::open(Path::new(&archive)))
        .collect::<Result<_>>()?;
    load_into(layout, node, &images)
}

/// Names `image` a second time on those of `nodes` that are on; done already is as good.
pub(super) fn tag(layout: &Layout, nodes: &[NodeId], image: &Image, reference: &str) -> Result<()> {
    let tagged = Image {
        reference: reference.to_owned(),
        ..image.clone()
    };
    for node in nodes
        .iter()
        .copied()
        .filter(|node| node::is_on(layout, *node))
    {
        if is_listed(&list(layout, node)?, &tagged) {
            continue;
        }
        let names = [image.reference.as_str(), reference];
        output_of(
            ctr(layout, node)
                .args(["images", "tag", "--force"])
                .args(names),
        )
        .with_context(|| format!("name an image {reference} on {node}"))?;
        wait_until(&format!("{reference} on {node}"), NOTICE_TIMEOUT, || {
            Ok(is_listed(&list(layout, node)?, &tagged))
        })?;
    }
    Ok(())
}

fn load_into(layout: &Layout, node: NodeId, images: &[Image]) -> Result<()> {
    let listed = list(layout, node)?;
    for image in images.iter().filter(|image| !is_listed(&listed, image)) {
        output_of(
            ctr(layout, node)
                .args(["images", "import"])
                .arg(&image.archive),
        )
        .with_context(|| format!("import {} into {node}", image.reference))?;
        wait_until(
            &format!("{} on {node}", image.reference),
            NOTICE_TIMEOUT,
            || Ok(is_listed(&list(layout, node)?, image)),
        )?;
    }
    Ok(())
}

fn list(layout: &Layout, node: NodeId) -> Result<String> {
    output_of(ctr(layout, node).args(["images", "ls"]))
        .with_context(|| format!("list the images of {node}"))
}

/// Whether a line of `ctr images ls` shows this very image, seen by the Kubernetes side.
fn is_listed(list: &str, image: &Image) -> bool {
    list.lines().any(|line| {
        line.split_whitespace().next() == Some(&image.reference)
            && line.contains(&image.digest)
            && line.contains(NOTICED)
    })
}

fn remember(layout: &Layout, image: &Image) -> Result<()> {
    let folder = folder(layout);
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let archive = fs::canonicalize(&image.archive)
        .with_context(|| format!("find {}", image.archive.display()))?;
    let name = image.reference.replace(['/', ':'], "_");
    fs::write(folder.join(name), archive.to_string_lossy().as_bytes()).context("remember an image")
}

fn folder(layout: &Layout) -> PathBuf {
    layout.run().join("images")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_counts_only_with_its_digest_and_noticed_by_kubernetes() {
        let image = Image {
            reference: "localhost/pbx-ha/pause:1".into(),
            digest: "sha256:aa".into(),
            archive: "pause.tar".into(),
        };
        let line = |digest: &str, label: &str| {
            format!("localhost/pbx-ha/pause:1 application/x {digest} 800 KiB linux/amd64 {label}\n")
        };
        assert!(is_listed(&line("sha256:aa", NOTICED), &image));
        assert!(!is_listed(&line("sha256:bb", NOTICED), &image));
        assert!(!is_listed(&line("sha256:aa", "-"), &image));
    }
}
