//! Help, settings, and the commands that need no store.

use expect_test::expect;

use crate::world;

#[test]
fn help_groups_the_commands() {
    for help in ["--help", "help"] {
        world().seatrial([help]).run().exits(0).stdout_has("Pipeline:\n  run ").stderr_is(&expect![""]);
    }
    world().seatrial(["help", "run"]).run().exits(0).stdout_has("--publish");
    let finished = world().seatrial(["bild"]).run().exits(2);
    assert!(finished.stderr().contains("'build'"), "{}", finished.stderr());
}

#[test]
fn run_with_an_image_answers_with_a_hint() {
    world().seatrial(["run", "alpine", "ls"]).run().exits(2).stderr_is(&expect![[r#"
        error: `seatrial run` runs the pipeline of a repository, and takes no image

        hint: start a command in an image with `seatrial shell alpine ls`
        hint: start a command in a service that is up with `seatrial exec SERVICE COMMAND`
    "#]]);
}

#[test]
fn who_types_docker_run_hears_what_does_it_here() {
    let hint = |words: &[&str], expected: &str| {
        let finished = world().seatrial(words.iter().copied()).run().exits(2);
        finished.stderr_has("unexpected argument").stderr_has(expected);
    };
    hint(&["run", "alpine", "-x"], "hint: start a command in an image with `seatrial shell alpine -- -x`\n");
    hint(
        &["run", "-it", "--rm", "-e", "A=b c", "alpine", "sh", "-c", "echo hi"],
        "hint: start a command in an image with `seatrial shell -e 'A=b c' alpine sh -c 'echo hi'`\n",
    );
    hint(
        &["-C", ".", "run", "-d", "-p", "8080:80", "nginx"],
        "hint: keep containers, with ports and volumes, as services of a Compose file: `seatrial up`\n",
    );
    hint(
        &["run", "alpine", "-x"],
        "hint: start a command in a service that is up with `seatrial exec SERVICE COMMAND`\n",
    );
    // A slip in one of our own flags has clap's answer, and so has one that docker does not explain.
    for words in [["run", "web", "--publsh"].as_slice(), &["run", "--nonsense"], &["build", "--nonsense", "x"]] {
        let finished = world().seatrial(words.iter().copied()).run().exits(2);
        assert!(!finished.stderr().contains("hint:"), "{}", finished.stderr());
    }
}

#[test]
fn nothing_to_build_says_where_to_begin() {
    world().seatrial(["run"]).run().exits(2).stderr_is(&expect![[r#"
        error: no `seatrial.yaml` and no Dockerfile in [WORLD]/repo

        hint: go to a repository that has one, or begin with `seatrial init`
        hint: see it work first: `seatrial demo`
    "#]]);
}

#[test]
fn a_pipeline_file_that_is_not_there_is_a_mistake_of_the_invocation() {
    world().seatrial(["run", "-f", "other.yaml"]).run().exits(2).stderr_has("the pipeline file does not exist");
}

#[test]
fn a_runtime_that_is_not_there_is_a_mistake_of_the_invocation() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nLABEL a=b\n");
    world.seatrial(["build", "--runtime", "/nosuch"]).run().exits(2).stderr_has("there is no OCI runtime /nosuch");
}

#[test]
fn codes_are_explained() {
    let world = world();
    world.seatrial(["explain", "st104"]).run().exits(0).stdout_has("ST104: ");
    world.seatrial(["explain"]).run().exits(0).stdout_has("ST101");
    world
        .seatrial(["explain", "StageNameCasin"])
        .run()
        .exits(2)
        .stderr_has("did you mean `seatrial explain StageNameCasing`?");
}

#[test]
fn generated_texts_are_whole() {
    let world = world();
    for shell in ["bash", "zsh", "fish"] {
        world.seatrial(["completions", shell]).run().exits(0).stdout_has("seatrial");
    }
    world.seatrial(["schema"]).run().exits(0).stdout_has("\"$schema\"");
    world.seatrial(["man", "pages"]).run().exits(0);
    assert!(world.repo().join("pages/seatrial-build.1").is_file());
    assert!(world.repo().join("pages/seatrial.1").is_file());
}

#[test]
fn init_writes_a_file_once() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\n");
    world.seatrial(["init"]).run().exits(0).stderr_is(&expect![[r#"
        wrote seatrial.yaml
        try it with `seatrial run`
    "#]]);
    world.seatrial(["init"]).run().exits(2).stderr_has("there is a pipeline file already");
    world.seatrial(["check"]).run().exits(0);
    world.seatrial(["config", "--format", "{{.image_is_given}}"]).run().exits(0);
}

#[test]
fn check_reports_in_several_forms() {
    let world = world();
    world.file("Dockerfile", "FROM scratch as x\nCOPY . /\n").file("seatrial.yaml", "imag: x\n");
    let finished = world.seatrial(["check"]).run().exits(2);
    assert!(finished.stdout().contains("did you mean `image`?"), "{}", finished.stdout());
    world.file("seatrial.yaml", "image: localhost/x\n");
    world.seatrial(["check"]).run().exits(0);
    world.seatrial(["check", "--strict"]).run().exits(1);
    world.seatrial(["check", "--format=github"]).run().exits(0).stdout_has("::warning file=Dockerfile,line=1,");
    world.seatrial(["check", "--format=sarif"]).run().exits(0).stdout_has("\"version\":\"2.1.0\"");
    world.seatrial(["check", "--format=json"]).run().exits(0).stdout_has("\"file\":\"Dockerfile\"");
}

#[test]
fn a_wrong_dockerfile_exits_2() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nCOPPY a b\n");
    world.seatrial(["check"]).run().exits(2).stdout_has("did you mean `COPY`?");
}

#[test]
fn a_closed_stdout_is_no_catastrophe() {
    let world = world();
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{} explain | head -n 1", crate::PROGRAM))
        .env("SEATRIAL_HOME", world.store())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let world = world();
    std::fs::write(world.path("file"), "").unwrap();
    world
        .seatrial(["images"])
        .env("SEATRIAL_HOME", world.path("file/store"))
        .run()
        .exits(3)
        .stderr_has("cannot make the store [WORLD]/file/store");
}

#[test]
fn doctor_tells_the_state_of_the_machine() {
    let world = world();
    let finished = world.seatrial(["doctor"]).run();
    assert!(finished.code() == 0 || finished.code() == 3, "{}", finished.stdout());
    finished.stdout_has("disk").stdout_has("store");
    world.seatrial(["doctor", "--format=json"]).run().stdout_has("\"state\":");
}
