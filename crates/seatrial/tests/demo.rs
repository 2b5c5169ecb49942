//! `seatrial demo` and `seatrial base host`, from the outside.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// A store in a directory of its own, on a real file system.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn seatrial(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seatrial"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("SEATRIAL_HOME", self.store())
            .env("TMPDIR", self.0.path())
            .env("HOME", self.0.path())
            .env_remove("GITHUB_ACTIONS")
            .stdin(Stdio::null());
        command
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    fn write(&self, name: &str, text: &str) {
        fs_err::write(self.0.path().join(name), text).unwrap();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn the_demo_passes_and_leaves_nothing() {
    let world = World::new();
    let demo = world.seatrial(&["demo", "--progress=plain"]);
    assert_eq!(demo.status.code(), Some(0), "{}", said(&demo));
    assert!(said(&demo).contains("the registry holds number-api: "), "{}", said(&demo));
    assert!(said(&demo).contains("master"), "{}", said(&demo));
    let scopes = world.store().join("scopes");
    let left = fs_err::read_dir(scopes).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "scopes are left");
    let names: Vec<_> = fs_err::read_dir(world.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["store"]);
}

#[test]
fn the_demo_works_without_git() {
    let world = World::new();
    let demo = world.command(&["demo", "--progress=plain"]).env("PATH", "/no-such-directory").output().unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", said(&demo));
    assert!(said(&demo).contains("Git is not installed"), "{}", said(&demo));
    assert!(said(&demo).contains("the registry holds number-api: demo"), "{}", said(&demo));
}

#[test]
fn every_broken_gate_stops_the_push() {
    let world = World::new();
    for gate in ["style", "static", "unit"] {
        let demo = world.seatrial(&["demo", "--progress=plain", "--fail", gate]);
        let said = said(&demo);
        assert_eq!(demo.status.code(), Some(1), "{gate}: {said}");
        assert!(said.contains(&format!("✗ gate {gate}")), "{gate}: {said}");
        for other in ["style", "static", "unit"].into_iter().filter(|other| *other != gate) {
            assert!(!said.contains(&format!("✗ gate {other}")), "{gate} broke {other}: {said}");
        }
        assert!(said.contains("the registry holds nothing of number-api"), "{gate}: {said}");
    }
}

#[test]
fn a_broken_build_or_health_check_stops_the_push() {
    let world = World::new();
    for part in ["build", "health"] {
        let demo = world.seatrial(&["demo", "--progress=plain", "--fail", part]);
        assert_eq!(demo.status.code(), Some(1), "{part}: {}", said(&demo));
        assert!(said(&demo).contains("the registry holds nothing of number-api"), "{part}: {}", said(&demo));
    }
}

#[test]
fn what_is_kept_can_be_gone_on_with() {
    let world = World::new();
    let demo = world.seatrial(&["demo", "--keep", "--progress=plain"]);
    let said = said(&demo);
    assert_eq!(demo.status.code(), Some(0), "{said}");
    let directory = said.lines().find_map(|line| line.strip_prefix("kept in ")?.strip_suffix("; go on with"));
    let directory = Path::new(directory.unwrap_or_else(|| panic!("{said}")));
    for name in ["number-api/seatrial.yaml", "number-api/.git/HEAD", "store", "registry"] {
        assert!(directory.join(name).exists(), "{name}");
    }
    let again = Command::new(env!("CARGO_BIN_EXE_seatrial"))
        .args(["test", "unit"])
        .current_dir(directory.join("number-api"))
        .env("SEATRIAL_HOME", directory.join("store"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", self::said(&again));
}

#[test]
fn a_host_base_builds_and_is_never_published() {
    let world = World::new();
    let made = world.seatrial(&["base", "host"]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    assert!(String::from_utf8_lossy(&made.stdout).starts_with("localhost/host:latest"), "{}", said(&made));

    world.write("Dockerfile", "FROM localhost/host\nRUN echo built > /built\nCMD [\"cat\", \"/built\"]\n");
    let built = world.seatrial(&["build", "--network=none", "-t", "127.0.0.1:9/app", "."]);
    assert_eq!(built.status.code(), Some(0), "{}", said(&built));

    let pushed = world.seatrial(&["push", "127.0.0.1:9/app"]);
    assert_eq!(pushed.status.code(), Some(1), "{}", said(&pushed));
    assert!(said(&pushed).contains("must not be published"), "{}", said(&pushed));

    world.write(
        "seatrial.yaml",
        "image: 127.0.0.1:9/app\nbuild: {network: none}\nhealth: false\npublish: {tags: [x]}\n",
    );
    let run = world.seatrial(&["run", "--publish", "--progress=plain"]);
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    assert!(said(&run).contains("the image may not be published: it is built on `localhost/host`"), "{}", said(&run));
    let tried = world.seatrial(&["run", "--progress=plain"]);
    assert_eq!(tried.status.code(), Some(0), "{}", said(&tried));
}

#[test]
fn mistakes_in_base_are_told_with_a_way_out() {
    let world = World::new();
    for (arguments, hint) in [
        (&["base", "fedora:41"][..], "seatrial base debian:bookworm"),
        (&["base", "host", "--include", "python3"], "--with"),
        (&["base", "debian:sid", "--with", "perl"], "--include"),
        (&["base", "host", "--with", "no-such-program"], "no-such-program"),
        (&["base", "debian:book worm"], "book worm"),
    ] {
        let output = world.seatrial(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(hint), "{arguments:?}: {}", said(&output));
    }
}
