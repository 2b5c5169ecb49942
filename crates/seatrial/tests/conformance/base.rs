//! The image that every case starts from: the same layer for Seatrial and its peers, made on the spot.

use std::{fs, io::Write, path::Path};

use sha2::{Digest as _, Sha256};

/// Time of every file in it, in seconds.
const TIME: u64 = 1_500_000_000;

/// Programs of busybox that Dockerfiles of the cases call.
const TOOLS: &str = "[ basename cat chgrp chmod chown cp cut date dd dirname echo env expr false find grep head hostname id ln ls \
                     md5sum mkdir mkfifo mknod mount mv od printf pwd readlink rm rmdir sed seq sh sleep sort stat sync \
                     tail tar tee test touch tr true truncate umount uname uniq wc xargs";

/// Writes it as a docker archive named `base:latest`, which docker, buildah and Seatrial can all load.
///
/// # Panics
/// Without a static busybox.
pub(crate) fn write(archive: &Path) {
    let layer = layer();
    let diff_id: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2017-07-14T02:40:00Z",
        "config": { "Env": ["PATH=/usr/bin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": "2017-07-14T02:40:00Z", "created_by": "conformance" }],
    });
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": ["base:latest"], "Layers": ["layer.tar"] }]);
    let mut tar = tar::Builder::new(fs::File::create(archive).expect("the archive can be made"));
    for (name, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        add(&mut tar, name, Kind::File(0o644, &content), (0, 0));
    }
    tar.finish().expect("the archive can be written");
}

enum Kind<'a> {
    Directory(u32),
    File(u32, &'a [u8]),
    Link(&'a str),
    Hard(&'a str),
}

fn layer() -> Vec<u8> {
    let busybox =
        fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox")).expect("busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let root = (0, 0);
    for name in [
        "bin",
        "dev",
        "etc",
        "etc/conf",
        "etc/conf/sub",
        "home",
        "lower",
        "lower/dir",
        "lower/dir/deep",
        "opt",
        "proc",
        "sys",
        "usr",
        "usr/bin",
        "var",
    ] {
        add(&mut tar, name, Kind::Directory(0o755), root);
    }
    add(&mut tar, "tmp", Kind::Directory(0o1777), root);
    add(&mut tar, "root", Kind::Directory(0o700), root);
    add(&mut tar, "home/app", Kind::Directory(0o750), (1000, 1001));
    add(&mut tar, "bin/busybox", Kind::File(0o755, &busybox), root);
    for tool in TOOLS.split_whitespace() {
        add(&mut tar, &format!("bin/{tool}"), Kind::Link("busybox"), root);
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nbin:x:2:2:bin:/bin:/bin/false\napp:x:1000:1001::/home/app:/bin/sh\n12:x:1012:1013::/:/bin/sh\n";
    let group = b"root:x:0:\nbin:x:2:\nstaff:x:50:app\napp:x:1001:\nextra:x:60:bin,app\n";
    for (name, content) in [
        ("etc/passwd", &passwd[..]),
        ("etc/group", group),
        ("etc/conf/a", b"a\n"),
        ("etc/conf/b", b"b\n"),
        ("etc/conf/sub/c", b"c\n"),
        ("lower/file", b"file\n"),
        ("lower/other", b"other\n"),
        ("lower/dir/in", b"in\n"),
        ("lower/dir/deep/er", b"deeper\n"),
        ("lower/hard1", b"hard\n"),
    ] {
        add(&mut tar, name, Kind::File(0o644, content), root);
    }
    add(&mut tar, "opt/setid", Kind::File(0o6755, b"setid\n"), root);
    add(&mut tar, "home/app/own", Kind::File(0o640, b"own\n"), (1000, 1001));
    add(&mut tar, "lower/hard2", Kind::Hard("lower/hard1"), root);
    add(&mut tar, "lower/link", Kind::Link("file"), root);
    add(&mut tar, "lower/dirlink", Kind::Link("dir"), root);
    add(&mut tar, "lower/abslink", Kind::Link("/lower/dir"), root);
    add(&mut tar, "lower/dangling", Kind::Link("nowhere/at/all"), root);
    tar.into_inner().expect("memory takes everything")
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, kind: Kind<'_>, (user, group): (u64, u64)) {
    let mut header = tar::Header::new_ustar();
    header.set_mtime(TIME);
    header.set_uid(user);
    header.set_gid(group);
    header.set_size(0);
    let (entry_type, mode, content) = match kind {
        Kind::Directory(mode) => (tar::EntryType::Directory, mode, &[][..]),
        Kind::File(mode, content) => (tar::EntryType::Regular, mode, content),
        Kind::Link(_) => (tar::EntryType::Symlink, 0o777, &[][..]),
        Kind::Hard(_) => (tar::EntryType::Link, 0o644, &[][..]),
    };
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    match kind {
        Kind::Link(target) | Kind::Hard(target) => tar.append_link(&mut header, name, target),
        Kind::Directory(_) | Kind::File(..) => tar.append_data(&mut header, name, content),
    }
    .expect("the archive can be written");
}
