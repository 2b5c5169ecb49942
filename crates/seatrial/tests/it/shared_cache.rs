//! `--cache-to` and `--cache-from`: another machine, which is another store and another directory, takes the steps.

use std::{fs, path::Path};

use testkit::World;

use crate::world_with_image;

const DOCKERFILE: &str = "FROM tiny:1 AS made\nWORKDIR /w\nCOPY big /w/big\nRUN echo made > /w/made && touch /w/also\n\
                          FROM tiny:1\nCOPY app.sh /app.sh\nCOPY --from=made /w/made /made\nRUN true\n\
                          RUN echo last > /last\nCMD [\"/app.sh\"]\n";

/// Before all files of the sources, so that their times do not tell the machines apart.
const EPOCH: &str = "1700000000";

/// A machine with the sources of the same application.
fn machine() -> World {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).file("big", &"big ".repeat(10_000)).program("app.sh", "#!/bin/sh\n");
    world
}

/// Cached steps, steps, and the manifest's digest.
fn build(world: &World, arguments: &[&str]) -> (String, String) {
    let format = "{{.StepsCached}}/{{.Steps}} {{.Digest}}";
    let finished = world.seatrial(["build", "--progress=none", "--format", format]);
    let finished = finished.env("SOURCE_DATE_EPOCH", EPOCH);
    let finished = arguments.iter().fold(finished, |session, argument| session.arg(argument)).run().exits(0);
    let out = String::from_utf8_lossy(finished.stdout_bytes()).trim().to_owned();
    let (counts, digest) = out.split_once(' ').unwrap();
    (counts.to_owned(), digest.to_owned())
}

fn to(directory: &Path, options: &str) -> String {
    format!("type=local,dest={}{options}", directory.display())
}

fn from(directory: &Path) -> String {
    format!("type=local,src={}", directory.display())
}

fn blobs(directory: &Path) -> usize {
    fs::read_dir(directory.join("blobs/sha256")).unwrap().count()
}

#[test]
fn another_machine_takes_all_steps_from_a_directory() {
    let (first, second) = (machine(), machine());
    let cache = first.path("cache");
    let (counts, digest) = build(&first, &["--cache-to", &to(&cache, ",mode=max")]);
    assert_eq!(counts, "0/7");
    assert_eq!(build(&second, &["--cache-from", &from(&cache)]), ("7/7".into(), digest.clone()));
    // Only the layers of the image were fetched: nobody needs the other stage's content.
    let kept = second.store().join("snapshots");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1 + 4, "the base and the layers of the image");
    // From here on it has them itself.
    fs::rename(&cache, first.path("away")).unwrap();
    assert_eq!(build(&second, &[]).1, digest);
    // A step on top of the other stage needs that stage after all.
    fs::rename(first.path("away"), &cache).unwrap();
    let dockerfile = DOCKERFILE.replace("/w/made /made", "/w/also /made");
    let third = machine();
    third.file("Dockerfile", &dockerfile);
    let (counts, digest) = build(&third, &["--cache-from", &from(&cache)]);
    assert_eq!(counts, "4/7");
    first.file("Dockerfile", &dockerfile);
    assert_eq!(build(&first, &[]).1, digest);
}

#[test]
fn another_machine_takes_all_steps_from_a_registry() {
    let (first, second) = (machine(), machine());
    let name = format!("{}/app:cache", first.registry());
    let to = format!("type=registry,ref={name},mode=max,compression=zstd");
    // What was made without looking at a cache is as good for others.
    let (counts, digest) = build(&first, &["--no-cache", "--cache-to", &to]);
    assert_eq!(counts, "0/7");
    let from = ["--cache-from", name.as_str()];
    assert_eq!(build(&second, &from), ("7/7".into(), digest));
    assert_eq!(build(&second, &["--no-cache", "--cache-from", &name]).0, "0/7");
    // What it took it gives on, the stage that was never fetched included.
    let third = machine();
    let other = format!("{}/other:cache", first.registry());
    let fourth = machine();
    assert_eq!(
        build(&third, &["--cache-from", &name, "--cache-to", &format!("type=registry,ref={other},mode=max")]).0,
        "7/7"
    );
    assert_eq!(build(&fourth, &["--cache-from", &other, "--target", "made"]).0, "3/3");
}

#[test]
fn the_least_cache_holds_the_steps_of_the_image_only() {
    let (first, second) = (machine(), machine());
    let cache = first.path("cache");
    build(&first, &["--cache-to", &to(&cache, "")]);
    assert_eq!(build(&second, &["--cache-from", &from(&cache), "--target", "made"]).0, "0/3");
    let third = machine();
    assert_eq!(build(&third, &["--cache-from", &from(&cache)]).0, "4/7");
}

#[test]
fn an_image_carries_its_own_steps() {
    let (first, second) = (machine(), machine());
    let name = format!("{}/app:1", first.registry());
    let (_, digest) = build(&first, &["-t", &name, "--push", "--cache-to", "type=inline"]);
    assert_eq!(build(&second, &["--cache-from", &name]).0, "4/7");
    // Without the annotation it is another manifest of the same image.
    assert_ne!(build(&first, &[]).1, digest);
}

#[test]
fn a_cache_that_cannot_be_had_is_a_warning() {
    let world = machine();
    let check = |source: &str, words: &str| {
        // What is known here is asked of nobody.
        world.file("big", source);
        world.seatrial(["build", "--cache-from", source]).run().exits(0).stderr_has(words);
    };
    check("type=local,src=nowhere", "the cache [WORLD]/repo/nowhere is not used");
    check("127.0.0.1:9/app:cache", "is not used: cannot fetch");
    let name = format!("{}/app:none", world.registry());
    world.seatrial(["build", "--no-cache-filter=made", "--cache-from", &name]).run().exits(0);
    // That it cannot be written is an error, unless it may be.
    world.file("file", "");
    let to = "type=local,dest=file/cache";
    world.seatrial(["build", "--cache-to", to]).run().exits(3).stderr_has("cannot write the cache to");
    let ignored = format!("{to},ignore-error=true");
    world.seatrial(["build", "--cache-to", &ignored]).run().exits(0).stderr_has("cannot write the cache to");
}

#[test]
fn damaged_layers_are_noticed_and_made_here() {
    let (first, second) = (machine(), machine());
    let cache = first.path("cache");
    let (_, digest) = build(&first, &["--cache-to", &to(&cache, ",mode=max")]);
    let mut damaged = 0;
    for entry in fs::read_dir(cache.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 3, "{damaged}");
    let session = second.seatrial(["build", "--cache-from", &from(&cache), "--format", "{{.Digest}}"]);
    let finished = session.env("SOURCE_DATE_EPOCH", EPOCH).run().exits(0);
    let finished = finished.stderr_has("the build starts again without it");
    assert_eq!(String::from_utf8_lossy(finished.stdout_bytes()).trim(), digest);
}

#[test]
fn branches_have_scopes() {
    let machine = || {
        let world = machine();
        world.git(&["init", "-q", "-b", "main"]).git(&["add", "."]).git(&["commit", "-q", "-m", "one"]);
        world
    };
    let main = machine();
    let cache = main.path("cache");
    build(&main, &["--cache-to", &to(&cache, "")]);
    // A branch without a cache of its own reads the default branch's, and writes its own.
    let branch = machine();
    branch.git(&["checkout", "-q", "-b", "feature"]);
    branch.program("app.sh", "#!/bin/sh\necho feature\n");
    assert_eq!(build(&branch, &["--cache-from", &from(&cache), "--cache-to", &to(&cache, "")]).0, "0/7");
    let refused = branch.seatrial(["build", "--cache-to", &to(&cache, ",scope=main")]).run().exits(2);
    refused.stderr_has("the scope `main` belongs to the branch of that name");
    // So does a change request, whatever its branch is called.
    let request = machine();
    request.program("app.sh", "#!/bin/sh\necho request\n");
    let session = request.seatrial(["build", "--cache-to", &to(&cache, "")]);
    let session = session.env("GITHUB_EVENT_NAME", "pull_request").env("GITHUB_REF", "refs/pull/7/merge");
    session.run().exits(0);
    let index = fs::read_to_string(cache.join("index.json")).unwrap();
    for scope in ["main", "feature", "request..7"] {
        assert_eq!(index.matches(&format!("\"io.seatrial.cache.scope\":\"{scope}\"")).count(), 1, "{scope} in {index}");
    }
    // Each finds its own again; blobs that no scope needs any more are gone.
    let again = machine();
    assert_eq!(build(&again, &["--cache-from", &from(&cache)]).0, "4/7");
    let before = blobs(&cache);
    again.program("app.sh", "#!/bin/sh\necho again\n");
    build(&again, &["--cache-to", &to(&cache, "")]);
    assert_eq!(blobs(&cache), before);
    // An older build does not replace what a newer one wrote.
    let index = fs::read_to_string(cache.join("index.json")).unwrap();
    let later = index.replace("\"io.seatrial.cache.began\":\"", "\"io.seatrial.cache.began\":\"9");
    fs::write(cache.join("index.json"), &later).unwrap();
    let late = again.seatrial(["build", "--cache-to", &to(&cache, "")]).run().exits(0);
    late.stderr_has("was written by a build that began later");
    assert_eq!(fs::read_to_string(cache.join("index.json")).unwrap(), later);
}

#[test]
fn cache_mounts_come_along_on_request() {
    let dockerfile = "FROM tiny:1\nARG V\nRUN --mount=type=cache,target=/cache ls /cache && echo $V > /cache/$V\n";
    let machine = || {
        let world = world_with_image();
        world.file("Dockerfile", dockerfile);
        world
    };
    let (first, second) = (machine(), machine());
    let cache = first.path("cache");
    build(&first, &["--build-arg", "V=one", "--cache-to", &to(&cache, ",cache-mounts=true")]);
    let build = |world: &World, value: &str| {
        let arguments = ["build", "--build-arg", value, "--cache-from", &from(&cache)];
        world.seatrial(arguments).run().exits(0).stderr()
    };
    let seen = build(&second, "V=two");
    assert!(seen.contains("    one\n"), "{seen}");
}

#[test]
fn services_of_others_are_refused_with_a_way_out() {
    let world = machine();
    for flag in ["--cache-from", "--cache-to"] {
        world.seatrial(["build", flag, "type=gha"]).run().exits(2).stderr_has("is not offered");
    }
}
