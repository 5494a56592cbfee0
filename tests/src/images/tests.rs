//! What an archive must hold, and that it is the same whenever it is built.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("pbxha-images-{}-{name}", std::process::id()));
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn root_with_every_kind(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("usr/share/doc/x")).unwrap();
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::write(root.join("proc/secret"), "of the host").unwrap();
    fs::write(root.join("usr/share/doc/x/long"), "text").unwrap();
    fs::write(root.join("usr/tool"), "tool").unwrap();
    fs::set_permissions(root.join("usr/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("usr/tool"), root.join("usr/tool-again")).unwrap();
    symlink("usr/tool", root.join("link")).unwrap();
    root
}

fn spec(root: PathBuf) -> ImageSpec {
    let mut spec = ImageSpec {
        rootfs: Some(root),
        ..ImageSpec::named("localhost/pbx-ha/test:1")
    };
    spec.left_out = &["usr/share/doc*"];
    spec.empty_folders.push(("run/test".into(), 101));
    let content = FileContent::Bytes(b"hello".to_vec());
    spec.files.push(ImageFile {
        path: "etc/deep/file".into(),
        content,
        mode: 0o640,
    });
    spec
}

/// Name to (type, mode, owner, time, content) of every member.
fn members(tar: &[u8]) -> BTreeMap<String, (tar::EntryType, u32, u64, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap());
        found.insert(
            name,
            (
                header.entry_type(),
                mode,
                owner,
                header.mtime().unwrap(),
                content,
            ),
        );
    }
    found
}

fn layer_of(archive: &Path) -> Vec<u8> {
    let outer = members(&fs::read(archive).unwrap());
    let manifest: Value = serde_json::from_slice(&outer["manifest.json"].4).unwrap();
    outer[manifest[0]["Layers"][0].as_str().unwrap()].4.clone()
}

#[test]
fn same_input_gives_the_same_bytes() {
    let folder = scratch("same");
    let root = root_with_every_kind(&folder);
    let first = build_image(&spec(root.clone()), &folder.join("a.tar")).unwrap();
    // Times of files must not show in the image.
    fs::write(root.join("usr/tool"), "tool").unwrap();
    fs::set_permissions(root.join("usr/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    let second = build_image(&spec(root.clone()), &folder.join("b.tar")).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(
        fs::read(&first.archive).unwrap(),
        fs::read(&second.archive).unwrap()
    );
    fs::write(root.join("usr/tool"), "tooL").unwrap();
    let changed = build_image(&spec(root), &folder.join("c.tar")).unwrap();
    assert_ne!(first.digest, changed.digest);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn layer_keeps_modes_and_links_and_leaves_out_what_is_not_wanted() {
    let folder = scratch("layer");
    let image = build_image(&spec(root_with_every_kind(&folder)), &folder.join("a.tar")).unwrap();
    let layer = members(&layer_of(&image.archive));
    assert!(
        !layer
            .keys()
            .any(|name| name.contains("doc") || name.contains("secret"))
    );
    assert!(layer.contains_key("proc/"));
    assert_eq!(layer["usr/tool"].1, 0o4755);
    assert_eq!(layer["usr/tool-again"].0, tar::EntryType::Link);
    assert_eq!(layer["link"].0, tar::EntryType::Symlink);
    assert_eq!(layer["run/test/"].2, 101);
    assert_eq!(
        (
            layer["etc/deep/file"].1,
            layer["etc/deep/file"].4.as_slice()
        ),
        (0o640, &b"hello"[..])
    );
    assert!(layer.contains_key("etc/") && layer.contains_key("etc/deep/"));
    assert!(layer.values().all(|member| member.3 == 0));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_blob_is_named_by_its_own_digest() {
    let folder = scratch("blobs");
    let image = build_image(&spec(root_with_every_kind(&folder)), &folder.join("a.tar")).unwrap();
    let outer = members(&fs::read(&image.archive).unwrap());
    let blobs: Vec<_> = outer
        .iter()
        .filter(|(name, _)| name.starts_with("blobs/"))
        .collect();
    assert_eq!(blobs.len(), 3);
    for (name, member) in blobs {
        assert_eq!(*name, blob_path(&digest_of(&member.4)));
    }
    let manifest: Value = serde_json::from_slice(&outer[&blob_path(&image.digest)].4).unwrap();
    assert_eq!(
        manifest["layers"][0]["size"],
        layer_of(&image.archive).len()
    );
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn built_archive_is_opened_as_the_same_image() {
    let folder = scratch("open");
    let image = build_image(&spec(root_with_every_kind(&folder)), &folder.join("a.tar")).unwrap();
    assert_eq!(Image::open(&image.archive).unwrap(), image);
    fs::write(folder.join("empty.tar"), [0; 1024]).unwrap();
    let error = Image::open(&folder.join("empty.tar"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("not an OCI archive"), "{error}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn missing_program_is_an_error_that_names_it() {
    let folder = scratch("missing");
    let spec = ImageSpec::named("localhost/x:1").with_program("tool", Path::new("/no/such/tool"));
    let error = format!(
        "{:#}",
        build_image(&spec, &folder.join("a.tar")).unwrap_err()
    );
    assert!(error.contains("/no/such/tool"), "{error}");
    assert!(!folder.join("a.tar").exists());
    fs::remove_dir_all(folder).unwrap();
}
