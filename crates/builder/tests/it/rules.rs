//! The exact rules of COPY and ADD, each with the case that shows it. What each is checked against is BuildKit's
//! `dockerfile2llb` and fsutil's `copy`, if nothing else is said.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use engine::Built;
use expect_test::{Expect, expect};

use crate::world::{EPOCH, World, explain};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("destinations_as_written", destinations_as_written),
    ("destinations_through_links", destinations_through_links),
    ("kinds_that_do_not_fit", kinds_that_do_not_fit),
    ("patterns_that_match_nothing", patterns_that_match_nothing),
    ("parents_keep_their_attributes", parents_keep_their_attributes),
    ("parents_with_patterns", parents_with_patterns),
    ("exclude_in_depth", exclude_in_depth),
    ("merged_directories", merged_directories),
    ("hard_links_within_one_copy", hard_links_within_one_copy),
    ("holes_stay_holes", holes_stay_holes),
    ("attributes_of_users", attributes_of_users),
    ("names_of_all_kinds", names_of_all_kinds),
    ("special_files_are_named", special_files_are_named),
    ("heredocs", heredocs),
    ("owners_by_name", owners_by_name),
    ("times", times),
    ("swapped_sources_stay_inside", swapped_sources_stay_inside),
];

fn check(files: &[(&str, &str)], dockerfile: &str, expected: Expect) {
    let world = World::new();
    for (name, content) in files {
        world.file(name, content);
    }
    expected.assert_eq(&world.show(world.build(dockerfile).built()));
}

fn check_failure(files: &[(&str, &str)], dockerfile: &str, expected: Expect) {
    let world = World::new();
    for (name, content) in files {
        world.file(name, content);
    }
    expected.assert_eq(&(explain(world.build(dockerfile).failed()) + "\n"));
}

/// A path of the topmost layer.
fn top(world: &World, built: &Built, path: &str) -> PathBuf {
    world.store.snapshot_fs(built.layers.last().unwrap()).join(path)
}

fn destinations_as_written() {
    let files = &[("d/x", "X"), ("a", "A")];
    // `.`, `./`, `/.` and a trailing slash are directories; anything else is one only if it is there.
    check(
        files,
        "FROM base\nWORKDIR /w\nCOPY a .\nCOPY a ./\nCOPY a sub/.\nCOPY a ./new\nCOPY a ..\nCOPY a /w/sub\n",
        expect![[r#"
            layer
              d755 w/
            layer
              d755 w/
              -644 w/a "A"
            layer
              d755 w/
              -644 w/a "A"
            layer
              d755 w/
              d755 w/sub/
              -644 w/sub/a "A"
            layer
              d755 w/
              -644 w/new "A"
            layer
              -644 a "A"
            layer
              d755 w/
              d755 w/sub/
              -644 w/sub/a "A"
            WorkingDir: "/w"
        "#]],
    );
    // A directory is its contents, however it is written; as `.` it is the whole context.
    check(
        files,
        "FROM base\nCOPY d/. /one\nCOPY ./d/ /two\nCOPY /d /three/\nCOPY d a /four/\n",
        expect![[r#"
            layer
              d755 one/
              -644 one/x "X"
            layer
              d755 two/
              -644 two/x "X"
            layer
              d755 three/
              -644 three/x "X"
            layer
              d755 four/
              -644 four/a "A"
              -644 four/x "X"
        "#]],
    );
}

fn destinations_through_links() {
    check(
        &[("a", "A"), ("d/sub/x", "X")],
        "FROM base\nRUN mkdir -p /real/sub && ln -s real /rel && ln -s /real /abs && ln -s ../../../real /up && ln -s gone/deep /dangling && ln -s sub /real/subl\nCOPY a /rel/\nCOPY a /abs/b\nCOPY a /up/sub/\nCOPY a /dangling\nCOPY a /abs/subl/c\nCOPY d /rel\n",
        expect![[r#"
            layer
              l abs -> /real
              l dangling -> gone/deep
              d755 real/
              d755 real/sub/
              l real/subl -> sub
              l rel -> real
              l up -> ../../../real
            layer
              d755 real/
              -644 real/a "A"
            layer
              d755 real/
              -644 real/b "A"
            layer
              d755 real/
              d755 real/sub/
              -644 real/sub/a "A"
            layer
              d755 gone/
              -644 gone/deep "A"
            layer
              d755 real/
              d755 real/sub/
              -644 real/sub/c "A"
            layer
              d755 real/
              d755 real/sub/
              -644 real/sub/x "X"
        "#]],
    );
}

fn kinds_that_do_not_fit() {
    let files = &[("f", "F"), ("d/n", "N"), ("e/n/x", "X")];
    check_failure(
        files,
        "FROM base\nCOPY f /x\nCOPY d /x\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: `/x` is not a directory at "COPY d /x"
        "#]],
    );
    check_failure(
        files,
        "FROM base\nCOPY f /x\nCOPY f /x/\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: `/x` is not a directory at "COPY f /x/"
        "#]],
    );
    check_failure(
        files,
        "FROM base\nRUN mkdir -p /x/n\nCOPY d /x\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: cannot replace directory `/x/n` with a file at "COPY d /x"
        "#]],
    );
    check_failure(
        files,
        "FROM base\nCOPY d /x\nCOPY e /x\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: cannot make directory `x/n`: there is something that is no directory at "COPY e /x"
        "#]],
    );
    check_failure(
        files,
        "FROM base\nCOPY f d /x\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST108]: several sources need a destination that is a directory at "/x"
              write the destination as `/x/`
        "#]],
    );
}

/// Optional files are written as patterns.
fn patterns_that_match_nothing() {
    let world = World::new();
    world.file("a", "A");
    let outcome = world.build("FROM base\nCOPY a b[.]lock *.none /d/\n");
    expect![[r#"
        layer
          d755 d/
          -644 d/a "A"
    "#]]
    .assert_eq(&world.show(outcome.built()));
    assert_eq!(outcome.warnings(), ["`b[.]lock` names no file", "`*.none` names no file"]);
    let outcome = world.build("FROM base\nCOPY *.none a*z/*/y /d/\n");
    assert_eq!(world.show(outcome.built()), "layer\n");
    // `**` is no more than `*` here, and does not cross directories.
    world.file("x/y/z", "Z");
    world.file("x/w", "W");
    let outcome = world.build("FROM base\nCOPY **/w **/z /d/\n");
    assert_eq!(world.show(outcome.built()), "layer\n  d755 d/\n  -644 d/w \"W\"\n");
}

fn parents_keep_their_attributes() {
    let world = World::new();
    world.file("a/b/f", "F");
    world.file("a/c/g", "G");
    fs::set_permissions(world.context().join("a/b"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(world.context().join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    let outcome = world.build("FROM base\nCOPY --parents a/b/f /t\nCOPY --parents ./a/./b/f a/./c /u/\nCOPY --parents a/b /v\nCOPY --parents . /w/\n");
    expect![[r#"
        layer
          d755 t/
          d750 t/a/
          d711 t/a/b/
          -644 t/a/b/f "F"
        layer
          d755 u/
          d711 u/b/
          -644 u/b/f "F"
          d755 u/c/
          -644 u/c/g "G"
        layer
          d755 v/
          d750 v/a/
          d711 v/a/b/
          -644 v/a/b/f "F"
        layer
          d755 w/
          d750 w/a/
          d711 w/a/b/
          -644 w/a/b/f "F"
          d755 w/a/c/
          -644 w/a/c/g "G"
    "#]]
    .assert_eq(&world.show(outcome.built()));
}

fn parents_with_patterns() {
    let files = &[("a/x.txt", "1"), ("a/b/y.txt", "2"), ("a/b/z.md", "3"), ("c/x.txt", "4"), ("link", "-> a")];
    check(
        files,
        "FROM base\nCOPY --parents */x.txt /one/\nCOPY --parents **/*.txt /two/\nCOPY --parents ./a/./**/*.txt /three/\nCOPY --parents --exclude=a/b **/*.txt c /four/\nCOPY --parents --exclude=**/*.md a/b /five/\nCOPY --parents link/b/z.md /six/\n",
        expect![[r#"
            layer
              d755 one/
              d755 one/a/
              -644 one/a/x.txt "1"
              d755 one/c/
              -644 one/c/x.txt "4"
            layer
              d755 two/
              d755 two/a/
              d755 two/a/b/
              -644 two/a/b/y.txt "2"
              -644 two/a/x.txt "1"
              d755 two/c/
              -644 two/c/x.txt "4"
            layer
              d755 three/
              d755 three/b/
              -644 three/b/y.txt "2"
              -644 three/x.txt "1"
            layer
              d755 four/
              d755 four/a/
              -644 four/a/x.txt "1"
              d755 four/c/
              -644 four/c/x.txt "4"
            layer
              d755 five/
              d755 five/a/
              d755 five/a/b/
              -644 five/a/b/y.txt "2"
            layer
              d755 six/
              d755 six/link/
              d755 six/link/b/
              -644 six/link/b/z.md "3"
        "#]],
    );
    check_failure(
        files,
        "FROM base\nCOPY --parents a/none/x.txt /t/\n",
        expect![[r#"
            Dockerfile cannot be built
            error[ST104]: `a/none/x.txt` is not in the build context (did you mean `a/x.txt`?) at "a/none/x.txt"
              context: 5 files, 5 B
        "#]],
    );
}

fn exclude_in_depth() {
    check(
        &[("d/a.log", "1"), ("d/sub/b.log", "2"), ("d/sub/c", "3"), ("d/keep/d.log", "4"), ("e.log", "5")],
        "FROM base\nCOPY --exclude=*.log d /one\nCOPY --exclude=**/*.log d /two\nCOPY --exclude=**/*.log --exclude=!keep/*.log d /three\nCOPY --exclude=sub d /four\n",
        expect![[r#"
            layer
              d755 one/
              d755 one/keep/
              -644 one/keep/d.log "4"
              d755 one/sub/
              -644 one/sub/b.log "2"
              -644 one/sub/c "3"
            layer
              d755 two/
              d755 two/keep/
              d755 two/sub/
              -644 two/sub/c "3"
            layer
              d755 three/
              d755 three/keep/
              -644 three/keep/d.log "4"
              d755 three/sub/
              -644 three/sub/c "3"
            layer
              d755 four/
              -644 four/a.log "1"
              d755 four/keep/
              -644 four/keep/d.log "4"
        "#]],
    );
}

/// The destination keeps its mode, directories below it take the source's, files that were there stay.
fn merged_directories() {
    let world = World::new();
    world.file("d/sub/new", "N");
    fs::set_permissions(world.context().join("d/sub"), fs::Permissions::from_mode(0o705)).unwrap();
    fs::set_permissions(world.context().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = world.build(
        "FROM base\nRUN mkdir -p /t/sub /t/other && chmod 2775 /t /t/sub && echo o > /t/sub/old\nCOPY d /t\nRUN stat -c '%a %n' /t /t/sub /t/sub/* > /x; ls /t >> /x\n",
    );
    expect![[r#"
        2775 /t
        705 /t/sub
        644 /t/sub/new
        644 /t/sub/old
        other
        sub
    "#]]
    .assert_eq(&world.read(outcome.built(), "/x"));
}

fn hard_links_within_one_copy() {
    let world = World::new();
    world.file("d/a", "A");
    fs::create_dir(world.context().join("d/s")).unwrap();
    fs::hard_link(world.context().join("d/a"), world.context().join("d/s/b")).unwrap();
    fs::hard_link(world.context().join("d/a"), world.context().join("outside")).unwrap();
    let outcome = world.build("FROM base\nCOPY d /t\n");
    let metadata = |path: &str| fs::metadata(top(&world, outcome.built(), path)).unwrap();
    assert_eq!(metadata("t/a").ino(), metadata("t/s/b").ino());
    assert_eq!(metadata("t/a").nlink(), 2);
    // Two sources are two copies, and never the context's own file.
    let outcome = world.build("FROM base\nCOPY d/a d/s/b outside /u/\n");
    let own = fs::metadata(world.context().join("d/a")).unwrap().ino();
    for path in ["u/a", "u/b", "u/outside"] {
        let metadata = fs::metadata(top(&world, outcome.built(), path)).unwrap();
        assert!(metadata.nlink() == 1 && metadata.ino() != own, "{path}");
    }
}

fn holes_stay_holes() {
    const SIZE: u64 = 64 << 20;
    let world = World::new();
    let path = world.file("sparse", "");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", SIZE / 2).unwrap();
    file.set_len(SIZE).unwrap();
    let empty = world.file("nothing", "");
    fs::File::options().write(true).open(&empty).unwrap().set_len(1 << 20).unwrap();
    if fs::metadata(&path).unwrap().blocks() * 512 >= SIZE {
        return testkit::skip("the file system of the temporary directory has no holes");
    }
    let outcome = world.build("FROM base\nCOPY sparse nothing /\n");
    for name in ["sparse", "nothing"] {
        let copied = top(&world, outcome.built(), name);
        assert!(fs::read(&copied).unwrap() == fs::read(world.context().join(name)).unwrap(), "{name} differs");
        assert!(fs::metadata(&copied).unwrap().blocks() < 1024, "{name} has no holes any more");
    }
}

/// Those of an image are content; those of a context are the machine's, which docker's client does not send either.
fn attributes_of_users() {
    let world = World::new();
    let path = world.file("d/f", "F");
    match rustix::fs::setxattr(&path, "user.seatrial", b"yes", rustix::fs::XattrFlags::empty()) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => return testkit::skip("this file system has no user attributes"),
        Err(error) => panic!("{error}"),
    }
    world.add_image("attributes", &world.context().join("d"), |_| {});
    let outcome = world.build("FROM base\nCOPY d/f /context\nCOPY --from=attributes /f /image\n");
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(top(&world, outcome.built(), "image"), "user.seatrial", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"yes");
    let layers = &outcome.built().layers;
    let context = world.store.snapshot_fs(&layers[layers.len() - 2]).join("context");
    let none = rustix::fs::getxattr(context, "user.seatrial", &mut value[..]);
    assert_eq!(none, Err(rustix::io::Errno::NODATA));
}

fn names_of_all_kinds() {
    let world = World::new();
    let long = "l".repeat(255);
    let names: [&[u8]; 6] = [b"new\nline", b"\xff\xfe", b"-rf", b"a b", b"back\\slash", long.as_bytes()];
    let directory = world.context().join("d");
    fs::create_dir(&directory).unwrap();
    for name in names {
        fs::write(directory.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let outcome =
        world.build("FROM base\nCOPY d /t\nCOPY --parents d/l* /p/\nCOPY [\"d/a b\", \"/q/a b\"]\nCOPY d/*line /r/\n");
    let built = outcome.built();
    let layers: Vec<PathBuf> = built.layers.iter().map(|layer| world.store.snapshot_fs(layer)).collect();
    for name in names {
        let path = layers[1].join("t").join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(path).unwrap(), name);
    }
    assert!(layers[2].join("p/d").join(&long).exists() && layers[3].join("q/a b").exists());
    assert!(layers[4].join("r/new\nline").exists());
    assert!(world.build("FROM base\nCOPY d /t\n").made().is_empty());
}

fn special_files_are_named() {
    let world = World::new();
    world.file("d/ok", "");
    let _socket = UnixListener::bind(world.context().join("d/sock")).unwrap();
    for (dockerfile, message) in [
        ("FROM base\nCOPY d /d\n", "`d/sock` is a socket and cannot be copied at \"d\""),
        ("FROM base\nCOPY d/s* /d/\n", "`d/sock` is a socket and cannot be copied at \"d/s*\""),
        ("FROM base\nADD --exclude=ok d /d\n", "`d/sock` is a socket and cannot be copied at \"d\""),
        ("FROM base\nCOPY --parents d/sock /d/\n", "`d/sock` is a socket and cannot be copied at \"d/sock\""),
    ] {
        let text = explain(world.build(dockerfile).failed());
        assert!(text.contains(message), "{text}");
    }
    // What is hidden is no matter.
    world.build("FROM base\nCOPY --exclude=sock d /d\n").built();
}

fn heredocs() {
    check(
        &[("a", "A")],
        "FROM base\nARG V=v\nCOPY <<one <<-\"two\" a /dir/\n1 $V\none\n\t2 $V\n\ttwo\nCOPY <<EOF /empty\nEOF\nADD --chmod=u=rx,go= <<run.sh /new\n#!/bin/sh\nrun.sh\n",
        expect![[r##"
            layer
              d755 dir/
              -644 dir/a "A"
              -644 dir/one "1 v\n"
              -644 dir/two "2 $V\n"
            layer
              -644 empty ""
            layer
              -500 new "#!/bin/sh\n"
        "##]],
    );
}

fn owners_by_name() {
    if !crate::world::has_owners() {
        return testkit::skip("this user has a single id, so owners cannot be set");
    }
    check(
        &[("a", "A")],
        "FROM base\nCOPY --chown=app: a /1\nCOPY --chown=:staff a /2\nCOPY --chown=5:app a /3\nCOPY --chown=app <<h /4\nh\nCOPY --chown=app:7 a /new/dir/5\n",
        expect![[r#"
            layer
              -644 1000:1001 1 "A"
            layer
              -644 0:50 2 "A"
            layer
              -644 5:1001 3 "A"
            layer
              -644 1000:1001 4 ""
            layer
              d755 1000:7 new/
              d755 1000:7 new/dir/
              -644 1000:7 new/dir/5 "A"
        "#]],
    );
    for (owner, message) in [
        ("nobody1", "user `nobody1` is not in the image's /etc/passwd at \"nobody1\""),
        ("app:nogroup1", "group `nogroup1` is not in the image's /etc/group at \"app:nogroup1\""),
    ] {
        let world = World::new();
        world.file("a", "A");
        let text = explain(world.build(&format!("FROM base\nCOPY --chown={owner} a /\n")).failed());
        assert!(text.contains(message), "{text}");
    }
}

/// Files keep their times unless these are later than the epoch; so do directories.
fn times() {
    let world = World::new();
    world.file("d/old", "");
    let new = world.file("d/new", "");
    let set = |path: &Path, seconds: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    set(&new, EPOCH + 5000);
    set(&world.context().join("d"), EPOCH - 7);
    let outcome = world.build("FROM base\nCOPY d /made\nCOPY d/old <<h /x/\nh\n");
    let layers: Vec<PathBuf> = outcome.built().layers.iter().map(|layer| world.store.snapshot_fs(layer)).collect();
    let seconds = |path: PathBuf| fs::metadata(path).unwrap().mtime() as u64;
    assert_eq!(seconds(layers[1].join("made/old")), EPOCH - 1000);
    assert_eq!(seconds(layers[1].join("made/new")), EPOCH);
    assert_eq!(seconds(layers[1].join("made")), EPOCH);
    assert_eq!(seconds(layers[2].join("x/h")), EPOCH);
}

/// Whoever writes into the context while it is copied gets an error at most, never a file from outside into the image.
fn swapped_sources_stay_inside() {
    let world = World::new();
    let secret = world.path().join("secret");
    fs::create_dir(&secret).unwrap();
    for number in 0..40 {
        world.file(&format!("d/sub/{number}"), "inside");
        fs::write(secret.join(number.to_string()), "outside").unwrap();
    }
    let (directory, aside) = (world.context().join("d/sub"), world.context().join("aside"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fs::rename(&directory, &aside).unwrap();
                std::os::unix::fs::symlink(&secret, &directory).unwrap();
                fs::remove_file(&directory).unwrap();
                fs::rename(&aside, &directory).unwrap();
            }
        });
        for number in 0..20 {
            let outcome = world.build(&format!("FROM base\nCOPY d /t{number}\n"));
            let Ok(built) = &outcome.result else { continue };
            let copied = top(&world, built, &format!("t{number}/sub"));
            let Ok(entries) = fs::read_dir(&copied) else { continue };
            if fs::symlink_metadata(&copied).unwrap().is_symlink() {
                continue;
            }
            for entry in entries {
                assert_eq!(fs::read_to_string(entry.unwrap().path()).unwrap(), "inside");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
