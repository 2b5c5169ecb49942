//! A limit for the bytes of the store, kept by removing what was least recently used.
//!
//! The unit is the snapshot, not the cache record: a million records cost nothing here, and one whose snapshot is gone is a
//! miss. A snapshot counts as used when a build takes it from the cache, and whenever one above it is used. Cache mounts
//! count by their last use as well. What images with a name, running scopes and kept roots need is never removed.
//!
//! Whether there is anything to do is told by two numbers from the last measuring and one question to the file system, so
//! that a build far below the limit pays nothing. Sizes of snapshots are measured once: they never change.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use oci::DiffId;
use serde::{Deserialize, Serialize};

use crate::{
    PruneOptions, PruneReport, SnapshotId, Store, StoreError,
    names::digest_of,
    prune::{BATCH, Needed, is_younger},
    seal::seconds,
    store::{names_in, random},
    tree,
};

/// Directory of cache mounts.
pub(crate) const MOUNTS: &str = "cache-mounts";
/// Room that is made beyond the limit, so that not each build has to make some: a tenth.
const ROOM: u64 = 10;
/// After this time the estimate counts no more: others may have freed what we took.
const MEASURED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Directories that cache records are spread over.
const SHARDS: u64 = 256;

/// `usage`: what the last measuring gave.
#[derive(Serialize, Deserialize)]
struct Measured {
    bytes: u64,
    /// Bytes in use on the whole file system at that time.
    disk_bytes: u64,
    at_s: i64,
}

/// A snapshot as far as the limit is concerned.
struct Known {
    bytes: u64,
    used: SystemTime,
    /// Those that it needs: its parent, and the one that it lies over.
    below: Vec<String>,
    diff_id: Option<String>,
    /// How many need it.
    above: usize,
}

/// Something that may go.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Snapshot(String),
    Mount(String),
}

/// Everything in the store that takes room.
struct Inventory {
    snapshots: HashMap<String, Known>,
    /// Bytes and last use.
    mounts: HashMap<String, (u64, SystemTime)>,
    blobs: HashMap<String, u64>,
}

impl Inventory {
    fn bytes(&self) -> u64 {
        let snapshots: u64 = self.snapshots.values().map(|known| known.bytes).sum();
        let mounts: u64 = self.mounts.values().map(|(bytes, _)| bytes).sum();
        snapshots + mounts + self.blobs.values().sum::<u64>()
    }
}

impl Store {
    /// Whether the store may hold more than this. Costs a few calls; a doubt is a yes.
    pub fn may_exceed(&self, limit_bytes: u64) -> bool {
        let Some(disk_bytes) = self.disk_bytes() else { return true };
        if disk_bytes <= limit_bytes {
            return false;
        }
        let last = std::fs::read(self.path("usage")).ok();
        let Some(last) = last.and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok()) else { return true };
        let age_s = seconds(SystemTime::now()) - last.at_s;
        // As if all that came onto the disk since then were ours.
        let estimate = last.bytes.saturating_add(disk_bytes.saturating_sub(last.disk_bytes));
        estimate > limit_bytes || !(0..MEASURED_FOR.as_secs() as i64).contains(&age_s)
    }

    /// Removes what was least recently used until the store holds a tenth less than the limit, if it holds more than that.
    pub fn keep_limit(&self, limit_bytes: u64) -> Result<PruneReport, StoreError> {
        let mut report = PruneReport::default();
        self.evict(limit_bytes, limit_bytes - limit_bytes / ROOM, false, &mut report)?;
        Ok(report)
    }

    /// Makes room down to `goal_bytes` when the store holds more than `limit_bytes`.
    pub(crate) fn evict(
        &self,
        limit_bytes: u64,
        goal_bytes: u64,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let young_since = self.young_since()?;
        let needed = self.mark(&[], &PruneOptions { keep_cache: true, ..PruneOptions::default() }, young_since)?;
        let mut inventory = self.inventory()?;
        let bytes = inventory.bytes();
        let mut left = bytes;
        if bytes > limit_bytes {
            let victims = self.choose(&mut inventory, &needed, &mut left, goal_bytes);
            if dry_run {
                report.snapshots += victims.iter().filter(|victim| matches!(victim, Victim::Snapshot(_))).count();
                report.cache_mounts += victims.iter().filter(|victim| matches!(victim, Victim::Mount(_))).count();
                report.bytes += bytes - left;
                return Ok(());
            }
            self.remove_victims(victims, report)?;
            self.sweep_after(young_since, report)?;
        }
        self.note_usage(left, &inventory)
    }

    /// What there is, with sizes.
    fn inventory(&self) -> Result<Inventory, StoreError> {
        let sizes: HashMap<String, u64> = std::fs::read(self.path("snapshot-sizes"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut snapshots = HashMap::new();
        for id in self.snapshot_ids()? {
            let directory = self.snapshot_dir(&id);
            let name = id.as_str().to_owned();
            let bytes = sizes.get(&name).copied().unwrap_or_else(|| tree::size_of(&directory));
            let meta = self.meta_file(&id)?.map(|file| file.meta).unwrap_or_default();
            let below = meta.parent.iter().chain(&meta.over).map(|id| id.as_str().to_owned()).collect();
            let used = modified(&directory.join("meta.json"));
            let diff_id = meta.diff_id.map(|diff_id| diff_id.0.hex().to_owned());
            snapshots.insert(name, Known { bytes, used, below, diff_id, above: 0 });
        }
        let below: Vec<String> = snapshots.values().flat_map(|known| known.below.clone()).collect();
        for id in below {
            if let Some(known) = snapshots.get_mut(&id) {
                known.above += 1;
            }
        }
        let mut mounts = HashMap::new();
        for name in names_in(&self.path(MOUNTS))?.into_iter().filter(|name| !name.ends_with(".lock")) {
            let directory = self.path(MOUNTS).join(&name);
            mounts.insert(name, (tree::size_of(&directory), modified(&directory)));
        }
        let blobs = names_in(&self.path("blobs/sha256"))?;
        let size = |name: &String| std::fs::metadata(self.path("blobs/sha256").join(name)).map_or(0, |blob| blob.len());
        let blobs = blobs.into_iter().map(|name| (size(&name), name)).map(|(size, name)| (name, size)).collect();
        Ok(Inventory { snapshots, mounts, blobs })
    }

    /// The least recently used, until no more than the goal is left. A snapshot goes after all that need it.
    fn choose(&self, inventory: &mut Inventory, needed: &Needed, left: &mut u64, goal_bytes: u64) -> Vec<Victim> {
        let Inventory { snapshots, mounts, blobs } = inventory;
        let mut layers: HashMap<String, usize> = HashMap::new();
        for diff_id in snapshots.values().filter_map(|known| known.diff_id.clone()) {
            *layers.entry(diff_id).or_default() += 1;
        }
        let mut free = BinaryHeap::new();
        for (name, (_, used)) in mounts.iter() {
            if !needed.blobs.contains(name) {
                free.push(Reverse((*used, Victim::Mount(name.clone()))));
            }
        }
        let may_go = |name: &String, known: &Known| known.above == 0 && !needed.snapshots.contains(name);
        for (name, known) in snapshots.iter().filter(|(name, known)| may_go(name, known)) {
            free.push(Reverse((known.used, Victim::Snapshot(name.clone()))));
        }
        let mut victims = Vec::new();
        while *left > goal_bytes
            && let Some(Reverse((used, victim))) = free.pop()
        {
            match &victim {
                Victim::Mount(name) => *left -= mounts.remove(name).map_or(0, |(bytes, _)| bytes),
                Victim::Snapshot(name) => {
                    let Some(gone) = snapshots.remove(name) else { continue };
                    *left -= gone.bytes;
                    for name in &gone.below {
                        let Some(known) = snapshots.get_mut(name) else { continue };
                        known.above -= 1;
                        // What was above it was used, and so was it.
                        known.used = known.used.max(used);
                        if may_go(name, known) {
                            free.push(Reverse((known.used, Victim::Snapshot(name.clone()))));
                        }
                    }
                    let layer = gone.diff_id.filter(|layer| {
                        let count = layers.entry(layer.clone()).or_default();
                        *count = count.saturating_sub(1);
                        *count == 0
                    });
                    let record = layer.and_then(|layer| self.layer_record(&DiffId(digest_of(&layer)?)));
                    for known in record.iter().flat_map(|record| record.all()) {
                        let blob = known.descriptor.digest.hex();
                        if !needed.blobs.contains(blob) {
                            *left -= blobs.remove(blob).unwrap_or(0);
                        }
                    }
                }
            }
            victims.push(victim);
        }
        victims
    }

    fn remove_victims(&self, victims: Vec<Victim>, report: &mut PruneReport) -> Result<(), StoreError> {
        let (mut snapshots, mut mounts) = (Vec::new(), Vec::new());
        for victim in victims {
            match victim {
                Victim::Snapshot(name) => snapshots.push(name),
                Victim::Mount(name) => mounts.push(name),
            }
        }
        for batch in snapshots.chunks(BATCH) {
            for moved in self.move_to_trash(&self.path("snapshots"), batch, None)? {
                report.snapshots += 1;
                report.add_snapshot(tree::remove(&moved)?);
            }
        }
        for batch in mounts.chunks(BATCH) {
            for moved in self.move_to_trash(&self.path(MOUNTS), batch, None)? {
                report.cache_mounts += 1;
                report.add_mount(tree::remove(&moved)?);
            }
        }
        Ok(())
    }

    /// What only the victims needed: images without a name that lost a layer, blobs, and some of the records.
    fn sweep_after(&self, young_since: SystemTime, report: &mut PruneReport) -> Result<(), StoreError> {
        let mut needed = self.mark(&[], &PruneOptions { keep_cache: true, ..PruneOptions::default() }, young_since)?;
        for name in names_in(&self.path("images"))? {
            let Some(id) = digest_of(&name) else { continue };
            if needed.images.contains(id.hex()) {
                continue;
            }
            let path = self.path("images").join(&name);
            let is_whole =
                |record: crate::image::ImageRecord| record.layers.iter().all(|layer| self.snapshot_dir(layer).exists());
            if self.image_record(&id).is_some_and(is_whole) || is_younger(&path, young_since) {
                self.mark_image(&mut needed, id.hex())?;
            } else {
                fs::remove_file(path)?;
                report.images += 1;
            }
        }
        for id in self.snapshot_ids()? {
            needed.layers.extend(self.snapshot(&id)?.and_then(|meta| meta.diff_id).map(|id| id.0.hex().to_owned()));
        }
        self.mark_layers(&mut needed);
        self.sweep_blobs(&needed, young_since, false, report)?;
        // All of them would take a second or more with a million; those of one directory are no work, and each has its turn.
        self.sweep_dangling(&format!("{:02x}", random() % SHARDS), report)
    }

    /// Removes records of snapshots that are gone.
    fn sweep_dangling(&self, shard: &str, report: &mut PruneReport) -> Result<(), StoreError> {
        for name in names_in(&self.path("cache").join(shard))? {
            let path = self.path("cache").join(shard).join(name);
            let record: Option<crate::CacheRecord> = self.get_record(&path);
            if record.is_none_or(|record| !self.snapshot_dir(&record.snapshot).exists()) {
                fs::remove_file(path)?;
                report.cache_records += 1;
            }
        }
        Ok(())
    }

    fn note_usage(&self, bytes: u64, inventory: &Inventory) -> Result<(), StoreError> {
        let sizes: HashMap<&String, u64> =
            inventory.snapshots.iter().map(|(name, known)| (name, known.bytes)).collect();
        self.write_then(&self.path("snapshot-sizes"), &oci::to_json(&sizes), |_| Ok(()))?;
        let measured = Measured { bytes, disk_bytes: self.disk_bytes().unwrap_or(0), at_s: seconds(SystemTime::now()) };
        self.write_then(&self.path("usage"), &oci::to_json(&measured), |_| Ok(()))
    }

    /// Bytes in use on the store's file system.
    fn disk_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.root()).ok()?;
        Some(disk.f_blocks.saturating_sub(disk.f_bfree).saturating_mul(disk.f_frsize))
    }

    /// Bytes of the store's file system.
    pub fn disk_size(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.root()).ok()?;
        Some(disk.f_blocks.saturating_mul(disk.f_frsize))
    }
}

impl crate::Scope {
    /// Keeps a cache mount (a directory below `cache-mounts`) from prune for as long as the scope lives, and notes its use.
    /// False when it is gone.
    pub fn lease_cache_mount(&self, name: &str) -> Result<bool, StoreError> {
        let directory = self.inner.store().path(MOUNTS).join(name);
        let is_there = self.inner.lease(name, || directory.exists())?;
        if is_there && let Ok(directory) = std::fs::File::open(&directory) {
            // Only a hint for prune.
            let _ = directory.set_modified(SystemTime::now());
        }
        Ok(is_there)
    }
}

fn modified(path: &std::path::Path) -> SystemTime {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Notes the use of a snapshot.
pub(crate) fn note_snapshot_use(store: &Store, id: &SnapshotId) {
    if let Ok(file) = std::fs::File::options().append(true).open(store.snapshot_dir(id).join("meta.json")) {
        // Only a hint for prune.
        let _ = file.set_modified(SystemTime::now());
    }
}
