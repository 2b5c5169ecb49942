//! Names of images for several platforms.

use std::{fs, process::Command};

use oci::{DiffId, ImageConfig, Index, Platform, Reference, media_type};
use store::{ArchiveFormat, Image, LoadSource, PruneOptions, SaveOptions};

use crate::support::{World, epoch};

fn image(world: &World, platform: &str) -> Image {
    let layer = world.snapshot(None, |root| fs::write(root.join("platform"), platform).unwrap());
    let mut config = ImageConfig::scratch(&platform.parse().unwrap());
    config.rootfs.diff_ids = vec![world.store.diff_id(&layer, epoch()).unwrap().0] as Vec<DiffId>;
    world.store.put_image(&config, &[layer], epoch()).unwrap()
}

fn name() -> Reference {
    "localhost:5000/app:1".parse().unwrap()
}

/// The foreign one is given first; the own one is still what the name means here.
fn both(world: &World) -> Vec<Image> {
    let host = Platform::host().to_string();
    let images = vec![image(world, "linux/s390x"), image(world, &host)];
    world.store.tag_all(&name(), &images).unwrap();
    images
}

#[test]
fn a_name_means_the_image_that_runs_here() {
    let world = World::new();
    let [foreign, own] = &both(&world)[..] else { panic!("two images") };
    assert_eq!(world.store.resolve(&name()).unwrap().unwrap().id, own.id);
    let all: Vec<_> = world.store.resolve_all(&name()).unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(all, [own.id.clone(), foreign.id.clone()]);
    let on = |platform: &str| world.store.resolve_for(&name(), &platform.parse().unwrap()).unwrap().unwrap().id;
    assert_eq!((on("linux/s390x"), on("linux/riscv64")), (foreign.id.clone(), own.id.clone()));

    // Another image for a platform takes the place of the former; tagging one image takes the name whole.
    let newer = image(&world, "linux/arm64");
    world.store.tag_beside(&name(), &newer).unwrap();
    assert_eq!(world.store.resolve_all(&name()).unwrap().len(), 3);
    world.store.tag_beside(&name(), &newer).unwrap();
    assert_eq!(world.store.resolve_all(&name()).unwrap().len(), 3);
    world.store.remove_image(&newer.id).unwrap();
    assert_eq!(world.store.resolve_all(&name()).unwrap().len(), 2);
    world.store.tag(&name(), &foreign.id).unwrap();
    assert_eq!(world.store.resolve_all(&name()).unwrap().len(), 1);
}

#[test]
fn prune_keeps_the_images_of_all_platforms() {
    let world = World::new();
    let images = both(&world);
    drop(world.scope);
    world.store.prune(&PruneOptions { drop_kept: true, ..PruneOptions::default() }).unwrap();
    for image in images {
        assert!(world.store.image(&image.id).unwrap().is_some());
    }
}

#[test]
fn an_index_lists_what_was_sealed_and_is_the_same_again() {
    let world = World::new();
    let images = both(&world);
    let index = world.store.preferred_index(&images, &[]).unwrap();
    assert_eq!(index.bytes, world.store.preferred_index(&images, &[]).unwrap().bytes);
    assert_eq!(index.index.media_type.as_deref(), Some(media_type::INDEX));
    for (listed, image) in index.index.manifests.iter().zip(&images) {
        assert_eq!(listed.platform.as_ref(), Some(&image.config.platform()));
        assert_eq!(world.store.has_blob(&listed.digest), Some(listed.size));
    }
    let by_digest = name().with_digest(index.digest.clone());
    assert!(world.store.resolve(&by_digest).unwrap().is_some());
}

#[test]
fn layouts_hold_an_index_and_load_gives_all_back() {
    let world = World::new();
    let images = both(&world);
    let named: Vec<_> =
        world.store.resolve_all(&name()).unwrap().into_iter().map(|image| (Some(name()), image)).collect();
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    world.store.save_layout_dir(&named, &SaveOptions::default(), &layout).unwrap();
    let index: Index = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index.manifests.len(), 1);
    assert_eq!(index.manifests[0].media_type, media_type::INDEX);
    // Another reader finds each.
    for (platform, content) in [("amd64", Platform::host().to_string()), ("s390x", "linux/s390x".into())] {
        let source = format!("oci:{}:1", layout.display());
        let output = Command::new("skopeo").args(["--override-arch", platform, "inspect", &source]).output();
        let Ok(output) = output else { return testkit::skip("skopeo is missing") };
        if platform == "amd64" && Platform::host().architecture != "amd64" {
            continue;
        }
        assert!(output.status.success(), "{content}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("\"Architecture\": \"{platform}\"")), "{text}");
    }

    let archive = directory.path().join("x.tar");
    let mut file = fs::File::create(&archive).unwrap();
    world.store.save(&named, ArchiveFormat::Oci, &SaveOptions::default(), &mut file).unwrap();
    for source in [LoadSource::Path(&layout), LoadSource::Path(&archive)] {
        let other = World::new();
        let loaded = other.store.load(&other.scope, source, None).unwrap();
        assert_eq!(loaded.len(), 2);
        assert!(loaded.iter().all(|(reference, _)| reference.as_ref() == Some(&name())));
        let mut ids: Vec<_> = loaded.into_iter().map(|(_, image)| image.id).collect();
        let mut expected: Vec<_> = images.iter().map(|image| image.id.clone()).collect();
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected);
    }
}

#[test]
fn an_archive_of_a_foreign_image_alone_can_be_loaded() {
    let world = World::new();
    let foreign = image(&world, "linux/s390x");
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let mut archive = Vec::new();
        let named = [(Some(name()), foreign.clone())];
        world.store.save(&named, format, &SaveOptions::default(), &mut archive).unwrap();
        let other = World::new();
        let loaded = other.store.load(&other.scope, LoadSource::Reader(&mut &archive[..]), None).unwrap();
        assert_eq!(loaded[0].1.id, foreign.id);
    }
}
