//! Sealing: the same tree gives the same bytes, and what was sealed unpacks to the same tree.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use oci::{ChainId, Digest};
use store::{Compression, SnapshotId};

use crate::support::{Tar, World, epoch, is_root, names, tree};

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), "content").unwrap();
    fs::hard_link(root.join("a/b/file"), root.join("a/link")).unwrap();
    fs::write(root.join("z"), vec![7; 3_000_000]).unwrap();
    fs::set_permissions(root.join("z"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("s")).unwrap();
    fs::write(root.join("long-".repeat(40)), "").unwrap();
    rustix::fs::setxattr(root.join("z"), "user.note", b"1", rustix::fs::XattrFlags::empty()).unwrap();
}

fn fill_backwards(root: &Path) {
    std::os::unix::fs::symlink("/nowhere", root.join("s")).unwrap();
    fs::write(root.join("long-".repeat(40)), "").unwrap();
    fs::write(root.join("z"), vec![7; 3_000_000]).unwrap();
    rustix::fs::setxattr(root.join("z"), "user.note", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(root.join("z"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/link"), "content").unwrap();
    fs::hard_link(root.join("a/link"), root.join("a/b/file")).unwrap();
}

#[test]
fn same_tree_gives_same_bytes_in_any_store() {
    let (one, two) = (World::new(), World::new());
    let (first, second) = (one.snapshot(None, fill), two.snapshot(None, fill_backwards));
    assert_eq!(one.store.diff_id(&first, epoch()).unwrap(), two.store.diff_id(&second, epoch()).unwrap());
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let sealed = one.store.seal(&first, epoch(), compression).unwrap();
        assert_eq!(sealed, two.store.seal(&second, epoch(), compression).unwrap());
        assert_eq!(one.store.has_blob(&sealed.digest), Some(sealed.size));
        // Sealed without the pass over the snapshot that came before it, too.
        let third = World::new();
        let fresh = third.snapshot(None, fill);
        assert_eq!(third.store.seal(&fresh, epoch(), compression).unwrap(), sealed);
    }
}

#[test]
fn sealed_layers_are_the_tar_that_the_diff_id_names() {
    let world = World::new();
    let id = world.snapshot(None, fill);
    let (diff_id, tar_bytes) = world.store.diff_id(&id, epoch()).unwrap();
    let read = |compression| {
        let layer = world.store.seal(&id, epoch(), compression).unwrap();
        world.store.read_blob(&layer.digest, u64::MAX).unwrap().unwrap()
    };
    let plain = read(Compression::None);
    assert_eq!((Digest::of(&plain), plain.len() as u64), (diff_id.0, tar_bytes));
    let mut unzipped = Vec::new();
    flate2::read::MultiGzDecoder::new(&*read(Compression::Gzip)).read_to_end(&mut unzipped).unwrap();
    assert!(unzipped == plain);
    assert!(zstd::decode_all(&*read(Compression::Zstd)).unwrap() == plain);
}

#[test]
fn gzip_program_agrees() {
    let world = World::new();
    let id = world.snapshot(None, fill);
    let layer = world.store.seal(&id, epoch(), Compression::Gzip).unwrap();
    let path = world.store.root().join("blobs/sha256").join(layer.digest.hex());
    let Ok(run) = std::process::Command::new("gzip").arg("-dc").stdin(fs::File::open(path).unwrap()).output() else {
        return testkit::skip("gzip is not installed");
    };
    assert!(run.status.success() && run.stdout == world.tar(&id));
}

#[test]
fn what_was_sealed_unpacks_to_the_same_tree() {
    let world = World::new();
    let id = world.snapshot(None, fill);
    let plain = world.tar(&id);
    let other = World::new();
    let copy = other.apply_bytes(None, &plain, &plain).unwrap();
    let (mut a, b) = (tree(&world.store.snapshot_fs(&id)), tree(&other.store.snapshot_fs(&copy)));
    // Times later than the epoch became the epoch.
    for text in a.values_mut() {
        let at = text.find('@').unwrap();
        let end = text[at..].find(' ').unwrap() + at;
        text.replace_range(at..end, "@1700000000");
    }
    assert_eq!(a, b);
    // And its tar is the same again.
    let again = other.snapshot(None, |root| {
        let run =
            std::process::Command::new("cp").arg("-a").arg(other.store.snapshot_fs(&copy).join(".")).arg(root).status();
        assert!(run.unwrap().success());
    });
    assert!(other.tar(&again) == plain);
}

#[test]
fn layer_with_every_entry_of_an_archive_survives_a_round_trip() {
    let world = World::new();
    let tar = Tar::new().dir("d").file("d/f", "1").raw(b"d/p", b'6', 0o600, b"", b"").symlink("d/s", "f");
    let id = world.apply(None, &tar).unwrap();
    let copy = world.snapshot(None, |root| {
        let run =
            std::process::Command::new("cp").arg("-a").arg(world.store.snapshot_fs(&id).join(".")).arg(root).status();
        assert!(run.unwrap().success());
    });
    let plain = world.tar(&copy);
    let again = World::new();
    let again_id = again.apply_bytes(None, &plain, &plain).unwrap();
    assert_eq!(tree(&again.store.snapshot_fs(&again_id)), tree(&world.store.snapshot_fs(&id)));
}

#[test]
fn layer_over_another_one_is_sealed_as_one() {
    let world = World::new();
    let below = world.snapshot(None, |root| {
        fs::create_dir_all(root.join("d/sub")).unwrap();
        fs::write(root.join("d/of-the-parent"), "p").unwrap();
    });
    let deep = "n/".repeat(80);
    let former = world.snapshot(Some(&below), |root| {
        fill(root);
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/gone"), "1").unwrap();
        fs::write(root.join("d/of-the-parent"), "2").unwrap();
        fs::write(root.join("d/stays"), "3").unwrap();
        fs::create_dir_all(root.join(&deep)).unwrap();
        fs::write(root.join(&deep).join("f"), "4").unwrap();
    });
    let active = world.store.prepare_over(&world.scope, Some(&below), &former).unwrap().unwrap();
    let root = active.upper();
    fs::create_dir(root.join("d")).unwrap();
    for name in ["d/gone", "d/of-the-parent", "a"] {
        let mode = rustix::fs::Mode::empty();
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), rustix::fs::FileType::CharacterDevice, mode, 0).unwrap();
    }
    fs::write(root.join("d/new"), "5").unwrap();
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("g"), "6").unwrap();
    active.note(b"what the maker wants to know").unwrap();
    let id = active.commit().unwrap();
    assert_eq!(world.store.snapshot_note(&id).unwrap(), b"what the maker wants to know");
    assert_eq!(world.store.snapshot_note(&former), None);
    let fs_of = |id: &SnapshotId| world.store.snapshot_fs(id);
    assert_eq!(world.store.lowers(&id).unwrap(), [&id, &former, &below].map(fs_of));
    let mut archive = tar::Archive::new(std::io::Cursor::new(world.tar(&id)));
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    let has = |name: &str| names.iter().filter(|known| *known == name).count();
    // The parent's file is hidden by a whiteout; what is of the former layer alone is simply not there.
    for (name, count) in [
        ("d/.wh.of-the-parent", 1),
        ("d/of-the-parent", 0),
        ("d/.wh.gone", 0),
        ("d/gone", 0),
        ("d/stays", 1),
        ("d/new", 1),
        (".wh.a", 0),
        ("a/link", 0),
        ("z", 1),
        (&*format!("{deep}f"), 1),
        (&*format!("{deep}g"), 1),
        ("d/", 1),
    ] {
        assert_eq!(has(name), count, "{name} in {names:?}");
    }
    // Nothing lies over two.
    assert!(world.store.prepare_over(&world.scope, Some(&below), &id).unwrap().is_none());
}

#[test]
fn whiteouts_and_opaque_directories_become_entries() {
    let world = World::new();
    let base = world.snapshot(None, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/old"), "").unwrap();
        fs::write(root.join("gone"), "").unwrap();
    });
    let name = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    let top = world.snapshot(Some(&base), |root| {
        for directory in ["d", "fresh"] {
            fs::create_dir(root.join(directory)).unwrap();
            rustix::fs::setxattr(root.join(directory), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        }
        let device = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("gone"), device, rustix::fs::Mode::empty(), 0).unwrap();
    });
    let bytes = world.tar(&top);
    let mut archive = tar::Archive::new(&*bytes);
    let paths: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    // What a directory hides is told name by name; `fresh` hides nothing.
    assert_eq!(paths, ["d/", "d/.wh.old", "fresh/", ".wh.gone"]);
}

#[test]
fn copied_snapshots_seal_to_the_difference() {
    let world = World::copying();
    let base = world.snapshot(None, |root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/keep"), "keep").unwrap();
        fs::write(root.join("d/change"), "old").unwrap();
        fs::write(root.join("gone"), "").unwrap();
        fs::write(root.join("mode"), "").unwrap();
    });
    let top = world.snapshot(Some(&base), |root| {
        assert_eq!(names(root), ["d", "d/change", "d/e", "d/keep", "gone", "mode"]);
        let old = fs::metadata(root.join("d/change")).unwrap().modified().unwrap();
        fs::write(root.join("d/change"), "new").unwrap();
        // Same size and time: only the content tells.
        fs::File::options().append(true).open(root.join("d/change")).unwrap().set_modified(old).unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(root.join("added"), "").unwrap();
    });
    let bytes = world.tar(&top);
    let mut archive = tar::Archive::new(&*bytes);
    let paths: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, ["added", "d/", "d/change", ".wh.gone", "mode"]);
    let unchanged = world.snapshot(Some(&top), |_| {});
    let (diff_id, _) = world.store.diff_id(&unchanged, epoch()).unwrap();
    assert_eq!(diff_id.0, Digest::of(&[0; 1024]));
}

#[test]
fn epoch_matters_only_for_later_files() {
    let world = World::new();
    let id = world.snapshot(None, |root| {
        fs::write(root.join("f"), "").unwrap();
        let old = epoch() - Duration::from_secs(1000);
        fs::File::options().append(true).open(root.join("f")).unwrap().set_modified(old).unwrap();
    });
    let (early, late) = (epoch(), epoch() + Duration::from_secs(1000));
    assert_eq!(world.store.diff_id(&id, early).unwrap(), world.store.diff_id(&id, late).unwrap());
    let earlier = epoch() - Duration::from_secs(5000);
    assert_ne!(world.store.diff_id(&id, early).unwrap(), world.store.diff_id(&id, earlier).unwrap());
    assert_eq!(world.store.diff_id(&id, early).unwrap(), world.store.diff_id(&id, late).unwrap());
}

#[test]
fn reserved_names_cannot_be_sealed() {
    let world = World::new();
    let id = world.snapshot(None, |root| fs::write(root.join(".wh.x"), "").unwrap());
    let error = world.store.diff_id(&id, epoch()).expect_err("it would be a whiteout");
    assert!(error.to_string().contains("reserved"), "{error}");
}

#[test]
fn overlays_do_without_snapshots_that_change_nothing() {
    let world = World::new();
    let fs_of = |id: &SnapshotId| world.store.snapshot_fs(id);
    let base = world.snapshot(None, |root| fs::write(root.join("a"), "").unwrap());
    let nothing = world.snapshot(Some(&base), |_| {});
    assert_eq!(world.store.lowers(&nothing).unwrap(), [fs_of(&base)]);
    // The root's own mode is a change, although no file tells of it.
    let mode = world.snapshot(Some(&nothing), |root| {
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    });
    let file = world.snapshot(Some(&mode), |root| fs::write(root.join("b"), "").unwrap());
    assert_eq!(world.store.lowers(&file).unwrap(), [&file, &mode, &base].map(fs_of));
    assert_eq!(world.store.snapshot(&mode).unwrap().unwrap().parent, Some(nothing));
}

#[test]
fn sixty_empty_layers_are_nearly_free() {
    let world = World::new();
    let mut parent = None;
    for _ in 0..60 {
        parent = Some(world.snapshot(parent.as_ref(), |_| {}));
    }
    // Those that change nothing cost no overlay anything.
    assert_eq!(world.store.lowers(parent.as_ref().unwrap()).unwrap().len(), 1);
    let mut id = parent;
    while let Some(snapshot) = id {
        let (diff_id, bytes) = world.store.diff_id(&snapshot, epoch()).unwrap();
        assert_eq!((diff_id.0, bytes), (Digest::of(&[0; 1024]), 1024));
        world.store.seal(&snapshot, epoch(), Compression::Gzip).unwrap();
        id = world.store.snapshot(&snapshot).unwrap().unwrap().parent;
    }
    // One layer, and one blob of it.
    assert_eq!(fs::read_dir(world.store.root().join("layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(world.store.root().join("blobs/sha256")).unwrap().count(), 1);
}

#[test]
fn pulled_layers_keep_their_own_blob() {
    let world = World::new();
    let plain = Tar::new().file("a", "1").end();
    let blob = crate::support::gzip(&plain);
    let id = world.apply_bytes(None, &blob, &plain).unwrap();
    for compression in [Compression::Gzip, Compression::Zstd] {
        assert_eq!(world.store.seal(&id, epoch(), compression).unwrap().digest, Digest::of(&blob));
    }
    assert_eq!(world.store.seal(&id, epoch(), Compression::None).unwrap().digest, Digest::of(&plain));
    let diff_id = world.store.diff_id(&id, epoch()).unwrap().0;
    assert_eq!(world.store.snapshot(&id).unwrap().unwrap().chain_id, ChainId::of(&[diff_id]));
}

#[test]
fn layer_whose_only_blob_is_gone_is_an_error_and_not_another_layer() {
    let world = World::new();
    let plain = Tar::new().file("a", "1").end();
    let id = world.apply_bytes(None, &plain, &plain).unwrap();
    fs::remove_file(world.store.root().join("blobs/sha256").join(Digest::of(&plain).hex())).unwrap();
    let error = world.store.seal(&id, epoch(), Compression::Gzip).expect_err("nothing to make it from");
    assert!(error.to_string().contains("pull or load its image again"), "{error}");
}

#[test]
fn very_deep_trees_are_sealed_or_refused_and_removed() {
    let world = World::new();
    let make = |root: &Path, depth: usize| {
        let mut directory = rustix::fs::open(root, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY;
            directory = rustix::fs::openat(&directory, "d", flags, rustix::fs::Mode::empty()).unwrap();
        }
    };
    let id = world.snapshot(None, |root| make(root, 300));
    assert_eq!(world.store.diff_id(&id, epoch()).unwrap().1, 1024 + 512 * 300 + extra(300));
    let active = world.store.prepare(&world.scope, None).unwrap();
    make(active.upper(), 3000);
    drop(active);
    assert_eq!(fs::read_dir(world.store.root().join("snapshots")).unwrap().count(), 1);
    let id = world.snapshot(None, |root| make(root, 3000));
    world.store.diff_id(&id, epoch()).expect_err("deeper than any path");
}

/// Paths longer than 100 bytes need a PAX header and its data.
fn extra(depth: u64) -> u64 {
    (1..=depth).filter(|depth| depth * 2 > 100).map(|_| 1024).sum::<u64>()
        + (1..=depth).filter(|depth| depth * 2 + 10 > 512).map(|_| 512).sum::<u64>()
}

/// This test program itself, as another process whose memory is measured.
#[test]
fn helper_process_that_seals_a_large_layer() {
    if std::env::var_os("STORE_TEST_LARGE").is_none() {
        return;
    }
    let world = World::new();
    let id = world.snapshot(None, |root| {
        for name in ["a", "b"] {
            fs::File::create(root.join(name)).unwrap().set_len(200 << 20).unwrap();
        }
    });
    for compression in [Compression::Gzip, Compression::Zstd] {
        let layer = world.store.seal(&id, epoch(), compression).unwrap();
        let diff_id = world.store.diff_id(&id, epoch()).unwrap().0;
        let other = World::new();
        let path = world.store.root().join("blobs/sha256").join(layer.digest.hex());
        let mut blob = other.store.blob_writer().unwrap();
        std::io::copy(&mut fs::File::open(path).unwrap(), &mut blob).unwrap();
        blob.commit(None).unwrap();
        other.store.apply_layer(&other.scope, None, None, &layer, &diff_id).unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("peak memory: {} MB", peak_kb / 1000);
    assert!(peak_kb < 100_000, "{peak_kb} kB");
}

#[test]
fn memory_stays_flat_whatever_the_size() {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["seal::helper_process_that_seals_a_large_layer", "--exact", "--nocapture"])
        .env("STORE_TEST_LARGE", "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
