//! What is taken from the cache, what is not and why, and that the same input gives the same bytes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use store::Compression;

use crate::world::{EPOCH, World};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("unchanged_build_starts_nothing", unchanged_build_starts_nothing),
    ("what_invalidates_what", what_invalidates_what),
    ("stage_content_decides", stage_content_decides),
    ("no_cache", no_cache),
    ("same_bytes_in_two_stores", same_bytes_in_two_stores),
    ("same_bytes_with_overlays_and_copies", same_bytes_with_overlays_and_copies),
    ("unchanged_files_are_linked", unchanged_files_are_linked),
    ("later_epoch_keeps_layers", later_epoch_keeps_layers),
    ("stages_run_side_by_side", stages_run_side_by_side),
    ("memo_notices_changes", memo_notices_changes),
    ("hard_links_stay_one_file", hard_links_stay_one_file),
    ("many_runs_are_quick", many_runs_are_quick),
    ("large_contexts_are_quick", large_contexts_are_quick),
];

const DOCKERFILE: &str = "FROM base AS one\nARG V=1\nRUN echo $V > /1\nFROM base\nWORKDIR /w\nCOPY a.txt sub /w/\n\
                          COPY --from=one /1 /w/one\nENV E=1\nRUN cat /w/one > /2\nLABEL l=1\nCMD [\"x\"]\n";

fn world() -> World {
    let world = World::new();
    world.file("a.txt", "A");
    world.file("sub/b", "B");
    world.file("unused", "U");
    world
}

fn unchanged_build_starts_nothing() {
    let world = world();
    let first = world.build(DOCKERFILE);
    assert_eq!((first.built().steps, first.built().steps_cached), (5, 0));
    let containers = world.containers();
    assert_eq!(containers, 2);
    let second = world.build(DOCKERFILE);
    assert_eq!((second.built().steps, second.built().steps_cached), (5, 5));
    assert_eq!(second.made(), Vec::<String>::new());
    assert_eq!(world.containers(), containers);
    assert_eq!(second.built().layers, first.built().layers);
    assert_eq!(second.built().root.id, first.built().root.id);
    assert_eq!(second.built().root.config, first.built().root.config);
}

fn what_invalidates_what() {
    type Change = fn(&World) -> String;
    // Change, instructions that are made again, reasons.
    let table: &[(&str, Change, &[&str], &[&str])] = &[
        ("nothing", |_| DOCKERFILE.into(), &[], &[]),
        (
            "file",
            |world| {
                world.file("sub/b", "changed");
                DOCKERFILE.into()
            },
            &["COPY a.txt", "COPY --from", "RUN cat"],
            &["sub/b changed", "Dockerfile:6 changed", "Dockerfile:6 changed"],
        ),
        (
            "new file",
            |world| {
                world.file("sub/new", "N");
                DOCKERFILE.into()
            },
            &["COPY a.txt", "COPY --from", "RUN cat"],
            &["sub/new is new", "Dockerfile:6 changed", "Dockerfile:6 changed"],
        ),
        (
            "mode",
            |world| {
                fs::set_permissions(world.context().join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
                DOCKERFILE.into()
            },
            &["COPY a.txt", "COPY --from", "RUN cat"],
            &["a.txt changed (mode)", "Dockerfile:6 changed", "Dockerfile:6 changed"],
        ),
        (
            "time only",
            |world| {
                let file = fs::File::options().write(true).open(world.context().join("a.txt")).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).unwrap();
                DOCKERFILE.into()
            },
            &[],
            &[],
        ),
        (
            "file that nothing copies",
            |world| {
                world.file("unused", "changed");
                DOCKERFILE.into()
            },
            &[],
            &[],
        ),
        ("label", |_| DOCKERFILE.replace("l=1", "l=2"), &[], &[]),
        ("command", |_| DOCKERFILE.replace("\"x\"", "\"y\""), &[], &[]),
        ("comment", |_| DOCKERFILE.replace("ENV", "# note\nENV"), &[], &[]),
        (
            "variable of a later RUN",
            |_| DOCKERFILE.replace("E=1", "E=2"),
            &["RUN cat"],
            &["variable E was `1`, is `2`"],
        ),
        ("new variable", |_| DOCKERFILE.replace("E=1", "E=1 F=2"), &["RUN cat"], &["variable F is new"]),
        (
            "argument",
            |_| DOCKERFILE.replace("V=1", "V=2"),
            &["RUN echo", "COPY --from", "RUN cat"],
            &["build argument V was `1`, is `2`", "1 changed", "Dockerfile:7 changed"],
        ),
        (
            "instruction",
            |_| DOCKERFILE.replace("RUN cat", "RUN  cat -u"),
            &["RUN  cat -u /w/one"],
            &["the instruction changed"],
        ),
        (
            "working directory",
            |_| DOCKERFILE.replace("WORKDIR /w", "WORKDIR /v"),
            &["WORKDIR /v", "COPY a.txt", "COPY --from", "RUN cat"],
            &["the instruction changed", "Dockerfile:5 changed", "Dockerfile:5 changed", "Dockerfile:5 changed"],
        ),
    ];
    for (name, change, made, reasons) in table {
        let world = world();
        world.build(DOCKERFILE).built();
        let dockerfile = change(&world);
        let outcome = world.build(&dockerfile);
        outcome.built();
        let all = outcome.made();
        assert_eq!(all.len(), made.len(), "{name}: {all:?}");
        for (text, start) in all.iter().zip(*made) {
            assert!(text.starts_with(start), "{name}: {text:?} does not begin with {start:?}");
        }
        assert_eq!(outcome.reasons(), *reasons, "{name}");
        // The old state is still there.
        if *name == "variable of a later RUN" {
            assert_eq!(world.build(DOCKERFILE).made().len(), 0, "{name}");
        }
    }
}

fn stage_content_decides() {
    let world = world();
    world.build(DOCKERFILE).built();
    // The stage is made again, but the file that is copied from it is the same.
    let outcome = world.build(&DOCKERFILE.replace("RUN echo $V > /1", "RUN echo $V > /1; true"));
    outcome.built();
    assert_eq!(outcome.made(), ["RUN echo $V > /1; true"]);
}

fn no_cache() {
    let world = world();
    world.build(DOCKERFILE).built();
    let mut request = world.request(DOCKERFILE);
    request.no_cache = true;
    assert_eq!(world.run(&request).built().steps_cached, 0);
    request.no_cache = false;
    request.no_cache_filter = vec!["one".into()];
    assert_eq!(world.run(&request).made(), ["RUN echo $V > /1"]);
}

fn same_bytes_in_two_stores() {
    let dockerfile = "FROM base AS one\nRUN mkdir /d; for i in 3 1 2; do echo $i > /d/$i; done; ln /d/1 /d/hard; date > /dev/null\n\
                      FROM base\nWORKDIR /w/x\nCOPY . /w/\nCOPY --from=one /d /d\nRUN touch /now /tmp/x && mkdir -p /new/dir\nLABEL b=1 a=2\n";
    let mut digests = Vec::new();
    for delay in [0, 1100] {
        let world = world();
        // A second clock: file times of the second build differ in whole seconds.
        std::thread::sleep(Duration::from_millis(delay));
        digests.push(world.seal(world.build(dockerfile).built()));
        // A build from the cache gives the same again.
        digests.push(world.seal(world.build(dockerfile).built()));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

fn same_bytes_with_overlays_and_copies() {
    // Deep directories, links, what is removed, replaced, merged and hidden.
    let dockerfile = "FROM base AS one\n\
                      RUN mkdir -p /d/e/f /d/g /gone/x /again; echo 1 > /d/e/f/1; echo 2 > /d/2; ln /d/2 /d/g/hard; touch /again/a /again/b\n\
                      RUN echo 3 > /d/e/f/3; chmod 700 /d/e/f; ln -s 3 /d/e/f/link\n\
                      RUN rm -rf /gone /d/e/f/1; rm -r /again; mkdir /again; echo b > /again/b; echo c > /again/c\n\
                      RUN rm -r /d/g; echo file > /d/g\n\
                      FROM base\nWORKDIR /w/x\nCOPY . /w/\nCOPY --from=one /d /deep/d\n\
                      COPY --from=one --chown=5:6 /again /again\nRUN touch /now /w/x/y && mkdir -p /new/dir && rm /w/a.txt\n";
    for target in ["one", "1"] {
        let digests = [World::new(), World::with_copies()].map(|world| {
            world.file("a.txt", "A");
            world.file("sub/b", "B");
            let mut request = world.request(dockerfile);
            request.target = Some(target.into());
            let outcome = world.run(&request);
            let forms = [Compression::Gzip, Compression::Zstd].map(|form| world.seal_as(outcome.built(), form));
            (world.tars(outcome.built()), forms)
        });
        assert_eq!(digests[0].0, digests[1].0, "{target}");
        assert_eq!(digests[0].1, digests[1].1, "{target}");
        assert_ne!(digests[0].1[0], digests[0].1[1], "{target}");
    }
}

fn unchanged_files_are_linked() {
    let world = World::new();
    for number in 0..200 {
        world.file(&format!("d/{}/{number}", number % 7), &format!("content {number}"));
    }
    let dockerfile = "FROM base\nCOPY d /d\n";
    let first = world.build(dockerfile);
    world.file("d/3/3", "changed");
    let second = world.build(dockerfile);
    assert_eq!(second.reasons(), ["d/3/3 changed"]);
    let inode = |outcome: &crate::world::Outcome, path: &str| {
        fs::metadata(world.store.snapshot_fs(outcome.built().layers.last().unwrap()).join(path)).unwrap().ino()
    };
    let is_linked = |path: &str| inode(&first, path) == inode(&second, path);
    if !world.store.options().copy_snapshots {
        assert!(is_linked("d/4/4") && is_linked("d/0/0"));
    }
    assert!(!is_linked("d/3/3"));
    assert_eq!(world.read(second.built(), "/d/3/3"), "changed");
    // A fresh store, which has nothing to link, gives the same image.
    let linked = world.seal(second.built());
    let fresh = World::new();
    for number in 0..200 {
        fresh.file(&format!("d/{}/{number}", number % 7), &format!("content {number}"));
    }
    fresh.file("d/3/3", "changed");
    assert_eq!(fresh.seal(fresh.build(dockerfile).built()), linked);
}

fn later_epoch_keeps_layers() {
    let world = world();
    let first = world.build(DOCKERFILE);
    world.seal(first.built());
    let mut request = world.request(DOCKERFILE);
    request.epoch = Some(UNIX_EPOCH + Duration::from_secs(EPOCH + 1000));
    let second = world.run(&request);
    let ids = |outcome: &crate::world::Outcome| -> Vec<_> {
        let built = outcome.built();
        built.layers[1..].iter().map(|layer| world.store.diff_id(layer, built.epoch).unwrap().0).collect()
    };
    if !world.store.options().copy_snapshots {
        assert_eq!(ids(&first), ids(&second));
    }
    assert_eq!(second.built().root.config.created.as_deref(), Some("2023-11-14T22:30:00Z"));
}

fn stages_run_side_by_side() {
    let world = World::new();
    let mut dockerfile = String::new();
    let mut copies = String::new();
    // Each waits until all have begun; one after the other, the first waits in vain.
    let meet = "i=0; until set -- /all/*; [ $# = 6 ]; do i=$((i+1)); [ $i -lt 1000 ] || exit 1; sleep 0.02; done";
    for number in 0..6 {
        dockerfile.push_str(&format!(
            "FROM base AS s{number}\nRUN --mount=type=cache,target=/all echo > /all/{number}; {meet}; echo {number} > /{number}\n"
        ));
        copies.push_str(&format!("COPY --from=s{number} /{number} /\n"));
    }
    world.build(&format!("{dockerfile}FROM base\n{copies}")).built();
}

fn memo_notices_changes() {
    let world = World::new();
    let dockerfile = "FROM base\nCOPY f /f\n";
    // Same size and same time: only inode and change time tell.
    for content in ["one", "two", "six"] {
        world.file("f", content);
        let outcome = world.build(dockerfile);
        assert_eq!(world.read(outcome.built(), "/f"), content);
    }
    // Long unchanged files are remembered: reading is not even possible any more, yet the build is taken from the cache.
    std::thread::sleep(Duration::from_millis(2100));
    world.build(dockerfile).built();
    assert_eq!(world.build(dockerfile).built().steps_cached, 1);
    // Without an epoch it is that of the newest file.
    let mut request = world.request(dockerfile);
    request.epoch = None;
    let built = world.run(&request);
    assert_eq!(built.built().epoch, UNIX_EPOCH + Duration::from_secs(EPOCH - 1000));
    assert!(built.built().epoch < SystemTime::now());
}

fn many_runs_are_quick() {
    let world = World::new();
    let dockerfile = format!("FROM base\n{}", "RUN true\n".repeat(60));
    let start = Instant::now();
    world.build(&dockerfile).built();
    let cold = start.elapsed();
    let start = Instant::now();
    assert_eq!(world.build(&dockerfile).built().steps_cached, 60);
    let warm = start.elapsed();
    // Far above what is expected, so that only a real loss fails on a busy machine.
    assert!(cold < Duration::from_secs(20) && warm < Duration::from_secs(1), "{cold:?} {warm:?}");
}

fn large_contexts_are_quick() {
    let files = if std::env::var_os("SEATRIAL_SLOW_TESTS").is_some() { 20_000 } else { 2_000 };
    let world = World::new();
    for number in 0..files {
        world.file(&format!("d/{}/{}/{number}", number % 97, number % 7), &"x".repeat(number * 7 % 4000));
    }
    let timed = |what: &str| {
        let start = Instant::now();
        let steps = world.build("FROM base\nCOPY . /d\n").built().steps_cached;
        assert_eq!(steps, usize::from(what == "unchanged"));
        start.elapsed()
    };
    timed("first");
    // Whatever was written just now is not remembered, so once more.
    std::thread::sleep(Duration::from_millis(100));
    timed("unchanged");
    let unchanged = timed("unchanged");
    world.file("d/1/1/1", "changed");
    timed("one changed");
    assert!(unchanged < Duration::from_secs(10), "{unchanged:?}");
}

fn hard_links_stay_one_file() {
    let world = World::new();
    world.file("d/a", "A");
    fs::create_dir(world.context().join("d/sub")).unwrap();
    fs::hard_link(world.context().join("d/a"), world.context().join("d/sub/b")).unwrap();
    let dockerfile = "FROM base AS one\nCOPY d /d\nFROM base\nCOPY --from=one /d /e\n";
    let outcome = world.build(dockerfile);
    let top = world.store.snapshot_fs(outcome.built().layers.last().unwrap());
    let inode = |path: &str| fs::metadata(top.join(path)).unwrap().ino();
    assert_eq!(inode("e/a"), inode("e/sub/b"));
    assert_eq!(world.read(outcome.built(), "/e/sub/b"), "A");
}
