//! What users get when something is wrong.

use std::time::{Duration, Instant};

use engine::BuildError;
use expect_test::{Expect, expect};

use crate::world::{World, explain};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("mistakes", mistakes),
    ("missing_sources", missing_sources),
    ("failing_run", failing_run),
    ("missing_programs_and_users", missing_programs_and_users),
    ("failed_root_is_kept", failed_root_is_kept),
    ("unavailable_base", unavailable_base),
    ("cancelled", cancelled),
    ("failure_stops_other_stages", failure_stops_other_stages),
    ("no_context", no_context),
    ("long_output", long_output),
];

fn check(world: &World, dockerfile: &str, expected: Expect) {
    let outcome = world.build(dockerfile);
    expected.assert_eq(&explain(outcome.failed()));
}

fn mistakes() {
    let world = World::new();
    world.file("a", "A");
    world.file("b", "B");
    check(
        &world,
        "FROM base AS b\nCOPY --from=c /x /\nFROM base AS c\nFROM b\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST121]: stage `c` cannot be used here: it is defined further below at "c"
          a stage can use only the stages above it"#]],
    );
    check(
        &world,
        "FROM base\nCOPY --from=3 /x /\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST120]: there is no stage 3 above this one at "3""#]],
    );
    check(
        &world,
        "ARG X\nFROM $X\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST123]: `$X` is empty after expansion at "$X"
          give the argument a default before the first FROM, or pass it with `--build-arg`"#]],
    );
    check(
        &world,
        "FROM --platform=nope/y/z/w base\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST123]: `nope/y/z/w` is not a platform (expected `os/architecture[/variant]`, such as `linux/arm64`) at "nope/y/z/w""#]],
    );
    check(
        &world,
        "FROM base\nCOPY --chown=nobody-here a /\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST124]: user `nobody-here` is not in the image's /etc/passwd at "nobody-here""#]],
    );
    check(
        &world,
        "FROM base\nCOPY --chown=app:nogroup-here a /\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST124]: group `nogroup-here` is not in the image's /etc/group at "app:nogroup-here""#]],
    );
    check(
        &world,
        "FROM base\nCOPY --chmod=9 a /\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST123]: `9` is not an octal mode between 0 and 7777 at "9""#]],
    );
    check(
        &world,
        "FROM base\nCOPY a* b /x\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST108]: several sources need a destination that is a directory at "/x"
          write the destination as `/x/`"#]],
    );
    check(
        &world,
        "FROM base\nCOPY [ab] /x\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: `[ab]` names 2 files, and `/x` is no directory at "[ab]"
              write the destination as `/x/`"#]],
    );
    check(
        &world,
        "FROM base\nCOPY a /etc/passwd/x\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST108]: cannot make directory `etc/passwd`: there is something that is no directory at "COPY a /etc/passwd/x""#]],
    );
    check(
        &world,
        "FROM base\nCOPY . /etc/passwd\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST108]: `/etc/passwd` is not a directory at "COPY . /etc/passwd""#]],
    );
    check(
        &world,
        "FROM base\nRUN mkdir -p /d/a\nCOPY . /d\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST108]: cannot replace directory `/d/a` with a file at "COPY . /d""#]],
    );
    check(
        &world,
        "FROM base\nENV A=${B?missing}\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST118]: `${B?missing}`: B: missing at "${B?missing}""#]],
    );
    check(
        &world,
        "FROM base\nEXPOSE http\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST123]: `http` is not a port at "http"
          a port is written `80`, `80/udp` or `8000-8010/tcp`"#]],
    );
    check(
        &world,
        "FROM base\nADD https://example.com/x /x\n",
        expect![[r#"
            cannot fetch https://example.com/x
              cause: server cannot be reached"#]],
    );
    check(
        &world,
        "FROM base\nRUN --mount=type=secret,id=x,required=true true\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST140]: secret `x` is required and was not given at "--mount=type=secret,id=x,required=true"
              give it with `--secret id=x,src=FILE` or `--secret id=x,env=VARIABLE`"#]],
    );
    check(
        &world,
        "FROM base\nRUN --mount=type=bind,source=missing,target=/x true\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `missing` is not in the build context at "--mount=type=bind,source=missing,target=/x"
          context: 2 files, 2 B"#]],
    );
    let mut request = world.request("FROM base AS build\nFROM base AS release\n");
    request.target = Some("relase".into());
    expect![[r#"
        Dockerfile cannot be built
        error[ST120]: stage `relase` does not exist (did you mean `release`?) at ""
          stages: build, release"#]]
    .assert_eq(&explain(world.run(&request).failed()));
}

fn missing_sources() {
    let world = World::new();
    world.file("app.sh", "x");
    world.file("dir/other.txt", "y");
    world.file("hidden/secret.txt", "z");
    world.file(".dockerignore", "# comment\n\nhidden\n");
    check(
        &world,
        "FROM base\nCOPY ap.sh /app.sh\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `ap.sh` is not in the build context (did you mean `app.sh`?) at "ap.sh"
          context: 3 files, 20 B; `.dockerignore` line 3 hides 1"#]],
    );
    check(
        &world,
        "FROM base\nCOPY other.txt /x\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `other.txt` is not in the build context (did you mean `dir/other.txt`?) at "other.txt"
          context: 3 files, 20 B; `.dockerignore` line 3 hides 1"#]],
    );
    check(
        &world,
        "FROM base\nCOPY hidden/secret.txt /x\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `hidden/secret.txt` is not in the build context (`.dockerignore` line 3 hides it) at "hidden/secret.txt"
          add `!hidden/secret.txt` to the end of `.dockerignore`, or remove line 3"#]],
    );
    check(
        &world,
        "FROM base\nCOPY nowhere/*.py /x/\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `nowhere/*.py` is not in the build context at "nowhere/*.py"
          context: 3 files, 20 B; `.dockerignore` line 3 hides 1"#]],
    );
    check(
        &world,
        "FROM base\nCOPY --from=base /nope /x\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `/nope` is not in the stage or image that it is copied from at "/nope""#]],
    );
    // A wildcard may find nothing, as in docker; that is told.
    let outcome = world.build("FROM base\nCOPY app.sh *.lock /x/\n");
    outcome.built();
    assert_eq!(outcome.warnings(), ["`*.lock` names no file"]);
}

fn failing_run() {
    let world = World::new();
    let outcome = world.build("FROM base\n\nRUN for i in $(seq 50); do echo line $i; done; echo err >&2; exit 3\n");
    let BuildError::Step(step) = outcome.failed() else { panic!("{:?}", outcome.failed()) };
    assert_eq!((step.exit.code, step.place.as_ref().unwrap().line), (3, 3));
    assert_eq!((step.tail.len(), step.earlier_lines), (40, 11));
    assert_eq!(step.tail.last().map(String::as_str), Some("err"));
    assert_eq!(outcome.logs().len(), 51);
    assert_eq!(step.kept, None);
    let killed = world.build("FROM base\nRUN kill -9 $$\n");
    let BuildError::Step(step) = killed.failed() else { panic!() };
    assert_eq!(step.exit.code, 137);
}

fn missing_programs_and_users() {
    let world = World::new();
    check(
        &world,
        "FROM base\nRUN [\"nope\", \"x\"]\n",
        expect![[r#"
        `RUN ["nope", "x"]` exited 127 at line 2
        `nope` is not in the image: no such program in the container: nope"#]],
    );
    check(
        &world,
        "FROM scratch\nRUN echo\n",
        expect![[r#"
        `RUN echo` exited 127 at line 2
        `/bin/sh` is not in the image: no such program in the container: /bin/sh"#]],
    );
    check(
        &world,
        "FROM base\nRUN [\"/etc/passwd\"]\n",
        expect![[r#"
        `RUN ["/etc/passwd"]` exited 126 at line 2
        `/etc/passwd` cannot be executed: Permission denied (os error 13)"#]],
    );
    check(
        &world,
        "FROM base\nUSER nobody-here\nRUN true\n",
        expect![[r#"
        `RUN true` exited 125 at line 3
        user `nobody-here` is not known in the image: no such user or group in the container: nobody-here"#]],
    );
}

fn failed_root_is_kept() {
    let world = World::new();
    let mut request = world.request("FROM base\nRUN echo here > /here; false\n");
    request.keep_failed = Duration::from_secs(600);
    let outcome = world.run(&request);
    let BuildError::Step(step) = outcome.failed() else { panic!() };
    let kept = step.kept.clone().expect("it is kept").root.try_into().unwrap();
    let text = std::fs::read_to_string(world.store.snapshot_fs(&kept).join("here")).unwrap();
    assert_eq!(text, "here\n");
}

fn unavailable_base() {
    let world = World::new();
    check(
        &world,
        "FROM debian:13\nRUN true\n",
        expect![[r#"
        cannot get image debian:13
          cause: debian:13 is neither in the store nor could it be fetched; without a registry, `seatrial base host` or `seatrial base debian:SUITE` make a base, `seatrial load FILE` takes one from a file, and `--build-context debian:13=oci-layout://DIRECTORY` from a directory
          cause: registry cannot be reached"#]],
    );
    check(
        &world,
        "FROM base AS build\nFROM buidl:X@y\n",
        expect![[r#"
        Dockerfile cannot be built
        error[ST122]: `buidl:X@y` is not an image reference: the digest after `@` is not `sha256:` and 64 hex digits at "buidl:X@y""#]],
    );
}

fn cancelled() {
    let world = World::new();
    let request = world.request("FROM base\nRUN echo started; sleep 60\nRUN echo never\n");
    let cancel = request.cancel.clone();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            cancel.cancel();
        });
        let outcome = world.run(&request);
        assert!(matches!(outcome.failed(), BuildError::Cancelled), "{:?}", outcome.failed());
    });
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let snapshots = std::fs::read_dir(world.store.root().join("snapshots")).unwrap();
    let left =
        snapshots.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp.")).count();
    assert_eq!(left, 0, "unfinished snapshots are removed");
}

fn failure_stops_other_stages() {
    let world = World::new();
    let start = Instant::now();
    let outcome = world.build(
        "FROM base AS slow\nRUN sleep 60\nFROM base AS bad\nRUN sleep 0.2; exit 7\nFROM base\nCOPY --from=slow /x /\nCOPY --from=bad /y /\n",
    );
    let BuildError::Step(step) = outcome.failed() else { panic!("{:?}", outcome.failed()) };
    assert_eq!(step.exit.code, 7);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

fn no_context() {
    let world = World::new();
    let mut request = world.request("FROM base\nRUN true\n");
    request.context = engine::BuildContext::Empty;
    world.run(&request).built();
    request.dockerfile.text = "FROM base\nCOPY a /\n".into();
    expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `a` cannot be copied: this build has no context at "a""#]]
    .assert_eq(&explain(world.run(&request).failed()));
    request.dockerfile.text = "FROM base\nCOPY <<EOF /x\nok\nEOF\n".into();
    world.run(&request).built();
}

fn long_output() {
    let world = World::new();
    let outcome = world.build("FROM base\nRUN yes | head -c 3000000; seq 1 1000 | tr -d '\\n'; false\n");
    let BuildError::Step(step) = outcome.failed() else { panic!() };
    assert_eq!(step.earlier_lines + step.tail.len() as u64, 1_500_001);
}
