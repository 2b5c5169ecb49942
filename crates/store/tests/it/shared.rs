//! Many processes, dead processes, power loss, prune.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use oci::{Digest, ImageConfig, Platform, Reference};
use store::{CacheRecord, Compression, JournalEntry, MemoSubject, PruneOptions, SnapshotId, Store, StoreError};

use crate::support::{Tar, World, epoch, message, options};

fn record(snapshot: &SnapshotId) -> CacheRecord {
    CacheRecord { snapshot: snapshot.clone(), parts: vec![("what".into(), "value".into())], made_ms: 5, result: None }
}

fn everything() -> PruneOptions {
    PruneOptions::default()
}

fn with_cache() -> PruneOptions {
    PruneOptions { keep_cache: true, ..PruneOptions::default() }
}

/// Lets all that was written become old enough for prune.
fn age() {
    thread::sleep(Duration::from_millis(1200));
}

#[test]
fn store_opens_again_and_refuses_a_foreign_format() {
    let world = World::new();
    let root = world.store.root().to_owned();
    Store::open(&root, options()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    fs::write(root.join("format"), "seatrial-store 99\n").unwrap();
    let error = Store::open(&root, options()).expect_err("another format");
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
}

#[test]
fn memos_go_when_they_are_old_or_their_subject_is_gone() {
    let world = World::new();
    let store = &world.store;
    let (here, gone) = (world.snapshot(None, |_| {}), SnapshotId::new());
    let image = Digest::of(b"an image that nobody has");
    let put = |key: &str, about| store.memo_put_about("verdicts", key, b"value", about).unwrap();
    put("plain", None);
    put("old", None);
    put("here", Some(MemoSubject::Snapshot(here.clone())));
    put("gone", Some(MemoSubject::Snapshot(gone.clone())));
    put("image", Some(MemoSubject::Image(image)));
    store.cache_put(&Digest::of(b"keeps the snapshot"), &record(&here)).unwrap();
    let days = |count: u64| SystemTime::now() - Duration::from_secs(count * 24 * 3600);
    let file = |key: &str| {
        let name = Digest::of(key.as_bytes());
        store.root().join("memo/verdicts").join(&name.hex()[..2]).join(name.hex())
    };
    for (key, age) in [("plain", 30), ("old", 61), ("here", 1), ("gone", 1), ("image", 1)] {
        fs::File::options().append(true).open(file(key)).unwrap().set_modified(days(age)).unwrap();
    }
    // Written just now, perhaps by somebody whose snapshot is about to be there.
    put("young", Some(MemoSubject::Snapshot(gone)));
    let known =
        || ["plain", "old", "here", "gone", "image", "young"].map(|key| store.memo_get("verdicts", key).is_some());
    let options = PruneOptions { keep_cache: true, dry_run: true, ..PruneOptions::default() };
    let _scope = store.open_scope().unwrap();
    assert_eq!(store.prune(&options).unwrap().memos, 3);
    assert_eq!(known(), [true; 6]);
    assert_eq!(store.prune(&PruneOptions { dry_run: false, ..options }).unwrap().memos, 3);
    assert_eq!(known(), [true, false, true, false, false, true]);
}

#[test]
fn cache_records_and_memos_come_back() {
    let world = World::new();
    let snapshot = world.snapshot(None, |_| {});
    let key = Digest::of(b"key");
    assert!(world.store.cache_get(&key).is_none());
    world.store.cache_put(&key, &record(&snapshot)).unwrap();
    let found = world.store.cache_get(&key).unwrap();
    assert_eq!((found.snapshot, found.parts.len()), (snapshot.clone(), 1));
    world.store.memo_put("files", "a\nkey", b"value\n\xff").unwrap();
    assert_eq!(world.store.memo_get("files", "a\nkey").unwrap(), b"value\n\xff");
    assert!(world.store.memo_get("files", "other").is_none());
    // A torn record is a miss.
    let path = world.store.root().join("cache").join(&key.hex()[..2]).join(key.hex());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(world.store.cache_get(&key).is_none());
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    assert!(world.store.cache_get(&key).is_none());
    let started = Instant::now();
    world.store.cache_put(&key, &record(&snapshot)).unwrap();
    for _ in 0..1000 {
        world.store.cache_get(&key).unwrap();
    }
    eprintln!("a cache hit takes {:?}", started.elapsed() / 1000);
    // A record of a snapshot that is gone is a miss.
    fs::remove_dir_all(world.store.root().join("snapshots").join(snapshot.as_str())).unwrap();
    assert!(world.store.cache_get(&key).is_none());
}

#[test]
fn records_that_a_power_loss_may_have_torn_do_not_count() {
    let world = World::new();
    let snapshot = world.snapshot(None, |_| {});
    let (early, late) = (Digest::of(b"early"), Digest::of(b"late"));
    world.store.cache_put(&early, &record(&snapshot)).unwrap();
    world.store.sync().unwrap();
    world.store.cache_put(&late, &record(&snapshot)).unwrap();
    let blob = world.store.put_blob(b"torn").unwrap();
    let root = world.store.root().to_owned();
    fs::write(root.join("blobs/sha256").join(blob.hex()), b"").unwrap();
    // Another boot, as far as the store can tell: everything it knows of this one gets another name.
    let boot = fs::read_to_string(root.join("boot")).unwrap();
    let other = "11111111-2222-3333-4444-555555555555";
    let rename = |path: std::path::PathBuf| {
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        fs::write(&path, text.replace(&boot, other)).unwrap();
    };
    for key in [&early, &late] {
        rename(root.join("cache").join(&key.hex()[..2]).join(key.hex()));
    }
    rename(root.join("snapshots").join(snapshot.as_str()).join("meta.json"));
    rename(root.join("boot"));
    fs::rename(root.join("synced").join(&boot), root.join("synced").join(other)).unwrap();
    let store = Store::open(&root, options()).unwrap();
    assert!(store.cache_get(&early).is_some());
    assert!(store.cache_get(&late).is_none());
    assert!(store.snapshot(&snapshot).unwrap().is_some());
    assert_eq!(store.has_blob(&blob), None, "a torn blob was found and removed");
}

#[test]
fn tag_syncs_only_when_something_was_written() {
    let world = World::new();
    let image = world.store.put_image(&ImageConfig::scratch(&Platform::host()), &[], epoch()).unwrap();
    let name: Reference = "app:1".parse().unwrap();
    let dirty = world.store.root().join("dirty");
    world.store.tag_relaxed(&name, &image.id).unwrap();
    assert!(dirty.exists());
    world.store.tag(&name, &image.id).unwrap();
    assert!(!dirty.exists());
    world.store.tag(&name, &image.id).unwrap();
    assert!(!dirty.exists());
    world.snapshot(None, |_| {});
    assert!(dirty.exists());
}

#[test]
fn closed_scopes_leave_nothing() {
    let world = World::new();
    let root = world.store.root().to_owned();
    let scope = world.store.open_scope().unwrap();
    fs::write(scope.dir().join("file"), "").unwrap();
    scope.journal(&JournalEntry::Container("c1".into())).unwrap();
    let active = world.store.prepare(&scope, None).unwrap();
    fs::create_dir_all(active.work().join("work")).unwrap();
    drop(scope);
    assert_eq!(fs::read_dir(root.join("scopes")).unwrap().count(), 2, "the snapshot keeps its scope");
    drop(active);
    assert_eq!(fs::read_dir(root.join("scopes")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
}

#[test]
fn sweep_undoes_what_dead_scopes_left_and_spares_live_ones() {
    let world = World::new();
    let root = world.store.root().to_owned();
    world.scope.journal(&JournalEntry::Container("alive".into())).unwrap();
    let active = world.store.prepare(&world.scope, None).unwrap();
    assert_eq!(world.store.sweep().unwrap(), []);
    assert!(active.upper().exists());

    // What `kill -9` leaves: a scope whose lock is free, half a line, a snapshot with modes that nobody can enter.
    let dead = root.join("scopes/deadbeef");
    fs::create_dir_all(dead.join("tmp")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("leases"), "").unwrap();
    fs::write(dead.join("journal"), "{\"Container\":\"c1\"}\n{\"Directory\":\"/x\"}\n{\"Conta").unwrap();
    let left = root.join("snapshots/tmp.deadbeef.0");
    fs::create_dir_all(left.join("work/work")).unwrap();
    fs::create_dir_all(left.join("fs/secret/inner")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(left.join("fs/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::symlink(&root, left.join("fs/link")).unwrap();
    let mut seen = Vec::new();
    world.store.sweep_with(&mut |entry| seen.push(entry)).unwrap();
    assert_eq!(seen, [JournalEntry::Container("c1".into()), JournalEntry::Directory("/x".into())]);
    assert!(!left.exists() && !dead.exists() && root.join("format").exists());
    assert!(active.upper().exists());
    assert_eq!(world.store.sweep().unwrap(), []);
}

#[test]
fn two_sweepers_see_each_entry_once() {
    let world = World::new();
    let root = world.store.root().to_owned();
    for number in 0..50 {
        let dead = root.join(format!("scopes/{number:08x}"));
        fs::create_dir_all(dead.join("tmp")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("journal"), format!("{{\"Container\":\"{number}\"}}\n")).unwrap();
    }
    let sweep = || Store::open(&root, options()).unwrap().sweep().unwrap().len();
    let found: usize = thread::scope(|threads| {
        let sweepers: Vec<_> = (0..4).map(|_| threads.spawn(sweep)).collect();
        sweepers.into_iter().map(|sweeper| sweeper.join().unwrap()).sum()
    });
    assert_eq!(found, 50);
    assert_eq!(fs::read_dir(root.join("scopes")).unwrap().count(), 1);
}

/// This test program itself, as another process that holds a scope until it is killed.
#[test]
fn helper_process_that_is_killed() {
    let Some(root) = std::env::var_os("STORE_TEST_VICTIM") else { return };
    let store = Store::open(root.as_ref(), options()).unwrap();
    let scope = store.open_scope().unwrap();
    scope.journal(&JournalEntry::Container("victim".into())).unwrap();
    let active = store.prepare(&scope, None).unwrap();
    fs::write(active.upper().join("half"), "").unwrap();
    fs::write(scope.dir().join("ready"), "").unwrap();
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn killed_process_is_swept() {
    let world = World::new();
    let root = world.store.root().to_owned();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["shared::helper_process_that_is_killed", "--exact"])
        .env("STORE_TEST_VICTIM", &root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let is_ready =
        || fs::read_dir(root.join("scopes")).unwrap().any(|scope| scope.unwrap().path().join("tmp/ready").exists());
    while !is_ready() {
        assert!(started.elapsed() < Duration::from_secs(30), "the other process did not start");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.store.sweep().unwrap(), [], "it lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(world.store.sweep().unwrap(), [JournalEntry::Container("victim".into())]);
    assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
}

#[test]
fn runs_are_numbered_without_gaps_or_doubles() {
    let world = World::new();
    let root = world.store.root().to_owned();
    let number = || {
        let store = Store::open(&root, options()).unwrap();
        (0..20).map(|_| store.new_run().unwrap().number).collect::<Vec<_>>()
    };
    let mut numbers: Vec<u64> = thread::scope(|threads| {
        let makers: Vec<_> = (0..3).map(|_| threads.spawn(number)).collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    assert_eq!(world.store.runs().unwrap().len(), 60);
    assert!(world.store.run(60).unwrap().path.join("log").is_dir());
    assert!(world.store.run(61).is_none());
}

#[test]
fn blobs_that_are_wrong_are_refused_or_set_aside() {
    let world = World::new();
    let digest = world.store.put_blob(b"content").unwrap();
    assert_eq!(world.store.put_blob(b"content").unwrap(), digest);
    assert_eq!(world.store.read_blob(&digest, 100).unwrap().unwrap(), b"content");
    assert!(matches!(world.store.read_blob(&digest, 3), Err(StoreError::TooLarge { .. })));
    let mut writer = world.store.blob_writer().unwrap();
    std::io::Write::write_all(&mut writer, b"other").unwrap();
    let error = writer.commit(Some((&digest, 5))).expect_err("not what was expected");
    assert!(matches!(error, StoreError::Mismatch { .. }));
    let path = world.store.root().join("blobs/sha256").join(digest.hex());
    fs::write(&path, "CONTENT").unwrap();
    let error = world.store.read_blob(&digest, 100).expect_err("corrupt");
    assert!(error.to_string().contains("moved to"), "{error}");
    assert_eq!(world.store.read_blob(&digest, 100).unwrap(), None);
    assert_eq!(world.store.put_blob(b"content").unwrap(), digest);
    assert_eq!(
        fs::read_dir(world.store.root().join("blobs/sha256")).unwrap().count(),
        1,
        "nothing half-written is left"
    );
}

#[test]
fn prune_removes_what_nothing_needs() {
    let world = World::new();
    let World { store, scope, home } = world;
    let base = {
        let world = World { store: store.clone(), scope: scope.clone(), home: tempfile::tempdir().unwrap() };
        let base = world.apply(None, &Tar::new().file("a", "1")).unwrap();
        let named = world.snapshot(Some(&base), |root| fs::write(root.join("named"), "").unwrap());
        let cached = world.snapshot(Some(&base), |root| fs::write(root.join("cached"), "").unwrap());
        let loose = world.snapshot(Some(&named), |root| fs::write(root.join("loose"), "").unwrap());
        let kept = world.store.prepare(&scope, Some(&named)).unwrap();
        let kept = kept.keep(SystemTime::now() + Duration::from_secs(3600)).unwrap();
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids = [&base, &named].iter().map(|id| store.diff_id(id, epoch()).unwrap().0).collect();
        let image = store.put_image(&config, &[base.clone(), named.clone()], epoch()).unwrap();
        store.manifest(&image, Compression::Gzip).unwrap();
        store.tag(&"app:1".parse().unwrap(), &image.id).unwrap();
        store.cache_put(&Digest::of(b"cached"), &record(&cached)).unwrap();
        store.put_blob(b"loose").unwrap();
        (base, named, cached, loose, kept)
    };
    let (base, named, cached, loose, kept) = base;
    age();
    // Everything was made or leased by the open scope.
    let report = store.prune(&everything()).unwrap();
    assert_eq!((report.snapshots, report.blobs), (0, 0));
    drop(scope);
    let dry = store.prune(&PruneOptions { dry_run: true, ..with_cache() }).unwrap();
    assert!(store.snapshot(&loose).unwrap().is_some());
    // The first prune, without `keep_cache`, spared the record because it was young; now it is kept by wish.
    let report = store.prune(&with_cache()).unwrap();
    assert_eq!((dry.snapshots, dry.blobs), (report.snapshots, report.blobs));
    assert_eq!((report.snapshots, report.blobs, report.cache_records), (1, 1, 0));
    for id in [&base, &named, &cached, &kept] {
        assert!(store.snapshot(id).unwrap().is_some(), "{id}");
    }
    assert!(store.snapshot(&loose).unwrap().is_none());
    let report = store.prune(&everything()).unwrap();
    assert_eq!((report.snapshots, report.cache_records), (1, 1));
    let image = store.resolve(&"app:1".parse().unwrap()).unwrap().unwrap();
    assert!(store.manifest(&image, Compression::Gzip).is_ok());
    store.remove_image(&image.id).unwrap();
    store.prune(&everything()).unwrap();
    // `kept` lies above `named` and `base`, and is kept for an hour.
    assert!(store.snapshot(&base).unwrap().is_some());
    let report = store.prune(&PruneOptions { drop_kept: true, ..everything() }).unwrap();
    assert_eq!((report.snapshots, store.snapshot(&kept).unwrap().is_some()), (3, false));
    let usage = store.usage().unwrap();
    assert_eq!((usage.images, usage.cache_records), (0, 0));
    drop(home);
}

#[test]
fn prune_beside_a_build_takes_nothing_it_relies_on() {
    let world = World::new();
    let root = world.store.root().to_owned();
    let end = Instant::now() + Duration::from_millis(1500);
    thread::scope(|threads| {
        threads.spawn(|| {
            let store = Store::open(&root, options()).unwrap();
            while Instant::now() < end {
                store.prune(&everything()).unwrap();
            }
        });
        for builder in 0..2 {
            let root = &root;
            threads.spawn(move || {
                let store = Store::open(root, options()).unwrap();
                let mut round = 0_u64;
                while Instant::now() < end {
                    round += 1;
                    let scope = store.open_scope().unwrap();
                    let mut top: Option<SnapshotId> = None;
                    for step in 0..5 {
                        let active = store.prepare(&scope, top.as_ref()).unwrap();
                        fs::write(active.upper().join("f"), format!("{builder} {step}")).unwrap();
                        top = Some(active.commit().unwrap());
                    }
                    let layers: Vec<SnapshotId> = {
                        let mut layers = vec![top.clone().unwrap()];
                        while let Some(parent) = store.snapshot(layers.last().unwrap()).unwrap().unwrap().parent {
                            layers.push(parent);
                        }
                        layers.into_iter().rev().collect()
                    };
                    let mut config = ImageConfig::scratch(&Platform::host());
                    config.rootfs.diff_ids = layers.iter().map(|id| store.diff_id(id, epoch()).unwrap().0).collect();
                    let image = store.put_image(&config, &layers, epoch()).unwrap();
                    let name: Reference = format!("app-{builder}:1").parse().unwrap();
                    store.tag_relaxed(&name, &image.id).unwrap();
                    store.manifest(&image, Compression::Zstd).unwrap();
                    drop(scope);
                    let image = store.resolve(&name).unwrap().unwrap_or_else(|| panic!("lost in round {round}"));
                    for layer in store.manifest(&image, Compression::Zstd).unwrap().manifest.layers {
                        assert_eq!(store.has_blob(&layer.digest), Some(layer.size));
                    }
                }
            });
        }
    });
}

#[test]
fn leases_of_things_that_are_gone_say_so() {
    let world = World::new();
    let id = world.snapshot(None, |_| {});
    let scope = world.store.open_scope().unwrap();
    scope.lease(&id).unwrap();
    fs::remove_dir_all(world.store.root().join("snapshots").join(id.as_str())).unwrap();
    let other = world.store.open_scope().unwrap();
    assert!(matches!(other.lease(&id), Err(StoreError::UnknownSnapshot(_))));
    let error = world.store.prepare(&other, Some(&id)).expect_err("no parent");
    assert!(message(&error).contains("not in the store"));
}

#[test]
fn least_recently_used_records_go_first_when_room_is_short() {
    let World { store, scope, home } = World::new();
    let world = World { store: store.clone(), scope, home };
    let mut keys = Vec::new();
    for number in 0..4 {
        let id = world.snapshot(None, |root| fs::write(root.join("f"), vec![number; 100_000]).unwrap());
        let key = Digest::of(&[number]);
        store.cache_put(&key, &record(&id)).unwrap();
        let path = store.root().join("cache").join(&key.hex()[..2]).join(key.hex());
        let used = SystemTime::now() - Duration::from_secs(1000 * (10 - u64::from(number)));
        let meta = store.root().join("snapshots").join(id.as_str()).join("meta.json");
        for path in [path, meta] {
            fs::File::options().append(true).open(path).unwrap().set_modified(used).unwrap();
        }
        keys.push(key);
    }
    let World { scope, home, .. } = world;
    drop(scope);
    let report = store.prune(&PruneOptions { max_bytes: Some(250_000), ..with_cache() }).unwrap();
    assert_eq!((report.cache_records, report.snapshots), (2, 2));
    assert!(store.cache_get(&keys[0]).is_none() && store.cache_get(&keys[3]).is_some());
    let options = PruneOptions { unused_for: Some(Duration::from_secs(7500)), ..with_cache() };
    // The hit above has just noted the use of the last one.
    assert_eq!(store.prune(&options).unwrap().cache_records, 1);
    assert!(store.cache_get(&keys[3]).is_some());
    drop(home);
}

#[test]
fn prune_keeps_what_a_layer_lies_over() {
    let world = World::new();
    let former = world.snapshot(None, |root| fs::write(root.join("old"), "1").unwrap());
    let active = world.store.prepare_over(&world.scope, None, &former).unwrap().unwrap();
    fs::write(active.upper().join("new"), "2").unwrap();
    let id = active.commit().unwrap();
    // The former layer's own blob is kept with it, whatever needs the one above comes first.
    let sealed = world.store.seal(&former, epoch(), Compression::Gzip).unwrap();
    world.store.cache_put(&Digest::of(b"key"), &record(&id)).unwrap();
    let World { store, scope, home } = world;
    drop(scope);
    age();
    assert_eq!(store.prune(&with_cache()).unwrap().snapshots, 0);
    assert!(store.has_blob(&sealed.digest).is_some());
    assert!(store.lowers(&id).unwrap().iter().all(|path| path.is_dir()));
    // A lease of the one above holds the one below.
    let scope = store.open_scope().unwrap();
    scope.lease(&id).unwrap();
    assert_eq!(store.prune(&everything()).unwrap().snapshots, 0);
    drop(scope);
    age();
    assert_eq!(store.prune(&everything()).unwrap().snapshots, 2);
    drop(home);
}
