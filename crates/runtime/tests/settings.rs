//! What a caller may set beyond the usual: files in memory, limits, parents of control groups, all rights.
#![allow(clippy::print_stderr, reason = "tests say why they skip")]

#[allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
mod support;

use serde_json::json;
use support::{As, World, for_both, sh};

#[test]
fn files_in_memory_have_owners_and_leave_nothing() {
    for_both(|world| {
        let mounts = json!([
            {"target": "/run/secrets/token", "file": ["hunter2", 0o400, 33, 33], "readonly": true},
            {"target": "/opt/large", "file": ["x".repeat(100_000), 0o644, 0, 0]},
        ]);
        let script = "stat -c '%a %u %g' /run/secrets/token; cat /run/secrets/token; echo; wc -c < /opt/large; \
                      grep -c ' /run/secrets/token tmpfs\\| /run/secrets/token ro' /proc/self/mountinfo; \
                      (echo x > /run/secrets/token) 2>/dev/null || echo read-only";
        let run = world.run(json!({"args": sh(script), "mounts": mounts}));
        run.says("400 33 33\nhunter2\n100000\n").says("read-only\n");
        assert_eq!(run.upper(), [""; 0]);
        // Nobody else may read it.
        let script = "cat /run/secrets/token 2>/dev/null || echo refused";
        let mounts = json!([{"target": "/run/secrets/token", "file": ["hunter2", 0o400, 0, 0], "readonly": true}]);
        world.run(json!({"args": sh(script), "mounts": mounts, "user": "www-data"})).says("refused\n[exit 0]");
    });
}

#[test]
fn ulimits_hold_and_what_cannot_be_raised_is_said() {
    for_both(|world| {
        let ulimits = json!([["nofile", 100, 200], ["core", 0, 0], ["fsize", 1024, 1024]]);
        let script = "ulimit -Sn; ulimit -Hn; ulimit -c; head -c 4096 /dev/zero > /big; wc -c < /big";
        world.run(json!({"args": sh(script), "ulimits": ulimits})).says("100\n200\n0\n").says("1024\n");
        world.run(json!({"args": ["true"], "ulimits": [["nonsense", 1, 1]]})).says("no resource limit `nonsense`");
        let raised = world.run(json!({"args": sh("ulimit -Hn"), "ulimits": [["nofile", 1 << 21, 1 << 21]]}));
        match world.who {
            // Root raises what the kernel allows (`fs.nr_open`), or is told.
            As::Root => assert!(raised.text.contains("2097152") || raised.text.contains("stays at"), "{}", raised.text),
            As::User | As::Stranger => drop(raised.says("the limit nofile stays at")),
        }
    });
}

#[test]
fn shared_memory_has_the_size_asked_for() {
    for_both(|world| {
        let script = "df -k /dev/shm | tail -1 | awk '{print $2}'";
        world.run(json!({"args": sh(script), "shm_size_bytes": 8 << 20})).says("8192\n");
        world.run(json!({"args": sh(script)})).says("65536\n");
    });
}

/// Reads what [`SYSCTLS`] sets.
const SHOW_SYSCTLS: &str =
    "cd /proc/sys; cat net/core/somaxconn kernel/msgmax fs/mqueue/msg_max; awk '{print $1, $2, $3, $4}' kernel/sem";

fn sysctls() -> serde_json::Value {
    json!([
        ["net.core.somaxconn", "77"],
        ["kernel.msgmax", "4321"],
        ["fs.mqueue.msg_max", "7"],
        ["kernel.sem", "250 256000 32 1024"],
    ])
}

#[test]
fn kernel_parameters_are_the_containers_own() {
    for_both(|world| {
        let set = "77\n4321\n7\n250 256000 32 1024\n";
        let job = json!({"args": sh(SHOW_SYSCTLS), "sysctls": sysctls()});
        world.run(job).says(set).says("[exit 0]");
        let host = std::fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
        assert_ne!(host.trim(), "4321");
        for (name, reason) in [
            ("kernel.core_pattern", "it belongs to the host"),
            ("net.ipv4.no_such_thing", "No such file"),
            ("net.../../kernel.core_pattern", "it belongs to the host"),
        ] {
            let refused = world.run(json!({"args": ["true"], "sysctls": [[name, "x"]]}));
            refused.says(&format!("cannot set the kernel parameter {name}")).says(reason);
        }
        let shared = json!({"args": ["true"], "host_network": true, "sysctls": [["net.core.somaxconn", "77"]]});
        world.run(shared).says("the container has the host's network");
    });
}

#[test]
fn devices_of_the_host_work_inside() {
    for_both(|world| {
        let devices = json!([["/dev/zero", "/dev/more/zeros", "rwm"], ["/dev/full", "/opt/full", "rw"]]);
        let script =
            "head -c 4 /dev/more/zeros | wc -c; stat -c %F /opt/full; (echo x > /opt/full) 2>&1 | grep -c 'No space'";
        let run = world.run(json!({"args": sh(script), "devices": devices}));
        run.says("4\ncharacter special file\n1\n[exit 0]");
        assert_eq!(run.upper(), [""; 0]);
        let missing = world.run(json!({"args": ["true"], "devices": [["/dev/no-such", "/dev/x", "rwm"]]}));
        missing.says("cannot give the container the device /dev/no-such").says("No such file");
        let file = world.run(json!({"args": ["true"], "devices": [["/etc/passwd", "/dev/x", "rwm"]]}));
        file.says("cannot give the container the device /etc/passwd").says("it is not a device");
    });
}

#[test]
fn a_device_belongs_to_whom_the_host_says_and_may_be_for_reading_only() {
    let Some(world) = World::new(As::Root) else { return };
    let node = world.dir.join("zero");
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::CharacterDevice, mode, zero).unwrap();
    std::os::unix::fs::chown(&node, Some(0), Some(44)).unwrap();
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let by = |access: &str| json!({"devices": [[node, "/dev/zeros", access]]});
    let run = |job: serde_json::Value, user: &str, script: &str| {
        world.run(json!({"args": sh(script), "user": user, "devices": job["devices"]}))
    };
    // Group 44 is one of www-data's.
    run(by("rw"), "www-data", "stat -c '%a %u %g' /dev/zeros; head -c 2 /dev/zeros | wc -c").says("640 0 44\n2\n");
    run(by("rw"), "12345", "head -c 2 /dev/zeros 2>&1 | grep -c denied").says("1\n");
    run(by("rw"), "", "echo x > /dev/zeros && echo written").says("written\n");
    let reading = run(by("r"), "", "head -c 2 /dev/zeros | wc -c; echo x > /dev/zeros && echo written");
    reading.says("2\n");
    // Control groups of version 1 say who may write; elsewhere that is told.
    let is_told = reading.text.contains("the devices limit is not applied");
    assert_eq!(reading.text.contains("written"), is_told, "{}", reading.text);
}

#[test]
fn control_groups_have_the_parent_asked_for() {
    let Some(world) = World::new(As::Root) else { return };
    let parent = format!("/seatrial-parent-{}", std::process::id());
    // The cgroup namespace hides what is above, so we look from the outside.
    let (mut child, _) = world.spawn(json!({
        "args": ["sleep", "100"], "cgroup_parent": parent, "memory_bytes": 64 << 20,
    }));
    let started = std::time::Instant::now();
    let mut found = Vec::new();
    while found.is_empty() && started.elapsed() < std::time::Duration::from_secs(60) {
        found = hierarchies()
            .iter()
            .filter_map(|root| std::fs::read_dir(root.join(parent.trim_start_matches('/'))).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.starts_with("seatrial-test-"))
            .collect();
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!found.is_empty(), "no group below {parent}");
    world.run(json!({"args": ["true"], "cgroup_parent": "../x"})).says("not a parent of control groups");
    // The helper removes its own groups when its engine has gone; the parent is ours to remove.
    for root in hierarchies() {
        let dir = root.join(parent.trim_start_matches('/'));
        let started = std::time::Instant::now();
        while dir.exists()
            && std::fs::remove_dir(&dir).is_err()
            && started.elapsed() < std::time::Duration::from_secs(60)
        {
            std::thread::yield_now();
        }
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

fn hierarchies() -> Vec<std::path::PathBuf> {
    let below = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).chain(["/sys/fs/cgroup".into()]).collect()
}

#[test]
fn privileged_means_all_rights_and_no_mask() {
    for_both(|world| {
        let script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; \
                      mkdir /m; mount -t tmpfs none /m && echo mounted; \
                      grep -q ' /proc/sys ' /proc/self/mountinfo && echo masked; \
                      grep ' /sys ' /proc/self/mountinfo | head -1 | awk '{print substr($6,1,2)}'";
        let run = world.run(json!({"args": sh(script), "privileged": true, "cap_add": ["ALL"]}));
        run.says("Seccomp:\t0\n").says("mounted\n").says("rw\n");
        assert!(!run.text.contains("masked"), "{}", run.text);
        let plain = world.run(json!({"args": sh(script)}));
        plain.says("Seccomp:\t2\n").says("masked\n").says("ro\n");
        assert!(!plain.text.contains("mounted"), "{}", plain.text);
    });
}
