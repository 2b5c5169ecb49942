//! Prune: removes what nothing needs any more, beside running builds.
//!
//! Nobody waits for anybody. Builders do not hold a lock while they work; they *lease* what they rely on (each `prepare`
//! leases its parent, each commit the new snapshot, each unpacked layer its blob) by a line in their scope, written under the
//! shared `prune.lock` together with a look whether the thing is still there. Prune first marks, without any lock, all
//! that is needed; then, for each victim, it takes the lock alone for a moment, reads the leases again, and renames the victim into
//! `trash`. So a lease either comes first, and the victim stays, or it comes later and sees that the thing is gone: a cache
//! miss. The slow part, deleting, happens in `trash` without the lock.
//!
//! Records and blobs that have no lease (a manifest between sealing and its record) are protected by age: what is younger
//! than the oldest open scope, or than a minute, stays.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use oci::{DiffId, Digest, Manifest};
use rustix::fs::FlockOperation;
use serde::Serialize;

use crate::{
    SnapshotId, Store, StoreError,
    image::DOCUMENT_BYTES_MAX,
    limit::MOUNTS,
    names::digest_of,
    seal::{LayerRecord, seconds},
    store::{names_in, random},
    tree,
};

/// What was written in the last minute may be about to be named by a process that has no scope.
const YOUNG: Duration = Duration::from_secs(60);
/// Victims renamed while the lock is held once; a builder waits some milliseconds for it at most.
pub(crate) const BATCH: usize = 100;

/// What to remove.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Keep cache records, and what they need (but see the next two).
    pub keep_cache: bool,
    /// Of cache records, remove only those not used for so long (with `keep_cache`: these after all).
    pub unused_for: Option<Duration>,
    /// Remove the least recently used parts of the cache until the store takes no more than this.
    pub max_bytes: Option<u64>,
    /// Only count.
    pub dry_run: bool,
    /// Keep this many of the latest runs; `None` keeps all.
    pub keep_runs: Option<usize>,
    /// Keep images without a name and what they need: only the cache is cleaned.
    pub keep_images: bool,
    /// Remove also what is kept for inspection (the roots of failed steps), however young.
    pub drop_kept: bool,
}

/// What was (or would be) removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Images without a name.
    pub images: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// Cache records.
    pub cache_records: usize,
    /// Remembered values: too old, too many, or of something that is gone.
    pub memos: usize,
    /// Runs.
    pub runs: usize,
    /// Cache mounts.
    pub cache_mounts: usize,
    /// Bytes of disk in all.
    pub bytes: u64,
    /// Of these, bytes of snapshots.
    pub snapshot_bytes: u64,
    /// Bytes of blobs.
    pub blob_bytes: u64,
    /// Bytes of cache mounts.
    pub cache_mount_bytes: u64,
    /// Bytes of runs.
    pub run_bytes: u64,
}

impl PruneReport {
    pub(crate) fn add_snapshot(&mut self, bytes: u64) {
        self.snapshot_bytes += bytes;
        self.bytes += bytes;
    }

    fn add_blob(&mut self, bytes: u64) {
        self.blob_bytes += bytes;
        self.bytes += bytes;
    }

    pub(crate) fn add_mount(&mut self, bytes: u64) {
        self.cache_mount_bytes += bytes;
        self.bytes += bytes;
    }

    fn add_run(&mut self, bytes: u64) {
        self.run_bytes += bytes;
        self.bytes += bytes;
    }
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Bytes of disk of all snapshots.
    pub snapshot_bytes: u64,
    /// Images.
    pub images: usize,
    /// Cache records.
    pub cache_records: usize,
    /// Cache mounts.
    pub cache_mounts: usize,
    /// Bytes of disk of cache mounts.
    pub cache_mount_bytes: u64,
}

/// A cache record's file.
pub(crate) struct CacheFile {
    path: PathBuf,
    snapshot: Option<SnapshotId>,
}

/// What must stay.
#[derive(Default)]
pub(crate) struct Needed {
    pub(crate) snapshots: HashSet<String>,
    pub(crate) images: HashSet<String>,
    /// Blobs by digest, and cache mounts by name.
    pub(crate) blobs: HashSet<String>,
    pub(crate) layers: HashSet<String>,
}

impl Store {
    /// Removes what no image name, lease, scope or (with `keep_cache`) cache record needs.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, StoreError> {
        let mut report = PruneReport::default();
        let young_since = self.young_since()?;
        if let Some(max_bytes) = options.max_bytes {
            self.evict(max_bytes, max_bytes, options.dry_run, &mut report)?;
        }
        let (kept, doomed) = self.sort_cache(options, young_since)?;
        let mut needed = self.mark(&kept, options, young_since)?;
        report.cache_records += doomed.len();
        if !options.dry_run {
            for file in &doomed {
                fs::remove_file(&file.path)?;
            }
        }
        self.sweep_images(&mut needed, young_since, options.dry_run, &mut report)?;
        self.sweep_snapshots(&needed, options.dry_run, &mut report)?;
        self.sweep_blobs(&needed, young_since, options.dry_run, &mut report)?;
        self.sweep_mounts(options, young_since, &mut report)?;
        self.sweep_runs(options, young_since, &mut report)?;
        report.memos += self.sweep_memos(young_since, options.dry_run)?;
        if !options.dry_run {
            self.sweep_leftovers(&needed, young_since)?;
            self.sweep_partial(!options.keep_cache)?;
        }
        Ok(report)
    }

    /// What the store holds. Walks all snapshots.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage { images: names_in(&self.path("images"))?.len(), ..Usage::default() };
        for name in names_in(&self.path("blobs/sha256"))? {
            usage.blob_bytes += std::fs::metadata(self.path("blobs/sha256").join(name)).map_or(0, |blob| blob.len());
        }
        for name in names_in(&self.path("snapshots"))? {
            usage.snapshot_bytes += tree::size_of(&self.path("snapshots").join(name));
        }
        for name in names_in(&self.path(MOUNTS))?.into_iter().filter(|name| !name.ends_with(".lock")) {
            usage.cache_mounts += 1;
            usage.cache_mount_bytes += tree::size_of(&self.path(MOUNTS).join(name));
        }
        for shard in names_in(&self.path("cache"))? {
            usage.cache_records += names_in(&self.path("cache").join(shard))?.len();
        }
        Ok(usage)
    }

    /// What changed since then may belong to work in progress.
    pub(crate) fn young_since(&self) -> Result<SystemTime, StoreError> {
        let mut since = SystemTime::now() - YOUNG;
        let mut has_scope = false;
        for name in names_in(&self.path("scopes"))? {
            if let Ok(opened) =
                std::fs::metadata(self.path("scopes").join(name).join("lock")).and_then(|m| m.modified())
            {
                since = since.min(opened);
                has_scope = true;
            }
        }
        // Nobody at work: only the very last moment is in doubt.
        Ok(if has_scope { since } else { SystemTime::now() - Duration::from_secs(1) })
    }

    /// Cache records to keep and to remove.
    fn sort_cache(
        &self,
        options: &PruneOptions,
        young_since: SystemTime,
    ) -> Result<(Vec<CacheFile>, Vec<CacheFile>), StoreError> {
        let (mut kept, mut doomed) = (Vec::new(), Vec::new());
        let unused_since = options.unused_for.and_then(|age| SystemTime::now().checked_sub(age));
        for shard in names_in(&self.path("cache"))? {
            for name in names_in(&self.path("cache").join(&shard))? {
                let path = self.path("cache").join(&shard).join(name);
                let Ok(used) = std::fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
                let record: Option<crate::CacheRecord> = self.get_record(&path);
                let snapshot = record.map(|record| record.snapshot).filter(|id| self.snapshot_dir(id).exists());
                let file = CacheFile { path, snapshot };
                let stays = match unused_since {
                    Some(since) => used >= since,
                    None => options.keep_cache || used >= young_since,
                };
                if stays && file.snapshot.is_some() { kept.push(file) } else { doomed.push(file) }
            }
        }
        Ok((kept, doomed))
    }

    pub(crate) fn mark(
        &self,
        cache: &[CacheFile],
        options: &PruneOptions,
        young_since: SystemTime,
    ) -> Result<Needed, StoreError> {
        let mut needed = Needed::default();
        for (_, id) in self.names()? {
            needed.images.insert(id.hex().to_owned());
        }
        for name in names_in(&self.path("images"))? {
            if options.keep_images || is_younger(&self.path("images").join(&name), young_since) {
                needed.images.extend(digest_of(&name).map(|id| id.hex().to_owned()));
            }
        }
        let leased = self.leased()?;
        let mut tops: Vec<SnapshotId> = cache.iter().filter_map(|file| file.snapshot.clone()).collect();
        tops.extend(leased.iter().filter_map(|name| SnapshotId::try_from(name.clone()).ok()));
        if !options.drop_kept {
            tops.extend(self.kept_for_inspection()?);
        }
        needed.blobs.extend(leased);
        for top in tops {
            self.mark_snapshot(&mut needed, &top)?;
        }
        for hex in needed.images.clone() {
            self.mark_image(&mut needed, &hex)?;
        }
        self.mark_besides(&mut needed)?;
        self.mark_layers(&mut needed);
        Ok(needed)
    }

    /// The blobs of the layers that are needed.
    pub(crate) fn mark_layers(&self, needed: &mut Needed) {
        for diff_id in &needed.layers {
            let Some(digest) = digest_of(diff_id) else { continue };
            let record = self.layer_record(&DiffId(digest)).unwrap_or_default();
            needed.blobs.extend(record.all().map(|known| known.descriptor.digest.hex().to_owned()));
        }
    }

    pub(crate) fn mark_image(&self, needed: &mut Needed, hex: &str) -> Result<(), StoreError> {
        let Some(id) = digest_of(hex) else { return Ok(()) };
        let Some(record) = self.image_record(&id) else { return Ok(()) };
        for layer in &record.layers {
            self.mark_snapshot(needed, layer)?;
        }
        needed.blobs.insert(hex.to_owned());
        for digest in record.pulled.iter().chain(record.made.iter().map(|(_, digest)| digest)) {
            self.mark_manifest(needed, digest);
        }
        Ok(())
    }

    /// What names keep beside their images.
    fn mark_besides(&self, needed: &mut Needed) -> Result<(), StoreError> {
        for digest in self.besides()? {
            self.mark_manifest(needed, &digest);
        }
        Ok(())
    }

    /// A manifest, and what it names.
    fn mark_manifest(&self, needed: &mut Needed, digest: &Digest) {
        needed.blobs.insert(digest.hex().to_owned());
        let manifest = self.read_blob(digest, DOCUMENT_BYTES_MAX).ok().flatten();
        if let Some(manifest) = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok()) {
            let named = manifest.layers.iter().chain([&manifest.config]);
            needed.blobs.extend(named.map(|blob| blob.digest.hex().to_owned()));
        }
    }

    /// The snapshot, the one that it lies over, and those below it.
    fn mark_snapshot(&self, needed: &mut Needed, id: &SnapshotId) -> Result<(), StoreError> {
        let mut next = Some(id.clone());
        while let Some(id) = next.take() {
            if !needed.snapshots.insert(id.as_str().to_owned()) {
                break;
            }
            if let Some(meta) = self.snapshot(&id)? {
                if let Some(over) = &meta.over {
                    self.mark_snapshot(needed, over)?;
                }
                needed.layers.extend(meta.diff_id.map(|diff_id| diff_id.0.hex().to_owned()));
                next = meta.parent;
            }
        }
        Ok(())
    }

    fn kept_for_inspection(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let now = seconds(SystemTime::now()) as u64;
        let mut kept = Vec::new();
        for id in self.snapshot_ids()? {
            if self.meta_file(&id)?.and_then(|meta| meta.keep_until_s).is_some_and(|until| until > now) {
                kept.push(id);
            }
        }
        Ok(kept)
    }

    pub(crate) fn snapshot_ids(&self) -> Result<Vec<SnapshotId>, StoreError> {
        // Those in the making have other names.
        Ok(names_in(&self.path("snapshots"))?.into_iter().filter_map(|name| SnapshotId::try_from(name).ok()).collect())
    }

    fn sweep_images(
        &self,
        needed: &mut Needed,
        young_since: SystemTime,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let _lock = self.lock_prune(FlockOperation::LockExclusive)?;
        // Named since we looked: needed with all that it is made of. From here on naming finds no doomed image any more.
        for (_, id) in self.names()? {
            if needed.images.insert(id.hex().to_owned()) {
                self.mark_image(needed, id.hex())?;
            }
        }
        self.mark_besides(needed)?;
        self.mark_layers(needed);
        for name in names_in(&self.path("images"))? {
            let path = self.path("images").join(&name);
            let is_needed = digest_of(&name).is_some_and(|id| needed.images.contains(id.hex()));
            if is_needed || is_younger(&path, young_since) {
                continue;
            }
            report.images += 1;
            if !dry_run {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Held shared by whoever relies on something that is there already, alone by prune while it takes names away.
    pub(crate) fn lock_prune(&self, operation: FlockOperation) -> Result<fs::File, StoreError> {
        let lock = self.lock_file("prune.lock")?;
        rustix::fs::flock(&lock, operation).map_err(StoreError::at("lock", self.path("prune.lock")))?;
        Ok(lock)
    }

    fn sweep_snapshots(&self, needed: &Needed, dry_run: bool, report: &mut PruneReport) -> Result<(), StoreError> {
        let victims: Vec<String> = self
            .snapshot_ids()?
            .into_iter()
            .map(|id| id.as_str().to_owned())
            .filter(|id| !needed.snapshots.contains(id))
            .collect();
        let directory = self.path("snapshots");
        if dry_run {
            report.snapshots += victims.len();
            report.add_snapshot(victims.iter().map(|id| tree::size_of(&directory.join(id))).sum::<u64>());
            return Ok(());
        }
        for batch in victims.chunks(BATCH) {
            for moved in self.move_to_trash(&directory, batch, None)? {
                report.snapshots += 1;
                report.add_snapshot(tree::remove(&moved)?);
            }
        }
        Ok(())
    }

    pub(crate) fn sweep_blobs(
        &self,
        needed: &Needed,
        young_since: SystemTime,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let directory = self.path("blobs/sha256");
        let mut victims = names_in(&directory)?;
        victims.retain(|name| !needed.blobs.contains(name) && !is_younger(&directory.join(name), young_since));
        let size = |name: &String| std::fs::metadata(directory.join(name)).map_or(0, |blob| blob.len());
        if dry_run {
            report.blobs += victims.len();
            report.add_blob(victims.iter().map(size).sum::<u64>());
            return Ok(());
        }
        for batch in victims.chunks(BATCH) {
            for moved in self.move_to_trash(&directory, batch, Some(young_since))? {
                report.blobs += 1;
                report.add_blob(tree::remove(&moved)?);
            }
        }
        Ok(())
    }

    /// Renames what is not leased and was not touched, while nobody can do either. Gives the new paths.
    pub(crate) fn move_to_trash(
        &self,
        directory: &Path,
        names: &[String],
        young_since: Option<SystemTime>,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let _lock = self.lock_prune(FlockOperation::LockExclusive)?;
        let mut held = Needed::default();
        for name in self.leased()? {
            match SnapshotId::try_from(name) {
                // A lease of a snapshot holds those below it, and their layers.
                Ok(id) => self.mark_snapshot(&mut held, &id)?,
                Err(other) => drop(held.blobs.insert(other.0)),
            }
        }
        self.mark_layers(&mut held);
        let mut moved = Vec::new();
        for name in names {
            let is_young = young_since.is_some_and(|since| is_younger(&directory.join(name), since));
            if is_young || held.blobs.contains(name) || held.snapshots.contains(name) {
                continue;
            }
            let to = self.path("trash").join(format!("{name}-{:016x}", random()));
            match fs::rename(directory.join(name), &to) {
                Ok(()) => moved.push(to),
                // Another prune was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }

    /// Cache mounts go with the whole cache, or by their age.
    fn sweep_mounts(
        &self,
        options: &PruneOptions,
        young_since: SystemTime,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let directory = self.path(MOUNTS);
        let unused_since = match options.unused_for {
            Some(age) => SystemTime::now().checked_sub(age),
            None if options.keep_cache => return Ok(()),
            None => Some(young_since),
        };
        let is_old = |name: &String| {
            let used = std::fs::metadata(directory.join(name)).and_then(|metadata| metadata.modified());
            used.is_ok_and(|used| unused_since.is_some_and(|since| used < since))
        };
        let leased = self.leased()?;
        let mut victims = names_in(&directory)?;
        victims.retain(|name| !name.ends_with(".lock") && is_old(name) && !leased.contains(name));
        if options.dry_run {
            report.cache_mounts += victims.len();
            report.add_mount(victims.iter().map(|name| tree::size_of(&directory.join(name))).sum());
            return Ok(());
        }
        for batch in victims.chunks(BATCH) {
            for moved in self.move_to_trash(&directory, batch, None)? {
                report.cache_mounts += 1;
                report.add_mount(tree::remove(&moved)?);
            }
        }
        Ok(())
    }

    fn sweep_runs(
        &self,
        options: &PruneOptions,
        young_since: SystemTime,
        report: &mut PruneReport,
    ) -> Result<(), StoreError> {
        let Some(keep) = options.keep_runs else { return Ok(()) };
        let runs = self.runs()?;
        for run in &runs[..runs.len().saturating_sub(keep)] {
            // A run in progress writes to its directory.
            if is_younger(&run.path, young_since) {
                continue;
            }
            report.runs += 1;
            report.add_run(if options.dry_run { tree::size_of(&run.path) } else { tree::remove(&run.path)? });
        }
        Ok(())
    }

    /// Index entries that point at nothing, temporary files of killed processes, and the trash.
    fn sweep_leftovers(&self, needed: &Needed, young_since: SystemTime) -> Result<(), StoreError> {
        let remove_old = |path: PathBuf| -> Result<(), StoreError> {
            if !is_younger(&path, young_since) {
                tree::remove(&path)?;
            }
            Ok(())
        };
        for name in names_in(&self.path("chains"))? {
            let path = self.path("chains").join(name);
            let snapshot: Option<SnapshotId> = self.get_record(&path);
            if snapshot.is_none_or(|id| !self.snapshot_dir(&id).exists()) {
                remove_old(path)?;
            }
        }
        for name in names_in(&self.path("manifests"))? {
            let path = self.path("manifests").join(name);
            let image: Option<Digest> = self.get_record(&path);
            if image.is_none_or(|id| self.image_record(&id).is_none()) {
                remove_old(path)?;
            }
        }
        for name in names_in(&self.path("layers"))? {
            let path = self.path("layers").join(&name);
            let record: Option<LayerRecord> = self.get_record(&path);
            let has_blob = record
                .is_some_and(|record| record.all().any(|known| self.has_blob(&known.descriptor.digest).is_some()));
            let is_needed = digest_of(&name).is_some_and(|diff_id| needed.layers.contains(diff_id.hex()));
            if !has_blob && !is_needed {
                remove_old(path)?;
            }
        }
        for id in self.snapshot_ids()? {
            let work = self.snapshot_dir(&id).join("work");
            if work.exists() {
                remove_old(work)?;
            }
        }
        for directory in ["blobs/sha256", "chains", "images", "layers", "manifests", "names", "trash"] {
            for entry in fs::read_dir(self.path(directory))? {
                let entry = entry?;
                if directory == "trash" || crate::store::is_temporary(&entry.file_name()) {
                    remove_old(entry.path())?;
                }
            }
        }
        // Cache mounts that were being made by killed builds.
        for entry in std::fs::read_dir(self.path(MOUNTS)).into_iter().flatten() {
            let entry = entry?;
            if crate::store::is_temporary(&entry.file_name()) {
                remove_old(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Written (or given its place) at or after that time. What cannot be looked at is gone or about to be: not ours.
pub(crate) fn is_younger(path: &Path, since: SystemTime) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| {
        let changed = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        modified.max(SystemTime::UNIX_EPOCH + changed) >= since
    })
}
