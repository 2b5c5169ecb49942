//! Limits, and that nothing stays when a process of ours is killed.
#![allow(clippy::print_stderr, reason = "tests say why they skip")]

#[allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
mod support;

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::Child,
    time::{Duration, Instant},
};
use support::{As, World, for_both, sh};

/// Long enough for a busy machine; a hang is longer.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn memory_and_process_limits_are_told() {
    let Some(world) = World::new(As::Root) else { return };
    let eater = "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null; echo after $?";
    let run = world.run(json!({"args": sh(eater), "memory_bytes": 30_000_000}));
    if run.text.contains("limit is not applied") {
        return testkit::skip("no control groups here");
    }
    run.says("oom");
    let bomb = "for i in $(seq 40); do sleep 5 & done; echo made";
    world.run(json!({"args": sh(bomb), "pids": 10})).says(" pids]");
    world.run(json!({"args": sh("echo fine"), "memory_bytes": 100_000_000, "pids": 10, "cpus": 0.5})).says("[exit 0]");
    world.run(json!({"args": sh("ulimit -n"), "nofile": 123})).says("123\n");
    assert!(control_groups().is_empty(), "{:?}", control_groups());
}

#[test]
fn limits_that_cannot_be_had_are_a_warning() {
    let Some(world) = World::new(As::Stranger) else { return };
    world
        .run(json!({"args": ["true"], "memory_bytes": 30_000_000}))
        .says("[warning: the memory limit is not applied")
        .says("[exit 0]");
}

#[test]
fn processes_are_bounded_also_when_nobody_asks() {
    for_both(|world| {
        let id = format!("unasked-{}-5714", std::process::id());
        let job = json!({"action": "hold", "id": id, "args": sh("ulimit -u > /limit; sleep 5714")});
        let (mut engine, _) = world.spawn(job);
        let mut lines = BufReader::new(engine.stdout.take().unwrap()).lines();
        let first: i32 = lines.find_map(|line| line.unwrap().strip_prefix("started ")?.parse().ok()).unwrap();
        wait_until(|| sleepers("5714") == 1);
        let bound = groups_of(first).iter().find_map(|dir| std::fs::read_to_string(dir.join("pids.max")).ok());
        let bound =
            bound.unwrap_or_else(|| std::fs::read_to_string(format!("/proc/{first}/root/limit")).unwrap_or_default());
        let bound: u64 = bound.trim().parse().unwrap();
        kill(engine.id() as i32);
        engine.wait().unwrap();
        wait_until(|| sleepers("5714") == 0);
        assert!(bound <= 16_384, "{bound}");
    });
}

/// Directories of a container's own control groups, as the process itself is listed in them.
fn groups_of(pid: i32) -> Vec<std::path::PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let ours = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| path.contains("seatrial-"));
    ours.flat_map(|path| {
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let roots: Vec<_> = roots.chain([std::path::PathBuf::from("/sys/fs/cgroup")]).collect();
        roots.into_iter().map(move |root| root.join(path.trim_start_matches('/')))
    })
    .filter(|dir| dir.is_dir())
    .collect()
}

#[test]
fn a_killed_engine_leaves_nothing() {
    for_both(|world| {
        for init in [false, true] {
            let held = hold(world, init, "5711");
            kill(held.engine.id() as i32);
            finish(held, world, "5711");
        }
    });
}

#[test]
fn a_killed_helper_leaves_nothing() {
    for_both(|world| {
        for init in [false, true] {
            let held = hold(world, init, "5712");
            kill(parent_of(held.first));
            wait_until(|| !alive(held.first));
            kill(held.engine.id() as i32);
            finish(held, world, "5712");
        }
    });
}

#[test]
fn engine_and_helper_killed_at_once_leave_nothing() {
    for_both(|world| {
        let held = hold(world, false, "5713");
        let helper = parent_of(held.first);
        kill(held.engine.id() as i32);
        kill(helper);
        finish(held, world, "5713");
    });
}

#[test]
fn a_killed_zygote_is_replaced_and_takes_nothing_with_it() {
    for_both(|world| {
        let job = json!({"args": sh("echo here; exec sleep 5716"), "init": true, "wait_for": "here",
            "kill_zygote": true, "exec": sh("echo goes on")});
        world.run(job).says("goes on\n[exec exit 0]").says("[exit 137 signal 9]");
        wait_until(|| sleepers("5716") == 0);
        let held = hold(world, true, "5715");
        kill(parent_of(parent_of(held.first)));
        kill(held.engine.id() as i32);
        finish(held, world, "5715");
    });
}

struct Held {
    engine: Child,
    first: i32,
    job: Value,
}

/// An engine with a running container, in which a daemon sleeps for `seconds`.
fn hold(world: &World, init: bool, seconds: &str) -> Held {
    let id = format!("hold-{}-{seconds}", std::process::id());
    let script = format!("setsid sleep {seconds} & exec sleep {seconds}");
    let job = json!({"action": "hold", "id": id, "args": sh(&script), "init": init, "pids": 20});
    let (mut engine, _) = world.spawn(job.clone());
    let mut lines = BufReader::new(engine.stdout.take().unwrap()).lines();
    let first = lines.find_map(|line| line.unwrap().strip_prefix("started ")?.parse().ok()).unwrap();
    wait_until(|| sleepers(seconds) == 2);
    Held { engine, first, job }
}

fn finish(mut held: Held, world: &World, seconds: &str) {
    held.engine.wait().unwrap();
    wait_until(|| sleepers(seconds) == 0);
    wait_until(|| !alive(held.first));
    world.run(json!({"action": "sweep", "id": held.job["id"]}));
    let id = held.job["id"].as_str().unwrap();
    assert!(!control_groups().iter().any(|name| name.contains(id)), "{:?}", control_groups());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("runtime-test-"), "{mounts}");
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It may have ended by itself meanwhile.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap()
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn sleepers(seconds: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|line| *line == format!("sleep\0{seconds}\0").into_bytes())
        .count()
}

/// Names of all control groups of ours.
fn control_groups() -> Vec<String> {
    fn walk(dir: &std::path::Path, depth: usize, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(&format!("-{}-", std::process::id())) {
                found.push(name);
            } else if depth < 8 {
                walk(&entry.path(), depth + 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(std::path::Path::new("/sys/fs/cgroup"), 0, &mut found);
    found
}
