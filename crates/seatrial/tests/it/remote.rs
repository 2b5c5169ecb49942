//! What registries elsewhere hold: `registry ls`, `inspect`, `rm`; copies between registries, layouts and archives.

use crate::{world, world_with_image};

/// The tiny image as `team/tiny:1` and `team/tiny:2`, and the latter's name.
fn with_two_tags() -> (testkit::World, String) {
    let world = world_with_image();
    let repository = format!("{}/team/tiny", world.registry());
    for tag in ["1", "2"] {
        let name = format!("{repository}:{tag}");
        world.seatrial(["tag", "tiny:1", &name]).run().exits(0);
        world.seatrial(["push", &name]).run().exits(0);
    }
    (world, repository)
}

#[test]
fn repositories_and_tags_are_listed() {
    let (world, repository) = with_two_tags();
    let host = world.registry().to_string();
    let listed = world.seatrial(["registry", "ls", &host]).run().exits(0).stdout();
    assert_eq!(listed, format!("{repository}\n"));
    let tags = world.seatrial(["registry", "ls", &repository]).run().exits(0).stdout();
    let lines: Vec<Vec<&str>> = tags.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["TAG", "KIND", "DIGEST"]);
    assert_eq!((lines[1][..2].to_vec(), lines[2][..2].to_vec()), (vec!["1", "manifest"], vec!["2", "manifest"]));
    assert!(lines[1][2].starts_with("sha256:") && lines[1][2] == lines[2][2], "{tags}");
    assert_eq!(world.seatrial(["registry", "ls", "-q", &repository]).run().exits(0).stdout(), "1\n2\n");
    let format = "{{.Tag}} {{.Digest}}";
    let lines = world.seatrial(["registry", "ls", "--format", format, &repository]).run().exits(0).stdout();
    assert!(lines.starts_with("1 sha256:"), "{lines}");
    // A claim of a build number is nobody's name for an image.
    let claim = format!("{repository}:_build.7.3f2a91c");
    world.seatrial(["tag", "tiny:1", &claim]).run().exits(0);
    world.seatrial(["push", "-q", &claim]).run().exits(0);
    assert_eq!(world.seatrial(["registry", "ls", "-q", &repository]).run().exits(0).stdout(), "1\n2\n");
    let all = world.seatrial(["registry", "ls", "-q", "--all", &repository]).run().exits(0).stdout();
    assert_eq!(all, "1\n2\n_build.7.3f2a91c\n");
    let absent = format!("{host}/absent");
    world.seatrial(["registry", "ls", &absent]).run().exits(1).stderr_has("not found in the registry");
}

#[test]
fn an_image_is_shown_as_its_registry_has_it() {
    let (world, repository) = with_two_tags();
    let name = format!("{repository}:1");
    let shown = world.seatrial(["registry", "inspect", &name]).run().exits(0).stdout();
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let image = &value[0];
    assert_eq!(image["Layers"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!((image["Os"].as_str(), image["Size"].as_u64()), (Some("linux"), image["Layers"][0]["Size"].as_u64()));
    let id = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
    let ask = |more: &[&str]| {
        let command = world.seatrial(["registry", "inspect"]);
        more.iter().fold(command, |command, word| command.arg(word)).arg(&name).run().exits(0)
    };
    assert_eq!(ask(&["-f", "{{.Id}}"]).stdout(), id);
    let digest = ask(&["-f", "{{.Digest}}"]).stdout();
    let raw = ask(&["--raw"]);
    assert_eq!(oci::Digest::of(raw.stdout_bytes()).to_string(), digest.trim());
    assert_eq!(oci::Digest::of(ask(&["--config"]).stdout_bytes()).to_string(), id.trim());
}

#[test]
fn tags_and_images_are_removed_and_it_is_told_beforehand() {
    let (world, repository) = with_two_tags();
    let (one, two) = (format!("{repository}:1"), format!("{repository}:2"));
    let rm = |words: &[&str]| {
        let command = world.seatrial(["registry", "rm"]);
        words.iter().fold(command, |command, word| command.arg(word)).run()
    };
    let said = rm(&["--dry-run", &one]).exits(0).stdout();
    assert_eq!(said, format!("would remove {one}; the image stays as 2\n"));
    assert_eq!(world.registry_tags("team/tiny"), ["1", "2"]);
    rm(&[&one]).exits(0).stdout_has("removed");
    assert_eq!(world.registry_tags("team/tiny"), ["2"]);
    let digest = world.seatrial(["registry", "inspect", "-f", "{{.Digest}}", &two]).run().exits(0).stdout();
    let whole = format!("{repository}@{}", digest.trim());
    let said = rm(&["-n", &whole]).exits(0).stdout();
    assert_eq!(said, format!("would remove {whole} with 1 tag (2)\n"));
    rm(&[&whole]).exits(0);
    assert!(world.registry_tags("team/tiny").is_empty());
    rm(&[&two]).exits(1).stderr_has("not found in the registry");
    rm(&[&repository]).exits(2).stderr_has("names neither a tag nor a digest");
}

#[test]
fn images_go_through_layouts_and_archives() {
    let (world, repository) = with_two_tags();
    let name = format!("{repository}:1");
    let path = |name: &str| world.path(name).display().to_string();
    let copy = |from: &str, to: &str| world.seatrial(["copy", from, to]).run();
    let digest = world.seatrial(["registry", "inspect", "-f", "{{.Digest}}", &name]).run().exits(0).stdout();

    copy(&name, &format!("oci:{}", path("layout"))).exits(0).stderr_has("1 manifest, 2 blobs sent");
    copy(&format!("oci:{}:1", path("layout")), &format!("oci-archive:{}:one", path("app.tar"))).exits(0);
    let back = format!("{}/back/tiny", world.registry());
    let said = copy(&format!("oci-archive:{}", path("app.tar")), &back).exits(0).stdout();
    assert_eq!(said, format!("{back}@{digest}"));
    assert_eq!(world.registry_tags("back/tiny"), ["one"]);

    copy(&name, &format!("docker-archive:{}:tiny:7", path("docker.tar"))).exits(0);
    let id = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
    copy(&format!("docker-archive:{}", path("docker.tar")), &format!("{}/docker/tiny", world.registry())).exits(0);
    let seven = format!("{}/docker/tiny:7", world.registry());
    assert_eq!(world.seatrial(["registry", "inspect", "-f", "{{.Id}}", &seven]).run().exits(0).stdout(), id);
    copy(&format!("oci:{}:1", path("layout")), &format!("docker-archive:{}:again:1", path("again.tar"))).exits(0);
    world.seatrial(["load", &path("again.tar")]).run().exits(0).stdout_has("again:1");
    copy(&format!("docker-archive:{}", path("docker.tar")), &format!("oci:{}:d", path("second"))).exits(0);
    assert!(world.path("second/index.json").exists());

    copy(&format!("oci:{}:absent", path("layout")), &back).exits(1).stderr_has("there is 1");
    copy(&format!("oci:{}", path("nowhere")), &back).exits(2).stderr_has("there is no `index.json`");
    copy(&format!("docker-archive:{}:other:1", path("docker.tar")), &back).exits(1).stderr_has("has no image other:1");
}

#[test]
fn what_was_moved_is_told_with_its_rate() {
    let (world, repository) = with_two_tags();
    let name = format!("{repository}:1");
    world.seatrial(["push", &name]).run().exits(0).stderr_has("2 blobs already there");
    // A store that has nothing of it.
    let pull = |words: &[&str]| {
        let command = world.seatrial(["pull"]).env("SEATRIAL_HOME", world.path("other-store"));
        words.iter().fold(command, |command, word| command.arg(word)).run().exits(0)
    };
    let lines = pull(&["--progress=json", &name]).stdout();
    let finished = lines.lines().find(|line| line.contains("stage.finished")).unwrap_or_default();
    assert!(finished.contains(" in ") && finished.contains("1 layer, "), "{finished}");
    pull(&[&name]).stderr_has("2 blobs already there; 1 layer");
    assert_eq!(pull(&["-q", &name]).stderr(), "");
}

#[test]
fn publishing_moves_latest_forward_only_and_says_so_beforehand() {
    let world = world_with_image();
    let image = format!("{}/team/app", world.registry());
    world.file("Dockerfile", "FROM tiny:1\nARG VERSION\nENV VERSION=$VERSION\n");
    let yaml = |version: &str| {
        world.file(
            "seatrial.yaml",
            &format!(
                "image: {image}\nhealth: false\nbuild: {{args: {{VERSION: {version}}}}}\nversion: {{env: VERSION}}\n\
                 publish: {{tags: [\"${{version}}\", latest]}}\n"
            ),
        );
        world.commit();
    };
    yaml("1.10.0");
    world.seatrial(["run", "--publish"]).run().exits(0);
    yaml("1.9.1");
    world
        .seatrial(["run", "--publish", "--dry-run"])
        .run()
        .exits(0)
        .stderr_has("/team/app:1.9.1 would be written")
        .stderr_has("/team/app:latest would stay: the repository has 1.10.0, which is higher");
    assert_eq!(world.registry_tags("team/app"), ["1.10.0", "latest"]);
    world
        .seatrial(["run", "--publish"])
        .run()
        .exits(0)
        .stderr_has("/team/app:latest stays: the repository has 1.10.0, which is higher");
    assert_eq!(world.registry_tags("team/app"), ["1.10.0", "1.9.1", "latest"]);
    let digest = |tag: &str| {
        let name = format!("{image}:{tag}");
        world.seatrial(["registry", "inspect", "-f", "{{.Digest}}", &name]).run().exits(0).stdout()
    };
    assert_eq!(digest("latest"), digest("1.10.0"));
    assert_ne!(digest("latest"), digest("1.9.1"));
    world.seatrial(["publish", "-n", "--progress=json"]).run().exits(0).stdout_has("tag.foreseen");
}

#[test]
fn a_host_that_is_not_there_exits_3() {
    world().seatrial(["registry", "ls", "127.0.0.1:9"]).run().exits(3).stderr_has("registry cannot be reached");
}
