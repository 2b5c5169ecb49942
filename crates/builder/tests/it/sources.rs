//! ADD from Git repositories, named contexts of all kinds, archives: what lies elsewhere and how it comes in.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, UNIX_EPOCH},
};

use engine::{NamedContext, RemoteSource};
use expect_test::{Expect, expect};
use testkit::{COMMIT_SECONDS, GitServer};

use crate::world::{EPOCH, World, explain};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("add_repository", add_repository),
    ("add_repository_is_cached_by_commit", add_repository_is_cached_by_commit),
    ("add_repository_with_submodules", add_repository_with_submodules),
    ("wrong_repositories", wrong_repositories),
    ("hostile_repositories", hostile_repositories),
    ("named_repository", named_repository),
    ("named_contexts_override", named_contexts_override),
    ("named_target", named_target),
    ("directory_as_base", directory_as_base),
    ("layouts_of_several_platforms", layouts_of_several_platforms),
    ("compressed_archives", compressed_archives),
    ("archive_attributes", archive_attributes),
    ("symbolic_modes", symbolic_modes),
];

fn check(world: &World, dockerfile: &str, expected: Expect) {
    let outcome = world.build(dockerfile);
    expected.assert_eq(&world.show(outcome.built()));
}

fn check_failure(world: &World, dockerfile: &str, hidden: &[&str], expected: Expect) {
    let mut text = explain(world.build(dockerfile).failed());
    for (number, part) in hidden.iter().enumerate() {
        text = text.replace(part, &format!("<{number}>"));
    }
    expected.assert_eq(&(text + "\n"));
}

fn add_repository() {
    let (world, server) = (World::new(), GitServer::start());
    let repository = server.repository("r.git");
    let first = repository.commit(&[("a", "A"), ("dir/run.sh", "R"), ("dir/link", "-> ../a")]);
    repository.git(&["tag", "-a", "-m", "one", "v1"]);
    repository.git(&["checkout", "-q", "-b", "feature/x"]);
    repository.commit(&[("a", "A2")]);
    repository.git(&["checkout", "-q", "main"]);
    let url = server.url("r.git");
    check(
        &world,
        &format!("FROM base\nADD {url}#v1 /tag\nADD {url}#feature/x:dir {url}?branch=feature/x /made/\n"),
        expect![[r#"
            layer
              d755 tag/
              -644 tag/a "A"
              d755 tag/dir/
              l tag/dir/link -> ../a
              -755 tag/dir/run.sh "R"
            layer
              d755 made/
              -644 made/a "A2"
              d755 made/dir/
              l made/dir/link -> ../a
              -755 made/dir/run.sh "R"
              l made/link -> ../a
              -755 made/run.sh "R"
        "#]],
    );
    // HEAD, a commit, a commit that is promised; times are the commit's.
    let dockerfile = format!(
        "FROM base\nADD --chmod=go= {url}?subdir=dir /head\nADD {url}#{first} /commit\nADD --checksum={first} {url}#v1 /sum\n\
         RUN stat -c '%a %Y %n' /head/run.sh /commit/a /sum/dir > /x\n"
    );
    let outcome = world.build(&dockerfile);
    let expected = COMMIT_SECONDS;
    let text = format!("700 {expected} /head/run.sh\n644 {expected} /commit/a\n755 {expected} /sum/dir\n");
    assert_eq!(world.read(outcome.built(), "/x"), text);
    // The repository's own data comes when it is asked for, by either way of asking.
    let dockerfile = format!(
        "FROM base\nADD --keep-git-dir {url} /one\nADD {url}?keep-git-dir=true /two\nADD {url} /three\n\
         RUN ls -d /*/.git > /x; cat /one/.git/HEAD >> /x\n"
    );
    let outcome = world.build(&dockerfile);
    assert_eq!(world.read(outcome.built(), "/x"), format!("/one/.git\n/two/.git\n{first}\n"));
}

fn add_repository_is_cached_by_commit() {
    let (world, server) = (World::new(), GitServer::start());
    let repository = server.repository("r.git");
    let first = repository.commit(&[("a", "A")]);
    let dockerfile = format!("FROM base\nADD {} /r/\n", server.url("r.git"));
    assert_eq!(world.build(&dockerfile).made().len(), 1);
    assert!(world.build(&dockerfile).made().is_empty());
    repository.commit(&[("a", "B")]);
    let outcome = world.build(&dockerfile);
    assert_eq!(world.read(outcome.built(), "/r/a"), "B");
    // A commit that is written out asks nobody, so what was made of it is found without its server.
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let with = |address: SocketAddr| format!("FROM base\nADD git://{address}/r.git#{first} /r/\n");
    assert_eq!(world.read(world.build(&with(server.address())).built(), "/r/a"), "A");
    assert!(world.build(&with(server.address())).made().is_empty());
    assert!(explain(world.build(&with(gone)).failed()).starts_with("cannot fetch git://"));
}

fn add_repository_with_submodules() {
    let (world, server) = (World::new(), GitServer::start());
    server.repository("inner.git").commit(&[("i", "I")]);
    let outer = server.repository("outer.git");
    outer.git(&["submodule", "--quiet", "add", &server.url("inner.git"), "sub"]);
    outer.commit(&[("o", "O")]);
    let url = server.url("outer.git");
    let outcome = world
        .build(&format!("FROM base\nADD {url} /a\nADD {url}?submodules=false /b\nRUN ls -A /a /a/sub /b /b/sub > /x"));
    expect![[r#"
        /a:
        .gitmodules
        o
        sub

        /a/sub:
        i

        /b:
        .gitmodules
        o
        sub

        /b/sub:
    "#]]
    .assert_eq(&world.read(outcome.built(), "/x"));
}

fn wrong_repositories() {
    let (world, server) = (World::new(), GitServer::start());
    let repository = server.repository("r.git");
    let commit = repository.commit(&[("a", "A")]);
    let url = server.url("r.git");
    let address = server.address().to_string();
    check_failure(
        &world,
        &format!("FROM base\nADD {url}#nope /\n"),
        &[&address],
        expect![[r#"
            Dockerfile cannot be built
            error[ST128]: repository `git://<0>/r.git` has no branch, tag or reference `nope` at "git://<0>/r.git#nope"
        "#]],
    );
    check_failure(
        &world,
        &format!("FROM base\nADD {url}#:nope /\n"),
        &[&address],
        expect![[r#"
            Dockerfile cannot be built
            error[ST128]: `git://<0>/r.git#:nope`: the repository has no directory `nope` at "git://<0>/r.git#:nope"
        "#]],
    );
    check_failure(
        &world,
        &format!("FROM base\nADD --checksum=0123456789 {url} /\n"),
        &[&address, &commit],
        expect![[r#"
            Dockerfile cannot be built
            error[ST129]: `git://<0>/r.git` is not what its checksum says at "git://<0>/r.git"
              expected commit 0123456789
              it has   commit <1>
              if the change is right, write the new one; otherwise somebody exchanged the file
        "#]],
    );
    check_failure(
        &world,
        &format!("FROM base\nADD {url}#{} /\n", "1".repeat(40)),
        &[&address],
        expect![[r#"
            Dockerfile cannot be built
            error[ST128]: `git://<0>/r.git#1111111111111111111111111111111111111111`: the repository has no commit 1111111111111111111111111111111111111111 at "git://<0>/r.git#1111111111111111111111111111111111111111"
        "#]],
    );
    for (dockerfile, expected) in [
        (
            "FROM base\nCOPY https://h/r.git /\n",
            expect![[r#"
                Dockerfile cannot be built
                error[ST108]: COPY cannot take `https://h/r.git`, which lies elsewhere at "https://h/r.git"
                  use ADD, which can
            "#]],
        ),
        (
            "FROM base\nADD https://h/r.git?depth=1 /\n",
            expect![[r#"
                Dockerfile cannot be built
                error[ST123]: `https://h/r.git?depth=1` has the unknown option `depth`; known are `ref`, `branch`, `tag`, `commit`, `checksum`, `subdir`, `keep-git-dir` and `submodules` at "https://h/r.git?depth=1"
            "#]],
        ),
        (
            "FROM base\nADD --checksum=sha256:00 https://h/x /\n",
            expect![[r#"
                Dockerfile cannot be built
                error[ST107]: `sha256:00` is no checksum at "sha256:00"
                  write `sha256:` and 64 hex digits
            "#]],
        ),
        (
            "FROM base\nADD --checksum=0123456 a /\n",
            expect![[r#"
                Dockerfile cannot be built
                error[ST107]: `--checksum` is that of one source, which is a URL or a Git repository at "0123456"
            "#]],
        ),
        (
            "FROM base\nADD --keep-git-dir https://h/r.git?keep-git-dir=false /\n",
            expect![[r#"
                Dockerfile cannot be built
                error[ST107]: `https://h/r.git` says that `.git` is not kept, and `--keep-git-dir` that it is at "https://h/r.git?keep-git-dir=false"
            "#]],
        ),
    ] {
        check_failure(&world, dockerfile, &[], expected);
    }
}

/// Links of a checkout do not lead out of it, and its submodules do not come from this machine's files.
fn hostile_repositories() {
    let (world, server) = (World::new(), GitServer::start());
    let repository = server.repository("r.git");
    repository.commit(&[("etc", "-> /etc"), ("up", "-> ../../.."), ("f", "-> /etc/hostname")]);
    let url = server.url("r.git");
    for subdir in ["etc", "up/home", "../.."] {
        let text = explain(world.build(&format!("FROM base\nADD {url}#:{subdir} /\n")).failed());
        assert!(text.contains("the repository has no directory") || subdir == "../..", "{text}");
    }
    let secret = server.repository("secret");
    secret.commit(&[("s", "S")]);
    let outer = server.repository("outer.git");
    outer.git(&["submodule", "--quiet", "add", secret.path().to_str().unwrap(), "sub"]);
    outer.commit(&[]);
    let text = explain(world.build(&format!("FROM base\nADD {} /\n", server.url("outer.git"))).failed());
    assert!(text.contains("transport 'file' not allowed"), "{text}");
}

fn named_repository() {
    let (world, server) = (World::new(), GitServer::start());
    server.repository("r.git").commit(&[("a", "A"), ("d/b", "B"), (".dockerignore", "a\n")]);
    let source = RemoteSource::parse(&server.url("r.git")).unwrap().unwrap();
    let mut request = world.request(
        "FROM base\nCOPY --from=code d/b /x\nCOPY --from=code . /all\nRUN --mount=type=bind,from=code,target=/m cat /m/a > /y\nFROM code AS whole\nFROM base\nCOPY --from=1 /a /c\nCOPY --from=0 /all /all\nCOPY --from=0 /x /y /\n",
    );
    request.build_contexts.insert("code".into(), NamedContext::Remote(source));
    let outcome = world.run(&request);
    expect![[r#"
        layer
          -644 c "A"
        layer
          d755 all/
          -644 all/.dockerignore "a\n"
          -644 all/a "A"
          d755 all/d/
          -644 all/d/b "B"
        layer
          -644 x "B"
          -644 y "A"
    "#]]
    .assert_eq(&world.show(outcome.built()));
}

/// A name of `--build-context` comes before the stage and the image of that name, however an image's name is written.
fn named_contexts_override() {
    let world = World::new();
    let other = world.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("f"), "named").unwrap();
    let dockerfile = "FROM base AS code\nRUN echo stage > /f\nRUN false\nFROM base\nCOPY --from=code /f /one\nCOPY --from=docker.io/library/some:latest /f /two\n";
    let mut request = world.request(dockerfile);
    for name in ["code", "some"] {
        request.build_contexts.insert(name.into(), NamedContext::Directory(other.clone()));
    }
    let outcome = world.run(&request);
    assert_eq!(world.read(outcome.built(), "/one"), "named");
    assert_eq!(world.read(outcome.built(), "/two"), "named");
    // As the target itself, it is the image.
    request.target = Some("code".into());
    let outcome = world.run(&request);
    assert_eq!(world.read(outcome.built(), "/f"), "named");
    assert_eq!(outcome.built().layers.len(), 1);
}

fn named_target() {
    let world = World::new();
    let dockerfile = "FROM base AS made\nRUN echo made > /f\nFROM tool AS two\nCOPY --from=tool /f /g\nRUN --mount=from=tool,target=/m cat /m/f > /h\n";
    let mut request = world.request(dockerfile);
    request.build_contexts.insert("tool".into(), NamedContext::Stage("made".into()));
    let outcome = world.run(&request);
    for path in ["/f", "/g", "/h"] {
        assert_eq!(world.read(outcome.built(), path), "made\n");
    }
    for (target, message) in [
        ("mad", "the named context `tool` is stage `mad`, which does not exist"),
        ("two", "the named context `tool` is this very stage"),
    ] {
        request.build_contexts.insert("tool".into(), NamedContext::Stage(target.into()));
        let text = explain(world.run(&request).failed());
        assert!(text.contains(message), "{text}");
    }
}

/// BuildKit takes a directory for an image: its files are the root.
fn directory_as_base() {
    let world = World::new();
    let other = world.path().join("other");
    fs::create_dir_all(other.join("bin")).unwrap();
    for name in ["f", "bin/hidden"] {
        let file = fs::File::create(other.join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(EPOCH - 10)).unwrap();
    }
    fs::write(other.join(".dockerignore"), "bin/hidden\n").unwrap();
    let mut request = world.request("FROM root\nENV A=b\nCOPY x /x\n");
    world.file("x", "X");
    request.build_contexts.insert("root".into(), NamedContext::Directory(other.clone()));
    let outcome = world.run(&request);
    expect![[r#"
        layer
          -644 .dockerignore "bin/hidden\n"
          d755 bin/
          -644 f ""
        layer
          -644 x "X"
        Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=b"]
    "#]]
    .assert_eq(&world.show(outcome.built()));
    assert_eq!(world.history(outcome.built()).lines().next(), Some("L FROM root"));
    assert_eq!(outcome.made(), ["FROM root", "COPY x /x"]);
    assert!(world.run(&request).made().is_empty());
    fs::write(other.join("f"), "new").unwrap();
    assert_eq!(world.run(&request).made(), ["FROM root", "COPY x /x"]);
}

/// An index in the layout's own list, and platforms in that list itself.
fn layouts_of_several_platforms() {
    let world = World::new();
    let layout = world.path().join("layout");
    let image = world.store.resolve(&"base".parse().unwrap()).unwrap().unwrap();
    world
        .store
        .save_layout_dir(&[(Some("base:1".parse().unwrap()), image)], &store::SaveOptions::default(), &layout)
        .unwrap();
    let path = layout.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut here = index["manifests"][0].clone();
    here["annotations"] = serde_json::json!({});
    here["platform"] = serde_json::to_value(oci::Platform::host()).unwrap();
    let mut elsewhere = here.clone();
    elsewhere["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    elsewhere["digest"] = serde_json::json!(format!("sha256:{}", "0".repeat(64)));
    index["manifests"] = serde_json::json!([elsewhere, here]);
    let bytes = serde_json::to_vec(&index).unwrap();
    let digest = oci::Digest::of(&bytes);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    let nested = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": bytes.len()}
    ]});
    for content in [bytes, serde_json::to_vec(&nested).unwrap()] {
        fs::write(&path, content).unwrap();
        let mut request = world.request("FROM many\nCOPY --from=many /etc/group /g\n");
        let name = NamedContext::OciLayout { path: layout.clone(), name: None };
        request.build_contexts.insert("many".into(), name);
        assert_eq!(world.run(&request).built().layers.len(), 2);
        request.platform = "linux/riscv64".parse().unwrap();
        let text = explain(world.run(&request).failed());
        assert!(text.contains("linux/riscv64"), "{text}");
    }
}

fn tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_mtime(1_000_000_000);
    header.set_size(1);
    builder.append_data(&mut header, "f", b"F".as_slice()).unwrap();
    builder.into_inner().unwrap()
}

/// Archives are known by their content, never by their name; what only looks like one is a file.
fn compressed_archives() {
    let world = World::new();
    let tar = tar();
    let bzip2 = || {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |content: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let write = |name: &str, content: &[u8]| fs::write(world.context().join(name), content).unwrap();
    write("bz", &bzip2());
    write("xz", &xz(&tar));
    write("zst.tar.gz", &zstd::encode_all(&tar[..], 1).unwrap());
    write("plain.txt", &tar);
    write("text.xz", &xz(b"no archive"));
    write("broken.tar.xz", &xz(&tar)[..40]);
    write("broken.tar.bz2", b"BZh91AY&SY");
    write("short.tar", &tar[..300]);
    // Needs more memory than any archive that is meant well: `xz --lzma2=dict=1536MiB`, by its header.
    let outcome = world.build(
        "FROM base\nADD bz /bz/\nADD xz /xz/\nADD zst.tar.gz /zst\nADD plain.txt /plain\n\
         ADD text.xz broken.tar.xz broken.tar.bz2 short.tar /files/\nRUN cat /bz/f /xz/f /zst/f /plain/f > /x; ls /files >> /x\n",
    );
    assert_eq!(world.read(outcome.built(), "/x"), "FFFFbroken.tar.bz2\nbroken.tar.xz\nshort.tar\ntext.xz\n");
    // Broken behind its beginning: half of it must not look like all.
    let mut cut = xz(&[&tar[..1024], &vec![7; 300_000]].concat());
    cut.truncate(cut.len() - 20);
    write("cut.tar.xz", &cut);
    let text = explain(world.build("FROM base\nADD cut.tar.xz /\n").failed());
    assert!(text.contains("cannot make `ADD cut.tar.xz /`"), "{text}");
}

fn archive_attributes() {
    let world = World::new();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.user.seatrial", b"yes".as_slice())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(0);
    builder.append_data(&mut header, "f", b"".as_slice()).unwrap();
    fs::write(world.context().join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let outcome = world.build("FROM base\nADD a.tar /d\nFROM base\nCOPY --from=0 /d /e\n");
    let top = outcome.built().layers.last().unwrap().clone();
    let path = world.store.snapshot_fs(&top).join("e/f");
    let mut value = [0; 16];
    match rustix::fs::getxattr(&path, "user.seatrial", &mut value[..]) {
        Ok(length) => assert_eq!(&value[..length], b"yes"),
        Err(rustix::io::Errno::OPNOTSUPP) => testkit::skip("this file system has no user attributes"),
        Err(error) => panic!("{error}"),
    }
}

fn symbolic_modes() {
    let world = World::new();
    world.file("d/x", "X");
    world.file("d/sub/y.sh", "Y");
    check(
        &world,
        "FROM base\nCOPY --chmod=u=rwX,go= d /t\nCOPY --chmod=+x d/x /s\nCOPY --chmod=a-r,u+s d/sub/y.sh /u\nCOPY --chmod=g=u <<h /h\nH\nh\nADD --chmod=go-r d /v\n",
        expect![[r#"
            layer
              d700 t/
              d700 t/sub/
              -700 t/sub/y.sh "Y"
              -600 t/x "X"
            layer
              -755 s "X"
            layer
              -4311 u "Y"
            layer
              -664 h "H\n"
            layer
              d711 v/
              d711 v/sub/
              -711 v/sub/y.sh "Y"
              -600 v/x "X"
        "#]],
    );
    check_failure(
        &world,
        "FROM base\nCOPY --chmod=u+q d/x /\n",
        &[],
        expect![[r#"
            Dockerfile cannot be built
            error[ST123]: `u+q` is neither an octal mode such as `755` nor a symbolic one such as `u=rwX,go=rX` at "u+q"
        "#]],
    );
}
