//! Why a step was made: the first part of its key that differs from its former build's.

use std::{fs, os::unix::fs::PermissionsExt as _};

use engine::BuildRequest;
use events::{Cause, Change, Event};
use oci::Digest;

use crate::world::{Outcome, World};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("first_build_is_new", first_build_is_new),
    ("every_difference_is_named", every_difference_is_named),
    ("another_base_is_named", another_base_is_named),
    ("files_are_told_with_digests", files_are_told_with_digests),
    ("removed_results_are_told", removed_results_are_told),
    ("former_is_the_last_build", former_is_the_last_build),
    ("failed_builds_keep_what_was_known", failed_builds_keep_what_was_known),
];

const DOCKERFILE: &str = "FROM base AS one\nARG V=1\nARG API_TOKEN\nRUN echo one > /1\nFROM one\nRUN echo a > /a\nRUN echo b > /b\n\
                          RUN --mount=type=bind,target=/src,source=sub cat /src/b > /c\nCOPY --chmod=700 sub /sub\n";

fn world() -> World {
    let world = World::new();
    world.file("sub/b", "B");
    world.file("sub/run.sh", "echo");
    world
}

/// Instruction, cause in short.
fn causes(outcome: &Outcome) -> Vec<(String, String)> {
    outcome.built();
    let text = |wanted: u64| {
        let mut texts = outcome.events.iter().filter_map(|event| match event {
            Event::StepStarted { step, text, .. } if *step == wanted => Some(text.clone()),
            _ => None,
        });
        texts.next_back().expect("a step starts before it ends")
    };
    let missed = outcome.events.iter().filter_map(|event| match event {
        Event::StepMissed { step, cause, .. } => Some((text(*step), cause.summary())),
        _ => None,
    });
    missed.collect()
}

fn first_build_is_new() {
    let world = world();
    let told = causes(&world.build(DOCKERFILE));
    assert_eq!(told.len(), 5);
    assert!(told.iter().all(|(_, cause)| cause == "not built before"), "{told:?}");
    assert_eq!(causes(&world.build(DOCKERFILE)), []);
}

fn every_difference_is_named() {
    type Edit = fn(&World, &mut BuildRequest);
    fn edit(request: &mut BuildRequest, from: &str, to: &str) {
        assert!(request.dockerfile.text.contains(from), "{from}");
        request.dockerfile.text = request.dockerfile.text.replace(from, to);
    }
    /// Name, what is done, and the instructions that are made again, each with its cause.
    type Case = (&'static str, Edit, &'static [(&'static str, &'static str)]);
    let table: &[Case] = &[
        (
            "an instruction in between",
            |_, request| edit(request, "RUN echo b", "RUN echo new > /n\nRUN echo b"),
            &[
                ("RUN echo new", "the instruction is new"),
                ("RUN echo b", "Dockerfile:7 changed"),
                ("RUN --mount", "Dockerfile:7 changed"),
                ("COPY", "Dockerfile:7 changed"),
            ],
        ),
        (
            "an instruction is gone",
            |_, request| edit(request, "RUN echo a > /a\n", ""),
            &[
                ("RUN echo b", "`RUN echo a > /a` is gone"),
                ("RUN --mount", "Dockerfile:6 changed"),
                ("COPY", "Dockerfile:6 changed"),
            ],
        ),
        (
            "a changed instruction of the stage below",
            |_, request| edit(request, "echo one", "echo two"),
            &[
                ("RUN echo two", "the instruction changed"),
                ("RUN echo a", "Dockerfile:4 changed"),
                ("RUN echo b", "Dockerfile:4 changed"),
                ("RUN --mount", "Dockerfile:4 changed"),
                ("COPY", "Dockerfile:4 changed"),
            ],
        ),
        (
            "a build argument",
            |_, request| drop(request.build_args.insert("V".into(), "2".into())),
            &[
                ("RUN echo one", "build argument V was `1`, is `2`"),
                ("RUN echo a", "Dockerfile:4 changed"),
                ("RUN echo b", "Dockerfile:4 changed"),
                ("RUN --mount", "Dockerfile:4 changed"),
                ("COPY", "Dockerfile:4 changed"),
            ],
        ),
        (
            "the user",
            |_, request| edit(request, "RUN echo b", "USER 0\nRUN echo b"),
            &[
                ("RUN echo b", "user was ``, is `0`"),
                ("RUN --mount", "Dockerfile:8 changed"),
                ("COPY", "Dockerfile:8 changed"),
            ],
        ),
        (
            "a file that a mount shows",
            |world, _| drop(world.file("sub/b", "changed")),
            &[("RUN --mount", "mount /src: sub/b changed"), ("COPY", "Dockerfile:8 changed")],
        ),
        (
            "a flag of COPY",
            |_, request| edit(request, "chmod=700", "chmod=755"),
            &[("COPY", "the instruction changed")],
        ),
        (
            "a filter",
            |_, request| request.no_cache_filter = vec!["one".into()],
            &[("RUN echo one", "the cache is off (--no-cache-filter=one)")],
        ),
        (
            "another image of the same name",
            |world, _| {
                let base = world.store.resolve(&"base".parse().unwrap()).unwrap().unwrap();
                let scope = world.store.open_scope().unwrap();
                let active = world.store.prepare(&scope, base.top()).unwrap();
                fs::write(active.upper().join("new"), "").unwrap();
                let top = active.commit().unwrap();
                let mut config = base.config.clone();
                config.rootfs.diff_ids.push(world.store.diff_id(&top, base.epoch).unwrap().0);
                let layers = [base.layers.clone(), vec![top]].concat();
                let image = world.store.put_image(&config, &layers, base.epoch).unwrap();
                world.store.tag(&"base".parse().unwrap(), &image.id).unwrap();
            },
            &[
                ("RUN echo one", "base image base changed"),
                ("RUN echo a", "base image base changed"),
                ("RUN echo b", "base image base changed"),
                ("RUN --mount", "base image base changed"),
                ("COPY", "base image base changed"),
            ],
        ),
    ];
    for (name, change, expected) in table {
        let world = world();
        world.build(DOCKERFILE).built();
        let mut request = world.request(DOCKERFILE);
        change(&world, &mut request);
        let told = causes(&world.run(&request));
        assert_eq!(told.len(), expected.len(), "{name}: {told:?}");
        for ((text, cause), (start, wanted)) in told.iter().zip(*expected) {
            assert!(text.starts_with(start), "{name}: {text:?} does not begin with {start:?}");
            assert_eq!(cause, wanted, "{name}: {text}");
        }
    }
}

fn another_base_is_named() {
    let world = world();
    world.build("FROM base\nCOPY sub /s\n").built();
    world.add_image("other", &world.context(), |_| {});
    assert_eq!(
        causes(&world.build("FROM other\nCOPY sub /s\n")),
        [("COPY sub /s".to_owned(), "base image was base, is other".to_owned())]
    );
    let to_stage = "FROM other AS low\nWORKDIR /w\nFROM low\nCOPY sub /s\n";
    let told = causes(&world.build(to_stage));
    assert_eq!(told.last().unwrap().1, "not built before");
}

fn files_are_told_with_digests() {
    let world = world();
    for number in 0..30 {
        world.file(&format!("sub/many/{number:02}"), "x");
    }
    let dockerfile = "FROM base\nCOPY sub /deep/dir/\n";
    world.build(dockerfile).built();
    world.file("sub/b", "BB");
    world.file("sub/new name", "");
    fs::remove_file(world.context().join("sub/many/07")).unwrap();
    fs::set_permissions(world.context().join("sub/run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = world.build(dockerfile);
    let cause = outcome.events.iter().find_map(|event| match event {
        Event::StepMissed { cause, .. } => Some((**cause).clone()),
        _ => None,
    });
    let Some(Cause::Files { files, changed, added, removed, mount: None }) = cause else { panic!("{cause:?}") };
    assert_eq!((changed, added, removed), (2, 1, 1));
    let told: Vec<(&str, Change, &str)> = files.iter().map(|f| (f.path.as_str(), f.change, f.what())).collect();
    assert_eq!(
        told,
        [
            ("sub/b", Change::Changed, "the content"),
            ("sub/run.sh", Change::Changed, "the mode"),
            ("sub/new name", Change::Added, "the file"),
            ("sub/many/07", Change::Removed, "the file"),
        ]
    );
    let (old, new) = (files[0].old.as_ref().unwrap(), files[0].new.as_ref().unwrap());
    assert_eq!((old.size_bytes, new.size_bytes), (Some(1), Some(2)));
    assert_eq!(old.digest, Some(Digest::of(b"B")));
    assert_eq!(new.digest, Some(Digest::of(b"BB")));
}

fn removed_results_are_told() {
    let world = world();
    let dockerfile = "FROM base\nARG API_TOKEN\nRUN true\n";
    let mut request = world.request(dockerfile);
    request.build_args.insert("API_TOKEN".into(), "first".into());
    world.run(&request).built();
    fs::remove_dir_all(world.store.root().join("cache")).unwrap();
    fs::create_dir(world.store.root().join("cache")).unwrap();
    assert_eq!(causes(&world.run(&request))[0].1, "its former result was removed");
    // The comparison needs no result either, and never tells a secret.
    fs::remove_dir_all(world.store.root().join("cache")).unwrap();
    fs::create_dir(world.store.root().join("cache")).unwrap();
    request.build_args.insert("API_TOKEN".into(), "second".into());
    let outcome = world.run(&request);
    assert_eq!(causes(&outcome)[0].1, "build argument API_TOKEN changed");
    assert!(!format!("{:?}", outcome.events).contains("second"));
    assert!(!format!("{:?}", outcome.events).contains("first"));
}

fn former_is_the_last_build() {
    let world = world();
    let build = |value: &str| {
        let mut request = world.request("FROM base\nARG V\nRUN echo $V > /v\n");
        request.build_args.insert("V".into(), value.into());
        causes(&world.run(&request))
    };
    build("1");
    build("2");
    // All from the cache, and still the build that the next one is compared with.
    assert_eq!(build("1"), []);
    assert_eq!(build("3")[0].1, "build argument V was `1`, is `3`");
}

fn failed_builds_keep_what_was_known() {
    let world = world();
    let good = "FROM base\nRUN true\nRUN echo 1 > /x\n";
    world.build(good).built();
    let failed = world.build(&good.replace("RUN true", "RUN false"));
    failed.failed();
    let again = causes(&world.build(&good.replace("RUN true", "RUN true ok")));
    assert_eq!(
        again,
        [
            ("RUN true ok".to_owned(), "the instruction changed".to_owned()),
            ("RUN echo 1 > /x".to_owned(), "Dockerfile:2 changed".to_owned())
        ]
    );
}
