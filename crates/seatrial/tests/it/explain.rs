//! `seatrial explain`: codes, rules, and why steps were made.

use expect_test::expect;

use crate::{world, world_with_image};

const DOCKERFILE: &str =
    "FROM tiny:1\nARG MODE=fast\nCOPY src /src\nRUN cat /src/app.txt > /app\nRUN echo $MODE > /mode\n";

#[test]
fn a_changed_file_is_named_with_its_digests() {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).file("src/app.txt", "one\n").file("src/gone.txt", "").file("src/sub/x", "");
    world.seatrial(["build", "-t", "app:1"]).run().exits(0);
    std::fs::remove_file(world.repo().join("src/gone.txt")).unwrap();
    world.file("src/app.txt", "number two\n").file("src/new.txt", "new");
    world
        .seatrial(["build", "-t", "app:2"])
        .run()
        .exits(0)
        .stderr_has("made again from Dockerfile:3: src/app.txt changed, and 2 more · more: seatrial explain 2");

    world.seatrial(["explain", "last"]).run().exits(0).stdout_is(&expect![[r#"
        run 2: build of app:2, AGO, 0 of 3 steps cached
        STEP   PLACE          INSTRUCTION                   TOOK   CACHE
        1      Dockerfile:3   COPY src /src                 TIMEs   src/app.txt changed, and 2 more
        2      Dockerfile:4   RUN cat /src/app.txt > /app   TIMEs   Dockerfile:3 changed
        3      Dockerfile:5   RUN echo $MODE > /mode        TIMEs   Dockerfile:3 changed
    "#]]);
    world.seatrial(["explain", "app:2", "Dockerfile:3"]).run().exits(0).stdout_is(&expect![[r#"
        step 1 of run 2: COPY src /src
         --> Dockerfile:3:1

        not cached: files differ: 1 changed, 1 new, 1 gone
          changed   src/app.txt    SIZE [ID] → SIZE [ID]
          new       src/new.txt    SIZE [ID]
          gone      src/gone.txt   SIZE [ID]
    "#]]);
    world.seatrial(["explain", "2", "echo"]).run().exits(0).stdout_is(&expect![[r#"
        step 3 of run 2: RUN echo $MODE > /mode
         --> Dockerfile:5:1

        not cached: a step before it is another one: step 1, Dockerfile:3: COPY src /src

        why that one: `seatrial explain 2 1`
    "#]]);
    // The first build is still known.
    world.seatrial(["explain", "1", "1"]).run().exits(0).stdout_has("no former build of this step is known here");
    world.seatrial(["explain", "2", "--format", "{{.Step}} {{.Cached}} {{.Cause.kind}}"]).run().exits(0).stdout_is(
        &expect![[r#"
            1 false files
            2 false earlier-step
            3 false earlier-step
        "#]],
    );
    // Taken from the cache as a whole.
    world.seatrial(["build", "-t", "app:3"]).run().exits(0);
    world.seatrial(["explain", "3", "1"]).run().exits(0).stdout_has("taken from the cache; making it took TIMEs");
}

#[test]
fn values_flags_and_removed_results_are_told() {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).file("src/app.txt", "");
    world.seatrial(["build"]).run().exits(0);
    world.seatrial(["build", "--build-arg", "MODE=slow"]).run().exits(0);
    world
        .seatrial(["explain", "last", ":4"])
        .run()
        .exits(0)
        .stdout_has("not cached: build argument MODE has another value\n  was  fast\n  is   slow\n");
    world.seatrial(["build", "--no-cache"]).run().exits(0);
    world.seatrial(["explain", "last", "1"]).run().exits(0).stdout_has("switched off by --no-cache\n");
    world.file("Dockerfile", &DOCKERFILE.replace("> /mode", ">/mode"));
    world.seatrial(["build"]).run().exits(0);
    world
        .seatrial(["explain", "last", "mode"])
        .run()
        .exits(0)
        .stdout_has("says something else\n  was  RUN echo $MODE > /mode\n  is   RUN echo $MODE >/mode\n");
    // As the limit of the cache does.
    let cache = world.store().join("cache");
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::create_dir(&cache).unwrap();
    world.seatrial(["build"]).run().exits(0);
    world.seatrial(["explain", "last", "1"]).run().exits(0).stdout_has("its result is no longer in the store");
}

#[test]
fn steps_of_a_pipeline_are_explained_too() {
    let world = world_with_image();
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY a.txt /\n")
        .file("a.txt", "1")
        .file("tests/t.sh", "true\n")
        .file("seatrial.yaml", "test:\n  setup: [touch /ready]\n  mounts: [tests]\n  gates: {t: sh tests/t.sh}\n")
        .commit();
    world.seatrial(["run"]).run().exits(0);
    world.file("a.txt", "2");
    world.seatrial(["run"]).run().exits(0).stderr_has("made again from Dockerfile:2: a.txt changed");
    let finished = world.seatrial(["explain", "2"]).run().exits(0);
    let table = finished.stdout();
    assert!(table.starts_with("run 2: run of "), "{table}");
    assert!(table.contains("COPY a.txt /") && table.contains("a.txt changed"), "{table}");
    assert!(table.contains("touch /ready") && table.contains("the image changed"), "{table}");
    assert!(!table.contains("sh tests/t.sh"), "{table}");
}

#[test]
fn what_cannot_be_explained_has_a_hint() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN true a\nRUN true b\n");
    world.seatrial(["build", "-t", "app:1"]).run().exits(0);
    let told = |arguments: &[&str], code: i32, words: &str| {
        world.seatrial(arguments).run().exits(code).stderr_has(words);
    };
    told(&["explain", "99"], 1, "there is no run 99");
    told(&["explain", "1", "true"], 2, "`seatrial explain 1 2` for `RUN true b`");
    told(&["explain", "1", "Dockerfile:9"], 2, "did you mean `seatrial explain 1 Dockerfile:");
    told(&["explain", "1", "nothing"], 2, "run 1 has no step `nothing`");
    told(&["explain", "tiny:1"], 1, "no run that is recorded here built tiny:1");
    told(&["explain", "ST10"], 2, "did you mean `seatrial explain ST10");
    told(&["explain", "app:2"], 2, "did you mean `app:1`?");
}

#[test]
fn codes_need_no_store() {
    let world = world();
    world.seatrial(["explain", "st104"]).env("SEATRIAL_HOME", "/proc/nowhere").run().exits(0).stdout_has("ST104: ");
    world.seatrial(["explain", "MaintainerDeprecated"]).run().exits(0).stdout_has("ST2");
    let all = world.seatrial(["explain", "--all"]).run().exits(0).stdout();
    for code in ["ST101", "ST201", "ST300"] {
        assert!(all.contains(&format!("\n{code}: ")) || all.starts_with(&format!("{code}: ")), "{code}");
    }
}
