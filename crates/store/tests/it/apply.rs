//! Unpacking: honest layers arrive whole, hostile ones do no harm.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
};

use oci::{Descriptor, DiffId, Digest, media_type};
use store::ApplyErrorKind;

use crate::support::{Tar, World, gzip, is_root, message, names, seal_header, tree};

#[test]
fn files_links_modes_and_times_arrive() {
    let world = World::new();
    let tar = Tar::new()
        .dir("etc/")
        .file("etc/passwd", "root")
        .raw(b"bin", b'5', 0o1777, b"", b"")
        .raw(b"bin/su", b'0', 0o4755, b"", b"x")
        .hard_link("bin/sudo", "bin/su")
        .symlink("sh", "/bin/su")
        .raw(b"pipe", b'6', 0o600, b"", b"");
    let fs = world.store.snapshot_fs(&world.apply(None, &tar).unwrap());
    assert_eq!(names(&fs), ["bin", "bin/su", "bin/sudo", "etc", "etc/passwd", "pipe", "sh"]);
    let su = fs::metadata(fs.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.nlink(), su.mtime()), (0o4755, 2, 1_600_000_000));
    let bin = fs::metadata(fs.join("bin")).unwrap();
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o1777, 1_600_000_000));
    assert!(fs::symlink_metadata(fs.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::symlink_metadata(fs.join("sh")).unwrap().mtime(), 1_600_000_000);
}

#[test]
fn compressed_layers_are_told_by_content() {
    let world = World::new();
    let plain = Tar::new().file("a", "1").end();
    for blob in [gzip(&plain), zstd::encode_all(&*plain, 3).unwrap(), plain.clone()] {
        let id = world.apply_bytes(None, &blob, &plain).unwrap();
        assert_eq!(fs::read_to_string(world.store.snapshot_fs(&id).join("a")).unwrap(), "1");
    }
}

#[test]
fn same_chain_is_unpacked_once() {
    let world = World::new();
    let (base, top) = (Tar::new().file("a", "1"), Tar::new().file("b", "2"));
    let first = world.apply(None, &base).unwrap();
    assert_eq!(world.apply(None, &base).unwrap(), first);
    let second = world.apply(Some(&first), &top).unwrap();
    assert_eq!(world.apply(Some(&first), &top).unwrap(), second);
    assert_ne!(world.apply(None, &top).unwrap(), second);
    assert_eq!(world.store.lowers(&second).unwrap(), [&second, &first].map(|id| world.store.snapshot_fs(id)));
}

#[test]
fn names_cannot_leave_the_root() {
    let world = World::new();
    let outside = world.home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    let away = outside.to_str().unwrap();
    let victim = outside.join("victim");
    let victim = victim.to_str().unwrap();
    let up = format!("{}/victim", "../".repeat(12));
    let tar = Tar::new()
        .file("/absolute", "1")
        .file(&up, "2")
        .file("a/../../../b", "3")
        .symlink("escape", away)
        .file("escape/victim", "4")
        .symlink("up", "../../../../../../..")
        .file("up/c", "5")
        .symlink("one", "two")
        .symlink("two", away)
        .file("one/victim", "6");
    let id = world.apply(None, &tar).unwrap();
    let fs = world.store.snapshot_fs(&id);
    assert_eq!(fs::read_to_string(victim).unwrap(), "safe");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(fs.join("absolute")).unwrap(), "1");
    assert_eq!(fs::read_to_string(fs.join("b")).unwrap(), "3");
    assert_eq!(fs::read_to_string(fs.join("c")).unwrap(), "5");
    // The link's target was made inside the root instead.
    assert_eq!(fs::read_to_string(fs.join(&victim[1..])).unwrap(), "6");
    // A link whose target is outside is replaced, not followed, when a file of its name comes.
    let id = world.apply(None, &Tar::new().symlink("f", victim).file("f", "mine")).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "safe");
    assert_eq!(fs::read_to_string(world.store.snapshot_fs(&id).join("f")).unwrap(), "mine");
}

#[test]
fn hard_links_to_outside_are_refused() {
    let world = World::new();
    let secret = world.home.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let text = secret.to_str().unwrap();
    for tar in [
        Tar::new().hard_link("stolen", text),
        Tar::new().hard_link("stolen", &format!("../../../../../..{text}")),
        Tar::new().symlink("d", world.home.path().to_str().unwrap()).hard_link("stolen", "d/secret"),
    ] {
        let refusal = world.refusal(&tar);
        assert!(refusal.contains("neither this layer nor those below it have"), "{refusal}");
    }
    // A hard link to a symbolic link is that link, and writing through it replaces it.
    let tar = Tar::new().symlink("s", text).hard_link("h", "s").file("h", "mine");
    world.apply(None, &tar).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
}

#[test]
fn hard_link_into_a_lower_layer_copies_the_file_up() {
    for world in [World::new(), World::copying()] {
        let base = world.apply(None, &Tar::new().dir("d").raw(b"d/tool", b'0', 0o4711, b"", b"x")).unwrap();
        let middle = world.apply(Some(&base), &Tar::new().file("other", "")).unwrap();
        let top = world.apply(Some(&middle), &Tar::new().hard_link("e/link", "d/tool")).unwrap();
        let fs = world.store.snapshot_fs(&top);
        let (tool, link) = (fs::metadata(fs.join("d/tool")).unwrap(), fs::metadata(fs.join("e/link")).unwrap());
        assert_eq!((tool.ino(), tool.mode() & 0o7777, tool.mtime()), (link.ino(), 0o4711, 1_600_000_000));
        // Hidden by a whiteout of the same layer: gone.
        let tar = Tar::new().file("d/.wh.tool", "").hard_link("link", "d/tool");
        let refused = world.apply(Some(&middle), &tar).expect_err("the target is hidden");
        assert!(message(&refused).contains("hard link"), "{}", message(&refused));
    }
}

#[test]
fn last_entry_of_a_name_wins() {
    let world = World::new();
    let tar = Tar::new()
        .file("a", "old")
        .file("a", "new")
        .file("b", "")
        .dir("b")
        .file("b/c", "1")
        .dir("d")
        .file("d/e", "")
        .file("d", "file")
        .dir("k")
        .file("k/f", "")
        .dir("k")
        .file("l", "")
        .hard_link("l", "l");
    let fs = world.store.snapshot_fs(&world.apply(None, &tar).unwrap());
    assert_eq!(names(&fs), ["a", "b", "b/c", "d", "k", "k/f", "l"]);
    assert_eq!(fs::read_to_string(fs.join("a")).unwrap(), "new");
}

#[test]
fn impossible_entries_are_refused() {
    let world = World::new();
    let deep = "d/".repeat(401);
    for (tar, expected) in [
        (Tar::new().file("a", "").file("a/b", ""), "below something that is no directory"),
        (Tar::new().symlink("a", "b").symlink("b", "a").file("a/c", ""), "loop of symbolic links"),
        (Tar::new().hard_link("a", "missing"), "hard link to \"missing\""),
        (Tar::new().dir("d").hard_link("a", "d"), "hard link to a directory"),
        (Tar::new().hard_link("a", "/"), "hard link to the root"),
        (Tar::new().file(".wh.", ""), "whiteout of no name"),
        (Tar::new().file(".wh...", ""), "whiteout of no name"),
        (Tar::new().file(".wh.x/y", ""), "reserved for whiteouts"),
        (Tar::new().file("..", ""), "its path is the root"),
        (Tar::new().raw(b"x", b'z', 0o644, b"", b""), "entry type 'z'"),
        (Tar::new().pax(&[("path", deep.as_bytes())]).dir("x"), "too deep"),
        (Tar::new().pax(&[("path", "x".repeat(5000).as_bytes())]).dir("x"), "too long"),
        (Tar::new().pax(&[("path", b"a\0b")]).dir("x"), "NUL"),
        (Tar::new().pax(&[("size", b"9999999999999999999")]).file("x", ""), "impossible"),
        (Tar::new().pax(&[("size", b"300000000000")]).file("x", ""), "too many bytes"),
        (Tar::new().pax(&[("uid", b"4294967296")]).file("x", ""), "32 bits"),
        (Tar::new().raw(b"x", b'x', 0, b"", b"99 a=b\n"), "PAX record"),
        (Tar::new().raw(b"x", b'x', 0, b"", b"-1 a=b\n"), "PAX"),
        (Tar(vec![b'a'; 1024]), "checksum"),
        (
            Tar::new().pax(&[("GNU.sparse.map", b"0,9"), ("GNU.sparse.realsize", b"5")]).file("x", "123456789"),
            "outside",
        ),
        (Tar::new().pax(&[("GNU.sparse.map", b"0,3"), ("GNU.sparse.realsize", b"5")]).file("x", "1"), "as long as"),
        (
            Tar::new().pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.realsize", b"999999999999999")]).file("x", "1"),
            "too many bytes",
        ),
    ] {
        let refusal = world.refusal(&tar);
        assert!(refusal.contains(expected), "{refusal:?} does not say {expected:?}");
    }
    assert_eq!(fs::read_dir(world.store.root().join("snapshots")).unwrap().count(), 0, "nothing is kept");
}

#[test]
fn cut_archives_are_refused() {
    let world = World::new();
    let whole = Tar::new().file("a", &"x".repeat(2000)).end();
    for length in [100, 600, 2000] {
        let cut = &whole[..length];
        let error = world.apply_bytes(None, cut, cut).expect_err("a cut archive");
        assert!(message(&error).contains("cut"), "{}", message(&error));
    }
    let zipped = gzip(&whole);
    let cut = &zipped[..zipped.len() - 9];
    world.apply_bytes(None, cut, &whole).expect_err("a cut gzip stream");
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let base = Tar::new().file("gone", "").dir("d").file("d/old", "").dir("e").file("e/old", "").file("f", "old");
    let tar = Tar::new()
        .file(".wh.gone", "")
        .file("d/new", "")
        .file("d/.wh..wh..opq", "")
        // In either order the layer's own file stays.
        .file("f", "new")
        .file(".wh.f", "")
        .file(".wh.e", "")
        .dir("e")
        .file("e/new", "")
        .file(".wh..wh.plnk", "");
    let world = World::copying();
    let below = world.apply(None, &base).unwrap();
    let fs = world.store.snapshot_fs(&world.apply(Some(&below), &tar).unwrap());
    assert_eq!(names(&fs), ["d", "d/new", "e", "e/new", "f"]);
    assert_eq!(fs::read_to_string(fs.join("f")).unwrap(), "new");

    let world = World::new();
    let below = world.apply(None, &base).unwrap();
    let top = world.apply(Some(&below), &tar).unwrap();
    let fs = world.store.snapshot_fs(&top);
    assert_eq!(names(&fs), ["d", "d/new", "e", "e/new", "f", "gone"]);
    let gone = fs::symlink_metadata(fs.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for directory in ["d", "e"] {
        assert!(is_opaque(&fs.join(directory)), "{directory}");
    }
}

fn is_opaque(path: &std::path::Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0_u8; 8];
        matches!(rustix::fs::getxattr(path, *name, value.as_mut_slice()), Ok(1) if value[0] == b'y')
    })
}

#[test]
fn unlisted_directories_look_as_they_do_below() {
    let world = World::new();
    let base = world.apply(None, &Tar::new().raw(b"tmp", b'5', 0o1777, b"", b"")).unwrap();
    let fs =
        world.store.snapshot_fs(&world.apply(Some(&base), &Tar::new().file("tmp/x", "").file("new/y", "")).unwrap());
    assert_eq!(fs::metadata(fs.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(fs.join("tmp")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(fs::metadata(fs.join("new")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn overlay_marks_in_an_archive_are_left_out() {
    let world = World::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.mine", b"1\n2"),
        ])
        .dir("d")
        .pax(&[("SCHILY.xattr.user.text", b"v")])
        .file("f", "");
    let fs = world.store.snapshot_fs(&world.apply(None, &tar).unwrap());
    let mut list = [0_u8; 256];
    let length = rustix::fs::listxattr(fs.join("d"), list.as_mut_slice()).unwrap();
    assert_eq!(&list[..length], b"user.mine\0");
    let mut value = [0_u8; 16];
    assert_eq!(rustix::fs::getxattr(fs.join("f"), "user.text", value.as_mut_slice()), Ok(1));
}

#[test]
fn device_nodes_are_entries_for_root_and_counted_otherwise() {
    let world = World::new();
    let mut zero = Tar::new().raw(b"zero", b'3', 0o600, b"", b"").0;
    zero[329..345].copy_from_slice(b"0000000\x000000000\0");
    seal_header(&mut zero[..512]);
    let tar = Tar(zero).raw(b"null", b'3', 0o666, b"", b"").file("after", "");
    let id = world.apply(None, &tar).unwrap();
    let fs = world.store.snapshot_fs(&id);
    let skipped = world.store.snapshot(&id).unwrap().unwrap().skipped.devices;
    if is_root() {
        let null = fs::symlink_metadata(fs.join("null")).unwrap();
        assert_eq!((null.rdev(), null.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
        assert_eq!((names(&fs), skipped), (vec!["after".into(), "null".into()], 1));
    } else {
        assert_eq!((names(&fs), skipped), (vec!["after".into()], 2));
    }
}

#[test]
fn sub_second_times_long_names_and_strange_bytes_arrive() {
    let world = World::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    let tar = Tar::new()
        .pax(&[("mtime", b"1500000000.123456789"), ("path", long.as_bytes())])
        .file("x", "long")
        .pax(&[("mtime", b"-1.5")])
        .file("before", "")
        .raw(b"././@LongLink", b'L', 0, b"", [long.as_bytes(), b"2\0"].concat()[..].split_at(201).0)
        .dir("x")
        .raw(b"new\nline\xff", b'0', 0o644, b"", b"");
    let fs = world.store.snapshot_fs(&world.apply(None, &tar).unwrap());
    let stat = fs::metadata(fs.join(&long)).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.len()), (1_500_000_000, 123_456_789, 4));
    let before = fs::metadata(fs.join("before")).unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(fs::read_dir(&fs).unwrap().count(), 3);
}

#[test]
fn sparse_files_of_all_formats_are_whole() {
    let world = World::new();
    let mut expected = vec![0_u8; 5000];
    expected[1000..1003].copy_from_slice(b"abc");
    expected[4000..4002].copy_from_slice(b"de");
    let version_0_0 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"5000"),
            ("GNU.sparse.offset", b"1000"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"4000"),
            ("GNU.sparse.numbytes", b"2"),
        ])
        .file("f", "abcde");
    let version_0_1 = Tar::new()
        .pax(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", b"1000,3,4000,2"), ("GNU.sparse.name", b"f")])
        .file("GNUSparseFile.0/f", "abcde");
    let mut map = b"2\n1000\n3\n4000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let version_1 = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", b"5000"),
        ])
        .raw(b"GNUSparseFile.0/f", b'0', 0o644, b"", &map);
    let mut old = Tar::new().raw(b"f", b'S', 0o644, b"", b"abcde").0;
    old[257..265].copy_from_slice(b"ustar  \0");
    for (at, number) in [(386, 1000), (398, 3), (410, 4000), (422, 2), (483, 5000)] {
        old[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
    }
    seal_header(&mut old[..512]);
    for (name, tar) in [("0.0", version_0_0), ("0.1", version_0_1), ("1.0", version_1), ("old", Tar(old))] {
        let fs = world.store.snapshot_fs(&world.apply(None, &tar).unwrap());
        assert_eq!(names(&fs), ["f"], "{name}");
        assert!(fs::read(fs.join("f")).unwrap() == expected, "{name}");
    }
}

#[test]
fn archives_of_gnu_tar_arrive() {
    let world = World::new();
    let source = world.home.path().join("source");
    fs::create_dir_all(source.join("deep").join("x".repeat(180))).unwrap();
    fs::write(source.join("deep").join("x".repeat(180)).join("y".repeat(120)), "long").unwrap();
    fs::write(source.join("a"), "1").unwrap();
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    std::os::unix::fs::symlink("a", source.join("s")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 1_000_000).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let run = std::process::Command::new("tar")
            .args(["--sparse", "--format", format, "-C"])
            .arg(&source)
            .args(["-c", "."])
            .output();
        let Ok(run) = run else { return testkit::skip("GNU tar is not installed") };
        let id = world.apply_bytes(None, &run.stdout, &run.stdout).unwrap();
        let without_nanoseconds = tree(&world.store.snapshot_fs(&id));
        assert_eq!(without_nanoseconds, tree(&source), "{format}");
    }
}

#[test]
fn wrong_digests_sizes_and_diff_ids_are_noticed() {
    let world = World::new();
    let (good, bad) = (Tar::new().file("a", "1").end(), Tar::new().file("a", "2").end());
    world.store.put_blob(&good).unwrap();
    let layer = Descriptor::of(media_type::LAYER, &good);
    let apply = |layer: &Descriptor, plain: &[u8]| {
        let outcome = world.store.apply_layer(&world.scope, None, None, layer, &DiffId(Digest::of(plain)));
        outcome.expect_err("something is wrong with it").kind
    };
    assert!(matches!(apply(&layer, &bad), ApplyErrorKind::DiffId { .. }));
    let longer = Descriptor { size: layer.size + 1, ..layer.clone() };
    assert!(matches!(apply(&longer, &good), ApplyErrorKind::Corrupt(_)));
    let missing = Descriptor::of(media_type::LAYER, &bad);
    assert!(matches!(apply(&missing, &bad), ApplyErrorKind::MissingBlob));

    // One flipped bit: noticed, moved aside, absent from then on.
    let path = world.store.root().join("blobs/sha256").join(layer.digest.hex());
    let mut bytes = good.clone();
    bytes[512] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = apply(&layer, &good);
    assert!(message(&error).contains("is corrupt"), "{}", message(&error));
    assert_eq!(world.store.has_blob(&layer.digest), None);
}
