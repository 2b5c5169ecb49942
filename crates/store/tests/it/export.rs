//! Files of an image in a directory or a tar, and manifests of other forms.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use oci::{ImageConfig, Platform, media_type};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use store::{Compression, Image, ManifestOptions, SnapshotId, Stop, StoreError};

use crate::support::{Tar, World, epoch, is_root, message};

fn image(world: &World, layers: &[SnapshotId]) -> Image {
    let mut config = ImageConfig::scratch(&Platform::host());
    for layer in layers {
        config.rootfs.diff_ids.push(world.store.diff_id(layer, epoch()).unwrap().0);
    }
    world.store.put_image(&config, layers, epoch()).unwrap()
}

/// Two layers with everything that merging knows.
fn layered(world: &World) -> Image {
    let bottom = Tar::new()
        .dir("d/")
        .file("d/kept", "kept")
        .file("d/changed", "old")
        .dir("opaque/")
        .file("opaque/hidden", "")
        .file("gone", "")
        .file("was-file", "")
        .dir("was-dir/")
        .file("was-dir/x", "")
        .symlink("link", "d/kept");
    let bottom = world.apply(None, &bottom).unwrap();
    let top = Tar::new()
        .file("d/changed", "new")
        .hard_link("d/same", "d/changed")
        .file(".wh.gone", "")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/seen", "")
        .dir("was-file/")
        .file("was-file/now", "")
        .file("was-dir", "file")
        .raw(b"set-id", b'0', 0o4755, b"", b"x")
        .raw(b"fifo", b'6', 0o640, b"", b"");
    let top = world.apply(Some(&bottom), &top).unwrap();
    image(world, &[bottom, top])
}

const MERGED: &[&str] = &[
    "d",
    "d/changed",
    "d/kept",
    "d/same",
    "fifo",
    "link",
    "opaque",
    "opaque/seen",
    "set-id",
    "was-dir",
    "was-file",
    "was-file/now",
];

fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, at: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            into.push(path.strip_prefix(root).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                walk(root, &path, into);
            }
        }
    }
    let mut paths = Vec::new();
    walk(root, root, &mut paths);
    paths.sort();
    paths
}

#[test]
fn directory_shows_the_merged_files() {
    for world in [World::new(), World::copying()] {
        let image = layered(&world);
        let out = world.home.path().join("out");
        let report = world.store.export_directory(&image, &out, is_root(), Stop::NEVER).unwrap();
        assert_eq!(listing(&out), MERGED);
        let file = |path: &str| out.join(path).symlink_metadata().unwrap();
        assert_eq!(fs::read_to_string(out.join("d/changed")).unwrap(), "new");
        assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("d/kept"));
        assert_eq!(file("d/changed").ino(), file("d/same").ino());
        assert_eq!(file("d/kept").mtime(), 1_600_000_000);
        assert!(file("fifo").file_type().is_fifo() && file("fifo").mode() & 0o7777 == 0o640);
        assert_eq!((file("set-id").mode() & 0o7777, report.set_ids), (0o755, 1));
        // Once more over itself.
        world.store.export_directory(&image, &out, is_root(), Stop::NEVER).unwrap();
        assert_eq!(listing(&out), MERGED);
    }
}

#[test]
fn nothing_outside_of_the_directory_is_touched() {
    let world = World::new();
    let image = layered(&world);
    let out = world.home.path().join("out");
    let outside = world.home.path().join("outside");
    fs::create_dir_all(outside.join("dir")).unwrap();
    fs::write(outside.join("file"), "mine").unwrap();
    fs::create_dir_all(out.join("was-dir/mine")).unwrap();
    // Links lie where the image has a directory, a file, and a link.
    symlink(outside.join("dir"), out.join("d")).unwrap();
    symlink(outside.join("file"), out.join("set-id")).unwrap();
    symlink(&outside, out.join("link")).unwrap();
    fs::hard_link(outside.join("file"), out.join("was-file")).unwrap();
    fs::write(out.join("other"), "stays").unwrap();
    world.store.export_directory(&image, &out, false, Stop::NEVER).unwrap();
    assert_eq!(listing(&outside), ["dir", "file"]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "mine");
    assert_eq!(fs::metadata(outside.join("file")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_to_string(out.join("other")).unwrap(), "stays");
    assert!(out.join("d").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_to_string(out.join("was-dir")).unwrap(), "file");
}

#[test]
fn owners_are_the_callers_unless_he_may_give_files_away() {
    let world = World::new();
    let layer = world.snapshot(None, |root| {
        fs::write(root.join("f"), "").unwrap();
        if is_root() {
            std::os::unix::fs::chown(root.join("f"), Some(1234), Some(1234)).unwrap();
        }
    });
    let image = image(&world, &[layer]);
    let owner = |keep_owners| {
        let out = world.home.path().join(format!("out-{keep_owners}"));
        world.store.export_directory(&image, &out, keep_owners, Stop::NEVER).unwrap();
        fs::metadata(out.join("f")).unwrap().uid()
    };
    assert_eq!(owner(false), rustix::process::geteuid().as_raw());
    if is_root() {
        assert_eq!(owner(true), 1234);
    }
}

#[test]
fn device_nodes_stay_out_of_directories() {
    if !is_root() {
        return testkit::skip("only root can make a device node");
    }
    let world = World::new();
    let layer = world.snapshot(None, |root| {
        let device = rustix::fs::makedev(1, 3);
        mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    });
    let image = image(&world, &[layer]);
    let out = world.home.path().join("out");
    let report = world.store.export_directory(&image, &out, true, Stop::NEVER).unwrap();
    assert_eq!((listing(&out), report.special), (Vec::<String>::new(), 1));
    let mut bytes = Vec::new();
    world.store.export_tar(&image, &[], &mut bytes, Stop::NEVER).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().header().device_minor().unwrap(), Some(3));
}

#[test]
fn tar_has_the_merged_files_and_is_the_same_each_time() {
    let tars = [World::new(), World::copying()].map(|world| {
        let image = layered(&world);
        let mut bytes = Vec::new();
        world.store.export_tar(&image, &[], &mut bytes, Stop::NEVER).unwrap();
        bytes
    });
    let mut archive = tar::Archive::new(&*tars[0]);
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if path == "d/same" {
            assert_eq!(entry.link_name().unwrap().unwrap().as_ref(), Path::new("d/changed"));
        }
        if path == "set-id" {
            assert_eq!(entry.header().mode().unwrap(), 0o4755);
        }
        paths.push(path.trim_end_matches('/').to_owned());
    }
    assert_eq!(paths, MERGED);
    assert!(tars[0] == tars[1], "overlays and copies give the same tar");
}

#[test]
fn manifests_have_the_form_that_was_asked_for() {
    let world = World::new();
    let plain = Tar::new().file("pulled", &"x".repeat(5000)).end();
    let pulled = world.apply_bytes(None, &crate::support::gzip(&plain), &plain).unwrap();
    let made = world.snapshot(Some(&pulled), |root| fs::write(root.join("made"), "y".repeat(5000)).unwrap());
    let image = image(&world, &[pulled, made]);
    let manifest = |options: ManifestOptions| world.store.manifest(&image, options).unwrap();
    let types = |options: ManifestOptions| {
        manifest(options).manifest.layers.into_iter().map(|layer| layer.media_type).collect::<Vec<_>>()
    };
    let zstd = ManifestOptions { compression: Compression::Zstd, ..ManifestOptions::default() };
    assert_eq!(types(zstd.clone()), [media_type::LAYER_GZIP, media_type::LAYER_ZSTD]);
    let forced = ManifestOptions { force: true, ..zstd.clone() };
    assert_eq!(types(forced.clone()), [media_type::LAYER_ZSTD; 2]);
    let docker = ManifestOptions { docker_types: true, ..forced };
    assert_eq!(types(docker.clone()), [media_type::DOCKER_LAYER_ZSTD; 2]);
    assert_eq!(manifest(docker.clone()).manifest.media_type.as_deref(), Some(media_type::DOCKER_MANIFEST));
    assert_eq!(manifest(docker).manifest.config.media_type, media_type::DOCKER_CONFIG);
    let annotated = ManifestOptions { annotations: [("k".into(), "v".into())].into(), ..ManifestOptions::default() };
    assert_eq!(manifest(annotated.clone()).manifest.annotations, annotated.annotations);
    let level = |level| ManifestOptions { level: Some(level), ..zstd.clone() };
    assert_ne!(manifest(level(19)).digest, manifest(level(1)).digest);
    assert_eq!(manifest(level(22)).digest, manifest(level(22)).digest);
    // The usual one is not disturbed by the others.
    assert_eq!(types(ManifestOptions::default()), [media_type::LAYER_GZIP; 2]);
    world.store.prefer_manifest(&image.id, &annotated).unwrap();
    assert_eq!(world.store.preferred_options(&image.id), annotated);
}

#[test]
fn every_level_can_be_read_back() {
    let world = World::new();
    let layer = world.snapshot(None, |root| fs::write(root.join("f"), "abc".repeat(100_000)).unwrap());
    let image = image(&world, &[layer]);
    for (compression, level) in [(Compression::Gzip, 0), (Compression::Gzip, 9), (Compression::Zstd, 22)] {
        let options = ManifestOptions { compression, level: Some(level), ..ManifestOptions::default() };
        let sealed = world.store.manifest(&image, options).unwrap();
        let other = World::new();
        for blob in sealed.manifest.layers.iter().chain([&sealed.manifest.config]) {
            other.store.put_blob(&world.store.read_blob(&blob.digest, u64::MAX).unwrap().unwrap()).unwrap();
        }
        let read = other.store.import_manifest(&other.scope, &sealed.bytes).unwrap();
        assert_eq!(read.id, image.id);
    }
}

#[test]
fn sealing_and_exporting_stop_when_asked() {
    let world = World::new();
    let layer = world.snapshot(None, |root| {
        for number in 0..100 {
            let path = root.join(number.to_string());
            fs::write(&path, "x").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    });
    let image = {
        // Another store knows the image's diff id, so that this one has everything still to do.
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids.push(oci::DiffId(oci::Digest::of(b"not known yet")));
        world.store.put_image(&config, std::slice::from_ref(&layer), epoch()).unwrap()
    };
    let asked = AtomicUsize::new(0);
    let later = || asked.fetch_add(1, Ordering::Relaxed) > 50;
    let is_stopped = |result: Result<(), StoreError>| {
        asked.store(0, Ordering::Relaxed);
        matches!(result, Err(StoreError::Stopped)) || panic!("{:?}", result.err().map(|error| message(&error)))
    };
    let stop = Stop::when(&later);
    let options = ManifestOptions::default();
    assert!(is_stopped(world.store.manifest_or_stop(&image, &options, stop).map(drop)));
    assert!(is_stopped(world.store.diff_id_or_stop(&layer, epoch() + Duration::from_secs(1), stop).map(drop)));
    assert!(is_stopped(world.store.export_tar(&image, &[], &mut std::io::sink(), stop)));
    assert!(is_stopped(world.store.export_directory(&image, &world.home.path().join("o"), false, stop).map(drop)));
    let blobs = fs::read_dir(world.store.root().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 1, "only the config is left");
}
