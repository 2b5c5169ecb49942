//! What a container sees and leaves of file systems: layers, owners, mounts, masks, traces; and hostile images.
#![allow(clippy::print_stderr, reason = "tests say why they skip")]

#[allow(dead_code, unreachable_pub, reason = "shared by several test programs")]
mod support;

use serde_json::json;
use std::os::unix::fs::symlink;
use support::{As, World, for_both, sh};

#[test]
fn nothing_done_leaves_nothing() {
    for_both(|world| {
        for init in [false, true] {
            let run = world.run(json!({"args": ["true"], "init": init,
                "mounts": [{"target": "/run/secrets/key", "bind": "/etc/hostname"}, {"target": "/deep/er/tmp"}]}));
            run.says("[exit 0]");
            assert_eq!(run.upper(), [""; 0]);
        }
        // Also on a base that has some of the directories.
        std::fs::create_dir_all(world.dir.join("base/proc")).unwrap();
        std::fs::write(world.dir.join("base/etc/hosts"), "own").unwrap();
        world.give_all();
        assert_eq!(world.run(json!({"args": ["true"]})).upper(), [""; 0]);
    });
}

#[test]
fn what_was_done_is_kept() {
    for_both(|world| {
        let run = world.run(json!({"args": sh("echo x > /etc/made; mkdir /run; chmod 700 /var; rm -r /var/www"),
            "mounts": [{"target": "/var/cache/x"}]}));
        let names: Vec<String> = run.upper().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["etc", "etc/made", "run", "var", "var/www"], "{}", run.text);
        // A directory's time tells of changes in it that are gone again, as in docker's layers.
        let run = world.run(json!({"args": sh("touch /etc/gone; rm /etc/gone")}));
        assert_eq!(run.upper().len(), 1);
    });
}

#[test]
fn times_of_directories_do_not_tell_of_mount_points() {
    for_both(|world| {
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(world.dir.join("base/etc")).unwrap().set_modified(old).unwrap();
        let run = world.run(json!({"args": sh("echo more >> /etc/passwd")}));
        run.says("[exit 0]");
        assert_eq!(run.upper().len(), 2, "{:?}", run.upper());
        let etc = run.dir.join("upper/etc").metadata().unwrap();
        assert_eq!(etc.modified().unwrap(), old);
    });
}

#[test]
fn the_hosts_control_groups_are_not_in_the_list_of_mounts() {
    // An ordinary user's containers in the host's network have what is mounted below the host's /sys, hidden.
    let Some(world) = World::new(As::Root) else { return };
    for host_network in [false, true] {
        let groups = sh("grep -c ' /sys/fs/cgroup' /proc/self/mountinfo || true; ls -d /sys/class; echo x >/sys/made");
        let run = world.run(json!({"args": groups, "host_network": host_network}));
        run.says("/sys/class").says("Read-only file system");
        let count: u32 = run.text.lines().next().unwrap().parse().unwrap();
        assert!(count <= 1, "{count} mounts: {}", run.text);
    }
}

#[test]
fn owners_on_the_disk_are_those_of_the_container() {
    let Some(world) = World::new(As::Root) else { return };
    let run = world.run(json!({"args": sh("touch /root-file; mkdir /d; touch /d/f; chown 33:44 /d/f; chown 0:33 /d; \
        cat /proc/self/uid_map; stat -c '%u:%g' /bin /etc/passwd")}));
    run.says("1000000000").says("0:0\n0:0\n[exit 0]");
    assert_eq!(run.upper(), ["d 0:33", "d/f 33:44", "root-file 0:0"]);
    // As another user of the container.
    let run = world.run(json!({"args": sh("touch /tmp/mine; stat -c %u /tmp/mine"), "user": "www-data",
        "mounts": [{"target": "/tmp"}]}));
    run.says("33\n");
}

#[test]
fn bound_directories_keep_their_owners() {
    for_both(|world| {
        let shared = world.dir.join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("file"), "content\n").unwrap();
        world.give_all();
        let run = world.run(json!({"args": sh(
            "cat /w/file /r/file /one; stat -c '%u:%g' /w/file; touch /w/new; touch /r/no; echo x > /one"),
            "mounts": [{"target": "/w", "bind": shared}, {"target": "/r", "bind": shared, "readonly": true},
                {"target": "/one", "bind": shared.join("file"), "readonly": true}]}));
        run.says("content\ncontent\ncontent\n0:0\n").says("touch: /r/no: Read-only").says("/one: Read-only");
        use std::os::unix::fs::MetadataExt;
        let (new, old) = (shared.join("new").metadata().unwrap(), shared.join("file").metadata().unwrap());
        assert_eq!((new.uid(), new.gid()), (old.uid(), old.gid()));
        assert_eq!(run.upper(), [""; 0]);
    });
}

#[test]
fn a_part_of_another_image_can_be_mounted() {
    for_both(|world| {
        let other = json!({"lowers": [world.dir.join("base")], "upper": null, "work": null});
        let run = world.run(json!({"args": sh("ls /from; cat /one; echo x > /one"), "mounts": [
            {"target": "/from", "overlay": other, "subpath": "/etc", "readonly": true},
            {"target": "/one", "overlay": other, "subpath": "etc/group", "readonly": true}]}));
        run.says("group\npasswd\n").says("extra:x:44").says("Read-only");
    });
}

#[test]
fn many_layers_are_one() {
    for_both(|world| {
        for count in [127, 500] {
            let mut lowers = Vec::new();
            for number in 0..count - 1 {
                let lower = world.dir.join(format!("layer-{count}-{number}"));
                std::fs::create_dir_all(&lower).unwrap();
                std::fs::write(lower.join(format!("file-{number}")), "").unwrap();
                lowers.push(lower);
            }
            lowers.push(world.dir.join("base"));
            world.give_all();
            world.run(json!({"args": sh("ls / | grep -c file-"), "lowers": lowers})).says(&format!("{}\n", count - 1));
            world.run(json!({"action": "view", "lowers": lowers, "upper": null, "work": null})).says("file-125");
        }
    });
}

#[test]
fn a_view_shows_the_merged_tree() {
    for_both(|world| {
        let top = world.dir.join("top");
        std::fs::create_dir_all(&top).unwrap();
        std::fs::write(top.join("new"), "").unwrap();
        world.give_all();
        let base = world.dir.join("base");
        world
            .run(json!({"action": "view", "lowers": [top, base], "upper": null, "work": null}))
            .says("bin etc new var\n");
        world.run(json!({"action": "view", "lowers": [base], "upper": null, "work": null})).says("bin etc var\n");
        world.run(json!({"action": "overlay-works"})).says("true\n");
    });
}

#[test]
fn read_only_roots_and_views() {
    for_both(|world| {
        let run =
            world.run(json!({"args": sh("echo x > /x; echo y > /dev/shm/y && cat /dev/shm/y"), "readonly": true}));
        run.says("/x: Read-only").says("y\n[exit 0]");
        assert_eq!(run.upper(), [""; 0]);
        world
            .run(json!({"args": sh("ls /proc/self/exe /bin/sh"), "upper": null, "work": null, "readonly": true}))
            .says("[exit 0]");
    });
}

#[test]
fn a_plain_directory_serves_as_root() {
    for_both(|world| {
        let base = world.dir.join("base");
        let run =
            world.run(json!({"rootfs": base, "args": sh("id -u; touch /made; ls /proc/1 > /dev/null && echo ok")}));
        run.says("0\nok\n[exit 0]");
        let mut names: Vec<_> = std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["bin", "etc", "made", "var"]);
    });
}

#[test]
fn masked_and_read_only_paths() {
    for_both(|world| {
        let script = "cat /proc/kcore 2>/dev/null | wc -c; cat /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; \
            ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w; \
            echo 1 > /proc/sys/kernel/panic; echo b > /proc/sysrq-trigger; echo x > /sys/kernel/x; touch /proc/sys/net/x";
        for host_network in [false, true] {
            let run = world.run(json!({"args": sh(script), "host_network": host_network}));
            run.says("0\n0\n0\n").says("/proc/sys/kernel/panic: Read-only").says("can't create /proc/sysrq-trigger");
            run.says("can't create /sys/kernel/x");
        }
    });
}

#[test]
fn devices_work_and_no_others_do() {
    for_both(|world| {
        let run = world
            .run(json!({"args": sh("echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
            echo x > /dev/full; ls /dev; stat -c %a /dev/shm /dev/null; readlink /dev/fd; readlink /dev/ptmx")}));
        run.says("4\n4\n").says("No space left").says("777\n666\n").says("/proc/self/fd\npts/ptmx\n");
        run.says("fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n");
    });
}

#[test]
fn names_hosts_and_networks() {
    for_both(|world| {
        let script = "hostname; cat /etc/hostname /etc/hosts; cat /etc/resolv.conf > /dev/null && echo resolv; \
            ls /sys/class/net; ip addr show lo | grep -c 'inet 127'";
        let run = world.run(json!({"args": sh(script), "extra_hosts": [["10.0.0.9", "db"]]}));
        run.says("probe\nprobe\n").says("127.0.0.1\tlocalhost").says("10.0.0.9\tdb\n").says("resolv\nlo\n1\n");
        world.run(json!({"args": ["true"], "extra_hosts": [["10.0.0.9\n::1", "db"]]})).says("[setup:");
    });
}

#[test]
fn a_hostile_image_harms_nobody() {
    for_both(|world| {
        let secret = world.dir.join("secret");
        std::fs::write(&secret, "untouched").unwrap();
        let hostile = |links: &[(&str, &str)], files: &[&str]| {
            let layer = world.dir.join(format!("hostile-{}", links.len() * 10 + files.len()));
            drop(std::fs::remove_dir_all(&layer));
            std::fs::create_dir_all(layer.join("etc")).unwrap();
            for (name, target) in links {
                symlink(target, layer.join(name)).unwrap();
            }
            for name in files {
                std::fs::write(layer.join(name), "").unwrap();
            }
            world.give_all();
            json!([layer, world.dir.join("base")])
        };
        // A link where we mount: refused for what the kernel gives meaning to, resolved inside for the rest.
        for name in ["proc", "sys", "dev"] {
            let lowers = hostile(&[(name, "/etc")], &[]);
            world.run(json!({"args": ["true"], "lowers": lowers})).says("[setup: cannot make the mount point");
        }
        let out = format!("../../../../../..{}", secret.display());
        let lowers = hostile(
            &[("etc/hosts", &out), ("etc/hostname", world.dir.join("gone").to_str().unwrap()), ("loop", "loop")],
            &[],
        );
        let run = world.run(json!({"args": sh("cat /etc/hosts; echo x > /etc/hosts"), "lowers": lowers}));
        run.says("localhost").says("[exit 0]").says_not("untouched");
        assert_eq!(run.upper(), [""; 0]);
        world.run(json!({"args": ["true"], "lowers": lowers, "mounts": [{"target": "/loop/x"}]})).says("[setup:");
        // A working directory that leads elsewhere.
        for target in ["/proc/self/fd/3", "/proc/self/cwd", "/proc/1/root/../../.."] {
            let lowers = hostile(&[("job", target)], &["etc/a", "etc/b"]);
            world
                .run(json!({"args": sh("ls; ls ..; cat ../../../../secret"), "cwd": "/job", "lowers": lowers}))
                .says_not("untouched")
                .says_not("runtime-test");
        }
        // Account files that are no files.
        let layer = world.dir.join("fifo");
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, layer.join("etc/group"), rustix::fs::FileType::Fifo, 0o666.into(), 0)
            .unwrap();
        world.give_all();
        world.run(json!({"args": ["true"], "user": "33", "lowers": [layer, world.dir.join("base")]})).says("[exit 0]");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched");
    });
}

#[test]
fn mounting_over_proc_is_refused() {
    for_both(|world| {
        for target in ["/proc/sys", "/etc/../proc", "/proc/self/attr"] {
            world.run(json!({"args": ["true"], "mounts": [{"target": target}]})).says("cannot mount inside /proc");
        }
    });
}

#[test]
fn an_upper_directory_can_be_used_again() {
    for_both(|world| {
        let first = world.run(json!({"args": sh("echo first > /made")}));
        let again = json!({"args": sh("cat /made"), "upper": first.dir.join("upper"), "work": first.dir.join("work")});
        world.run(again.clone()).says("first\n[exit 0]");
        world.run(again).says("first\n[exit 0]");
    });
}
