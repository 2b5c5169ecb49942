//! What a process in a container gets, says and leaves: output, exit codes, identity, rights, signals.
#![allow(clippy::print_stderr, reason = "tests say why they skip")]

#[allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
mod support;

use serde_json::json;
use support::{As, World, for_both, sh};

#[test]
fn exit_codes_come_back() {
    for_both(|world| {
        world.run(json!({"args": sh("exit 7")})).says("[exit 7]");
        world.run(json!({"args": sh("exit 7"), "init": true})).says("[exit 7]");
        world.run(json!({"args": sh("kill -SEGV $$"), "init": true})).says("[exit 139 signal 11]");
    });
}

#[test]
fn failures_to_start_say_which() {
    for_both(|world| {
        for init in [false, true] {
            world
                .run(json!({"args": ["nope"], "init": init}))
                .says("[not found: no such program in the container: nope");
            world.run(json!({"args": ["/no/such"], "init": init})).says("[not found:");
            world.run(json!({"args": ["/etc/passwd"], "init": init})).says("[not executable:");
            world.run(json!({"args": ["true"], "user": "eve", "init": init})).says("[unknown user:");
        }
        world.run(json!({"args": ["true"], "cap_add": ["NONSENSE"]})).says("unknown capability `NONSENSE`");
        world
            .run(json!({"args": ["true"], "mounts": [{"target": "/m", "bind": "/no/such/file"}]}))
            .says("/no/such/file");
        let run = world.run(json!({"args": ["true"], "lowers": [world.dir.join("missing")]}));
        run.says("[setup:").says("missing");
        assert_eq!(run.upper(), [""; 0]);
    });
}

#[test]
fn both_outputs_keep_their_order() {
    for_both(|world| {
        let run = world.run(json!({"args": sh("for i in $(seq 300); do echo o$i; echo e$i >&2; done")}));
        let expected: String = (1..=300).map(|i| format!("o{i}\ne{i}\n")).collect();
        run.says(&expected);
    });
}

#[test]
fn input_and_output_can_be_opened_by_name_by_any_user() {
    for_both(|world| {
        for user in ["", "www-data"] {
            let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin";
            world.run(json!({"args": sh(script), "stdin": "input", "user": user})).says("out\nerr\ninput[exit 0]");
        }
    });
}

#[test]
fn users_groups_home_and_environment() {
    for_both(|world| {
        let run = world.run(json!({"args": sh("id; echo $HOME; umask; env"), "user": "www-data",
            "env": [["PATH", "/bin"], ["A", "b c"]]}));
        run.says("uid=33(www-data) gid=33(www-data) groups=33(www-data),44(extra)\n/var/www\n0022\n")
            .says("A=b c\n")
            .says_not("LANG");
        world.run(json!({"args": sh("id"), "user": "33:44"})).says("uid=33(www-data) gid=44(extra)");
        world.run(json!({"args": sh("echo $HOME"), "env": [["PATH", "/bin"], ["HOME", "/h"]]})).says("/h\n");
        world.run(json!({"args": sh("id -u"), "user": "4000"})).says("4000\n");
    });
}

#[test]
fn the_working_directory_is_made_and_kept() {
    for_both(|world| {
        let run = world.run(json!({"args": ["pwd"], "cwd": "/srv/app"}));
        run.says("/srv/app\n[exit 0]");
        assert_eq!(run.upper().len(), 2, "{:?}", run.upper());
    });
}

#[test]
fn capabilities_are_dockers() {
    for_both(|world| {
        let caps = |job: serde_json::Value| {
            let mut job = job;
            job["args"] = sh("grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status");
            world.run(job).text
        };
        let root = caps(json!({}));
        for line in [
            "CapInh:\t0000000000000000",
            "CapEff:\t00000000a80425fb",
            "CapBnd:\t00000000a80425fb",
            "CapAmb:\t0000000000000000",
            "Seccomp:\t2",
            "NoNewPrivs:\t0",
        ] {
            assert!(root.contains(line), "{line} in {root}");
        }
        let user = caps(json!({"user": "www-data", "no_new_privileges": true}));
        for line in
            ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1"]
        {
            assert!(user.contains(line), "{line} in {user}");
        }
        let changed = caps(json!({"cap_drop": ["ALL"], "cap_add": ["NET_ADMIN"]}));
        assert!(changed.contains("CapEff:\t0000000000001000"), "{changed}");
    });
}

#[test]
fn what_seccomp_and_capabilities_forbid_fails() {
    for_both(|world| {
        let run = world.run(json!({"args": sh(
            "mount -t tmpfs none /mnt; unshare -U true; mknod /x c 1 3; dmesg; hostname other; umount /proc; echo end")}));
        run.says("end\n");
        for what in ["mount: ", "unshare: ", "mknod: ", "hostname: ", "umount: "] {
            run.says(what);
        }
        assert_eq!(run.upper(), [""; 0]);
    });
}

#[test]
fn no_descriptor_leaks_into_a_container() {
    for_both(|world| {
        for init in [false, true] {
            // 3 is the shell's own directory listing.
            world
                .run(json!({"args": sh("for f in /proc/self/fd/*; do echo ${f##*/}; done | tail -n +4 | wc -l"),
                "init": init}))
                .says("1\n[exit 0]");
        }
        let exec = sh("ls /proc/self/fd | wc -l");
        world.run(json!({"args": sh("echo up; sleep 20"), "wait_for": "up", "exec": exec})).says("4\n[exec exit 0]");
    });
}

#[test]
fn a_terminal_is_the_containers_own() {
    for_both(|world| {
        for init in [false, true] {
            let run = world.run(json!({"args": sh("tty; stty size; echo console > /dev/console; : < /dev/tty"),
                "stdio": "terminal", "user": "www-data", "init": init}));
            run.says("/dev/pts/0\r\n24 80\r\nconsole\r\n");
        }
    });
}

#[test]
fn signals_reach_the_program() {
    for_both(|world| {
        let trap = "trap 'echo got; exit 3' TERM; echo up; while :; do usleep 20000; done";
        for init in [false, true] {
            let run = world.run(json!({"args": sh(trap), "init": init, "wait_for": "up", "stop_ms": 10_000}));
            run.says("got\n[exit 3]").says("[stopped in 0 s]");
        }
        let sleep = sh("echo up; exec sleep 30");
        world
            .run(json!({"args": sleep, "init": true, "wait_for": "up", "stop_ms": 10_000}))
            .says("[exit 143 signal 15]");
        // Pid 1 itself does not hear what it does not handle, so there is nothing to wait for.
        let deaf = world.run(json!({"args": sleep, "wait_for": "up", "stop_ms": 20_000}));
        deaf.says("[exit 137 signal 9]").says_not("[stopped in 20 s]").says_not("[stopped in 21 s]");
        // One that hears and stays has its time.
        let stubborn = sh("trap '' HUP; trap : TERM; echo up; while :; do usleep 20000; done");
        world.run(json!({"args": stubborn, "wait_for": "up", "stop_ms": 1_000})).says_not("[stopped in 0 s]");
    });
}

#[test]
fn daemons_and_zombies_do_not_outlive_the_program() {
    for_both(|world| {
        for init in [false, true] {
            let script = "for i in 1 2 3; do setsid sleep 4711 & done; (true &); usleep 100000; echo up";
            world.run(json!({"args": sh(script), "init": init})).says("up\n[exit 0]");
            assert_eq!(processes("4711"), 0);
        }
    });
}

#[test]
fn a_further_process_shares_everything() {
    for_both(|world| {
        let script = "id; ps; hostname; grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; cat /proc/self/cgroup | sort -u \
            | wc -l; touch /made";
        for init in [false, true] {
            let run = world.run(json!({"args": sh("echo up; sleep 20"), "wait_for": "up", "init": init,
                "exec": sh(script), "exec_user": "www-data"}));
            run.says("uid=33(www-data)")
                .says("sleep 20")
                .says("probe\n")
                .says("CapEff:\t0000000000000000")
                .says("CapBnd:\t00000000a80425fb")
                .says("Seccomp:\t2")
                .says("touch: /made: Permission denied")
                .says("[exec exit 1]")
                .says("[exit 137 signal 9]");
        }
        world
            .run(json!({"args": sh("echo up; sleep 20"), "wait_for": "up", "exec": ["nope"]}))
            .says("[exec not found:");
        world
            .run(json!({"args": sh("echo up; sleep 20"), "wait_for": "up", "exec": sh("tty; stty size"),
            "exec_terminal": true}))
            .says("/dev/pts/0\r\n10 20\r\n");
    });
}

#[test]
fn the_hosts_program_cannot_be_reached() {
    for_both(|world| {
        let script = "for p in /proc/[0-9]*; do echo x > $p/exe; cat $p/exe; readlink $p/exe; cat $p/environ; done 2>&1 \
            | grep -v -e Permission -e busybox -e 'Text file busy' -e nonexistent -e 'No such' | head -c 100";
        let probe = std::fs::read(world.dir.join("probe")).unwrap();
        world.run(json!({"args": sh(&format!("ls -l /proc/1/exe; {script}")), "init": true})).says("[exit 0]");
        let exec = sh("cat /proc/1/exe | wc -c; echo overwritten > /proc/1/exe; readlink /proc/1/exe");
        let run = world.run(json!({"args": ["sleep", "20"], "init": true, "exec": exec}));
        run.says("0\n").says_not("probe");
        assert!(std::fs::read(world.dir.join("probe")).unwrap() == probe, "the program is untouched");
    });
}

#[test]
fn one_id_is_enough_for_root_only_work() {
    if let Some(world) = World::new(As::Stranger) {
        world.run(json!({"action": "privilege"})).says("SingleId");
        let run = world.run(json!({"args": sh("id; touch /x; chown 33 /x; echo done")}));
        run.says("uid=0(root) gid=0(root)").says("chown: /x: Invalid argument").says("done\n[exit 0]");
        assert_eq!(run.upper().len(), 1);
        world.run(json!({"args": ["true"], "user": "www-data"})).says("[setup: cannot become user 33");
    }
}

#[test]
fn many_starts_from_many_threads_all_succeed() {
    for_both(|world| {
        let run = world.run(json!({"action": "parallel", "args": ["echo", "hello"], "threads": 8, "rounds": 8}));
        assert_eq!(run.text.matches("exit 0 hello\n").count(), 64, "{}", run.text);
    });
}

/// Processes whose command line has this argument.
fn processes(argument: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
        .count()
}
