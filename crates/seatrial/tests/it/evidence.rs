//! Signed evidence: made by a run, found by `evidence`, judged by `verify`, taken along by `copy`.

use std::fs;

use testkit::{Finished, World};

use crate::{world, world_with_image};

pub(crate) const PIPELINE: &str = "\
image: REGISTRY/team/app
trust: {keys: [keys/release.pub, keys/other.pub], pull: [signature, gates]}
test:
  mounts: [tests]
  gates:
    unit: sh tests/unit.sh
    style: {run: 'false', allow_failure: true}
health: false
publish:
  tags: [\"1.0\"]
  sign: {key: \"env://COSIGN_KEY\"}
";

/// A published service, and the name of its image. The key is `release.key`, with a password.
fn published() -> (World, String) {
    let world = world_with_image();
    let name = publish_to(&world, &world.registry().to_string(), "");
    (world, name)
}

/// The service of this world, published to a registry; the name of its image. `more` stands in the pipeline file as well.
pub(crate) fn publish_to(world: &World, registry: &str, more: &str) -> String {
    let pipeline = PIPELINE.replace("REGISTRY", registry) + more;
    make_keys(world);
    world
        .file("Dockerfile", "FROM tiny:1\nARG COLOUR=red\nCOPY app.sh /\n")
        .file("app.sh", "echo hello\n")
        .file("tests/unit.sh", "test -f /app.sh\n")
        .file("seatrial.yaml", &pipeline)
        .commit()
        .git(&["remote", "add", "origin", "https://ann:secret@git.example/team/app.git"]);
    publish(world).exits(0).stderr_has("6 statements signed by SHA256:");
    format!("{registry}/team/app:1.0")
}

/// `release.key`, with a password, and `other.key`; their public halves are in the repository as well.
pub(crate) fn make_keys(world: &World) {
    world.seatrial(["keys", "generate", "../release"]).env("COSIGN_PASSWORD", "open sesame").run().exits(0);
    world.seatrial(["keys", "generate", "../other", "--type", "ed25519"]).run().exits(0);
    for name in ["release.pub", "other.pub"] {
        world.file(&format!("keys/{name}"), &fs::read_to_string(world.path(name)).expect("the key was made"));
    }
}

pub(crate) fn publish(world: &World) -> Finished {
    let key = fs::read_to_string(world.path("release.key")).expect("the key was made");
    world.seatrial(["run", "--publish"]).env("COSIGN_KEY", key).env("COSIGN_PASSWORD", "open sesame").run()
}

pub(crate) fn verify(world: &World, image: &str, words: &[&str]) -> Finished {
    words.iter().fold(world.seatrial(["verify", image]), |session, word| session.arg(word)).run()
}

fn listed(world: &World, image: &str, key: &str) -> Vec<serde_json::Value> {
    let lines = world.seatrial(["evidence", image, "--key", key, "--format", "json"]).run().exits(0).stdout();
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_a_run_found_out_is_signed_and_attached_to_what_it_published() {
    let (world, name) = published();
    let mut kinds: Vec<(String, bool)> = listed(&world, &name, "../release.pub")
        .iter()
        .map(|piece| (piece["Kind"].as_str().expect("a text").to_owned(), piece["Verified"] == true))
        .collect();
    kinds.sort();
    let expected = ["gate style failed", "gate unit passed", "provenance", "sbom (SPDX)", "signature", "summary"];
    assert_eq!(kinds, expected.map(|kind| (kind.to_owned(), true)));
    assert!(listed(&world, &name, "../other.pub").iter().all(|piece| piece["Verified"] == false));
    // The tags are those that were asked for: evidence has none.
    assert_eq!(world.registry_tags("team/app"), ["1.0"]);

    let pieces = listed(&world, &name, "../release.pub");
    let of = |kind: &str| {
        let piece = pieces.iter().find(|piece| piece["Kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
        piece["Statement"].clone()
    };
    let provenance = of("provenance");
    let source = &provenance["predicate"]["buildDefinition"]["externalParameters"]["source"];
    assert_eq!(source["uri"], "git+https://git.example/team/app", "{provenance}");
    assert_eq!(source["ref"], "refs/heads/master");
    let gate = of("gate unit passed");
    let commit = gate["subject"][1]["digest"]["gitCommit"].as_str().expect("a commit");
    assert_eq!(provenance["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"], commit);
    let names: Vec<&str> = gate["predicate"]["configuration"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|part| part["name"].as_str())
        .collect();
    assert_eq!(names, ["gate unit", "mount /tests"]);

    // The same run again says nothing new; another one of the same digest does.
    publish(&world).exits(0).stderr_has("6 statements signed by SHA256:");
    assert_eq!(listed(&world, &name, "../release.pub").len(), expected.len());
    world.file("README", "no part of the image\n").commit();
    publish(&world).exits(0);
    let again = listed(&world, &name, "../release.pub");
    let commits: std::collections::BTreeSet<String> = again
        .iter()
        .filter(|piece| piece["Kind"] == "provenance")
        .map(|piece| piece["Statement"]["predicate"]["buildDefinition"]["resolvedDependencies"][0].to_string())
        .collect();
    assert_eq!(commits.len(), 2, "each commit has its own provenance");

    // Nor does a key service that makes another signature of the same each time.
    let program = "[ \"$1\" = public-key ] && exec cat ../kms.pub; exec openssl dgst -sha256 -sign ../kms.key\n";
    fs::write(world.path("kms"), program).expect("written");
    let made =
        "openssl ecparam -name prime256v1 -genkey -noout -out kms.key && openssl pkey -in kms.key -pubout -out kms.pub";
    let made = std::process::Command::new("sh").args(["-c", made]).current_dir(world.path(".")).status();
    assert!(made.expect("openssl is installed").success());
    for _ in 0..2 {
        world.seatrial(["run", "--publish", "--sign-key", "exec://sh ../kms"]).run().exits(0);
        let by_service = listed(&world, &name, "../kms.pub").iter().filter(|piece| piece["Verified"] == true).count();
        assert_eq!(by_service, expected.len());
    }
}

#[test]
fn what_is_there_verifies_and_what_is_missing_is_named() {
    let (world, name) = published();
    verify(&world, &name, &["--key", "../release.pub"]).exits(0).stdout_has("/team/app@sha256:");
    verify(&world, &name, &["--key", "../other.pub"])
        .exits(1)
        .stderr_has("is not verified: no signature (6 found that are not signed by a trusted key, or changed since)");
    // What is no key is a mistake, and nobody reads a whole disk for it.
    fs::write(world.path("big.pub"), vec![b'\n'; 2 << 20]).expect("it can be written");
    verify(&world, &name, &["--key", "../big.pub"]).exits(2).stderr_has("cannot read the key ../big.pub");
    verify(&world, &name, &["--key", "/dev/zero"]).exits(2).stderr_has("longer than");
    verify(&world, &name, &["--key", "../other.key"]).exits(2).stderr_has("../other.key is a private key");
    // Without a key or a policy, what the pipeline file here asks of such images.
    verify(&world, &name, &[]).exits(0).stderr_has("✓ gates: by release");
    world.seatrial(["verify", "elsewhere.example/app"]).run().exits(2).stderr_has("nothing says what");
    world.file(
        "policy.yaml",
        "keys: {release: ../release.pub, security: ../other.pub}\nrequire: [signature, provenance, sbom, gates]\n\
         gates: [unit]\nprovenance: {source: \"https://git.example/team/*\", ref: refs/heads/master}\nmax_age: 1d\n",
    );
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(0).stderr_has("✓ gate unit: by release");
    world.file(
        "policy.yaml",
        "keys: {release: ../release.pub, security: ../other.pub}\nsigned_by: [security]\ngates: [unit, style, e2e]\n\
         exceptions: [{for: gate e2e, until: 2020-01-01}]\n",
    );
    let finished = verify(&world, &name, &["--policy", "policy.yaml", "--format", "json"]).exits(1);
    let report: serde_json::Value = serde_json::from_str(&finished.stdout()).expect("JSON");
    let failed: Vec<&str> = report["Checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|check| check["Passed"] == false)
        .filter_map(|check| check["Requirement"].as_str())
        .collect();
    assert_eq!(failed, ["signature by security", "gate style", "gate e2e", "exceptions"]);
    world.file("policy.yaml", "require: [signature]\nsigned-by: [security]\n");
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(2).stderr_has("policy.yaml is no policy");
}

#[test]
fn evidence_travels_with_a_copy_and_not_to_another_image() {
    let (world, name) = published();
    let copy = format!("{}/elsewhere/app:1.0", world.registry());
    world.seatrial(["copy", &name, &copy]).run().exits(0).stderr_has("6 referrers about it");
    verify(&world, &copy, &["--key", "../release.pub", "--require", "signature,gates"]).exits(0);
    // Through a layout on a disk, too.
    let (layout, third) = (world.path("layout").display().to_string(), format!("{}/third/app:1.0", world.registry()));
    world.seatrial(["copy", &name, &format!("oci:{layout}")]).run().exits(0);
    world.seatrial(["copy", &format!("oci:{layout}"), &third]).run().exits(0);
    verify(&world, &third, &["--key", "../release.pub", "--require", "signature,gates"]).exits(0);
    // Another image of the same repository has nothing of it.
    let tiny = format!("{}/team/app:tiny", world.registry());
    world.seatrial(["tag", "tiny:1", &tiny]).run().exits(0);
    world.seatrial(["push", &tiny]).cwd(world.path("home")).run().exits(0);
    verify(&world, &tiny, &["--key", "../release.pub"]).exits(1).stderr_has("is not verified: no signature");
    world.seatrial(["evidence", &tiny]).run().exits(0).stderr_has("nothing is said of");
}

#[test]
fn a_key_that_cannot_be_used_stops_the_run_before_anything_has_a_name() {
    let world = world_with_image();
    let pipeline = PIPELINE.replace("REGISTRY", &world.registry().to_string());
    make_keys(&world);
    world.file("Dockerfile", "FROM tiny:1\n").file("tests/unit.sh", "true\n").file("seatrial.yaml", &pipeline).commit();
    world
        .seatrial(["run", "--publish"])
        .run()
        .exits(2)
        .stderr_has("cannot sign with env://COSIGN_KEY")
        .stderr_has("not set");
    assert!(world.registry_tags("team/app").is_empty());
    // That is known before anything is built.
    let encrypted = fs::read_to_string(world.path("release.key")).expect("the key was made");
    let run = world.seatrial(["run", "--publish"]).env("COSIGN_KEY", &encrypted).run();
    let told = run.exits(2).stderr_has("there is no password").stderr();
    assert!(!told.contains("PASS ["), "{told}");
    // A program of the pipeline file is started where the machine's owner allows it.
    world.file("seatrial.yaml", &pipeline.replace("env://COSIGN_KEY", "exec://touch ../started")).commit();
    world.seatrial(["run", "--publish"]).run().exits(2).stderr_has("which this machine does not allow");
    assert!(!world.path("started").exists());
}

#[test]
fn images_are_used_only_with_the_evidence_that_is_asked_of_them() {
    let (world, name) = published();
    let unsigned = format!("{}/team/tiny:1", world.registry());
    world.seatrial(["tag", "tiny:1", &unsigned]).run().exits(0);
    world.seatrial(["push", &unsigned]).run().exits(0);
    let trust = |keys: &str| format!("trust: {{keys: [{keys}], pull: [signature, gates]}}\n");
    let build = |base: &str, trust: &str, more: &str| {
        let image = format!("image: {}/team/second\n", world.registry());
        world.file("Dockerfile", &format!("FROM {base}\nCOPY app.sh /again\n"));
        world.file("seatrial.yaml", &format!("{image}{trust}health: false\n{more}"));
        world.seatrial(["run"]).run()
    };
    // What is in the store already is judged as well: nobody knows how it came there.
    build(&name, &trust("keys/release.pub"), "").exits(0);
    build(&name, &trust("keys/other.pub"), "")
        .exits(1)
        .stderr_has("is not trusted: no signature")
        .stderr_has("Dockerfile:1");
    build(&unsigned, &trust("keys/release.pub"), "").exits(1).stderr_has("is not trusted: no signature; no summary");
    // Other registries' images are not spoken of, nor is what is in no registry.
    build("tiny:1", &trust("keys/release.pub"), "").exits(0);
    build(&unsigned, "trust: {elsewhere.example/: {keys: keys/release.pub, pull: signature}}\n", "").exits(0);
    // Images of gates are as bases are.
    let gate = format!("test: {{gates: {{a: {{in: \"{unsigned}\", run: 'true'}}}}}}\n");
    build("tiny:1", &trust("keys/release.pub"), &gate).exits(1).stderr_has("is not trusted");
    // So is what is pulled; and of lists of packages those come first that a trusted key has signed.
    let pull = |image: &str| world.seatrial(["pull", "-q", image]).env("SEATRIAL_HOME", world.path("pulled"));
    pull(&unsigned).run().exits(1).stderr_has("team/tiny:1 is not trusted: no signature; no summary");
    pull(&unsigned).cwd(world.path("home")).run().exits(0);
    pull(&name).run().exits(0);
    let attached = || world.seatrial(["sbom", "--attached", &name]).run().exits(0).stderr();
    assert!(!attached().contains("warning"), "a trusted key has signed it");
    world.file("seatrial.yaml", &format!("image: {}/team/second\n{}", world.registry(), trust("keys/other.pub")));
    assert!(attached().contains("no key that `trust` names has signed this list"));
    // So are bases of `build` and images of services that are brought up, as the file that stands here says.
    build(&name, &trust("keys/release.pub"), "").exits(0);
    world.seatrial(["build"]).run().exits(0);
    world.file("Dockerfile", &format!("FROM {unsigned}\n"));
    world.seatrial(["build"]).run().exits(1).stderr_has("is not trusted: no signature").stderr_has("Dockerfile:1");
    world
        .seatrial(["build", "."])
        .cwd(world.path("home"))
        .arg("-f")
        .arg(world.repo().join("Dockerfile"))
        .run()
        .exits(0);
    world.seatrial(["build"]).arg(world.repo()).cwd(world.path("home")).run().exits(1).stderr_has("is not trusted");
    let up = |image: &str| {
        world.file(
            "compose.yaml",
            &format!("name: judged\nservices: {{a: {{image: \"{image}\", command: sleep 100}}}}\n"),
        );
        let up = world.seatrial(["up", "-d"]).run();
        world.seatrial(["down"]).run().exits(0);
        up
    };
    up(&unsigned).exits(1).stderr_has("is not trusted: no signature");
    up(&name).exits(0);
    // Where images are only used there is no Dockerfile.
    fs::remove_file(world.repo().join("Dockerfile")).expect("it was written");
    let rule = format!("trust: {{\"{}/\": {{keys: [keys/release.pub], pull: [signature]}}}}\n", world.registry());
    world.file("seatrial.yaml", &rule);
    up(&unsigned).exits(1).stderr_has("is not trusted: no signature");
    up(&name).exits(0);
    world.seatrial(["run"]).run().exits(2).stderr_has("there is no Dockerfile in the build context");
    world.file("Dockerfile", &format!("FROM {unsigned}\n"));
    // What cannot be judged is not used; whose key is no key has made a mistake.
    world.file("keys/release.pub", "no key\n");
    up(&name).exits(2).stderr_has("is not a public key");
    world.seatrial(["build"]).run().exits(2).stderr_has("is not a public key");
    fs::remove_file(world.repo().join("compose.yaml")).expect("it was written");
    for (pull, message) in [("signatures", "did you mean `signature`?"), ("gates", "does not say of which images")] {
        world.file("seatrial.yaml", &format!("trust: {{keys: [keys/release.pub], pull: [{pull}]}}\n"));
        world.seatrial(["run"]).run().exits(2).stderr_has(message);
    }
}

#[test]
fn a_service_without_its_signature_is_refused_before_it_starts() {
    let (world, name) = published();
    let unsigned = format!("{}/team/tiny:1", world.registry());
    world.seatrial(["tag", "tiny:1", &unsigned]).run().exits(0);
    world.seatrial(["push", "-q", &unsigned]).run().exits(0);
    world.file("Dockerfile", "FROM tiny:1\nCOPY app.sh /third\n");
    let run = |image: &str, wanted: &str, key: &str| {
        let registry = world.registry();
        world.file(
            "seatrial.yaml",
            &format!(
                "image: {registry}/team/third\ntrust: {{\"{registry}/\": {{keys: [keys/{key}]}}}}\n\
                 services: {{db: {{image: \"{image}\", command: [sleep, '300'], verify: [{wanted}]}}}}\n\
                 test: {{links: [db], gates: {{unit: 'true'}}}}\nhealth: false\n"
            ),
        );
        world.seatrial(["run"]).run()
    };
    let events = || world.seatrial(["logs", "last", "--events"]).run().exits(0).stdout();
    run(&name, "signature, gates", "release.pub").exits(0);
    assert!(events().contains("\"service.ready\""));
    // Another key, an image without evidence, and one that is in the store as well.
    for (image, key) in [(&name, "other.pub"), (&unsigned, "release.pub")] {
        run(image, "signature", key)
            .exits(1)
            .stderr_has("service db: image ")
            .stderr_has("is not trusted: no signature");
        let told = events();
        assert!(!told.contains("\"service.ready\"") && !told.contains("\"step.started\""), "{told}");
        assert!(told.contains("\"unit\"") && told.contains("\"skipped\""), "{told}");
    }
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn an_ordinary_user_signs_verifies_and_lists() {
    use std::os::unix::{
        ffi::OsStringExt as _,
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    };
    if !testkit::is_root() {
        return testkit::skip("only root can become another user; the other tests run as this one");
    }
    let Some((user, group)) = testkit::user_with_subordinate_ids() else {
        return testkit::skip("no user has an entry in /etc/subuid and /etc/subgid");
    };
    let world = world_with_image();
    let directory = tempfile::Builder::new().prefix("evidence-").tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    // Copies, since that user may not be able to reach the build directory.
    fs::copy(crate::PROGRAM, at("seatrial")).expect("the program can be copied");
    fs::copy(world.path("tiny.tar"), at("tiny.tar")).expect("the image can be copied");
    fs::set_permissions(at("tiny.tar"), fs::Permissions::from_mode(0o644)).expect("modes can be set");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("modes can be set");
    for name in ["home", "home/repo"] {
        fs::create_dir(at(name)).expect("made");
        chown(at(name), Some(user), Some(group)).expect("root gives files away");
    }
    let become_user = |program: &std::path::Path, words: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("HOME", at("home")), ("TMPDIR", at("home"))]);
        command
            .env("COSIGN_KEY", fs::read(at("home/release.key")).map(std::ffi::OsString::from_vec).unwrap_or_default());
        command.env("NO_COLOR", "1").current_dir(at("home/repo")).uid(user).gid(group);
        let output = command.stdin(std::process::Stdio::null()).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "as user {user}, {words:?}: {told}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), told)
    };
    let seatrial = |words: &[&str]| become_user(&at("seatrial"), words);
    let pipeline = PIPELINE.replace("REGISTRY", &world.registry().to_string());
    let pipeline = pipeline.replace(", keys/other.pub", "");
    seatrial(&["keys", "generate", "../release"]);
    fs::create_dir(at("home/repo/tests")).expect("made");
    fs::create_dir(at("home/repo/keys")).expect("made");
    fs::copy(at("home/release.pub"), at("home/repo/keys/release.pub")).expect("copied");
    for (name, text) in [
        ("Dockerfile", "FROM tiny:1\nCOPY package.json /node_modules/a/\n"),
        ("package.json", r#"{"name":"a","version":"1.0.0"}"#),
        ("tests/unit.sh", "true\n"),
        ("seatrial.yaml", &pipeline),
    ] {
        fs::write(at("home/repo").join(name), text).expect("written");
    }
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=ann", "-c", "user.email=ann@localhost"];
        become_user(std::path::Path::new("git"), &[&identity[..], words].concat())
    };
    git(&["init", "-q"]);
    git(&["add", "--all"]);
    git(&["commit", "-qm", "First"]);
    seatrial(&["load", "-q", "--name", "tiny:1", at("tiny.tar").to_str().expect("text")]);
    let (_, told) = seatrial(&["run", "--publish"]);
    assert!(told.contains("6 statements signed by SHA256:"), "{told}");
    let name = format!("{}/team/app:1.0", world.registry());
    let (_, told) = seatrial(&["verify", &name, "--content"]);
    assert!(told.contains("✓ gates: by release") && told.contains("✓ content: "), "{told}");
    let (listed, _) = seatrial(&["evidence", &name]);
    assert_eq!(listed.matches("verified").count(), 6, "{listed}");
    let (packages, _) = seatrial(&["sbom", &name, "--format", "{{.Purl}}"]);
    assert_eq!(packages, "pkg:npm/a@1.0.0\n");
    let copy = format!("{}/elsewhere/app:1.0", world.registry());
    seatrial(&["copy", &name, &copy]);
    seatrial(&["verify", &copy, "--key", "../release.pub", "--require", "signature,gates"]);
}

#[test]
fn verdicts_of_elsewhere_count_when_a_trusted_key_has_signed_them() {
    let (world, _) = published();
    let key = fs::read_to_string(world.path("release.key")).expect("the key was made");
    // Another machine: nothing of the run is known there.
    let other = |words: &[&str]| {
        let session = world.seatrial(words).env("SEATRIAL_HOME", world.path("other-store"));
        session.env("COSIGN_KEY", &key).env("COSIGN_PASSWORD", "open sesame")
    };
    other(&["load", "--name", "tiny:1"]).arg(world.path("tiny.tar")).run().exits(0);
    other(&["publish"]).run().exits(0).stderr_has("published");
    // Another commit has passed nowhere.
    world.file("app.sh", "echo goodbye\n").git(&["commit", "--quiet", "--all", "--message", "Second"]);
    other(&["publish"]).run().exits(1).stderr_has("this image has not passed its gates yet");
    // Nor is it pushed by hand as what the pipeline publishes.
    let name = format!("{}/team/app:2.0", world.registry());
    other(&["build", "-q", "-t", &name, "."]).run().exits(0);
    other(&["push", &name]).run().exits(1).stderr_has("has not passed the gates of the pipeline file here");
    assert_eq!(world.registry_tags("team/app"), ["1.0"]);
}

#[test]
fn keys_are_made_once_and_kept_from_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = world();
    let finger = world.seatrial(["keys", "generate"]).run().exits(0).stderr_has("has no password").stdout();
    let mode = fs::metadata(world.repo().join("seatrial.key")).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(world.repo().join("seatrial.key")).expect("it is read");
    world.seatrial(["keys", "generate"]).run().exits(2).stderr_has("is not written over");
    assert_eq!(fs::read(world.repo().join("seatrial.key")).expect("it is read"), before);
    for key in ["seatrial.key", "seatrial.pub"] {
        let shown = world.seatrial(["keys", "public", key]).run().exits(0).stdout();
        assert_eq!(shown, fs::read_to_string(world.repo().join("seatrial.pub")).expect("it is read"));
        assert_eq!(world.seatrial(["keys", "public", "--fingerprint", key]).run().exits(0).stdout(), finger);
    }
}
