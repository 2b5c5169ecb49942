//! The same containers by runc, where it is installed.
#![allow(clippy::print_stderr, reason = "tests say why they skip")]

#[allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
mod support;

use serde_json::{Value, json};
use support::{World, for_both, sh};

const RUNC: [&str; 2] = ["/usr/sbin/runc", "/usr/bin/runc"];

fn with_runc(test: impl Fn(&World, &dyn Fn(Value) -> Value)) {
    let Some(runc) = RUNC.into_iter().find(|path| std::path::Path::new(path).exists()) else {
        return testkit::skip("runc is not installed");
    };
    for_both(|world| {
        test(world, &|mut job| {
            job["foreign"] = json!(runc);
            job
        });
    });
}

#[test]
fn another_runtime_does_the_same() {
    with_runc(|world, by| {
        let script = "id; pwd; echo $HOME; cat /m/passwd > /dev/null && echo mounted; grep -E 'CapBnd|Seccomp:' /proc/self/status";
        let run = world.run(by(json!({"args": sh(script), "user": "www-data", "cwd": "/var",
            "mounts": [{"target": "/m", "bind": "/etc", "readonly": true}]})));
        run.says("uid=33(www-data) gid=33(www-data) groups=33(www-data),44(extra)\n/var\n/var/www\nmounted\n");
        run.says("CapBnd:\t00000000a80425fb\nSeccomp:\t2\n[exit 0]");
        assert_eq!(run.upper(), [""; 0]);
        world.run(by(json!({"args": sh("exit 7")}))).says("[exit 7]");
        world.run(by(json!({"args": ["nope"]}))).says("[not found:");
        world.run(by(json!({"args": ["/etc/passwd"]}))).says("[not executable:");
    });
}

#[test]
fn it_is_stopped_and_entered_as_well() {
    with_runc(|world, by| {
        let trap = "trap 'echo got; exit 3' TERM; echo up; while :; do usleep 20000; done";
        world.run(by(json!({"args": sh(trap), "wait_for": "up", "stop_ms": 10_000}))).says("got\n[exit 3]");
        world
            .run(by(json!({"args": sh("echo up; sleep 30"), "wait_for": "up", "exec": sh("id -u"), "exec_user": "33"})))
            .says("33\n[exec exit 0]")
            .says("[exit 137");
        world.run(by(json!({"args": sh("tty; stty size"), "stdio": "terminal"}))).says("/dev/pts/0\r\n24 80\r\n");
    });
}

#[test]
fn it_sets_kernel_parameters_and_makes_devices() {
    with_runc(|world, by| {
        let script = "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax; head -c 4 /dev/zeros | wc -c";
        let job = json!({"args": sh(script), "devices": [["/dev/zero", "/dev/zeros", "rwm"]],
            "sysctls": [["net.core.somaxconn", "77"], ["kernel.msgmax", "4321"]]});
        world.run(by(job)).says("77\n4321\n4\n[exit 0]");
    });
}
