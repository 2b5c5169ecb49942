//! One case for each rule: Dockerfile and context in, layers and config out.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use crate::world::{World, has_owners};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("run_forms", run_forms),
    ("run_environment", run_environment),
    ("run_mounts", run_mounts),
    ("copy_places", copy_places),
    ("copy_links_and_patterns", copy_links_and_patterns),
    ("copy_patterns_and_links", copy_patterns_and_links),
    ("copy_owners_and_modes", copy_owners_and_modes),
    ("copy_inline", copy_inline),
    ("copy_from_stages", copy_from_stages),
    ("copy_onto_what_is_there", copy_onto_what_is_there),
    ("add_archives", add_archives),
    ("dockerignore", dockerignore),
    ("workdir", workdir),
    ("arguments", arguments),
    ("config", config),
    ("entrypoint_resets_cmd", entrypoint_resets_cmd),
    ("scratch", scratch),
    ("stages", stages),
    ("onbuild", onbuild),
    ("history", history),
    ("requested_labels_win", requested_labels_win),
    ("named_contexts", named_contexts),
    ("host_base_is_unpublishable", host_base_is_unpublishable),
    ("copied_snapshots_give_the_same", copied_snapshots_give_the_same),
];

fn check(files: &[(&str, &str)], dockerfile: &str, expected: Expect) {
    let world = World::new();
    for (name, content) in files {
        world.file(name, content);
    }
    let outcome = world.build(dockerfile);
    expected.assert_eq(&world.show(outcome.built()));
}

fn run_forms() {
    check(
        &[],
        "FROM base\nRUN echo hi > /x\nRUN [\"sh\", \"-c\", \"echo $0 > /y\", \"zero\"]\n",
        expect![[r#"
        layer
          -644 x "hi\n"
        layer
          -644 y "zero\n"
    "#]],
    );
    check(
        &[],
        "FROM base\nRUN <<EOF\nset -e\nV=1\necho $V > /x\nEOF\n",
        expect![[r#"
        layer
          -644 x "1\n"
    "#]],
    );
    check(
        &[],
        "FROM base\nRUN <<EOF\n#!/bin/sh\necho $0 > /x\nEOF\n",
        expect![[r#"
        layer
          -644 x "/dev/pipes/EOF\n"
    "#]],
    );
    check(
        &[],
        "FROM base\nRUN cat <<EOF > /x && cat <<'TWO' > /y\none $HOME\nEOF\ntwo $HOME\nTWO\n",
        expect![[r#"
        layer
          -644 x "one /root\n"
          -644 y "two $HOME\n"
    "#]],
    );
    check(
        &[],
        "FROM base\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN true; echo $- > /x\n",
        expect![[r#"
        layer
          -644 x "e\n"
        Shell: ["/bin/sh","-ec"]
    "#]],
    );
}

fn run_environment() {
    check(
        &[],
        "FROM base\nARG V=arg\nENV E=env\nWORKDIR /w\nUSER app\nRUN echo $V $E $PWD $HOME $(id -u):$(id -g) $SOURCE_DATE_EPOCH > /tmp/x\n",
        expect![[r#"
            layer
              d755 w/
            layer
              d1777 tmp/
              -644 1000:1001 tmp/x "arg env /w /home/app 1000:1001 1700000000\n"
            User: "app"
            Env: ["PATH=/usr/bin:/bin","E=env"]
            WorkingDir: "/w"
        "#]],
    );
    check(
        &[],
        "FROM base\nRUN echo $HOME $PATH > /x; env | sort | cat > /y\n",
        expect![[r#"
        layer
          -644 x "/root /usr/bin:/bin\n"
          -644 y "HOME=/root\nPATH=/usr/bin:/bin\nPWD=/\nSOURCE_DATE_EPOCH=1700000000\n"
    "#]],
    );
    check(
        &[],
        "FROM base\nUSER 1000:50\nRUN echo $(id -u):$(id -g) > /tmp/x\n",
        expect![[r#"
        layer
          d1777 tmp/
          -644 1000:50 tmp/x "1000:50\n"
        User: "1000:50"
    "#]],
    );
}

fn run_mounts() {
    check(
        &[("src/a", "A"), ("b", "B")],
        "FROM base AS other\nRUN echo other > /o\nFROM base\nRUN --mount=type=bind,target=/c --mount=type=bind,from=other,source=/o,target=/o cat /c/src/a /c/b /o > /x\n",
        expect![[r#"
            layer
              -644 x "ABother\n"
        "#]],
    );
    check(
        &[("src/a", "A"), (".dockerignore", "b"), ("b", "B")],
        "FROM base\nRUN --mount=type=bind,target=/c ls /c > /x; V=$(ls -a /c/..); echo $V > /y\n",
        expect![[r#"
            layer
              -644 x "src\n"
              -644 y ". .. bin c dev etc home lib lib64 linked proc root sys tmp usr x\n"
        "#]],
    );
    check(
        &[("a", "A")],
        "FROM base\nRUN --mount=type=bind,source=a,target=/c,rw echo changed > /c; cat /c > /x 2>/dev/null || true\n",
        expect![[r#"
            layer
              -644 x "changed\n"
        "#]],
    );
    check(
        &[],
        "FROM base\nRUN --mount=type=cache,target=/cache echo kept > /cache/f\nRUN --mount=type=cache,target=/cache cat /cache/f > /x\nRUN --mount=type=tmpfs,target=/t touch /t/gone\n",
        expect![[r#"
            layer
            layer
              -644 x "kept\n"
            layer
        "#]],
    );
    check(
        &[],
        "FROM base\nRUN --mount=type=cache,id=c,target=/cache,mode=0700,uid=1000,gid=1001 stat -c '%a %u:%g' /cache > /x\nRUN --mount=type=secret,id=s test ! -e /run/secrets/s\n",
        expect![[r#"
            layer
              -644 x "700 1000:1001\n"
            layer
        "#]],
    );
}

fn copy_places() {
    // A file to a new name, into a directory written with a slash, into one that exists, into the working directory.
    check(
        &[("a", "A")],
        "FROM base\nCOPY a /new\n",
        expect![[r#"
        layer
          -644 new "A"
    "#]],
    );
    check(
        &[("a", "A")],
        "FROM base\nCOPY a /new/\n",
        expect![[r#"
        layer
          d755 new/
          -644 new/a "A"
    "#]],
    );
    check(
        &[("a", "A")],
        "FROM base\nCOPY a /tmp\n",
        expect![[r#"
        layer
          d1777 tmp/
          -644 tmp/a "A"
    "#]],
    );
    check(
        &[("a", "A")],
        "FROM base\nWORKDIR /w\nCOPY a .\nCOPY a sub/b\nCOPY a ../c\n",
        expect![[r#"
        layer
          d755 w/
        layer
          d755 w/
          -644 w/a "A"
        layer
          d755 w/
          d755 w/sub/
          -644 w/sub/b "A"
        layer
          -644 c "A"
        WorkingDir: "/w"
    "#]],
    );
    check(
        &[("a", "A"), ("b", "B")],
        "FROM base\nCOPY a b /d/\nCOPY [\"a\", \"/e\"]\n",
        expect![[r#"
        layer
          d755 d/
          -644 d/a "A"
          -644 d/b "B"
        layer
          -644 e "A"
    "#]],
    );
    // A directory gives its contents.
    let tree = &[("d/x", "X"), ("d/sub/y.sh", "Y"), ("d/empty/", "")];
    check(
        tree,
        "FROM base\nCOPY d /t\n",
        expect![[r#"
        layer
          d755 t/
          d755 t/empty/
          d755 t/sub/
          -755 t/sub/y.sh "Y"
          -644 t/x "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY d/ /t/\n",
        expect![[r#"
        layer
          d755 t/
          d755 t/empty/
          d755 t/sub/
          -755 t/sub/y.sh "Y"
          -644 t/x "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY d/sub d/empty /t/\n",
        expect![[r#"
        layer
          d755 t/
          -755 t/y.sh "Y"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY . /t\n",
        expect![[r#"
        layer
          d755 t/
          d755 t/d/
          d755 t/d/empty/
          d755 t/d/sub/
          -755 t/d/sub/y.sh "Y"
          -644 t/d/x "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY ./d/../d/x /\n",
        expect![[r#"
        layer
          -644 x "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY /d/x ../../d/sub/y.sh /t/\n",
        expect![[r#"
        layer
          d755 t/
          -644 t/x "X"
          -755 t/y.sh "Y"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY --parents d/x d/sub /t/\nCOPY --parents d/./sub/y.sh /p/\n",
        expect![[r#"
        layer
          d755 t/
          d755 t/d/
          d755 t/d/sub/
          -755 t/d/sub/y.sh "Y"
          -644 t/d/x "X"
        layer
          d755 p/
          d755 p/sub/
          -755 p/sub/y.sh "Y"
    "#]],
    );
}

fn copy_links_and_patterns() {
    let tree =
        &[("real/f", "F"), ("link", "-> real"), ("file", "-> real/f"), ("real/in", "-> f"), ("real/out", "-> /etc")];
    check(
        tree,
        "FROM base\nCOPY link /t\nCOPY file /t/\nCOPY link/f /u\n",
        expect![[r#"
        layer
          d755 t/
          -644 t/f "F"
          l t/in -> f
          l t/out -> /etc
        layer
          d755 t/
          -644 t/file "F"
        layer
          -644 u "F"
    "#]],
    );
    // Links within a directory stay links; a target that is a link to a directory is followed.
    check(
        &[("a", "A")],
        "FROM base\nCOPY a /linked/\nCOPY a /linked/b\n",
        expect![[r#"
        layer
          d755 bin/
          -644 bin/a "A"
        layer
          d755 bin/
          -644 bin/b "A"
    "#]],
    );
    let names =
        &[("a1.txt", "1"), ("a2.txt", "2"), ("b1.txt", "3"), ("x/a3.txt", "4"), ("y/a4.txt", "5"), ("[z]", "6")];
    check(
        names,
        "FROM base\nCOPY a*.txt /d/\nCOPY [ab]1.txt /e/\nCOPY */a?.txt /f/\nCOPY a[^1].txt /g/\n",
        expect![[r#"
        layer
          d755 d/
          -644 d/a1.txt "1"
          -644 d/a2.txt "2"
        layer
          d755 e/
          -644 e/a1.txt "1"
          -644 e/b1.txt "3"
        layer
          d755 f/
          -644 f/a3.txt "4"
          -644 f/a4.txt "5"
        layer
          d755 g/
          -644 g/a2.txt "2"
    "#]],
    );
    check(
        names,
        "FROM base\nCOPY [[]z] /z\nCOPY x* /dir/\n",
        expect![[r#"
        layer
          -644 z "6"
        layer
          d755 dir/
          -644 dir/a3.txt "4"
    "#]],
    );
    check(
        names,
        "FROM base\nCOPY --exclude=a* --exclude=x . /d/\nCOPY --exclude=*2* a* /e/\n",
        expect![[r#"
        layer
          d755 d/
          -644 d/[z] "6"
          -644 d/b1.txt "3"
          d755 d/y/
          -644 d/y/a4.txt "5"
        layer
          d755 e/
          -644 e/a1.txt "1"
    "#]],
    );
    check(
        names,
        "FROM base\nCOPY --exclude=* --exclude=!y/a4.txt . /d/\n",
        expect![[r#"
        layer
          d755 d/
          d755 d/y/
          -644 d/y/a4.txt "5"
    "#]],
    );
}

fn copy_owners_and_modes() {
    if !has_owners() {
        return testkit::skip("this user has a single id, so owners cannot be set");
    }
    let tree = &[("d/x", "X"), ("d/sub/y.sh", "Y"), ("l", "-> d/x")];
    check(
        tree,
        "FROM base\nCOPY --chown=1000:50 d /new/t\n",
        expect![[r#"
        layer
          d755 1000:50 new/
          d755 1000:50 new/t/
          d755 1000:50 new/t/sub/
          -755 1000:50 new/t/sub/y.sh "Y"
          -644 1000:50 new/t/x "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY --chown=app d/x /a\nCOPY --chown=app:staff d/x /b\nCOPY --chown=7 d/x /c\n",
        expect![[r#"
        layer
          -644 1000:1001 a "X"
        layer
          -644 1000:50 b "X"
        layer
          -644 7:7 c "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY --chmod=0640 d /t\nCOPY --chmod=4755 d/x /s\n",
        expect![[r#"
        layer
          d640 t/
          d640 t/sub/
          -640 t/sub/y.sh "Y"
          -640 t/x "X"
        layer
          -4755 s "X"
    "#]],
    );
    check(
        tree,
        "FROM base\nRUN mkdir /o && chown 1000:50 /o && echo 1 > /o/f && chown 7:8 /o/f && chmod 2700 /o\nFROM base\nCOPY --from=0 /o /p\nCOPY --from=0 --chown=0 /o/f /q\n",
        expect![[r#"
        layer
          d755 p/
          -644 7:8 p/f "1\n"
        layer
          -644 q "1\n"
    "#]],
    );
}

fn copy_inline() {
    check(
        &[("a", "A")],
        "FROM base\nARG V=v\nCOPY <<EOF /x\nvalue $V\nEOF\nCOPY <<'EOF' a /d/\nraw $V\nEOF\n",
        expect![[r#"
        layer
          -644 x "value v\n"
        layer
          d755 d/
          -644 d/EOF "raw $V\n"
          -644 d/a "A"
    "#]],
    );
    check(
        &[],
        "FROM base\nCOPY --chmod=755 <<one <<two /d/\n1\none\n2\ntwo\n",
        expect![[r#"
        layer
          d755 d/
          -755 d/one "1\n"
          -755 d/two "2\n"
    "#]],
    );
}

fn copy_from_stages() {
    check(
        &[],
        "FROM base AS one\nRUN mkdir -p /o/p && echo 1 > /o/p/f && ln -s f /o/p/l && ln -s /o/p /top\nFROM base\nCOPY --from=one /o /t\nCOPY --from=0 /top/l /u/\nCOPY --from=ONE /o/*/f /w/\n",
        expect![[r#"
            layer
              d755 t/
              d755 t/p/
              -644 t/p/f "1\n"
              l t/p/l -> f
            layer
              d755 u/
              -644 u/l "1\n"
            layer
              d755 w/
              -644 w/f "1\n"
        "#]],
    );
    check(
        &[],
        "FROM base\nCOPY --from=base /etc/group /g\n",
        expect![[r#"
        layer
          -644 g "root:x:0:\napp:x:1001:\nstaff:x:50:app\n"
    "#]],
    );
    check(
        &[],
        "FROM base AS gone\nRUN echo 1 > /a && echo 2 > /b\nRUN rm /a\nFROM base\nCOPY --from=gone /b /\nRUN test ! -e /a\n",
        expect![[r#"
            layer
              -644 b "2\n"
            layer
        "#]],
    );
}

fn copy_onto_what_is_there() {
    // A directory that exists keeps its attributes, below as at the destination; sub-directories take the source's.
    check(
        &[("d/f", "new"), ("d/sub/g", "G")],
        "FROM base\nRUN mkdir -p /t/sub && chmod 700 /t /t/sub && echo old > /t/f && echo kept > /t/sub/h\nCOPY d /t\nRUN cat /t/f /t/sub/g /t/sub/h > /x; stat -c %a /t /t/sub >> /x\n",
        expect![[r#"
            layer
              d700 t/
              -644 t/f "old\n"
              d700 t/sub/
              -644 t/sub/h "kept\n"
            layer
              d700 t/
              -644 t/f "new"
              d755 t/sub/
              -644 t/sub/g "G"
            layer
              -644 x "newGkept\n700\n755\n"
        "#]],
    );
    // A link at the destination is followed, one below is replaced.
    check(
        &[("d/l", "L"), ("a", "A")],
        "FROM base\nRUN mkdir /t && ln -s /etc/group /t/l && ln -s /made /f\nCOPY d /t\nCOPY a /f\n",
        expect![[r#"
            layer
              l f -> /made
              d755 t/
              l t/l -> /etc/group
            layer
              d755 t/
              -644 t/l "L"
            layer
              -644 made "A"
        "#]],
    );
    check(
        &[("a", "A"), ("b", "B")],
        "FROM base\nCOPY a /x\nCOPY b /x\nCOPY a b a /y/\n",
        expect![[r#"
        layer
          -644 x "A"
        layer
          -644 x "B"
        layer
          d755 y/
          -644 y/a "A"
          -644 y/b "B"
    "#]],
    );
}

fn add_archives() {
    let world = World::new();
    let tar = tar_of(&[("dir/", 0o750, ""), ("dir/f", 0o640, "F"), ("dir/l", 0, "-> f"), ("../esc", 0o644, "E")]);
    std::fs::write(world.context().join("a.tar"), &tar).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    std::fs::write(world.context().join("a.tar.gz"), gz.finish().unwrap()).unwrap();
    std::fs::write(world.context().join("a.tzst"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
    let mut plain = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut plain, b"no archive").unwrap();
    std::fs::write(world.context().join("p.gz"), plain.finish().unwrap()).unwrap();
    let built = world.build("FROM base\nADD a.tar /one\nADD a.tar.gz /two/\nADD a.tzst /linked/x\n");
    expect![[r#"
        layer
          d755 one/
          d750 one/dir/
          -640 one/dir/f "F"
          l one/dir/l -> f
          -644 one/esc "E"
        layer
          d755 two/
          d750 two/dir/
          -640 two/dir/f "F"
          l two/dir/l -> f
          -644 two/esc "E"
        layer
          d755 bin/
          d755 bin/x/
          d750 bin/x/dir/
          -640 bin/x/dir/f "F"
          l bin/x/dir/l -> f
          -644 bin/x/esc "E"
    "#]]
    .assert_eq(&world.show(built.built()));
    let built = world.build(
        "FROM base\nADD p.gz /\nADD --unpack=false a.tar /t\nCOPY a.tar /u\nRUN stat -c '%n %s' /p.gz /t /u > /x\n",
    );
    let text = world.read(built.built(), "/x");
    expect![[r#"
        /p.gz 30
        /t 4096
        /u 4096
    "#]]
    .assert_eq(&text);
}

fn tar_of(entries: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        let data = match content.strip_prefix("-> ") {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(target).unwrap();
                ""
            }
            None if name.ends_with('/') => {
                header.set_entry_type(tar::EntryType::Directory);
                ""
            }
            None => content,
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn dockerignore() {
    let tree = &[
        (".dockerignore", "*.log\nsecret\n!keep.log\nnode\n!node/keep\n"),
        ("a.log", "1"),
        ("keep.log", "2"),
        ("sub/b.log", "3"),
        ("secret/key", "4"),
        ("node/x", "5"),
        ("node/keep/y", "6"),
    ];
    check(
        tree,
        "FROM base\nCOPY . /c/\n",
        expect![[r#"
        layer
          d755 c/
          -644 c/.dockerignore "*.log\nsecret\n!keep.log\nnode\n!node/keep\n"
          -644 c/keep.log "2"
          d755 c/node/
          d755 c/node/keep/
          -644 c/node/keep/y "6"
          d755 c/sub/
          -644 c/sub/b.log "3"
    "#]],
    );
    check(
        tree,
        "FROM base\nCOPY *.log node /c/\n",
        expect![[r#"
        layer
          d755 c/
          d755 c/keep/
          -644 c/keep/y "6"
          -644 c/keep.log "2"
    "#]],
    );
}

fn workdir() {
    check(
        &[],
        "FROM base\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d/\nRUN echo $PWD > /x\n",
        expect![[r#"
        layer
          d755 a/
        layer
          d755 a/
          d755 a/b/
        layer
          d755 a/
          d755 a/c/
          d755 a/c/d/
        layer
          -644 x "/a/c/d\n"
        WorkingDir: "/a/c/d"
    "#]],
    );
    check(
        &[],
        "FROM base\nENV D=/home\nWORKDIR $D/app\nRUN echo $PWD > /x\n",
        expect![[r#"
        layer
          -644 x "/home/app\n"
        Env: ["PATH=/usr/bin:/bin","D=/home"]
        WorkingDir: "/home/app"
    "#]],
    );
    check(
        &[],
        "FROM base\nWORKDIR /linked/new\n",
        expect![[r#"
        layer
          d755 bin/
          d755 bin/new/
        WorkingDir: "/linked/new"
    "#]],
    );
}

fn arguments() {
    check(
        &[],
        "ARG G=global\nARG H=${G}-2\nFROM base\nARG G\nARG H\nARG L=local-$G\nENV E=$L/$H N=${NONE:-default} P=${L:+set}\nRUN echo $G $H $L > /x\n",
        expect![[r#"
            layer
              -644 x "global global-2 local-global\n"
            Env: ["PATH=/usr/bin:/bin","E=local-global/global-2","N=default","P=set"]
        "#]],
    );
    // Pairs of one ENV see what was before it; a global argument that is not declared is not seen.
    check(
        &[],
        "ARG G=global\nFROM base\nENV A=1\nENV A=2 B=$A\nRUN echo [$G] > /x\n",
        expect![[r#"
        layer
          -644 x "[]\n"
        Env: ["PATH=/usr/bin:/bin","A=2","B=1"]
    "#]],
    );
    let world = World::new();
    let mut request = world.request(
        "ARG BASE=nope\nFROM ${BASE}\nARG V=default\nARG TARGETARCH\nARG TARGETOS\nENV V=$V T=$TARGETOS/$TARGETARCH\nRUN echo $http_proxy > /x\n",
    );
    let args =
        [("BASE", "base"), ("V", "given"), ("http_proxy", "http://proxy"), ("TARGETARCH", "mine"), ("EXTRA", "x")];
    request.build_args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let outcome = world.run(&request);
    expect![[r#"
        layer
          -644 x "http://proxy\n"
        Env: ["PATH=/usr/bin:/bin","V=given","T=linux/mine"]
    "#]]
    .assert_eq(&world.show(outcome.built()));
    assert_eq!(outcome.warnings(), ["build argument `EXTRA` is declared by no ARG and was not used"]);
    // An argument is seen by children of the stage, and ENV beats it.
    check(
        &[],
        "FROM base AS a\nARG V=1\nARG W=2\nENV W=3\nFROM a\nRUN echo $V $W > /x\n",
        expect![[r#"
        layer
          -644 x "1 3\n"
        Env: ["PATH=/usr/bin:/bin","W=3"]
    "#]],
    );
}

fn config() {
    check(
        &[],
        "FROM base\nMAINTAINER Me <me@example.com>\nLABEL a=1 \"b c\"='2 3'\nLABEL a=4\nEXPOSE 80 53/udp 7000-7002/tcp\nVOLUME /v \"/w\"\nVOLUME [\"/x\"]\nUSER app:staff\nSTOPSIGNAL SIGINT\nWORKDIR /\nCMD [\"a\", \"b\"]\nENTRYPOINT [\"/e\"]\n",
        expect![[r#"
            User: "app:staff"
            ExposedPorts: {"53/udp":{},"7000/tcp":{},"7001/tcp":{},"7002/tcp":{},"80/tcp":{}}
            Entrypoint: ["/e"]
            Cmd: ["a","b"]
            Volumes: {"/v":{},"/w":{},"/x":{}}
            Labels: {"a":"4","b c":"2 3"}
            StopSignal: "SIGINT"
            author: Me <me@example.com>
        "#]],
    );
    check(
        &[],
        "FROM base\nCMD echo $HOME\nHEALTHCHECK --interval=1m30s --timeout=2s --start-period=1s --retries=5 CMD test -e /x\n",
        expect![[r#"
        Cmd: ["/bin/sh","-c","echo $HOME"]
        Healthcheck: {"Test":["CMD-SHELL","test -e /x"],"Interval":90000000000,"Timeout":2000000000,"StartPeriod":1000000000,"Retries":5}
    "#]],
    );
    check(
        &[],
        "FROM base\nSHELL [\"/bin/sh\", \"-x\", \"-c\"]\nENTRYPOINT run me\nHEALTHCHECK CMD [\"a\"]\n",
        expect![[r#"
        Entrypoint: ["/bin/sh","-x","-c","run me"]
        Healthcheck: {"Test":["CMD","a"]}
        Shell: ["/bin/sh","-x","-c"]
    "#]],
    );
    check(
        &[],
        "FROM base\nHEALTHCHECK NONE\nEXPOSE 80/tcp\nONBUILD RUN echo later\n",
        expect![[r#"
        ExposedPorts: {"80/tcp":{}}
        Healthcheck: {"Test":["NONE"]}
        OnBuild: ["RUN echo later"]
    "#]],
    );
}

fn entrypoint_resets_cmd() {
    let world = World::new();
    world.add_image("withcmd", world.context().as_path(), |config| {
        config.config.cmd = Some(vec!["inherited".into()]);
    });
    let cmd = |dockerfile: &str| world.build(dockerfile).built().root.config.config.cmd.clone();
    assert_eq!(cmd("FROM withcmd\nENTRYPOINT [\"e\"]\n"), None);
    assert_eq!(cmd("FROM withcmd\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n"), Some(vec!["own".into()]));
    assert_eq!(cmd("FROM withcmd\nLABEL a=b\n"), Some(vec!["inherited".into()]));
}

fn scratch() {
    check(
        &[("a", "A")],
        "FROM scratch\nCOPY a /\n",
        expect![[r#"
        layer
          -644 a "A"
        Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    "#]],
    );
    check(
        &[("a", "A")],
        "FROM scratch\nWORKDIR /w\nADD a x/\nCMD [\"/w/x/a\"]\n",
        expect![[r#"
        layer
          d755 w/
        layer
          d755 w/
          d755 w/x/
          -644 w/x/a "A"
        Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        Cmd: ["/w/x/a"]
        WorkingDir: "/w"
    "#]],
    );
    check(
        &[],
        "FROM scratch\nLABEL only=config\n",
        expect![[r#"
        Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        Labels: {"only":"config"}
    "#]],
    );
}

fn stages() {
    let dockerfile = "FROM base AS one\nRUN echo 1 > /1\nFROM one AS two\nRUN echo 2 > /2\nFROM base AS unused\nRUN false\nFROM two\nRUN cat /1 /2 > /3\n";
    check(
        &[],
        dockerfile,
        expect![[r#"
        layer
          -644 1 "1\n"
        layer
          -644 2 "2\n"
        layer
          -644 3 "1\n2\n"
    "#]],
    );
    let world = World::new();
    let mut request = world.request(dockerfile);
    request.target = Some("ONE".into());
    expect![[r#"
        layer
          -644 1 "1\n"
    "#]]
    .assert_eq(&world.show(world.run(&request).built()));
}

fn onbuild() {
    let world = World::new();
    world.file("a", "A");
    let parent = world.build("FROM base\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\n");
    let built = parent.built();
    world.seal(built);
    let mut config = built.root.config.clone();
    config.rootfs.diff_ids = built.layers.iter().map(|l| world.store.diff_id(l, built.epoch).unwrap().0).collect();
    let image = world.store.put_image(&config, &built.layers, built.epoch).unwrap();
    world.store.tag(&"parent".parse().unwrap(), &image.id).unwrap();
    let child = world.build("FROM parent\nRUN cat /b > /c\n");
    expect![[r#"
        layer
          -644 a "A"
        layer
          -644 b "A"
        layer
          -644 c "A"
    "#]]
    .assert_eq(&world.show(child.built()));
    expect![[r#"
          ONBUILD COPY a /a
          ONBUILD RUN cat /a > /b
        L COPY a /a
        L RUN cat /a > /b
        L RUN cat /b > /c
    "#]]
    .assert_eq(&world.history(child.built()));
}

fn history() {
    let world = World::new();
    world.file("a", "A");
    let built = world.build("FROM base\nARG V=1\nENV A=1 \\\n  B=2\nRUN echo \\\n  # comment\n  x\nWORKDIR /tmp\nWORKDIR /new\nCOPY a /\nCMD [\"x\"]\n");
    expect![[r#"
          ARG V=1
          ENV A=1   B=2
        L RUN |1 V=1 echo   x
          WORKDIR /tmp
        L WORKDIR /new
        L COPY a /
          CMD ["x"]
    "#]]
    .assert_eq(&world.history(built.built()));
}

fn requested_labels_win() {
    let world = World::new();
    let mut request = world.request("FROM base\nLABEL a=file b=file\n");
    request.labels = BTreeMap::from([("a".into(), "asked".into())]);
    let labels = world.run(&request).built().root.config.config.labels.clone();
    assert_eq!(labels, BTreeMap::from([("a".into(), "asked".into()), ("b".into(), "file".into())]));
}

fn named_contexts() {
    let world = World::new();
    let other = world.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("f"), "F").unwrap();
    let mut request =
        world.request("FROM alias\nCOPY --from=dir f /\nRUN --mount=type=bind,from=dir,target=/m cat /m/f > /x\n");
    request.build_contexts.insert("dir".into(), engine::NamedContext::Directory(other));
    request.build_contexts.insert("alias".into(), engine::NamedContext::Image("base".parse().unwrap()));
    expect![[r#"
        layer
          -644 f "F"
        layer
          -644 x "F"
    "#]]
    .assert_eq(&world.show(world.run(&request).built()));
}

fn host_base_is_unpublishable() {
    let world = World::new();
    world.add_image("hostbase", world.context().as_path(), |config| {
        config.config.labels.insert("io.seatrial.base".into(), "host".into());
    });
    let built = world.build("FROM hostbase AS a\nLABEL io.seatrial.base=other\nFROM a\nLABEL x=y\n");
    assert!(built.built().unpublishable.is_some());
    assert_eq!(built.built().root.config.config.labels["io.seatrial.base"], "host");
    assert!(world.build("FROM base\n").built().unpublishable.is_none());
}

fn copied_snapshots_give_the_same() {
    let dockerfile = "FROM base\nRUN mkdir /d && echo 1 > /d/f && rm /etc/group\nCOPY a /d/\nADD a.tar /d/t\nRUN rm /d/f && echo 2 > /d/g && ln -s g /d/l\n";
    let mut listings = Vec::new();
    for world in [World::new(), World::with_copies()] {
        world.file("a", "A");
        let tar = tar_of(&[("in/", 0o755, ""), ("in/f", 0o644, "F")]);
        std::fs::write(world.context().join("a.tar"), tar).unwrap();
        let outcome = world.build(dockerfile);
        world.seal(outcome.built());
        // Whether a directory above a changed file is listed again is the snapshotter's choice.
        let tars = world.tars(outcome.built());
        listings.push(tars.lines().filter(|line| !line.contains(" Directory ")).collect::<Vec<_>>().join("\n"));
    }
    assert_eq!(listings[0], listings[1]);
}

fn copy_patterns_and_links() {
    // Patterns do not look through links; a directory that exists takes several files without a slash.
    let tree = &[("real/f", "F"), ("other", "-> real"), ("l/g", "G"), ("r1", "1"), ("r2", "2")];
    check(
        tree,
        "FROM base\nCOPY */f /x/\nCOPY other/* /y/\nCOPY r[12] /tmp\n",
        expect![[r#"
        layer
          d755 x/
          -644 x/f "F"
        layer
          d755 y/
          -644 y/f "F"
        layer
          d1777 tmp/
          -644 tmp/r1 "1"
          -644 tmp/r2 "2"
    "#]],
    );
}
