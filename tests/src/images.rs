//! Container images made without Docker or a registry: an OCI archive of one layer, which
//! containerd imports and `docker load` reads too. The same input gives the same bytes (sorted
//! entries, time 0), so an image is its digest, and a node that has it need not import it again.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use layer::{HashingWriter, digest_of};

mod layer;
mod project;

pub use project::{Profile, ProjectImages, build_ami_hub, build_programs, build_project_images};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image consists of.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Its full name, such as `localhost/pbx-ha/sidecar:0.1.0`.
    pub reference: String,
    /// What a container runs when its pod does not say.
    pub entrypoint: Vec<String>,
    /// Environment variables, `NAME=value`.
    pub environment: Vec<String>,
    /// `uid:gid`; root when absent.
    pub user: Option<String>,
    /// A folder that becomes the root file system, owners and modes kept.
    pub rootfs: Option<PathBuf>,
    /// Paths in `rootfs` left out; one that ends with `*` stands for all that begin with it.
    pub left_out: &'static [&'static str],
    /// Single files, which win over those of `rootfs`.
    pub files: Vec<ImageFile>,
    /// Empty folders with the id of their owner and group.
    pub empty_folders: Vec<(String, u32)>,
}

/// One file put into an image, owned by root.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Where in the image, without a leading slash.
    pub path: String,
    /// What it holds.
    pub content: FileContent,
    /// Permission bits.
    pub mode: u32,
}

/// Where the bytes of an [`ImageFile`] come from.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// A file of this machine.
    Host(PathBuf),
    /// These very bytes.
    Bytes(Vec<u8>),
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its full name.
    pub reference: String,
    /// The digest of its manifest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The archive that carries it.
    pub archive: PathBuf,
}

impl ImageSpec {
    /// An empty image of this name.
    pub fn named(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            entrypoint: Vec::new(),
            environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            user: None,
            rootfs: None,
            left_out: &[],
            files: Vec::new(),
            empty_folders: Vec::new(),
        }
    }

    /// Adds a program of this machine, executable by all.
    #[must_use]
    pub fn with_program(mut self, path: &str, host: &Path) -> Self {
        let content = FileContent::Host(host.to_owned());
        self.files.push(ImageFile {
            path: path.into(),
            content,
            mode: 0o755,
        });
        self
    }
}

impl Image {
    /// Reads name and digest of an archive that [`build_image`] made.
    pub fn open(archive: &Path) -> Result<Self> {
        let context = || format!("read the image archive {}", archive.display());
        let file = File::open(archive).with_context(context)?;
        let mut tar = tar::Archive::new(file);
        for entry in tar.entries().with_context(context)? {
            let mut entry = entry.with_context(context)?;
            if entry.path().with_context(context)?.as_ref() == Path::new("index.json") {
                let mut text = String::new();
                entry.read_to_string(&mut text).with_context(context)?;
                return Self::from_index(&text, archive);
            }
        }
        Err(anyhow!(
            "{} holds no index.json: it is not an OCI archive",
            archive.display()
        ))
    }

    fn from_index(text: &str, archive: &Path) -> Result<Self> {
        let index: Value = serde_json::from_str(text).context("read index.json")?;
        let manifest = &index["manifests"][0];
        let field = |value: &Value, name: &str| {
            value
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| anyhow!("index.json has no {name}"))
        };
        Ok(Self {
            reference: field(
                &manifest["annotations"]["io.containerd.image.name"],
                "image name",
            )?,
            digest: field(&manifest["digest"], "digest")?,
            archive: archive.to_owned(),
        })
    }
}

/// Builds an image into the file `archive`, which appears whole or not at all.
pub fn build_image(spec: &ImageSpec, archive: &Path) -> Result<Image> {
    let layer_path = with_suffix(archive, "layer");
    let partial = with_suffix(archive, "partial");
    let built = build_layer(spec, &layer_path)
        .and_then(|layer_digest| write_archive(spec, &layer_path, &layer_digest, &partial));
    std::fs::remove_file(&layer_path).ok();
    let digest = built.with_context(|| format!("build the image {}", spec.reference))?;
    std::fs::rename(&partial, archive).with_context(|| format!("write {}", archive.display()))?;
    Ok(Image {
        reference: spec.reference.clone(),
        digest,
        archive: archive.to_owned(),
    })
}

fn build_layer(spec: &ImageSpec, path: &Path) -> Result<String> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut writer = HashingWriter::new(std::io::BufWriter::new(file));
    layer::write_layer(spec, &mut writer)?;
    writer.flush().context("write the layer")?;
    Ok(writer.digest())
}

/// Returns the digest of the manifest.
fn write_archive(
    spec: &ImageSpec,
    layer: &Path,
    layer_digest: &str,
    path: &Path,
) -> Result<String> {
    let mut layer_file = File::open(layer).context("open the layer")?;
    let layer_size = layer_file
        .seek(std::io::SeekFrom::End(0))
        .context("measure the layer")?;
    layer_file.rewind().context("rewind the layer")?;
    let config = config_of(spec, layer_digest).to_string();
    let manifest = manifest_of(&config, layer_digest, layer_size).to_string();
    let manifest_digest = digest_of(manifest.as_bytes());
    let index = index_of(spec, &manifest, &manifest_digest).to_string();

    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
    let mut add = |name: &str, size: u64, content: &mut dyn Read| {
        let mut header = layer::header(tar::EntryType::Regular, 0o644, 0);
        header.set_size(size);
        tar.append_data(&mut header, name, content)
            .with_context(|| format!("write {name}"))
    };
    let docker_manifest = docker_manifest_of(spec, &config, layer_digest).to_string();
    // index.json comes early, so that reading name and digest need not pass the layer.
    for (name, text) in [
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        ("manifest.json", &docker_manifest),
        (&blob_path(&digest_of(config.as_bytes())), &config),
        (&blob_path(&manifest_digest), &manifest),
    ] {
        add(name, text.len() as u64, &mut text.as_bytes())?;
    }
    add(&blob_path(layer_digest), layer_size, &mut layer_file)?;
    let mut writer = tar.into_inner().context("finish the archive")?;
    writer.flush().context("write the archive")?;
    Ok(manifest_digest)
}

fn config_of(spec: &ImageSpec, layer_digest: &str) -> Value {
    let mut config = json!({ "Entrypoint": spec.entrypoint, "Env": spec.environment });
    if let Some(user) = &spec.user {
        config["User"] = json!(user);
    }
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        "history": [{ "created_by": "pbx-ha" }],
    })
}

fn manifest_of(config: &str, layer_digest: &str, layer_size: u64) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": CONFIG_TYPE,
            "digest": digest_of(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [{ "mediaType": LAYER_TYPE, "digest": layer_digest, "size": layer_size }],
    })
}

fn index_of(spec: &ImageSpec, manifest: &str, manifest_digest: &str) -> Value {
    let tag = spec.reference.rsplit(':').next().unwrap_or_default();
    json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST_TYPE,
            "digest": manifest_digest,
            "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": spec.reference,
                "org.opencontainers.image.ref.name": tag,
            },
        }],
    })
}

/// What `docker load` reads.
fn docker_manifest_of(spec: &ImageSpec, config: &str, layer_digest: &str) -> Value {
    json!([{
        "Config": blob_path(&digest_of(config.as_bytes())),
        "RepoTags": [spec.reference],
        "Layers": [blob_path(layer_digest)],
    }])
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{suffix}", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests;
