//! Contexts and images that mean harm, or are merely odd.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink, net::UnixListener},
    process::Command,
};

use expect_test::expect;

use crate::world::{World, explain};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("links_do_not_lead_out", links_do_not_lead_out),
    ("special_files_are_errors", special_files_are_errors),
    ("odd_names_work", odd_names_work),
    ("targets_stay_inside", targets_stay_inside),
    ("archives_stay_inside", archives_stay_inside),
    ("archive_bombs_are_refused", archive_bombs_are_refused),
    ("odd_attributes_are_kept", odd_attributes_are_kept),
    ("names_that_speak_to_terminals", names_that_speak_to_terminals),
    ("dockerfiles_of_many_stages", dockerfiles_of_many_stages),
    ("dockerfiles_of_long_lines", dockerfiles_of_long_lines),
    ("names_of_whiteouts_are_refused_at_their_step", names_of_whiteouts_are_refused_at_their_step),
];

fn links_do_not_lead_out() {
    let world = World::new();
    fs::write(world.path().join("outside"), "secret").unwrap();
    fs::create_dir(world.path().join("outdir")).unwrap();
    fs::write(world.path().join("outdir/f"), "secret").unwrap();
    world.file("abs", "-> /etc/hostname");
    world.file("up", "-> ../outside");
    world.file("updir", "-> ../outdir");
    world.file("loop", "-> loop");
    world.file("d/up", "-> ../../outside");
    for source in ["abs", "up", "updir/f", "updir", "../outside", "d/../../outside", "updir/*"] {
        let outcome = world.build(&format!("FROM base\nCOPY {source} /x/\n"));
        let text = explain(outcome.failed());
        assert!(text.contains("is not in the build context"), "{source}: {text}");
    }
    assert!(explain(world.build("FROM base\nCOPY loop /x\n").failed()).contains("loop"));
    // Below a directory they are copied as links, whatever they say.
    expect![[r#"
        layer
          d755 x/
          l x/up -> ../../outside
    "#]]
    .assert_eq(&world.show(world.build("FROM base\nCOPY d /x\n").built()));
    // A link to within is followed as if the context were the root.
    world.file("in", "-> /d/real");
    world.file("d/real", "R");
    expect![[r#"
        layer
          -644 x "R"
    "#]]
    .assert_eq(&world.show(world.build("FROM base\nCOPY in /x\n").built()));
}

fn special_files_are_errors() {
    let world = World::new();
    fs::create_dir(world.context().join("d")).unwrap();
    let fifo = world.context().join("d/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `d/fifo` is a named pipe and cannot be copied at "d"
          remove it from the context, or name it in `.dockerignore`"#]]
    .assert_eq(&explain(world.build("FROM base\nCOPY d /x\n").failed()));
    fs::remove_file(fifo).unwrap();
    let _listener = UnixListener::bind(world.context().join("d/socket")).unwrap();
    expect![[r#"
        Dockerfile cannot be built
        error[ST104]: `d/socket` is a socket and cannot be copied at "."
          remove it from the context, or name it in `.dockerignore`"#]]
    .assert_eq(&explain(world.build("FROM base\nCOPY . /x\n").failed()));
    world.file(".dockerignore", "d/socket\n");
    world.build("FROM base\nCOPY . /x\n").built();
}

fn odd_names_work() {
    let world = World::new();
    let long = "n".repeat(255);
    for name in [b"not\xffutf8".as_slice(), b"new\nline", b"blank and\ttab", b"back\\slash", b"-dash", long.as_bytes()]
    {
        fs::write(world.context().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let dockerfile =
        "FROM base\nCOPY . /x\nRUN cd /x && for f in *; do cat ./\"$f\" > /dev/null || exit 1; echo ok; done\n";
    let outcome = world.build(dockerfile);
    outcome.built();
    assert_eq!(outcome.logs().len(), 6);
    assert_eq!(world.build(dockerfile).built().steps_cached, 2);
    world.build("FROM base\nCOPY new* blank* /y/\n").built();
    // A tree deeper than a path may be long is an error with its place.
    let mut deep = world.context();
    for _ in 0..12 {
        deep.push("p".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    world.build("FROM base\nCOPY p* /z/\n").built();
}

fn targets_stay_inside() {
    let world = World::new();
    world.file("a", "A");
    world.file("d/l/f", "F");
    let out = world.path().join("out");
    fs::create_dir(&out).unwrap();
    let up = "../".repeat(20);
    let dockerfile = format!(
        "FROM base\nRUN ln -s {0} /abs && ln -s {up}{0} /up && ln -s loop /loop\nCOPY a /abs/a\nCOPY a /up/b\nCOPY a ../../../c\nWORKDIR /abs/w\n",
        out.to_str().unwrap().trim_start_matches('/').split('/').fold(String::new(), |path, part| path + "/" + part),
    );
    world.build(&dockerfile).built();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "nothing is written outside of the image");
    assert!(explain(world.build("FROM base\nRUN ln -s loop /loop\nCOPY a /loop/x\n").failed()).contains("cannot make"));
}

fn archives_stay_inside() {
    let world = World::new();
    let out = world.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("kept"), "kept").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if !link.is_empty() {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    let outside = out.to_str().unwrap();
    add(tar::EntryType::Symlink, "link", outside, b"");
    add(tar::EntryType::Regular, "link/written", "", b"x");
    add(tar::EntryType::Regular, "../../../../../../tmp/up", "", b"x");
    add(tar::EntryType::Regular, "/abs", "", b"x");
    add(tar::EntryType::Link, "hard", "abs", b"");
    add(tar::EntryType::Symlink, "twice", "hard", b"");
    add(tar::EntryType::Regular, "twice", "", b"file");
    fs::write(world.context().join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let outcome = world.build("FROM base\nADD a.tar /x\nRUN cat /x/abs /x/hard /x/twice > /y\n");
    assert_eq!(world.read(outcome.built(), "/y"), "xxfile");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    // A hard link to what is not in the image.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_path("h").unwrap();
    header.set_link_name("nothing").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    fs::write(world.context().join("b.tar"), builder.into_inner().unwrap()).unwrap();
    assert!(explain(world.build("FROM base\nADD b.tar /x\n").failed()).contains("cannot unpack `h`"));
}

fn archive_bombs_are_refused() {
    let world = World::new();
    let refused = |archive: &str| {
        let outcome = world.build(&format!("FROM base\nADD {archive} /x\n"));
        let text = explain(outcome.failed());
        assert!(text.contains("cannot unpack `bomb`") && text.contains("refused as a bomb"), "{archive}: {text}");
    };
    // What its header says is enough: nothing has to be unpacked, and what follows need not be there.
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(1300 << 20);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, header.as_bytes()).unwrap();
    fs::write(world.context().join("c.tar.gz"), packed.finish().unwrap()).unwrap();
    refused("c.tar.gz");
    // A file that is all hole has no bytes in the archive.
    fs::File::create(world.path().join("bomb")).unwrap().set_len(2 << 30).unwrap();
    let sparse = world.context().join("s.tar");
    let made = Command::new("tar").args(["-cS", "-C"]).arg(world.path()).arg("-f").arg(&sparse).arg("bomb").status();
    assert!(made.unwrap().success());
    refused("s.tar");
}

fn odd_attributes_are_kept() {
    let world = World::new();
    world.file("d/f", "F");
    symlink("nowhere", world.context().join("d/dangling")).unwrap();
    let set = Command::new("chmod").args(["6751", "--"]).arg(world.context().join("d/f")).status().unwrap();
    assert!(set.success());
    let set = Command::new("chmod").args(["1777", "--"]).arg(world.context().join("d")).status().unwrap();
    assert!(set.success());
    expect![[r#"
        layer
          d755 x/
          d1777 x/d/
          l x/d/dangling -> nowhere
          -6751 x/d/f "F"
    "#]]
    .assert_eq(&world.show(world.build("FROM base\nCOPY . /x\n").built()));
}

fn names_that_speak_to_terminals() {
    let world = World::new();
    fs::create_dir(world.context().join("d")).unwrap();
    let fifo = world.context().join("d/\u{1b}[2Jcleared\n");
    assert!(Command::new("mkfifo").arg("--").arg(&fifo).status().unwrap().success());
    let text = explain(world.build("FROM base\nCOPY d /x\n").failed());
    assert!(text.contains("is a named pipe") && !text.contains('\u{1b}'), "{text:?}");
    fs::remove_file(fifo).unwrap();
    fs::write(world.context().join("d/.wh.passwd"), "").unwrap();
    let text = explain(world.build("FROM base\nCOPY d /etc/\n").failed());
    assert!(text.contains("names that begin with `.wh.` mark deleted files"), "{text}");
}

fn dockerfiles_of_many_stages() {
    let world = World::new();
    let unused: String = (0..10_000).map(|at| format!("FROM base AS s{at}\nRUN false\n")).collect();
    world.build(&format!("{unused}FROM base\nENV A=1\n")).built();
    // Each built on the one before.
    let chain = |count: usize| {
        let stages = (1..count).map(|at| format!("FROM s{} AS s{at}\nENV A={at}\n", at - 1));
        world.build(&format!("FROM base AS s0\n{}", stages.collect::<String>()))
    };
    assert!(chain(1000).built().root.config.config.env.contains(&"A=999".to_owned()));
    let text = explain(chain(10_000).failed());
    assert!(text.contains("10000 stages are needed, and the limit is 1000"), "{text}");
}

fn dockerfiles_of_long_lines() {
    let world = World::new();
    let long = "x".repeat(1 << 20);
    let outcome = world.build(&format!("FROM base\nLABEL a={long}\n"));
    assert_eq!(outcome.built().root.config.config.labels["a"].len(), long.len());
    // The kernel takes 128 KiB for one argument (MAX_ARG_STRLEN).
    let text = explain(world.build(&format!("FROM base\nRUN : {long}\n")).failed());
    let end = &text[text.len() - text.len().min(300)..];
    assert!(
        end.contains("the command is too long: an argument has 1048578 bytes, and the kernel takes 131071"),
        "{end}"
    );
    let outcome = world.build(&format!("FROM base\nENV LONG={long}\nRUN true\n"));
    let text = explain(outcome.failed());
    assert!(text.contains("variable `LONG` is too long for a command: it has 1048576 bytes"), "{text}");
    // As a program of its own there is no bound.
    let script = format!("FROM base\nRUN <<EOF\n#!/bin/sh\n: {long}\necho done\nEOF\n");
    let outcome = world.build(&script);
    outcome.built();
    assert_eq!(outcome.logs(), ["done"]);
    // Values that double themselves again and again.
    let doubled = "ARG A=$A$A\n".repeat(60);
    let text = explain(world.build(&format!("FROM base\nARG A=laughter\n{doubled}")).failed());
    assert!(text.contains("bytes longer than its text"), "{text}");
    let text = explain(world.build(&format!("ARG A=laughter\n{doubled}FROM base\n")).failed());
    assert!(text.contains("bytes longer than its text"), "{text}");
}

fn names_of_whiteouts_are_refused_at_their_step() {
    for world in [World::new(), World::with_copies()] {
        let text = explain(world.build("FROM base\nRUN true\nRUN mkdir /d; touch /d/.wh.x\nRUN true\n").failed());
        assert!(text.contains("this made `/d/.wh.x`") && text.contains("at \"RUN mkdir"), "{text}");
        world.file(".wh.y", "");
        let text = explain(world.build("FROM base\nCOPY . /\n").failed());
        assert!(text.contains("`.wh.y` cannot be copied"), "{text}");
        // What is gone again at the end of the step does no harm.
        world.build("FROM base\nRUN touch /.wh.x; rm /.wh.x /etc/group\n").built();
    }
}
