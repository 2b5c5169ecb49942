//! `seatrial run` and its parts.

use expect_test::expect;
use testkit::World;

use crate::{world, world_with_image};

const PIPELINE: &str = "\
image: REGISTRY/team/app
test:
  mounts: [tests]
  gates:
    style: sh tests/style.sh
    unit:
      - echo first
      - sh tests/unit.sh
health: {interval: 100ms, attempts: 20}
publish:
  when: [{branch: master}]
  tags: [\"${git.short}\", latest]
";

/// A service with two gates and a health check.
fn app() -> World {
    let world = world_with_image();
    let pipeline = PIPELINE.replace("REGISTRY", &world.registry().to_string());
    world
        .file(
            "Dockerfile",
            "FROM tiny:1\nWORKDIR /srv\nCOPY app.sh .\nHEALTHCHECK CMD cat /tmp/ready\nCMD [\"sh\", \"app.sh\"]\n",
        )
        .file("app.sh", "sleep 0.2; touch /tmp/ready; sleep 60\n")
        .file("tests/style.sh", "echo looks good\n")
        .file("tests/unit.sh", "test -f app.sh && echo 3 passed\n")
        .file("seatrial.yaml", &pipeline)
        .commit();
    world
}

#[test]
fn what_passes_is_tagged_and_published() {
    let world = app();
    let finished = world.seatrial(["run", "--publish"]).run().exits(0);
    let stderr = finished.stderr();
    for words in ["✓ passed in TIMEs", "2 gates", "published [REGISTRY]/team/app: "] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    let tags = world.registry_tags("team/app");
    assert_eq!(tags.len(), 2, "{tags:?}");
    assert!(tags.contains(&"latest".to_owned()), "{tags:?}");
}

#[test]
fn nothing_is_published_unasked() {
    let world = app();
    world.seatrial(["run"]).run().exits(0).stderr_has("not published");
    assert!(world.registry_tags("team/app").is_empty());
}

#[test]
fn a_failing_gate_blocks_the_push_and_says_how_to_go_on() {
    let world = app();
    world.file("tests/unit.sh", "echo 1 failed; exit 3\n");
    let finished = world.seatrial(["run", "--publish"]).run().exits(1);
    let stderr = finished.stderr();
    for words in [
        "✗ gate unit: `sh tests/unit.sh` exited 3 after TIMEs",
        " --> seatrial.yaml:8:9",
        "  │ 1 failed",
        "hint: enter the failed container with `seatrial shell 1 unit`",
        "hint: repeat this gate alone with `seatrial test unit`",
        "✗ failed in TIMEs",
    ] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    assert!(world.registry_tags("team/app").is_empty());
    world.seatrial(["logs", "1", "unit"]).run().exits(0).stdout_has("1 failed");
    world.seatrial(["shell", "1", "unit", "--", "/bin/ls", "tests"]).run().exits(0).stdout_has("unit.sh");
    world.seatrial(["logs"]).run().exits(0).stdout_has("failed");
}

#[test]
fn a_gate_that_cannot_start_says_why() {
    let world = world_with_image();
    world
        .file("Dockerfile", "FROM tiny:1\n")
        .file("seatrial.yaml", "test: {user: nobody2, gates: {a: 'true'}}\n")
        .commit();
    world.seatrial(["test"]).run().exits(1).stderr_has("cannot start a: ").stderr_has("nobody2");
}

#[test]
fn an_unhealthy_image_fails() {
    let world = app();
    world.file("app.sh", "echo starting; sleep 60\n");
    let pipeline = std::fs::read_to_string(world.repo().join("seatrial.yaml")).unwrap();
    world.file("seatrial.yaml", &pipeline.replace("attempts: 20", "attempts: 2"));
    let finished = world.seatrial(["health"]).run().exits(1);
    finished.stderr_has("✗ health check: not healthy in 2 attempts (");
    // Nothing but the Dockerfile says how it is checked.
    world.file("seatrial.yaml", "");
    let dockerfile = std::fs::read_to_string(world.repo().join("Dockerfile")).unwrap();
    let quick = dockerfile.replace("HEALTHCHECK ", "HEALTHCHECK --interval=100ms --retries=2 ");
    world.file("Dockerfile", &quick);
    let line = quick.lines().position(|line| line.starts_with("HEALTHCHECK")).unwrap() + 1;
    world.seatrial(["health"]).run().exits(1).stderr_has(&format!(" --> Dockerfile:{line}:1\n"));
    // It is entered with its environment.
    world.seatrial(["shell", "last", "health", "cat", "app.sh"]).run().exits(0).stdout_has("echo starting");
}

#[test]
fn what_the_build_checks_say_is_told_at_the_end() {
    let world = app();
    let dockerfile = std::fs::read_to_string(world.repo().join("Dockerfile")).unwrap();
    world.file("Dockerfile", &dockerfile.replace("FROM tiny:1", "FROM tiny:1 AS Base"));
    let told = "1 warning found (`seatrial check` shows them whole):\n   - StageNameCasing: stage name 'Base' should be \
                lowercase (Dockerfile:1)\n";
    world.seatrial(["test", "style"]).run().exits(0).stderr_has(told);
    world.file("Dockerfile", &format!("# check=error=true\n{}", dockerfile.replace("tiny:1", "tiny:1 AS Base")));
    let finished = world.seatrial(["run"]).run().exits(2);
    finished.stderr_has("error[ST201]: stage name 'Base'").stderr_has(" --> Dockerfile:2:");
    assert!(!world.seatrial(["logs"]).run().exits(0).stdout().contains("unfinished"), "it was no run");
}

#[test]
fn gates_run_alone_by_name() {
    let world = app();
    world.seatrial(["test", "style"]).run().exits(0).stderr_has("1 gate");
    let finished = world.seatrial(["test", "styl"]).run().exits(2);
    assert!(finished.stderr().contains("style"), "{}", finished.stderr());
}

#[test]
fn publishing_changes_that_no_commit_has_is_warned_of() {
    let world = app();
    world.file("tests/unit.sh", "exit 0\n");
    world.seatrial(["run"]).run().exits(0);
    world.seatrial(["run", "--publish"]).run().exits(0).stderr_has("warning: the working tree has changes");
}

#[test]
fn publish_needs_a_passing_run() {
    let world = app();
    world.seatrial(["publish"]).run().exits(1);
    assert!(world.registry_tags("team/app").is_empty());
    world.seatrial(["run"]).run().exits(0);
    world.seatrial(["publish"]).run().exits(0);
    assert_eq!(world.registry_tags("team/app").len(), 2);
}

#[test]
fn a_dockerfile_alone_is_enough() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCMD [\"true\"]\n").commit();
    world.seatrial(["run"]).run().exits(0).stderr_has("✓ passed in TIMEs");
}

#[test]
fn mistakes_in_the_file_are_pointed_at() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\n").file("seatrial.yaml", "image: localhost/x\ntest:\n  gate: {}\n");
    let finished = world.seatrial(["run"]).run().exits(2);
    assert!(finished.stderr().contains("did you mean `gates`?"), "{}", finished.stderr());
    assert!(finished.stderr().contains(" --> seatrial.yaml:3:3"), "{}", finished.stderr());
}

#[test]
fn events_are_json_lines() {
    let world = app();
    let finished = world.seatrial(["run", "--progress=json"]).run().exits(0);
    let stdout = finished.stdout();
    let names: Vec<&str> = stdout
        .lines()
        .map(|line| {
            assert!(line.starts_with("{\"v\":1,\"at_ms\":") && line.ends_with('}'), "{line}");
            line.split("\"event\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap()
        })
        .collect();
    assert_eq!(names.first(), Some(&"run.started"));
    assert_eq!(names.last(), Some(&"run.finished"));
    for name in ["image.built", "gate.finished", "health.finished", "step.log"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    finished.stderr_is(&expect![""]);
    let recorded = world.seatrial(["logs", "1", "--events"]).run().exits(0).stdout();
    assert_eq!(recorded.lines().count(), names.iter().filter(|name| **name != "transfer").count());
}

#[test]
fn the_pipeline_file_is_found_upwards() {
    let world = app();
    world.file("deep/er/x", "");
    world.seatrial(["config", "--format", "{{.name}}"]).cwd(world.repo().join("deep/er")).run().exits(0).stdout_is(
        &expect![[r#"
        app
    "#]],
    );
}

#[test]
fn a_tree_with_changes_leaves_the_commits_name_alone() {
    let world = app();
    world.seatrial(["publish"]).run().exits(1).stderr_has("this image has not passed its gates yet");
    world.seatrial(["run"]).run().exits(0);
    let git =
        std::process::Command::new("git").args(["rev-parse", "--short=7", "HEAD"]).current_dir(world.repo()).output();
    let short = String::from_utf8(git.unwrap().stdout).unwrap().trim().to_owned();
    let name = |tag: &str| format!("{}/team/app:{tag}", world.registry());
    let id = |tag: &str| world.seatrial(["inspect", "--format", "{{.Id}}", &name(tag)]).run().exits(0).stdout();
    let clean = id(&short);
    world.file("app.sh", "sleep 0.1; touch /tmp/ready; sleep 50\n");
    world.seatrial(["run"]).run().exits(0).stderr_has("-dirty");
    assert_eq!(id(&short), clean);
    assert_ne!(id(&format!("{short}-dirty")), clean);
}
