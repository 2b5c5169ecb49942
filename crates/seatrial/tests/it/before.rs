//! `before`: what is made of the source before the image is built.

use testkit::World;

use crate::world_with_image;

const DOCKERFILE: &str = "FROM tiny:1\nCOPY dist/*.whl /\nCMD [\"cat\", \"/app.whl\"]\n";

/// A package of one source file, whose Dockerfile sees the wheel only.
fn package(before: &str) -> World {
    let world = world_with_image();
    world
        .file("Dockerfile", DOCKERFILE)
        .file(".dockerignore", "*\n!dist/*.whl\n")
        .file(".gitignore", "/build/\n")
        .file("src/app.py", "print(1)\n")
        .file("build/old", "left over\n")
        .file("seatrial.yaml", &format!("before:\n  - {before}\ntest: {{gates: {{wheel: cat /app.whl}}}}\n"))
        .commit();
    world
}

const IN_IMAGE: &str =
    "{in: tiny:1, run: [mkdir dist && cat src/app.py > dist/app.whl, test ! -e build], output: [dist/*.whl]}";

#[test]
fn an_image_makes_the_package_and_the_context_stays_as_it_is() {
    let world = package(IN_IMAGE);
    let first = world.seatrial(["run"]).run().exits(0);
    first.stderr_has("1 file added to the build context").stderr_has("print(1)");
    assert!(!world.path("dist").exists(), "the user's tree is as it was");

    // Nothing is made again, and the same source is the same image.
    world.seatrial(["run"]).run().exits(0).stderr_has("cached");
    world.file("src/app.py", "print(2)\n").commit();
    world.seatrial(["run"]).run().exits(0).stderr_has("print(2)");
}

#[test]
fn a_failing_command_is_the_verdict() {
    let world = package("{in: tiny:1, run: [\"true\", sh -c 'echo no wheel; exit 3'], output: dist/*.whl}");
    let finished = world.seatrial(["run"]).run().exits(1);
    let finished = finished
        .stderr_has("✗ before: `sh -c 'echo no wheel; exit 3'` exited 3")
        .stderr_has("seatrial.yaml:2:")
        .stderr_has("no wheel")
        .stderr_has("seatrial shell 1 before");
    // The user's commands are shown, and no instruction that nobody wrote.
    let finished = finished.stderr_has("  seatrial.yaml:2 true\n").stderr_has("  the build context\n");
    for words in ["WORKDIR", "COPY", "RUN"] {
        assert!(!finished.stderr().contains(words), "{words}: {}", finished.stderr());
    }
    world.seatrial(["shell", "last", "before", "cat", "src/app.py"]).run().exits(0).stdout_has("print(1)");
    world.seatrial(["logs", "last", "before"]).run().exits(0).stdout_has("no wheel");
}

#[test]
fn output_that_is_missing_is_named() {
    let world = package("{in: tiny:1, run: \"true\", output: dist/*.whl}");
    world.seatrial(["run"]).run().exits(1).stderr_has("`before` made nothing that matches `dist/*.whl`");
    // Without a wildcard it is BuildKit's COPY that would not find it.
    let world = package("{in: tiny:1, run: \"true\", output: dist/app.whl}");
    let finished = world.seatrial(["run"]).run().exits(1);
    let finished = finished.stderr_has("`before` made nothing that matches `dist/app.whl`");
    assert!(!finished.stderr().contains("before:"), "nobody wrote that file: {}", finished.stderr());
    let world = package("{in: \"127.0.0.1:1/none:1\", run: \"true\", output: dist/*.whl}");
    world.seatrial(["run"]).run().exits(3).stderr_has("cannot get image").stderr_has(" --> seatrial.yaml:2:10");
    let world = package("{in: tiny:1, run: \"true\", output: ../x}");
    world.seatrial(["check"]).run().exits(2).stdout_has("`../x` is not within the build context");
    let world = package("{in: tiny:1, run: \"true\"}");
    world.seatrial(["check"]).run().exits(2).stdout_has("needs `output`");
}

#[test]
fn commands_on_this_machine_are_permitted_first() {
    let world = package("{run: [ls, mkdir dist && cp src/app.py dist/app.whl], output: dist/*.whl}");
    world.seatrial(["run"]).run().exits(2).stderr_has("not permitted here").stderr_has("before.host");

    let config = tempfile::tempdir().unwrap();
    std::fs::create_dir(config.path().join("seatrial")).unwrap();
    std::fs::write(config.path().join("seatrial/allow"), "before.host\n").unwrap();
    let finished = world.seatrial(["run"]).env("XDG_CONFIG_HOME", config.path()).run().exits(0);
    finished.stderr_has("1 file added to the build context").stderr_has("print(1)");
    assert!(!world.path("dist").exists(), "the user's tree is as it was");
    world.seatrial(["logs", "last", "before"]).run().exits(0).stdout_has("seatrial.yaml");
}
