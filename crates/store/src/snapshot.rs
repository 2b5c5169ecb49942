//! Snapshots: one directory for each layer, `snapshots/<16 hex digits>/{fs,meta.json,note}`.
//!
//! With overlayfs `fs` is an upper directory, which holds only what differs from the parent. Where overlayfs does not work
//! it is the whole root file system (`is_full`). Both kinds may be mixed in one chain.
//!
//! A layer that differs little from another one need not be written again: its snapshot lies *over* the other one's
//! directory, and both together are the layer ([`Store::prepare_over`]).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use fs_err as fs;
use oci::{ChainId, DiffId};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::{
    Scope, Store, StoreError,
    durable::read_small,
    scope::ScopeInner,
    store::random,
    tree::{self, View},
};

/// Names a snapshot: 16 hex digits, so that 127 lower directories fit the one page of an old-style mount call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
// Invariant: 16 lower-case hex digits, so that it is safe as a file name.
pub struct SnapshotId(String);

impl SnapshotId {
    /// The id of a snapshot that is still to be made; nobody else gets it.
    #[expect(clippy::new_without_default, reason = "each is another one, so that none is the default")]
    pub fn new() -> Self {
        Self(format!("{:016x}", random()))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text names no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot id (16 hex digits)")]
pub struct InvalidSnapshotId(pub String);

impl TryFrom<String> for SnapshotId {
    type Error = InvalidSnapshotId;

    fn try_from(text: String) -> Result<Self, InvalidSnapshotId> {
        let is_legal = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_legal { Ok(Self(text)) } else { Err(InvalidSnapshotId(text)) }
    }
}

/// What is known of a snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The one below.
    pub parent: Option<SnapshotId>,
    /// The snapshot whose directory belongs to this layer too, below its own. It is never itself over another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<SnapshotId>,
    /// Digest of the uncompressed layer, once it is known.
    pub diff_id: Option<DiffId>,
    /// Digest of the chain, for layers that came from an image.
    pub chain_id: Option<ChainId>,
    /// Size of the uncompressed layer in bytes, once it is known.
    pub tar_bytes: Option<u64>,
    /// Entries of the layer that this process was not allowed to make.
    #[serde(default)]
    pub skipped: Skipped,
}

/// What unpacking had to leave out, for the warning that says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Device nodes, which only real root may make.
    pub devices: u64,
    /// Owners that are not mapped into this user namespace.
    pub owners: u64,
    /// Extended attributes that the file system or kernel refused.
    pub attributes: u64,
}

/// `meta.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetaFile {
    #[serde(flatten)]
    pub(crate) meta: SnapshotMeta,
    /// Snapshots whose directories lie below this one's, topmost first, so that one read gives the overlay's lowers. None
    /// below a whole root file system.
    pub(crate) ancestors: Vec<SnapshotId>,
    /// `fs` holds the whole root file system.
    #[serde(default)]
    pub(crate) is_full: bool,
    /// `fs` changes nothing, so that overlays can do without it: each layer costs at every mount.
    #[serde(default)]
    pub(crate) is_empty: bool,
    /// Made by unpacking a layer: the diff id is the layer's, whatever a tar of ours would have.
    #[serde(default)]
    pub(crate) is_unpacked: bool,
    /// With which epoch (seconds) the diff id was found.
    #[serde(default)]
    pub(crate) epoch_s: Option<i64>,
    /// Latest file time within; an epoch from here on changes nothing.
    #[serde(default)]
    pub(crate) newest_s: Option<i64>,
    /// Kept for inspection until then (seconds), although nothing needs it.
    #[serde(default)]
    pub(crate) keep_until_s: Option<u64>,
}

impl Store {
    /// A new upper directory above `parent` (or above nothing), owned by `scope` until it is committed. `parent` is leased.
    pub fn prepare(&self, scope: &Scope, parent: Option<&SnapshotId>) -> Result<ActiveSnapshot, StoreError> {
        self.prepare_layer(scope, parent, None)
    }

    /// As [`Self::prepare`], for a layer that is like that of the snapshot `over` but for a few entries: only these are
    /// written, and what is gone is hidden by a whiteout. The parents may differ, but `over` must hide nothing of its own.
    /// `None` when `over` cannot carry another one: it is gone, was unpacked, lies over a third one, snapshots are full copies
    /// here, or there are many layers below. `over` is leased.
    pub fn prepare_over(
        &self,
        scope: &Scope,
        parent: Option<&SnapshotId>,
        over: &SnapshotId,
    ) -> Result<Option<ActiveSnapshot>, StoreError> {
        match scope.lease(over) {
            Ok(()) => {}
            Err(StoreError::UnknownSnapshot(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        match self.meta_file(over)? {
            Some(below) if !(below.is_full || below.is_unpacked || below.meta.over.is_some()) => {}
            _ => return Ok(None),
        }
        if self.inner.options.copy_snapshots {
            return Ok(None);
        }
        let active = self.prepare_layer(scope, parent, Some(over))?;
        Ok((active.lowers.len() < OVER_LOWERS_MAX).then_some(active))
    }

    fn prepare_layer(
        &self,
        scope: &Scope,
        parent: Option<&SnapshotId>,
        over: Option<&SnapshotId>,
    ) -> Result<ActiveSnapshot, StoreError> {
        let mut meta = MetaFile {
            meta: SnapshotMeta { parent: parent.cloned(), over: over.cloned(), ..SnapshotMeta::default() },
            ancestors: over.into_iter().cloned().collect(),
            is_full: self.inner.options.copy_snapshots,
            is_empty: false,
            is_unpacked: false,
            epoch_s: None,
            newest_s: None,
            keep_until_s: None,
        };
        let mut parent_layers = Vec::new();
        if let Some(parent) = parent {
            scope.lease(parent)?;
            let below = self.meta_file(parent)?.ok_or_else(|| StoreError::UnknownSnapshot(parent.clone()))?;
            let layers = with_ancestors(parent, &below);
            parent_layers = layers.iter().map(|id| self.snapshot_fs(id)).collect();
            if !meta.is_full {
                meta.ancestors.extend(layers);
            }
        }
        let directory = self.path("snapshots").join(format!("tmp.{}.{}", scope.id(), scope.next_number()));
        let active = ActiveSnapshot {
            store: self.clone(),
            scope: scope.inner.clone(),
            upper: directory.join("fs"),
            work: directory.join("work"),
            directory,
            lowers: if meta.is_full { Vec::new() } else { parent_layers.clone() },
            meta,
            is_done: false,
        };
        fs::create_dir(&active.directory)?;
        fs::create_dir(&active.upper)?;
        fs::create_dir(&active.work)?;
        self.fill(&active, &parent_layers)?;
        Ok(active)
    }

    /// The new root directory looks like the parent's; with copies so does everything in it.
    fn fill(&self, active: &ActiveSnapshot, parent_layers: &[PathBuf]) -> Result<(), StoreError> {
        let upper = tree::open_dir(&active.upper)?;
        let fail = |source| StoreError::At { action: "prepare", path: active.upper.clone(), source };
        rustix::fs::fchmod(&upper, Mode::from_raw_mode(0o755)).map_err(|errno| fail(errno.into()))?;
        let Some(top) = parent_layers.first() else { return Ok(()) };
        if active.meta.is_full {
            for layer in parent_layers.iter().rev() {
                tree::merge_copy(layer, &active.upper, self.inner.options).map_err(fail)?;
            }
        }
        tree::copy_attributes(&tree::open_dir(top)?, &upper, self.inner.options).map_err(fail)
    }

    /// `fs` directories of a snapshot and those below it, topmost first: the overlay's lowers. Those that change nothing are
    /// left out.
    pub fn lowers(&self, id: &SnapshotId) -> Result<Vec<PathBuf>, StoreError> {
        let meta = self.meta_file(id)?.ok_or_else(|| StoreError::UnknownSnapshot(id.clone()))?;
        Ok(with_ancestors(id, &meta).iter().map(|id| self.snapshot_fs(id)).collect())
    }

    /// What is known of a snapshot; `None` when it is not there or a power loss tore it.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotMeta>, StoreError> {
        Ok(self.meta_file(id)?.map(|file| file.meta))
    }

    /// Directory of this one snapshot's files. To be read only (it may be the source of hard links). Not all of the layer when
    /// the snapshot lies over another one: see [`Self::layer_fs`].
    pub fn snapshot_fs(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot_dir(id).join("fs")
    }

    /// Directories that together are the layer, topmost first: the snapshot's own, and that of the one it lies over.
    pub fn layer_fs(&self, id: &SnapshotId, meta: &SnapshotMeta) -> Vec<PathBuf> {
        [Some(id), meta.over.as_ref()].into_iter().flatten().map(|id| self.snapshot_fs(id)).collect()
    }

    /// What [`ActiveSnapshot::note`] left beside a snapshot's files.
    pub fn snapshot_note(&self, id: &SnapshotId) -> Option<Vec<u8>> {
        // The note was written before the meta file, whose stamp therefore vouches for it.
        self.meta_file(id).ok()??;
        std::fs::read(self.snapshot_dir(id).join(NOTE)).ok()
    }

    pub(crate) fn snapshot_dir(&self, id: &SnapshotId) -> PathBuf {
        self.path("snapshots").join(id.as_str())
    }

    pub(crate) fn meta_file(&self, id: &SnapshotId) -> Result<Option<MetaFile>, StoreError> {
        let path = self.snapshot_dir(id).join("meta.json");
        match read_small(&path) {
            Ok(bytes) => Ok(self.parse_record(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::At { action: "read", path, source }),
        }
    }

    pub(crate) fn put_meta_file(&self, id: &SnapshotId, meta: &MetaFile) -> Result<(), StoreError> {
        self.put_record(&self.snapshot_dir(id).join("meta.json"), meta)
    }
}

/// With so many layers below, a further directory may be the one too many for a mount: kernels before 6.8 take about 200,
/// later ones 500.
const OVER_LOWERS_MAX: usize = 100;
/// File beside a snapshot's directory.
const NOTE: &str = "note";

/// A writable snapshot. Dropped without commit: removed.
#[derive(Debug)]
pub struct ActiveSnapshot {
    store: Store,
    scope: Arc<ScopeInner>,
    directory: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    lowers: Vec<PathBuf>,
    pub(crate) meta: MetaFile,
    is_done: bool,
}

impl ActiveSnapshot {
    /// The upper directory (with `copy_snapshots`: the whole root).
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The overlay's work directory, on the same file system.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The parent's, topmost first; empty with `copy_snapshots` or without a parent. The directory that the snapshot lies over
    /// is none of them.
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }

    /// Looks through the lower directories as an overlay would.
    pub(crate) fn view(&self) -> Result<View, StoreError> {
        View::open(&self.lowers)
    }

    /// Leaves something beside the files that is no part of the layer and goes with the snapshot.
    pub fn note(&self, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(fs::write(self.directory.join(NOTE), bytes)?)
    }

    /// Seals it: renamed into place, leased by its scope. It takes `self`, so nobody writes afterwards.
    pub fn commit(self) -> Result<SnapshotId, StoreError> {
        self.commit_as(SnapshotId::new())
    }

    /// As [`ActiveSnapshot::commit`] with an id that was given out before.
    pub(crate) fn commit_as(mut self, id: SnapshotId) -> Result<SnapshotId, StoreError> {
        self.finish(id)
    }

    /// Keeps the directory for inspection (a failed step) until the given time; then prune removes it.
    ///
    /// # Errors
    /// Also when the disk is nearly full: then room is worth more, and it is removed at once.
    pub fn keep(mut self, until: SystemTime) -> Result<SnapshotId, StoreError> {
        let disk = rustix::fs::statvfs(&self.directory).map_err(StoreError::at("look at", &self.directory))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < KEEP_FREE_MIN_BYTES {
            return Err(StoreError::File(std::io::ErrorKind::StorageFull.into()));
        }
        let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.meta.keep_until_s = Some(until.as_secs());
        let id = self.finish(SnapshotId::new())?;
        self.store.note_kept(&id, SystemTime::UNIX_EPOCH + until)?;
        Ok(id)
    }

    fn finish(&mut self, id: SnapshotId) -> Result<SnapshotId, StoreError> {
        self.meta.is_empty = self.changes_nothing();
        // The work directory stays until the next prune: removing directories is what costs on a busy disk.
        fs::write(self.directory.join("meta.json"), self.store.record_bytes(&self.meta))?;
        self.scope.lease(id.as_str(), || true)?;
        fs::rename(&self.directory, self.store.snapshot_dir(&id))?;
        self.is_done = true;
        self.store.mark_dirty()?;
        Ok(id)
    }
}

impl ActiveSnapshot {
    /// Whether the upper directory is empty and has the attributes of the one below. Doubt means no.
    fn changes_nothing(&self) -> bool {
        // One that lies over another is a layer in any case.
        let is_layer = self.meta.is_full || self.meta.meta.over.is_some();
        let (false, Some(below)) = (is_layer, self.lowers.first()) else { return false };
        if !std::fs::read_dir(&self.upper).is_ok_and(|mut entries| entries.next().is_none()) {
            return false;
        }
        let same = |upper, below| tree::same_attributes(&upper, &below).ok();
        tree::open_dir(&self.upper).ok().zip(tree::open_dir(below).ok()).and_then(|(a, b)| same(a, b)) == Some(true)
    }
}

/// Less than this, and a failed step's root is not kept: what is left is needed to go on.
const KEEP_FREE_MIN_BYTES: u64 = 64 * 1024 * 1024;

/// The snapshot, unless it changes nothing, and those below it: never none.
fn with_ancestors(id: &SnapshotId, meta: &MetaFile) -> Vec<SnapshotId> {
    let own = if meta.is_empty && !meta.ancestors.is_empty() { None } else { Some(id) };
    own.into_iter().chain(&meta.ancestors).cloned().collect()
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if !self.is_done {
            // What cannot be removed now goes with the scope's sweep.
            let _ = tree::remove(&self.directory);
        }
    }
}
