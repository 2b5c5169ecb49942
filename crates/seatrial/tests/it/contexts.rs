//! `seatrial build` of contexts that are elsewhere: Git repositories, archives on stdin, named ones.

use std::{fs, io::Write as _, net::TcpListener};

use expect_test::expect;
use rustix::process::Signal;
use testkit::GitServer;

use crate::{world, world_with_image};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\n";

#[test]
fn a_repository_is_a_context() {
    let (world, server) = (world(), GitServer::start());
    let repository = server.repository("r.git");
    repository.commit(&[
        ("svc/Dockerfile", DOCKERFILE),
        ("svc/.dockerignore", "secret\n"),
        ("svc/secret", "S"),
        ("svc/f", "F"),
        ("svc/other.txt", "FROM scratch\nCOPY f /only\n"),
    ]);
    let url = format!("{}#main:svc", server.url("r.git"));
    let build = |arguments: &[&str]| world.seatrial([&["build", "-q"], arguments].concat()).run().exits(0).stdout();
    let first = build(&["-t", "app", &url]);
    // The commit's time is the image's, so that it is the same image again.
    world.seatrial(["inspect", "app"]).run().exits(0).stdout_has("\"Created\": \"2023-11-14T20:50:00Z\"");
    assert_eq!(first, build(&["--no-cache", &url]));
    let out = world.path("out");
    build(&["-o", &format!("type=local,dest={}", out.display()), &url]);
    let mut names: Vec<String> =
        fs::read_dir(out.join("all")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".dockerignore", "Dockerfile", "f", "other.txt"]);
    // `-f` is within the repository, `-f -` is stdin.
    assert_ne!(first, build(&["-f", "other.txt", &url]));
    world.seatrial(["build", "-q", "-f", "-", &url]).stdin("FROM scratch\nCOPY f /g\n").run().exits(0);
    // Nothing stays but the images.
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn contexts_that_cannot_be_had_say_why() {
    let (world, server) = (world(), GitServer::start());
    server.repository("r.git").commit(&[("f", "F"), ("link", "-> /etc/hostname")]);
    let url = server.url("r.git");
    let fails = |code: i32, arguments: &[&str]| {
        let finished = world.seatrial([&["build"], arguments].concat()).run().exits(code);
        finished.stderr().replace(&server.address().to_string(), "HOST")
    };
    expect![[r#"
        fetching git://HOST/r.git
        error: the build context has no Dockerfile and no Containerfile

        hint: name the Dockerfile within the context: `-f PATH/IN/CONTEXT`
    "#]]
    .assert_eq(&fails(2, &[&url]));
    // A link of a repository leads to nothing of this machine.
    assert!(fails(2, &["-f", "link", &url]).contains("the build context has no link"));
    expect![[r#"
        fetching git://HOST/r.git#nope
        error: cannot fetch the build context git://HOST/r.git#nope
          cause: repository `git://HOST/r.git` has no branch, tag or reference `nope`
    "#]]
    .assert_eq(&fails(2, &[&format!("{url}#nope")]));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fails(3, &[&format!("git://{nobody}/r.git")]);
    assert!(text.contains("error: cannot fetch the build context git://") && text.contains("cause: "), "{text}");
    assert!(fails(2, &["https://h/r.git?depth=1"]).contains("unknown option `depth`"));
    world.file("Dockerfile", "FROM scratch\n");
    assert!(fails(2, &["--build-context", "a=s3://b", "."]).contains("this kind of context is unknown"));
}

#[test]
fn an_archive_on_stdin_is_a_context() {
    let world = world();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in [("Dockerfile", DOCKERFILE), ("sub/file", "FROM scratch\nCOPY f /only\n"), ("f", "F")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let gzip = encoder.finish().unwrap();
    let build = |arguments: &[&str], stdin: &[u8]| {
        world.seatrial([&["build", "-q"], arguments].concat()).stdin(stdin).run().exits(0).stdout()
    };
    let plain = build(&["-"], &tar);
    assert_eq!(plain, build(&["-"], &gzip));
    assert_ne!(plain, build(&["-f", "sub/file", "-"], &tar));
    let fails = |arguments: &[&str], stdin: &[u8]| {
        world.seatrial([&["build"], arguments].concat()).stdin(stdin).run().exits(2).stderr()
    };
    assert!(fails(&["-f", "none", "-"], &tar).contains("the build context has no none"));
    assert!(fails(&["-f", "-", "-"], b"").contains("stdin cannot be both"));
    assert!(fails(&["-f", "x", "-"], b"FROM scratch\n").contains("stdin holds no archive"));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"FROM scratch\n").unwrap();
    assert!(fails(&["-"], &encoder.finish().unwrap()).contains("no tar archive"));
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn named_contexts_are_of_all_kinds() {
    let (world, server) = (world_with_image(), GitServer::start());
    server.repository("r.git").commit(&[("lib/a", "A")]);
    world.file("local/b", "B").file(
        "Dockerfile",
        "FROM tiny:1 AS made\nRUN echo C > /c\nFROM base\nCOPY --from=code a /\nCOPY --from=dir b /\nCOPY --from=tool /c /\nRUN cat /a /b /c\n",
    );
    world
        .seatrial(["build", "--progress=plain", "--build-context", "base=docker-image://tiny:1"])
        .arg("--build-context")
        .arg(format!("code={}#:lib", server.url("r.git")))
        .arg("--build-context")
        .arg("dir=local")
        .arg("--build-context")
        .arg("tool=target:made")
        .run()
        .exits(0)
        .stderr_has("ABC");
    // The pipeline file names them in the same way.
    let pipeline = format!(
        "build:\n  additional_contexts: {{base: \"docker-image://tiny:1\", code: \"{}#:lib\", dir: local, tool: \"WRONG\"}}\n\
         test: {{gates: {{has: 'cat /a /b'}}}}\nhealth: false\n",
        server.url("r.git")
    );
    world.file("seatrial.yaml", &pipeline.replace("WRONG", "https://h/r.git?depth=1")).commit();
    world.seatrial(["run"]).run().exits(2).stderr_has("seatrial.yaml:2:").stderr_has("unknown option `depth`");
    world.file("Dockerfile", "FROM base\nCOPY --from=code a /\nCOPY --from=dir b /\n");
    world.file("seatrial.yaml", &pipeline.replace(", tool: \"WRONG\"", "")).commit();
    world.seatrial(["run"]).run().exits(0);
    world.seatrial(["logs", "last", "has"]).run().exits(0).stdout_has("AB");
}

/// A server that never answers, and a user who does not wait.
#[test]
fn a_killed_fetch_leaves_nothing() {
    let world = world();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/r.git", silent.local_addr().unwrap());
    let mut running = world.seatrial(["build", &url]).start();
    let (_connection, _) = silent.accept().unwrap();
    running.wait_until("the scope is open", || !world.scopes().is_empty());
    running.signal(Signal::KILL);
    running.finish();
    world.seatrial(["images"]).run().exits(0);
    let mut remains = world.remains();
    for _ in 0..500 {
        if remains.is_empty() {
            return;
        }
        // Git is killed by the kernel, and what it started ends by itself.
        std::thread::yield_now();
        remains = world.remains();
    }
    panic!("{remains:?}");
}

#[test]
fn a_cancelled_fetch_ends_at_once() {
    let world = world();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = world.seatrial(["build", &format!("git://{}/r.git", silent.local_addr().unwrap())]).start();
    let (_connection, _) = silent.accept().unwrap();
    running.signal(Signal::INT);
    assert_eq!(running.finish().code(), 130);
    assert_eq!(world.remains(), Vec::<String>::new());
}
