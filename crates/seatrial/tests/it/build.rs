//! `seatrial build`.

use expect_test::expect;

use crate::{world, world_with_image};

const DOCKERFILE: &str = "FROM tiny:1\nCOPY app.sh /app.sh\nRUN echo made > /made && cat /made\nCMD [\"/app.sh\"]\n";

#[test]
fn an_image_is_built_and_named() {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).program("app.sh", "#!/bin/sh\necho app\n");
    world.seatrial(["build", "-t", "app:1", "."]).run().exits(0).stdout_is(&expect![""]).stderr_has("PASS");
    world
        .seatrial(["images", "app"])
        .run()
        .exits(0)
        .stdout_has("REPOSITORY   TAG   IMAGE ID")
        .stdout_has("app          1     [ID]");
    world.seatrial(["shell", "app:1", "--", "/bin/cat", "/made"]).run().exits(0).stdout_is(&expect![[r#"
        made
    "#]]);
}

#[test]
fn quiet_prints_the_id_and_nothing_else() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nENV A=1\n");
    let first = world.seatrial(["build", "-q"]).run().exits(0).stderr_is(&expect![""]).stdout();
    let again = world.seatrial(["build", "-q"]).run().exits(0).stdout();
    assert_eq!(first, again);
    assert_eq!(first.trim().len(), "sha256:".len() + 64);
}

#[test]
fn a_second_build_takes_every_step_from_the_cache() {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).program("app.sh", "#!/bin/sh\n");
    world.seatrial(["build", "-t", "app"]).run().exits(0);
    world
        .seatrial(["build", "-t", "app", "--progress=quiet", "--format", "{{.StepsCached}} {{.Steps}}"])
        .run()
        .exits(0);
    let counts = world.seatrial(["build", "--format", "{{.StepsCached}}/{{.Steps}}"]).run().exits(0).stdout();
    let (cached, steps) = counts.trim().split_once('/').unwrap();
    assert_eq!(cached, steps);
}

#[test]
fn a_failing_instruction_is_shown_with_its_place_and_tail() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN echo one && echo two && false\n");
    world.seatrial(["build", "--progress=none"]).run().exits(1).stderr_is(&expect![[r#"
        ✗ build: `RUN echo one && echo two && false` exited 1 after TIMEs
         --> Dockerfile:2:1
          │ one
          │ two

        hint: enter the failed step's root filesystem with `seatrial shell 1 build`
    "#]]);
    world.seatrial(["shell", "1", "build", "--", "/bin/echo", "inside"]).run().exits(0).stdout_is(&expect![[r#"
        inside
    "#]]);
    world.seatrial(["logs", "1", "build"]).run().exits(0).stdout_has("two");
}

#[test]
fn a_missing_source_is_pointed_at() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCOPY ap.sh /app.sh\n").file("app.sh", "");
    let finished = world.seatrial(["build", "--progress=none"]).run().exits(2);
    let stderr = finished.stderr();
    assert!(stderr.contains("error[ST"), "{stderr}");
    assert!(stderr.contains(" --> Dockerfile:2:6\n"), "{stderr}");
    assert!(stderr.contains("2 | COPY ap.sh /app.sh\n  |      ^^^^^ did you mean `app.sh`?"), "{stderr}");
}

#[test]
fn wrong_invocations_exit_2() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\n");
    world.seatrial(["build", "--no-cahce"]).run().exits(2).stderr_has("--no-cache");
    let far = world.seatrial(["run", "--frobnicate"]).run().exits(2).stderr();
    assert!(far.contains("--frobnicate") && !far.contains("tip:"), "{far}");
    world.seatrial(["build", "--sbom"]).run().exits(2).stderr_is(&expect![[r#"
        error: attestations are kept with the name of an image, and this one has none

        hint: name it (`--tag NAME`): they go along when it is pushed
    "#]]);
    world.seatrial(["build", "-o", "type=nowhere"]).run().exits(2).stderr_has("`--output type=nowhere` is unknown");
    world.seatrial(["build", "nowhere"]).run().exits(2).stderr_has("there is no build context `nowhere`");
    world.seatrial(["build", "--push"]).run().exits(2).stderr_has("an image needs a name to be pushed");
    std::fs::remove_file(world.repo().join("Dockerfile")).unwrap();
    world.seatrial(["build"]).run().exits(2).stderr_is(&expect![[r#"
        error: there is no Dockerfile (nor Containerfile) in [WORLD]/repo

        hint: name one with `-f FILE`, or the directory that has one: `seatrial build DIRECTORY`
    "#]]);
}

#[test]
fn an_empty_variable_is_not_set() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nENV A=1\n");
    world.seatrial(["build"]).env("SEATRIAL_PROGRESS", "").env("SEATRIAL_TARGET", "").run().exits(0);
}

#[test]
fn mistakes_that_only_the_files_show_are_the_dockerfiles() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nWORKDIR /proc/self/fd/7\nRUN true\n");
    world.seatrial(["build"]).run().exits(2).stderr_has("--> Dockerfile:2");
    world.file("Dockerfile", "FROM tiny:1\nCOPY out /out\n");
    std::os::unix::fs::symlink("../../elsewhere", world.repo().join("out")).unwrap();
    world.seatrial(["build"]).run().exits(2).stderr_has("`out` is a link to `../../elsewhere`, which is not in the");
}

#[test]
fn flags_that_change_nothing_are_accepted() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\n");
    world
        .seatrial([
            "build",
            "--rm",
            "--force-rm=true",
            "--compress",
            "--disable-content-trust",
            "--load",
            "--provenance=false",
            "-q",
        ])
        .run()
        .exits(0);
}

#[test]
fn a_dockerfile_may_come_from_stdin() {
    let world = world_with_image();
    world.file("x", "content");
    world.seatrial(["build", "-q", "-"]).stdin("FROM tiny:1\nRUN true\n").run().exits(0);
    world.seatrial(["build", "-q", "-f", "-", "."]).stdin("FROM tiny:1\nCOPY x /x\n").run().exits(0);
}

#[test]
fn ids_and_metadata_are_written_to_files() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nLABEL a=b\n");
    world.seatrial(["build", "-q", "-t", "app:2", "--iidfile", "id", "--metadata-file", "meta.json"]).run().exits(0);
    let id = std::fs::read_to_string(world.repo().join("id")).unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    let metadata = std::fs::read_to_string(world.repo().join("meta.json")).unwrap();
    assert!(metadata.contains(&id) && metadata.contains("containerimage.digest"), "{metadata}");
}

#[test]
fn a_base_that_cannot_be_had_names_the_ways_without_a_registry() {
    let world = world_with_image();
    // Nothing listens on the discard port.
    world.file("Dockerfile", "FROM 127.0.0.1:9/base:1\n");
    let finished = world.seatrial(["build", "--progress=none"]).run().exits(3);
    let stderr = finished.stderr();
    for words in ["127.0.0.1:9/base:1", "seatrial base", "seatrial load", "--build-context"] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
}

#[test]
fn a_full_disk_is_named_with_its_place() {
    if !testkit::is_root() {
        return testkit::skip("only root can mount a small disk");
    }
    let world = world_with_image();
    world.seatrial(["save", "-o", "tiny.tar", "tiny:1"]).run().exits(0);
    let small = world.path("small");
    std::fs::create_dir(&small).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=400k tmpfs {small} && SEATRIAL_HOME={small}/store exec {} load tiny.tar",
        crate::PROGRAM,
        small = small.display()
    );
    // The mount lives and dies with this one process.
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir(world.repo())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stderr.contains("are free in the store"), "{stderr}");
    assert!(stderr.contains("seatrial clean"), "{stderr}");
}

#[test]
fn flags_can_be_given_in_the_environment() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN true\n");
    world.seatrial(["build", "-q"]).run().exits(0);
    let counts = |value: &str| {
        let session = world.seatrial(["build", "--format", "{{.StepsCached}}/{{.Steps}}"]);
        session.env("SEATRIAL_NO_CACHE", value).run().exits(0).stdout()
    };
    assert_eq!(counts("0"), "1/1\n");
    assert_eq!(counts("1"), "0/1\n");
    world.seatrial(["build"]).env("SEATRIAL_QUIET", "1").run().exits(0).stdout_has("sha256:");
    let epoch = |value: &str| world.seatrial(["build", "-q"]).env("SOURCE_DATE_EPOCH", value).run();
    epoch("soon").exits(2).stderr_has("SOURCE_DATE_EPOCH is `soon`");
    epoch("1700000000").exits(0);
}

#[test]
fn log_bytes_do_not_reach_the_terminal_as_commands() {
    let world = world_with_image();
    world.program(
        "noise.sh",
        "#!/bin/sh\necho '::error::mine'\necho '##[error]mine'\nprintf '\\033[2Jcleared\\033]0;title\\007\\n'\n",
    );
    world.file("Dockerfile", "FROM tiny:1\nCOPY noise.sh /\nRUN sh /noise.sh\n");
    let finished = world.seatrial(["build"]).env("GITHUB_ACTIONS", "true").env("CI", "true").run().exits(0);
    let stderr = finished.stderr();
    assert!(!stderr.contains('\u{1b}') && !stderr.contains("##["), "{stderr}");
    let token =
        stderr.lines().find_map(|line| line.strip_prefix("::stop-commands::")).expect("commands are switched off");
    let off = stderr.find("::stop-commands::").unwrap();
    let on = stderr.find(&format!("::{token}::\n")).expect("commands are switched on again");
    let mine = stderr.find("::error::mine").unwrap();
    assert!(off < mine && mine < on, "{stderr}");
    assert!(stderr.contains("    cleared\n"), "{stderr}");
}
