//! `build --output`: files, archives, layouts, registries, and what is written about them.

use std::{fs, process::Command};

use testkit::World;

use crate::world_with_image;

fn app() -> World {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1 AS base\nFROM scratch\nCOPY app.sh /bin/app\nCOPY --from=base /etc /etc\n");
    world.program("app.sh", "#!/bin/sh\n");
    world
}

/// A JSON document of a layout directory.
fn blob(layout: &std::path::Path, digest: &str) -> String {
    fs::read_to_string(layout.join("blobs").join(digest.replace(':', "/"))).unwrap()
}

/// The first `"KEY":"VALUE"` from `from` on.
fn value<'a>(json: &'a str, from: &str, key: &str) -> &'a str {
    let rest = &json[json.find(from).unwrap_or_else(|| panic!("no {from} in {json}"))..];
    let rest = &rest[rest.find(&format!("\"{key}\"")).unwrap_or_else(|| panic!("no {key} in {rest}"))..];
    rest.split('"').nth(3).unwrap()
}

#[test]
fn files_come_as_directory_and_as_tar() {
    let world = app();
    world.file("out/stays", "mine");
    world.seatrial(["build", "-o", "out", "-o", "type=tar,dest=files.tar", "."]).run().exits(0);
    let out = world.repo().join("out");
    assert_eq!(fs::read_to_string(out.join("bin/app")).unwrap(), "#!/bin/sh\n");
    assert!(out.join("etc/passwd").is_file() && out.join("stays").is_file());
    let listed = Command::new("tar").arg("-tf").arg(world.repo().join("files.tar")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().take(3).collect::<Vec<_>>(), ["bin/", "bin/app", "etc/"]);
    let piped = world.seatrial(["build", "--progress=none", "-o", "-", "."]).run().exits(0);
    assert!(piped.stdout().starts_with("bin/"));
    world.seatrial(["build", "-o", "type=local,dest=split,platform-split=true"]).run().exits(0);
    let split: Vec<_> = fs::read_dir(world.repo().join("split")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(split.len() == 1 && split[0].to_string_lossy().starts_with("linux_"), "{split:?}");
}

#[test]
fn a_layout_has_the_form_that_was_asked_for() {
    let world = app();
    let output = "type=oci,tar=false,dest=layout,compression=zstd,force-compression=true,annotation.own=1";
    let arguments = ["build", "-t", "app:1", "-o", output, "--annotation", "manifest,manifest-descriptor:k=v"];
    world.seatrial(arguments).run().exits(0);
    let layout = world.repo().join("layout");
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    assert_eq!(value(&index, "annotations", "k"), "v");
    assert_eq!(value(&index, "annotations", "io.containerd.image.name"), "docker.io/library/app:1");
    let manifest = blob(&layout, value(&index, "manifests", "digest"));
    assert_eq!(value(&manifest, "annotations", "k"), "v");
    assert_eq!(value(&manifest, "annotations", "own"), "1");
    assert!(manifest.contains("tar+zstd") && !manifest.contains("tar+gzip"), "{manifest}");
    // What it says is also what other programs read.
    let place = format!("oci:{}:1", layout.display());
    let digest = Command::new("skopeo").args(["inspect", "--format", "{{.Digest}}", &place]).output().unwrap();
    assert!(digest.status.success(), "{}", String::from_utf8_lossy(&digest.stderr));
    assert_eq!(String::from_utf8(digest.stdout).unwrap().trim(), value(&index, "manifests", "digest"));
}

#[test]
fn an_image_is_pushed_as_it_was_built() {
    let world = app();
    let registry = world.registry();
    let output = format!("type=image,\"name={registry}/app:a,{registry}/app:b\",push=true,oci-mediatypes=false");
    world.seatrial(["build", "-o", &output, "--metadata-file", "meta.json"]).run().exits(0);
    assert_eq!(world.registry_tags("app"), ["a", "b"]);
    let metadata = fs::read_to_string(world.repo().join("meta.json")).unwrap();
    let digest = value(&metadata, "{", "containerimage.digest").to_owned();
    assert_eq!(value(&metadata, "{", "mediaType"), "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(value(&metadata, "{", "image.name"), format!("{registry}/app:a,{registry}/app:b"));
    assert!(metadata.contains("buildx.build.ref") && metadata.contains("config.digest"), "{metadata}");
    // A later push gives the same manifest.
    world.seatrial(["tag", &format!("{registry}/app:a"), &format!("{registry}/app:c")]).run().exits(0);
    let pushed = world.seatrial(["push", "-q", &format!("{registry}/app:c")]).run().exits(0);
    assert_eq!(String::from_utf8_lossy(pushed.stdout_bytes()).trim(), digest);
    let by_digest = format!("type=image,name={registry}/other,push=true,push-by-digest=true,compression=zstd");
    world.seatrial(["build", "-o", &by_digest]).run().exits(0).stderr_has("pushed");
    assert_eq!(world.registry_tags("other"), Vec::<String>::new());
}

#[test]
fn mistakes_in_outputs_are_wrong_invocations() {
    let world = app();
    let check = |output: &str, words: &str| {
        world.seatrial(["build", "-o", output]).run().exits(2).stderr_has(words);
    };
    check("type=oci,dest=x,compression=estargz", "estargz is not offered");
    check("type=image,push=true", "an image needs a name to be pushed");
    check("type=local", "needs `dest=DIRECTORY`");
    world.seatrial(["build", "--annotation", "index:a=b"]).run().exits(2).stderr_has("is for an index");
}
