//! Nothing stays behind: signals once and twice, `kill -9` at any moment.

use std::hash::{Hash as _, Hasher as _};

use rustix::process::Signal;
use testkit::{Running, World};

use crate::world_with_image;

/// Seconds that only this world's container sleeps, by which its process is known from outside.
fn nap(world: &World) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    world.store().hash(&mut hasher);
    (1_000_000 + hasher.finish() % 100_000_000).to_string()
}

/// A world whose build waits in its RUN until it is stopped.
fn waiting() -> (World, Running) {
    let world = world_with_image();
    world.file("Dockerfile", &format!("FROM tiny:1\nRUN touch /tmp/x && sleep {}\n", nap(&world)));
    let mut session = world.seatrial(["build", "--progress=json"]).start();
    session.wait_until("the RUN has started", || has_sleeper(&world));
    (world, session)
}

fn has_sleeper(world: &World) -> bool {
    let wanted = format!("sleep\0{}\0", nap(world));
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default().ends_with(wanted.as_bytes()))
}

#[test]
fn one_interrupt_stops_in_grace() {
    let (world, session) = waiting();
    session.signal(Signal::INT);
    session.finish().exits(130).stderr_has("stopping…");
    world.seatrial(["logs"]).run().exits(0).stdout_has("cancelled");
    assert!(!has_sleeper(&world));
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn a_termination_exits_143() {
    let (world, session) = waiting();
    session.signal(Signal::TERM);
    session.finish().exits(143);
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn two_interrupts_kill() {
    let world = world_with_image();
    // Nothing in the container ends at SIGTERM, so the first signal alone would take the grace period.
    let run = format!("FROM tiny:1\nRUN trap : TERM; while true; do sleep {}; done\n", nap(&world));
    world.file("Dockerfile", &run);
    let mut session = world.seatrial(["build", "--progress=json"]).start();
    session.wait_until("the RUN has started", || has_sleeper(&world));
    // Signals of one kind that come at once are one signal, so it takes some.
    session.repeat_until_end(Signal::INT).exits(130);
    world.seatrial(["images"]).run().exits(0);
    assert!(!has_sleeper(&world));
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn the_next_command_sweeps_after_a_kill() {
    let (world, session) = waiting();
    let scopes = world.scopes();
    assert!(!scopes.is_empty());
    session.signal(Signal::KILL);
    session.finish().exits(137);
    // The kernel ends the container with its parent; that takes a moment.
    for _ in 0..500 {
        if !has_sleeper(&world) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!has_sleeper(&world));
    world.seatrial(["images"]).run().exits(0);
    assert_eq!(world.remains(), Vec::<String>::new());
    assert_eq!(testkit::control_groups(&scopes), Vec::<String>::new());
    world.file("Dockerfile", "FROM tiny:1\nRUN true\n");
    world.seatrial(["build", "-q"]).run().exits(0);
}

#[test]
fn an_interrupted_run_says_what_was_done() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCMD [\"true\"]\n").file(
        "seatrial.yaml",
        &format!("image: localhost/app\ntest:\n  gates:\n    slow: sleep {}\nhealth: false\n", nap(&world)),
    );
    let mut session = world.seatrial(["run"]).start();
    session.wait_until("the gate has started", || has_sleeper(&world));
    session.signal(Signal::INT);
    session.finish().exits(130).stderr_has("✗ cancelled after TIMEs  1 of 2 stages were done");
    assert!(!has_sleeper(&world));
    assert_eq!(world.remains(), Vec::<String>::new());
}
