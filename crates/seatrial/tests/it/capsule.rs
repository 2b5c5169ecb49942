//! `seatrial capsule` and `seatrial replay`.

use testkit::World;

use crate::world_with_image;

/// A gate that fails on what is in the tree beside the commit.
fn failing() -> World {
    let world = world_with_image();
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY app /app\n")
        .file("app", "good\n")
        .file(".gitignore", "/ignored\n")
        .file(
            "seatrial.yaml",
            "test:\n  environment: {API_TOKEN: s3cr3t-value, MODE: test}\n  mounts: [new]\n  gates:\n    unit: \
             'echo token $API_TOKEN; grep good /app && cat new/file'\n    other: 'true'\n",
        )
        .file("new/file", "known\n")
        .commit();
    world.file("app", "bad\n").file("new/more", "not known to Git\n");
    world
}

#[test]
fn a_failure_happens_again_in_another_clone() {
    let world = failing();
    world.seatrial(["run"]).run().exits(1);
    let finished = world.seatrial(["capsule", "last", "-o", "f.capsule"]).run().exits(0);
    finished.stderr_has("seatrial replay f.capsule");
    let capsule = world.repo().join("f.capsule");

    let shown = world.seatrial(["replay", "--show", "f.capsule"]).run().exits(0).stdout();
    for words in ["\"failed\": [\n    \"unit\"", "\"MODE\"", "\"***\"", "sha256:", "\"has_patch\": true", "tiny:1"] {
        assert!(shown.contains(words), "`{words}` is missing in:\n{shown}");
    }
    assert!(!shown.contains("s3cr3t-value"), "{shown}");
    let plain = zstd::decode_all(std::fs::File::open(&capsule).unwrap()).unwrap();
    assert!(!plain.windows(12).any(|window| window == b"s3cr3t-value"), "no value that looks secret goes along");
    assert!(plain.windows(8).any(|window| window == b"token **"), "the log does, masked");

    // The user's tree has moved on; the capsule's has not.
    let (to, home) = (tempfile::tempdir().unwrap(), world.repo());
    let clone = std::process::Command::new("git").args(["clone", "-q"]).arg(&home).arg(to.path().join("c")).status();
    assert!(clone.unwrap().success());
    world.file("app", "good\n");
    let session = world.seatrial(["replay"]).arg(&capsule).cwd(to.path().join("c"));
    let finished = session.run().exits(1);
    finished
        .stderr_has("repeating `seatrial test unit`")
        .stderr_has("gate unit")
        .stderr_has("the image is the capsule's");
    assert_eq!(std::fs::read_to_string(to.path().join("c/app")).unwrap(), "good\n", "the clone is as it was");
    let session = world.seatrial(["shell", "last", "unit", "cat", "/app"]).run().exits(0);
    session.stdout_has("bad").stderr_has("is gone (`replay --keep` keeps a replay's)");

    // On a base that has changed meanwhile, the same failure says less.
    world
        .seatrial(["build", "--progress=none", "-t", "tiny:1", "-"])
        .stdin("FROM tiny:1\nRUN touch /other\n")
        .run()
        .exits(0);
    let session = world.seatrial(["replay"]).arg(&capsule).cwd(to.path().join("c"));
    session.run().exits(1).stderr_has("the image differs from the capsule's").stderr_has("its base tiny:1 was sha256:");
}

#[test]
fn what_cannot_be_a_capsule_is_refused() {
    let world = failing();
    world.file("app", "good\n");
    world.seatrial(["run"]).run().exits(0);
    world.seatrial(["capsule", "last"]).run().exits(1).stderr_has("capsules are made of runs that failed");
    world.file("x.capsule", "nonsense");
    world.seatrial(["replay", "x.capsule"]).run().exits(3).stderr_has("is no capsule of a run, or is damaged");
    // Git's configuration names programs that it runs.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    tar.append_data(&mut header, "untracked/.Git/config", &[][..]).unwrap();
    let packed = zstd::encode_all(&tar.into_inner().unwrap()[..], 0).unwrap();
    std::fs::write(world.repo().join("x.capsule"), packed).unwrap();
    world.seatrial(["replay", "x.capsule"]).run().exits(3).stderr_has("an entry is called `untracked/.Git/config`");
}

#[test]
fn secrets_stay_out_of_a_capsule() {
    let world = world_with_image();
    world
        .file("Dockerfile", "FROM tiny:1\n")
        .file("app", "x\n")
        .file(
            "seatrial.yaml",
            "secrets: {a: {file: key}, b: {environment: B_TOKEN}}\ntest: {gates: {unit: {run: exit 1, secrets: [a, b]}}}\n",
        )
        .commit();
    world.file("key", "in-a-file-0123\n").file("app", "in-the-environment-0123\n").file("other", "plain\n");
    world.seatrial(["run"]).env("B_TOKEN", "in-the-environment-0123").run().exits(1);
    world.seatrial(["capsule", "last", "-o", "f.capsule"]).run().exits(0);
    let plain = zstd::decode_all(std::fs::File::open(world.repo().join("f.capsule")).unwrap()).unwrap();
    let text = String::from_utf8_lossy(&plain);
    for secret in ["in-a-file-0123", "in-the-environment-0123"] {
        assert!(!text.contains(secret), "{secret}");
    }
    for words in ["key: it holds a secret", "changes of tracked files: they hold a secret", "plain"] {
        assert!(text.contains(words), "{words}");
    }
}

/// The names of a pipeline file mean something else by now; what failed is done again with what they meant.
#[test]
fn a_replay_has_the_services_of_the_run() {
    let world = world_with_image();
    let service = format!("{}/team/service:1", world.registry());
    world
        .file("Dockerfile", "FROM tiny:1\n")
        .file(
            "seatrial.yaml",
            &format!(
                "services:\n  db: {{image: \"{service}\", command: [sh, -c, 'ls /; exec sleep 60']}}\n\
                 test: {{gates: {{unit: {{run: 'false', services: [db]}}}}}}\nhealth: false\n"
            ),
        )
        .commit();
    world.seatrial(["tag", "tiny:1", &service]).run().exits(0);
    world.seatrial(["push", &service]).run().exits(0);
    world.seatrial(["rmi", &service]).run().exits(0);
    world.seatrial(["run"]).run().exits(1);
    world.seatrial(["capsule", "last", "-o", "f.capsule"]).run().exits(0);
    let shown = world.seatrial(["replay", "--show", "f.capsule"]).run().exits(0).stdout();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["used"][0]["by"], &shown["used"][0]["name"]),
        (&"db".into(), &service.as_str().into()),
        "{shown}"
    );
    assert!(shown["used"][0]["manifest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{shown}");

    let other = world.seatrial(["build", "--progress=none", "-t", &service, "-"]);
    other.stdin("FROM tiny:1\nRUN touch /of-today\n").run().exits(0);
    let finished = world.seatrial(["replay", "f.capsule"]).run().exits(1);
    assert!(!finished.stderr().contains("differs from the capsule's"), "{}", finished.stderr());
    let log = world.seatrial(["logs", "last", "db"]).run().exits(0).stdout();
    assert!(log.contains("bin") && !log.contains("of-today"), "{log}");
    // The run as it is today has the other one.
    world.seatrial(["run", "--rerun"]).run().exits(1);
    world.seatrial(["logs", "last", "db"]).run().exits(0).stdout_has("of-today");
}
