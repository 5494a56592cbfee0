//! The one layer of an image: which paths it holds, in which order, with which owner and mode,
//! as a tar stream and its digest. Device nodes and sockets are left out; containers get their
//! own.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{FileContent, ImageSpec};

/// Filled by the container runtime: only the folders themselves belong into an image.
const RUNTIME_FOLDERS: [&str; 3] = ["dev", "proc", "sys"];

/// Passes bytes on and hashes them.
pub(super) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
}

enum Entry {
    Folder {
        mode: u32,
        owner: u32,
        group: u32,
    },
    File {
        content: FileContent,
        mode: u32,
        owner: u32,
        group: u32,
    },
    Symlink {
        target: PathBuf,
    },
    /// The same file as the one at this path.
    Hardlink {
        first: String,
    },
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// The digest of everything written, as OCI spells it.
    pub(super) fn digest(self) -> String {
        spell(&self.hash.finalize())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The digest of some bytes, as OCI spells it.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    spell(&Sha256::digest(bytes))
}

/// A tar header with time 0, owned by `owner` as user and group.
pub(super) fn header(kind: tar::EntryType, mode: u32, owner: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// Writes the layer of `spec` as a tar stream, entries sorted by path.
pub(super) fn write_layer(spec: &ImageSpec, output: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(output);
    for (path, entry) in &entries_of(spec)? {
        append(&mut tar, path, entry).with_context(|| format!("add /{path} to the layer"))?;
    }
    tar.finish().context("finish the layer")
}

fn entries_of(spec: &ImageSpec) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    if let Some(root) = &spec.rootfs {
        let mut links = HashMap::new();
        collect(root, "", spec.left_out, &mut links, &mut entries)?;
    }
    for (path, owner) in &spec.empty_folders {
        add_parents(path, &mut entries);
        entries.insert(
            path.clone(),
            Entry::Folder {
                mode: 0o755,
                owner: *owner,
                group: *owner,
            },
        );
    }
    for file in &spec.files {
        add_parents(&file.path, &mut entries);
        let content = file.content.clone();
        let entry = Entry::File {
            content,
            mode: file.mode,
            owner: 0,
            group: 0,
        };
        entries.insert(file.path.clone(), entry);
    }
    Ok(entries)
}

/// Collects what is below `folder` of `root`. Names are visited sorted, so the first path of a
/// hard-linked file is also the first in the archive.
fn collect(
    root: &Path,
    folder: &str,
    left_out: &[&str],
    links: &mut HashMap<(u64, u64), String>,
    entries: &mut BTreeMap<String, Entry>,
) -> Result<()> {
    for name in sorted_names(&root.join(folder))? {
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        if is_left_out(&path, left_out) {
            continue;
        }
        let host = root.join(&path);
        let metadata = fs::symlink_metadata(&host).with_context(|| host.display().to_string())?;
        let Some(entry) = entry_of(&host, &path, &metadata, links)? else {
            continue;
        };
        let is_descended = metadata.is_dir() && !RUNTIME_FOLDERS.contains(&path.as_str());
        entries.insert(path.clone(), entry);
        if is_descended {
            collect(root, &path, left_out, links, entries)?;
        }
    }
    Ok(())
}

fn entry_of(
    host: &Path,
    path: &str,
    metadata: &fs::Metadata,
    links: &mut HashMap<(u64, u64), String>,
) -> Result<Option<Entry>> {
    let mode = metadata.mode() & 0o7777;
    let (owner, group) = (metadata.uid(), metadata.gid());
    if metadata.is_symlink() {
        let target = fs::read_link(host).with_context(|| format!("read {}", host.display()))?;
        return Ok(Some(Entry::Symlink { target }));
    }
    if metadata.is_dir() {
        return Ok(Some(Entry::Folder { mode, owner, group }));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.nlink() > 1 {
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = links.get(&inode) {
            return Ok(Some(Entry::Hardlink {
                first: first.clone(),
            }));
        }
        links.insert(inode, path.to_owned());
    }
    let content = FileContent::Host(host.to_owned());
    Ok(Some(Entry::File {
        content,
        mode,
        owner,
        group,
    }))
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Folder { mode, owner, group } => {
            let mut header = header(tar::EntryType::Directory, *mode, *owner);
            header.set_gid(u64::from(*group));
            tar.append_data(&mut header, format!("{path}/"), io::empty())?;
        }
        Entry::File {
            content,
            mode,
            owner,
            group,
        } => {
            let mut header = header(tar::EntryType::Regular, *mode, *owner);
            header.set_gid(u64::from(*group));
            append_file(tar, path, header, content)?;
        }
        Entry::Symlink { target } => {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?;
        }
        Entry::Hardlink { first } => {
            tar.append_link(&mut header(tar::EntryType::Link, 0o644, 0), path, first)?;
        }
    }
    Ok(())
}

fn append_file(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    mut header: tar::Header,
    content: &FileContent,
) -> Result<()> {
    match content {
        FileContent::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())?;
        }
        FileContent::Host(host) => {
            let file = File::open(host).with_context(|| format!("open {}", host.display()))?;
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, file)?;
        }
    }
    Ok(())
}

fn add_parents(path: &str, entries: &mut BTreeMap<String, Entry>) {
    for (end, _) in path.match_indices('/') {
        let folder = Entry::Folder {
            mode: 0o755,
            owner: 0,
            group: 0,
        };
        entries.entry(path[..end].to_owned()).or_insert(folder);
    }
}

fn is_left_out(path: &str, left_out: &[&str]) -> bool {
    left_out
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == *pattern,
        })
}

fn sorted_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let name = entry
            .with_context(|| format!("list {}", folder.display()))?
            .file_name();
        // A name that is not UTF-8 has no place in the index of a tar made for OCI.
        names.push(
            name.into_string()
                .map_err(|name| anyhow::anyhow!("{} is not UTF-8", name.display()))?,
        );
    }
    names.sort();
    Ok(names)
}

fn spell(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
