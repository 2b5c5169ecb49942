//! Images: the same bytes for the same input, and other programs read what is saved.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use oci::{ContainerConfig, Descriptor, DiffId, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use store::{ArchiveFormat, Compression, Image, LoadSource, SaveOptions, SnapshotId};

use crate::support::{Tar, World, epoch, gzip, is_root, message, names};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image of two layers, the second made here.
fn make(world: &World) -> Image {
    let base = world.snapshot(None, |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/os-release"), "ID=test\n").unwrap();
        fs::write(root.join("big"), vec![3; 2_500_000]).unwrap();
    });
    let top = world.snapshot(Some(&base), |root| fs::write(root.join("app"), "1").unwrap());
    let empty = world.snapshot(Some(&top), |_| {});
    put(world, &[base, top, empty])
}

fn put(world: &World, layers: &[SnapshotId]) -> Image {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.config = ContainerConfig { cmd: Some(vec!["/app".into()]), ..ContainerConfig::default() };
    config.rootfs.diff_ids = layers.iter().map(|layer| world.store.diff_id(layer, epoch()).unwrap().0).collect();
    world.store.put_image(&config, layers, epoch()).unwrap()
}

/// Stores the blobs of an image as a registry client would; gives the manifest.
pub(crate) fn pulled(world: &World, tars: &[Tar]) -> Vec<u8> {
    let plain: Vec<Vec<u8>> = tars.iter().map(|tar| tar.clone().end()).collect();
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids = plain.iter().map(|bytes| DiffId(Digest::of(bytes))).collect();
    // Spaces: not our bytes.
    let config = serde_json::to_vec_pretty(&config).unwrap();
    world.store.put_blob(&config).unwrap();
    let layer = |bytes: &Vec<u8>| {
        let blob = gzip(bytes);
        world.store.put_blob(&blob).unwrap();
        Descriptor::of(media_type::DOCKER_LAYER_GZIP, &blob)
    };
    let mut manifest =
        Manifest::image(Descriptor::of(media_type::DOCKER_CONFIG, &config), plain.iter().map(layer).collect());
    manifest.media_type = Some(media_type::DOCKER_MANIFEST.into());
    serde_json::to_vec_pretty(&manifest).unwrap()
}

#[test]
fn manifests_are_the_same_bytes_in_any_store() {
    let (one, two) = (World::new(), World::new());
    let (a, b) = (make(&one), make(&two));
    assert_eq!(a.id, b.id);
    let (sealed_a, sealed_b) =
        (one.store.manifest(&a, Compression::Gzip).unwrap(), two.store.manifest(&b, Compression::Gzip).unwrap());
    assert_eq!((&sealed_a.digest, &sealed_a.bytes), (&sealed_b.digest, &sealed_b.bytes));
    assert_eq!(one.store.manifest(&a, Compression::Gzip).unwrap().bytes, sealed_a.bytes);
    assert_ne!(one.store.manifest(&a, Compression::Zstd).unwrap().digest, sealed_a.digest);
    assert_eq!(Digest::of(&sealed_a.bytes), sealed_a.digest);
    for layer in &sealed_a.manifest.layers {
        assert_eq!(one.store.has_blob(&layer.digest), Some(layer.size));
    }
}

#[test]
fn names_digests_and_prefixes_find_an_image() {
    let world = World::new();
    let image = make(&world);
    let name = reference("localhost:5000/group/app:1.2");
    let long = reference(&format!("reg.example/{}:{}", "a/".repeat(100) + "b", "t".repeat(128)));
    world.store.tag(&name, &image.id).unwrap();
    world.store.tag_relaxed(&long, &image.id).unwrap();
    world.store.tag(&reference("app"), &image.id).unwrap();
    let manifest = world.store.manifest(&image, Compression::Gzip).unwrap();
    let by_digest = name.with_digest(manifest.digest.clone());
    for found in [
        world.store.resolve(&name).unwrap(),
        world.store.resolve(&long).unwrap(),
        world.store.resolve(&reference("app:latest")).unwrap(),
        world.store.resolve(&by_digest).unwrap(),
        world.store.resolve_id(image.id.short()).unwrap(),
        world.store.resolve_id(&manifest.digest.to_string()).unwrap(),
    ] {
        assert_eq!(found.unwrap().id, image.id);
    }
    assert!(world.store.resolve(&reference("other")).unwrap().is_none());
    assert!(world.store.resolve_id("abc").unwrap().is_none());
    let listed = world.store.images().unwrap();
    assert_eq!((listed.len(), listed[0].references.len()), (1, 3));
    assert_eq!(listed[0].manifest_digest.as_ref(), Some(&manifest.digest));
    assert!(world.store.untag(&name).unwrap());
    assert!(!world.store.untag(&name).unwrap());
    assert!(world.store.resolve(&name).unwrap().is_none());
    world.store.remove_image(&image.id).unwrap();
    assert!(world.store.resolve(&long).unwrap().is_none());
    assert!(world.store.tag(&name, &image.id).is_err());
}

#[test]
fn pulled_images_keep_their_bytes_and_their_layers_digests() {
    let world = World::new();
    let bytes = pulled(&world, &[Tar::new().file("a", "1"), Tar::new().file("b", "2")]);
    let image = world.store.import_manifest(&world.scope, &bytes).unwrap();
    let sealed = world.store.manifest(&image, Compression::Zstd).unwrap();
    assert_eq!((sealed.bytes, &sealed.digest), (bytes.clone(), &Digest::of(&bytes)));
    assert_eq!(sealed.manifest.config.digest, image.id);
    // A derived image pushes the base's very blobs.
    let top = world.snapshot(image.top(), |root| fs::write(root.join("c"), "3").unwrap());
    let derived = put(&world, &[image.layers.clone(), vec![top]].concat());
    let derived = world.store.manifest(&derived, Compression::Gzip).unwrap().manifest;
    for (ours, theirs) in derived.layers.iter().zip(&sealed.manifest.layers) {
        assert_eq!((&ours.digest, ours.size, &*ours.media_type), (&theirs.digest, theirs.size, media_type::LAYER_GZIP));
    }
    // Importing again finds everything.
    assert_eq!(world.store.import_manifest(&world.scope, &bytes).unwrap().layers, image.layers);
}

#[test]
fn wrong_manifests_are_refused() {
    let world = World::new();
    let import = |bytes: &[u8]| message(&world.store.import_manifest(&world.scope, bytes).expect_err("refused"));
    assert!(import(b"{").contains("neither an image manifest nor an index"));
    let good = pulled(&world, &[Tar::new().file("a", "1")]);
    let mut fewer: Manifest = serde_json::from_slice(&good).unwrap();
    fewer.layers.clear();
    assert!(import(&oci::to_json(&fewer)).contains("lists 1 layers where 0 are given"));
    let mut artifact: Manifest = serde_json::from_slice(&good).unwrap();
    artifact.config.media_type = media_type::EMPTY.into();
    assert!(import(&oci::to_json(&artifact)).contains("no container image"));
    let mut other: Manifest = serde_json::from_slice(&good).unwrap();
    other.layers = vec![Descriptor::of(media_type::LAYER_GZIP, b"missing")];
    assert!(import(&oci::to_json(&other)).contains("not in the store"));
}

fn save(world: &World, images: &[(Option<Reference>, Image)], format: ArchiveFormat, name: &str) -> PathBuf {
    let path = world.home.path().join(name);
    world.store.save(images, format, &SaveOptions::default(), &mut fs::File::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn archives_and_layouts_come_back_as_the_same_image() {
    let world = World::new();
    let image = make(&world);
    let name = reference("localhost/app:1");
    let images = [(Some(name.clone()), image.clone()), (Some(reference("other:2")), image.clone())];
    let docker = save(&world, &images, ArchiveFormat::Docker, "docker.tar");
    let oci = save(&world, &images, ArchiveFormat::Oci, "oci.tar");
    let layout = world.home.path().join("layout");
    world.store.save_layout_dir(&images, &SaveOptions::default(), &layout).unwrap();
    world.store.save_layout_dir(&images, &SaveOptions::default(), &layout).unwrap();
    let zipped = world.home.path().join("docker.tar.gz");
    fs::write(&zipped, gzip(&fs::read(&docker).unwrap())).unwrap();
    let manifest = world.store.manifest(&image, Compression::Gzip).unwrap();

    for path in [&docker, &oci, &layout, &zipped] {
        let other = World::new();
        let loaded = other.store.load(&other.scope, LoadSource::Path(path), None).unwrap();
        let found: Vec<String> = loaded.iter().map(|(name, _)| name.as_ref().unwrap().familiar()).collect();
        assert_eq!(found, ["localhost/app:1", "other:2"], "{}", path.display());
        let loaded = &loaded[0].1;
        assert_eq!(loaded.id, image.id);
        assert_eq!(names(&other.store.snapshot_fs(loaded.top().unwrap())).len(), 0);
        // Docker archives hold plain layers: compressed again they are the same blobs.
        assert_eq!(other.store.manifest(loaded, Compression::Gzip).unwrap().digest, manifest.digest);
    }
    let other = World::new();
    let mut stream = fs::File::open(&oci).unwrap();
    let loaded = other.store.load(&other.scope, LoadSource::Reader(&mut stream), None).unwrap();
    assert_eq!(loaded[0].1.id, image.id);
    // Deterministic.
    let again = save(&world, &images, ArchiveFormat::Docker, "again.tar");
    assert!(fs::read(docker).unwrap() == fs::read(again).unwrap());
}

#[test]
fn root_file_system_becomes_an_image_of_one_layer() {
    let world = World::new();
    let path = world.home.path().join("rootfs.tar.gz");
    fs::write(&path, gzip(&Tar::new().dir("./").dir("./etc").file("./etc/x", "1").file("manifest.json", "").end()))
        .unwrap();
    let name = reference("base:1");
    let loaded = world.store.load(&world.scope, LoadSource::Path(&path), Some(&name)).unwrap();
    assert_eq!((loaded.len(), loaded[0].0.as_ref()), (1, Some(&name)));
    assert_eq!(loaded[0].1.config.architecture, Platform::host().architecture);
    assert_eq!(names(&world.store.snapshot_fs(loaded[0].1.top().unwrap())), ["etc", "etc/x", "manifest.json"]);
}

#[test]
fn broken_archives_are_errors() {
    let world = World::new();
    let load = |bytes: &[u8]| {
        let loaded = world.store.load(&world.scope, LoadSource::Reader(&mut &*bytes), None);
        message(&loaded.expect_err("a broken archive"))
    };
    assert!(load(b"\xfd7zXZ\0 and so on").contains("xz"));
    assert!(load(&[7; 2000]).contains("checksum"));
    let docker = Tar::new().file("manifest.json", r#"[{"Config":"../../etc/passwd","Layers":["/etc/shadow"]}]"#);
    assert!(load(&docker.end()).contains("lacks"));
    let looping = Tar::new().symlink("a", "b").symlink("b", "a").file("manifest.json", r#"[{"Config":"a"}]"#);
    assert!(load(&looping.end()).contains("lacks"));
    let layout = Tar::new().file("oci-layout", "{}").file("index.json", r#"{"manifests":[]}"#);
    assert!(load(&layout.end()).contains("no image for"));
    let digest = Digest::of(b"absent");
    let index = format!(r#"{{"manifests":[{{"mediaType":"x","digest":"{digest}","size":1}}]}}"#);
    assert!(load(&Tar::new().file("oci-layout", "{}").file("index.json", &index).end()).contains("not in the store"));
}

fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(_) => {
            testkit::skip(format_args!("{program} is not installed"));
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn skopeo_reads_what_is_saved() {
    let world = World::new();
    let image = make(&world);
    let images = [(Some(reference("localhost/app:1")), image.clone())];
    let manifest = world.store.manifest(&image, Compression::Gzip).unwrap();
    let layout = world.home.path().join("layout");
    world.store.save_layout_dir(&images, &SaveOptions::default(), &layout).unwrap();
    let oci = save(&world, &images, ArchiveFormat::Oci, "oci.tar");
    let docker = save(&world, &images, ArchiveFormat::Docker, "docker.tar");
    let sources = [format!("oci:{}:1", text(&layout)), format!("oci-archive:{}:1", text(&oci))];
    for source in &sources {
        let Some(raw) = run("skopeo", &["inspect", "--raw", source]) else { return };
        assert!(raw.status.success(), "{}", String::from_utf8_lossy(&raw.stderr));
        assert_eq!(Digest::of(&raw.stdout), manifest.digest);
    }
    let docker = format!("docker-archive:{}:localhost/app:1", text(&docker));
    for (place, source) in sources.iter().chain([&docker]).enumerate() {
        // Copying reads, decompresses and checks every layer.
        let to = world.home.path().join(format!("copy-{place}"));
        let copy = run("skopeo", &["copy", "--insecure-policy", source, &format!("dir:{}", text(&to))]).unwrap();
        assert!(copy.status.success(), "{source}: {}", String::from_utf8_lossy(&copy.stderr));
    }
    // And back: what skopeo writes, we load.
    for kind in ["docker-archive", "oci-archive", "oci"] {
        let path = world.home.path().join(format!("from-skopeo-{kind}"));
        let target = format!("{kind}:{}:localhost/app:2", text(&path));
        let copy = run("skopeo", &["copy", "--insecure-policy", &sources[0], &target]).unwrap();
        assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
        let other = World::new();
        let loaded = other.store.load(&other.scope, LoadSource::Path(&path), None).unwrap();
        assert_eq!(loaded[0].0.as_ref().unwrap().familiar(), "localhost/app:2", "{kind}");
        assert_eq!(loaded[0].1.config.rootfs, image.config.rootfs, "{kind}");
    }
}

#[test]
fn podman_loads_what_is_saved() {
    if !is_root() {
        return testkit::skip("podman's own store is tested as root only");
    }
    let world = World::new();
    let image = make(&world);
    let images = [(Some(reference("localhost/seatrial-store-test:1")), image.clone())];
    let root = world.home.path().join("podman");
    let places = ["--root", text(&root), "--runroot", text(&root), "--storage-driver", "vfs"];
    for (format, name) in [(ArchiveFormat::Docker, "docker.tar"), (ArchiveFormat::Oci, "oci.tar")] {
        let path = save(&world, &images, format, name);
        let podman = |arguments: &[&str]| run("podman", &[&places[..], arguments].concat());
        let Some(load) = podman(&["load", "-q", "-i", text(&path)]) else { return };
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        let said = String::from_utf8_lossy(&load.stdout).into_owned();
        let loaded = said.trim().trim_start_matches("Loaded image: ").to_owned();
        let inspect = podman(&["image", "inspect", "--format", "{{.Id}} {{.Config.Cmd}}", &loaded]).unwrap();
        let said = String::from_utf8_lossy(&inspect.stdout).into_owned();
        assert_eq!(said.trim(), format!("{} [/app]", image.id.hex()), "{loaded}");
        podman(&["rmi", "-f", &loaded]);
    }
}

#[test]
fn docker_reads_back_what_tar_lists() {
    let world = World::new();
    let image = make(&world);
    let path = save(&world, &[(None, image.clone())], ArchiveFormat::Docker, "docker.tar");
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        // Every file but the list is named by its digest.
        if let Some(hex) = name.strip_suffix(".tar").or(name.strip_suffix(".json").filter(|hex| hex.len() == 64)) {
            assert_eq!(Digest::of(&bytes).hex(), hex);
        }
        found.push(name);
    }
    assert_eq!(found.len(), 5);
    assert_eq!(found.last().unwrap(), "manifest.json");
}
