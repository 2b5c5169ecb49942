//! The limit of the store: what goes, in which order, and what never does.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use oci::{Digest, ImageConfig, Platform};
use store::{CacheRecord, Compression, PruneOptions, SnapshotId};

use crate::support::{World, epoch};

const MIB: u64 = 1024 * 1024;

/// A step of one MiB that was last used so many minutes ago.
fn step(world: &World, parent: Option<&SnapshotId>, minutes: u64) -> SnapshotId {
    let scope = world.store.open_scope().unwrap();
    let active = world.store.prepare(&scope, parent).unwrap();
    // Not compressible, and different each time.
    let content: Vec<u8> = (0..MIB / 32)
        .flat_map(|at| Digest::of(format!("{at} {minutes}").as_bytes()).hex().as_bytes()[..32].to_vec())
        .collect();
    fs::write(active.upper().join(format!("f{minutes}")), content).unwrap();
    let id = active.commit().unwrap();
    let record = CacheRecord { snapshot: id.clone(), parts: Vec::new(), made_ms: 0, result: None };
    world.store.cache_put(&key(&id), &record).unwrap();
    let meta = world.store.root().join("snapshots").join(id.as_str()).join("meta.json");
    touch(meta, minutes);
    id
}

fn key(id: &SnapshotId) -> Digest {
    Digest::of(id.as_str().as_bytes())
}

fn touch(path: PathBuf, minutes: u64) {
    let used = SystemTime::now() - Duration::from_secs(60 * minutes);
    fs::File::open(path).unwrap().set_modified(used).unwrap();
}

fn is_there(world: &World, id: &SnapshotId) -> bool {
    world.store.snapshot_fs(id).exists()
}

#[test]
fn least_recently_used_goes_first_and_never_what_is_needed() {
    let mut world = World::new();
    let named = step(&world, None, 1000);
    let mut config = ImageConfig::scratch(&Platform::host());
    config.rootfs.diff_ids.push(world.store.diff_id(&named, epoch()).unwrap().0);
    let image = world.store.put_image(&config, std::slice::from_ref(&named), epoch()).unwrap();
    world.store.manifest(&image, Compression::Gzip).unwrap();
    world.store.tag(&"app:1".parse().unwrap(), &image.id).unwrap();
    let leased = step(&world, None, 900);
    // Old itself, and below one that was used a moment ago.
    let below = step(&world, None, 800);
    let (old, middle) = (step(&world, Some(&below), 700), step(&world, None, 600));
    let young = step(&world, Some(&below), 1);
    world.store.seal(&old, epoch(), Compression::None).unwrap();
    // Whoever seals it uses it.
    touch(world.store.root().join("snapshots").join(old.as_str()).join("meta.json"), 700);
    world.scope = world.store.open_scope().unwrap();
    world.scope.lease(&leased).unwrap();

    let usage = world.store.usage().unwrap();
    let bytes = usage.snapshot_bytes + usage.blob_bytes;
    let report = world.store.keep_limit(bytes + MIB).unwrap();
    assert_eq!(report.bytes, 0, "below the limit nothing goes");
    // The oldest that may go is enough for this limit.
    let report = world.store.keep_limit(bytes - MIB / 2).unwrap();
    assert_eq!(report.snapshots, 1, "{report:?}");
    assert!(!is_there(&world, &old) && is_there(&world, &middle));
    assert!(report.snapshot_bytes >= MIB, "{report:?}");
    // With no room at all what is needed stays.
    world.store.keep_limit(1).unwrap();
    for gone in [&middle, &young, &below] {
        assert!(!is_there(&world, gone) && world.store.cache_get(&key(gone)).is_none());
    }
    assert!(is_there(&world, &named) && is_there(&world, &leased));
    assert!(world.store.manifest(&image, Compression::Gzip).is_ok());
    // Records of what went go with the next prune.
    let report = world.store.prune(&PruneOptions { keep_cache: true, ..PruneOptions::default() }).unwrap();
    assert!(report.cache_records <= 4 && world.store.usage().unwrap().cache_records == 2, "{report:?}");
}

#[test]
fn blobs_go_with_the_last_snapshot_of_their_layer() {
    let World { store, scope, home } = World::new();
    let world = World { store, scope, home };
    let (old, young) = (step(&world, None, 700), step(&world, None, 1));
    for id in [&old, &young] {
        world.store.seal(id, epoch(), Compression::None).unwrap();
    }
    touch(world.store.root().join("snapshots").join(old.as_str()).join("meta.json"), 700);
    let World { store, scope, home } = world;
    drop(scope);
    // What was written in the last second may be about to be named.
    std::thread::sleep(Duration::from_millis(1200));
    let report = store.keep_limit(3 * MIB).unwrap();
    assert_eq!((report.snapshots, report.blobs), (1, 1), "{report:?}");
    assert!(report.blob_bytes >= MIB && store.snapshot_fs(&young).exists(), "{report:?}");
    drop(home);
}

#[test]
fn a_hit_counts_as_use() {
    let world = World::new();
    let (first, second) = (step(&world, None, 200), step(&world, None, 100));
    let path = world.store.root().join("cache").join(&key(&first).hex()[..2]).join(key(&first).hex());
    touch(path, 200);
    assert!(world.store.cache_get(&key(&first)).is_some());
    world.store.keep_limit(MIB + MIB / 2).unwrap();
    assert!(is_there(&world, &first) && !is_there(&world, &second));
}

#[test]
fn cache_mounts_count_and_go_unless_they_are_used() {
    let world = World::new();
    let mounts = world.store.root().join("cache-mounts");
    let mount = |name: &str, minutes| {
        fs::create_dir_all(mounts.join(name)).unwrap();
        fs::write(mounts.join(name).join("f"), vec![1; MIB as usize]).unwrap();
        fs::write(mounts.join(format!("{name}.lock")), "").unwrap();
        touch(mounts.join(name), minutes);
    };
    for (name, minutes) in [("used", 900), ("old", 800), ("young", 10)] {
        mount(name, minutes);
    }
    assert!(world.scope.lease_cache_mount("used").unwrap());
    assert!(!world.scope.lease_cache_mount("nowhere").unwrap());
    assert_eq!(world.store.usage().unwrap().cache_mounts, 3);
    let report = world.store.keep_limit(3 * MIB - 1).unwrap();
    assert_eq!((report.cache_mounts, report.cache_mount_bytes / MIB), (1, 1), "{report:?}");
    assert!(!mounts.join("old").exists() && mounts.join("young").exists());
    let everything = PruneOptions::default();
    let dry = PruneOptions { dry_run: true, ..everything.clone() };
    assert_eq!(world.store.prune(&dry).unwrap().cache_mounts, 1);
    assert_eq!(world.store.prune(&PruneOptions { keep_cache: true, ..everything.clone() }).unwrap().cache_mounts, 0);
    assert_eq!(world.store.prune(&everything).unwrap().cache_mounts, 1);
    assert!(mounts.join("used").exists() && !mounts.join("young").exists());
}

#[test]
fn far_below_the_limit_nothing_is_looked_at() {
    let world = World::new();
    step(&world, None, 10);
    // No disk is as large, so one call is enough.
    assert!(!world.store.may_exceed(u64::MAX));
    assert!(world.store.may_exceed(1));
    // Once measured, what was measured counts.
    let disk = world.store.disk_size().unwrap();
    world.store.keep_limit(disk).unwrap();
    assert!(world.store.may_exceed(MIB / 2), "one snapshot is larger than that");
}
