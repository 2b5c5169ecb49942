//! A COPY of many files of which few changed: what is written, and that nobody can tell it from a COPY of everything.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::world::{Outcome, World};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("one_changed_file_is_one_file_written", one_changed_file_is_one_file_written),
    ("every_kind_of_change_gives_the_image_of_a_fresh_build", every_kind_of_change_gives_the_image_of_a_fresh_build),
    ("builds_in_a_row_stay_like_fresh_ones", builds_in_a_row_stay_like_fresh_ones),
    ("what_a_container_sees_is_what_is_sealed", what_a_container_sees_is_what_is_sealed),
    ("names_below_come_back_when_a_copied_one_is_gone", names_below_come_back_when_a_copied_one_is_gone),
    ("many_changes_are_a_layer_of_their_own", many_changes_are_a_layer_of_their_own),
    ("what_comes_beside_the_files_is_written_too", what_comes_beside_the_files_is_written_too),
    ("files_of_a_stage_are_written_over_too", files_of_a_stage_are_written_over_too),
];

const DOCKERFILE: &str = "FROM base\nRUN mkdir -p /app/d0 && echo below > /app/d0/below\nCOPY . /app\n";

fn world() -> World {
    let world = World::new();
    fill(&world);
    world
}

fn fill(world: &World) {
    for number in 0..400 {
        world.file(&format!("d{}/s{}/{number}", number % 4, number % 5), &format!("content {number}"));
    }
    world.file("d1/link", "-> s1/1");
    world.file("run.sh", "echo run");
}

/// Paths of the regular files in the top layer's own directory.
fn written(world: &World, outcome: &Outcome) -> Vec<String> {
    fn list(at: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(at.join(below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                list(at, &path, found)
            } else {
                found.push(path.display().to_string())
            }
        }
    }
    let mut found = Vec::new();
    list(&world.store.snapshot_fs(outcome.built().layers.last().unwrap()), Path::new(""), &mut found);
    found.sort();
    found
}

fn one_changed_file_is_one_file_written() {
    let world = world();
    assert_eq!(written(&world, &world.build(DOCKERFILE)).len(), 402);
    if world.store.options().copy_snapshots {
        return testkit::skip("snapshots are full copies here");
    }
    world.file("d2/s2/2", "changed");
    let second = world.build(DOCKERFILE);
    assert_eq!(second.reasons(), ["d2/s2/2 changed"]);
    assert_eq!(written(&world, &second), ["app/d2/s2/2"]);
    // The next one lies over the first as well, not over the second.
    world.file("d3/s3/3", "changed");
    assert_eq!(written(&world, &world.build(DOCKERFILE)), ["app/d2/s2/2", "app/d3/s3/3"]);
    // Another parent makes no difference.
    let other = world.build(&DOCKERFILE.replace("below >", "other >"));
    assert_eq!(written(&world, &other), ["app/d2/s2/2", "app/d3/s3/3"]);
}

type Change = fn(&World);

fn every_kind_of_change_gives_the_image_of_a_fresh_build() {
    let table: &[(&str, Change)] = &[
        ("content, new files and a new directory", |world| {
            world.file("d1/s1/1", "changed");
            world.file("d1/s1/new", "new");
            world.file("d1/new/a/b/c", "new");
            world.file("run.sh", "echo changed");
            world.file("d0/s0/0", "in a directory that exists below");
            world.file("zzz", "new");
        }),
        ("a file and a directory gone", |world| {
            fs::remove_file(world.context().join("d1/s1/1")).unwrap();
            fs::remove_file(world.context().join("run.sh")).unwrap();
            fs::remove_dir_all(world.context().join("d2/s2")).unwrap();
        }),
        ("directory becomes a file, file a directory", |world| {
            fs::remove_dir_all(world.context().join("d1/s0")).unwrap();
            world.file("d1/s0", "a file");
            fs::remove_file(world.context().join("d1/s1/1")).unwrap();
            world.file("d1/s1/1/inside", "new");
        }),
        ("link and modes", |world| {
            fs::remove_file(world.context().join("d1/link")).unwrap();
            world.file("d1/link", "-> elsewhere");
            for (path, mode) in [("d1/s1/1", 0o4711), ("d1/s1", 0o2750)] {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(world.context().join(path), mode).unwrap();
            }
        }),
        ("second name of a file", |world| {
            fs::hard_link(world.context().join("d1/s1/1"), world.context().join("d1/s1/twin")).unwrap();
        }),
    ];
    for (name, change) in table {
        let world = world();
        world.build(DOCKERFILE).built();
        change(&world);
        let over = world.build(DOCKERFILE);
        let fresh = World::new();
        fill(&fresh);
        change(&fresh);
        let fresh_outcome = fresh.build(DOCKERFILE);
        let (over, fresh) = (world.seal(over.built()), fresh.seal(fresh_outcome.built()));
        assert_eq!(over, fresh, "{name}");
    }
}

fn builds_in_a_row_stay_like_fresh_ones() {
    // Files come, go and come back; each build compares with the first result, not with the one before.
    let rounds: &[Change] = &[
        |world| fs::remove_file(world.context().join("d1/s1/1")).unwrap(),
        |world| {
            world.file("d1/s1/1", "content 1");
            fs::remove_dir_all(world.context().join("d3/s3")).unwrap();
        },
        |world| {
            world.file("d3/s3", "a file now");
            world.file("d2/s2/2", "changed");
        },
        |world| {
            fs::remove_file(world.context().join("d3/s3")).unwrap();
            world.file("d3/s3/3", "content 3");
            world.file("d2/s2/2", "content 2");
            world.file("d2/s2/extra/file", "new");
        },
        |world| fs::remove_dir_all(world.context().join("d2/s2/extra")).unwrap(),
    ];
    let world = world();
    world.build(DOCKERFILE).built();
    for (number, round) in rounds.iter().enumerate() {
        round(&world);
        let over = world.build(DOCKERFILE);
        let fresh = World::new();
        fill(&fresh);
        rounds[..=number].iter().for_each(|round| round(&fresh));
        assert_eq!(world.seal(over.built()), fresh.seal(fresh.build(DOCKERFILE).built()), "round {number}");
    }
}

fn what_a_container_sees_is_what_is_sealed() {
    let world = world();
    world.build(DOCKERFILE).built();
    world.file("d1/s1/1", "changed");
    world.file("d1/s1/new", "new");
    fs::remove_file(world.context().join("d1/s1/21")).unwrap();
    fs::remove_dir_all(world.context().join("d2/s2")).unwrap();
    let look = "cd /app; cat d1/s1/1 d1/s1/new d0/below; ls -d d1/s1/21 d2/s2 2>/dev/null; ls d2 d1/s1 | sort; find . | sort | head -20";
    let dockerfile = format!("{DOCKERFILE}RUN {look}\nRUN echo later > /app/d1/s1/1\n");
    let outcome = world.build(&dockerfile);
    let seen = outcome.logs();
    let fresh = World::new();
    fill(&fresh);
    fresh.file("d1/s1/1", "changed");
    fresh.file("d1/s1/new", "new");
    fs::remove_file(fresh.context().join("d1/s1/21")).unwrap();
    fs::remove_dir_all(fresh.context().join("d2/s2")).unwrap();
    let fresh_outcome = fresh.build(&dockerfile);
    assert_eq!(seen, fresh_outcome.logs());
    assert_eq!(seen[0], "changednewbelow");
    assert_eq!(world.seal(outcome.built()), fresh.seal(fresh_outcome.built()));
    // A COPY out of such a layer sees it whole.
    let from =
        format!("FROM base AS one\n{}FROM base\nCOPY --from=one /app /out\n", &DOCKERFILE["FROM base\n".len()..]);
    assert_eq!(world.seal(world.build(&from).built()), fresh.seal(fresh.build(&from).built()));
}

fn names_below_come_back_when_a_copied_one_is_gone() {
    // `/app/d0/below` is of the base; the context's file of that name covers it, and then goes away.
    let world = world();
    world.file("d0/below", "above");
    let first = world.build(DOCKERFILE);
    assert_eq!(world.read(first.built(), "/app/d0/below"), "above");
    fs::remove_file(world.context().join("d0/below")).unwrap();
    let dockerfile = format!("{DOCKERFILE}RUN cat /app/d0/below\n");
    let outcome = world.build(&dockerfile);
    assert_eq!(outcome.logs(), ["below"]);
    let fresh = World::new();
    fill(&fresh);
    assert_eq!(world.seal(outcome.built()), fresh.seal(fresh.build(&dockerfile).built()));
}

fn many_changes_are_a_layer_of_their_own() {
    let world = world();
    world.build(DOCKERFILE).built();
    world.file("d1/s1/1", "changed");
    world.build(DOCKERFILE).built();
    for number in 0..100 {
        world.file(&format!("d{}/s{}/{number}", number % 4, number % 5), "changed");
    }
    let outcome = world.build(DOCKERFILE);
    assert_eq!(written(&world, &outcome).len(), 402);
    let fresh = World::new();
    fill(&fresh);
    for number in 0..100 {
        fresh.file(&format!("d{}/s{}/{number}", number % 4, number % 5), "changed");
    }
    assert_eq!(world.seal(outcome.built()), fresh.seal(fresh.build(DOCKERFILE).built()));
    // The next small change lies over this one.
    world.file("d1/s1/1", "again");
    if !world.store.options().copy_snapshots {
        assert_eq!(written(&world, &world.build(DOCKERFILE)), ["app/d1/s1/1"]);
    }
}

fn what_comes_beside_the_files_is_written_too() {
    let world = world();
    let dockerfile = "FROM base\nCOPY . <<note.txt /app/\nan inline file\nnote.txt\n";
    world.build(dockerfile).built();
    world.file("d1/s1/1", "changed");
    let outcome = world.build(dockerfile);
    assert_eq!(world.read(outcome.built(), "/app/note.txt"), "an inline file\n");
    assert_eq!(world.read(outcome.built(), "/app/d1/s1/1"), "changed");
}

fn files_of_a_stage_are_written_over_too() {
    let world = world();
    let dockerfile = |word: &str| {
        format!(
            "FROM base AS one\nCOPY --chown=app . /src\nRUN echo {word} > /src/made; chown 7:8 /src/made\n\
             FROM base\nCOPY --from=one /src /app\n"
        )
    };
    world.build(&dockerfile("one")).built();
    let outcome = world.build(&dockerfile("two"));
    if !world.store.options().copy_snapshots {
        assert_eq!(written(&world, &outcome), ["app/made"]);
    }
    let fresh = World::new();
    fill(&fresh);
    assert_eq!(world.seal(outcome.built()), fresh.seal(fresh.build(&dockerfile("two")).built()));
}
