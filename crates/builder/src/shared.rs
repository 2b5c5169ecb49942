//! Results of steps that other machines made, and the trail of steps that builds here used, which others can have.
//!
//! A place (a directory, a repository of a registry) gives one [`Document`]: records of steps, and which blob holds the
//! layer of each. The document is asked for by the first step that the store does not know. A hit takes the record only:
//! its layer gets the id of a snapshot that is still to come, and is fetched and unpacked when something needs the files
//! ([`Shared::ensure`]): a step that is made on top, a COPY or mount from it, the finished image. So a stage whose result
//! is known costs nothing but its records.

mod document;
mod export;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    error::Error,
    path::Path,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use oci::{Descriptor, Digest};
use store::{CacheRecord, Scope, SnapshotId, Store};

use crate::work::locked;

pub use document::{Document, DocumentLayer, DocumentMount, DocumentStep, InvalidDocument};
pub use export::{ExportBlob, ExportRequest, Exported};

/// Why a place could not give what was asked of it.
pub type PlaceError = Box<dyn Error + Send + Sync>;

/// Where results of steps come from. Called from threads that may block.
pub trait SharedPlace: Send + Sync {
    /// As the user named it.
    fn name(&self) -> String;

    /// Its document; `None` when it has none (yet).
    ///
    /// # Errors
    /// It cannot be reached, or what it has is malformed.
    fn document(&self) -> Result<Option<Document>, PlaceError>;

    /// Brings blobs into the store, verified, and leases them.
    ///
    /// # Errors
    /// One is missing or not what its digest says, or the place cannot be reached.
    fn fetch(&self, store: &Store, scope: &Scope, blobs: &[Descriptor]) -> Result<(), PlaceError>;
}

/// Places to take from, and what the builds of this process used. The default has no places.
#[derive(Default)]
pub struct Shared {
    places: Vec<Place>,
    /// Layers that are known and not here yet, by the id that their snapshot will have.
    pending: Mutex<HashMap<SnapshotId, Pending>>,
    /// Held while layers are fetched; whoever needs the same ones waits.
    fetching: Mutex<()>,
    is_given_up: AtomicBool,
    warnings: Mutex<Vec<String>>,
    trail: Mutex<Trail>,
}

struct Place {
    place: Box<dyn SharedPlace>,
    /// Asked for once.
    index: OnceLock<Index>,
}

/// A document, with its steps by key.
#[derive(Default)]
struct Index {
    document: Document,
    steps: HashMap<Digest, usize>,
}

/// A layer that is known and not here yet.
#[derive(Clone)]
struct Pending {
    place: usize,
    key: Digest,
    parent: Option<SnapshotId>,
    layer: DocumentLayer,
    /// Records to write once the snapshot is there: of the step that made it, and of those after it that made none.
    records: Vec<(Digest, CacheRecord)>,
}

/// What builds used, in order.
#[derive(Default)]
struct Trail {
    steps: Vec<UsedStep>,
    keys: HashSet<Digest>,
    selections: BTreeMap<Digest, Digest>,
    mounts: BTreeSet<String>,
}

/// A step that a build used.
struct UsedStep {
    key: Digest,
    /// The snapshot that it made, if any.
    layer: Option<SnapshotId>,
    /// The file system after it.
    top: SnapshotId,
}

/// What a build needs of a shared cache cannot be had any more.
#[derive(Debug, thiserror::Error)]
#[error("{place} no longer gives a layer that its records speak of")]
pub(crate) struct LayerLost {
    place: String,
    #[source]
    source: PlaceError,
}

impl Shared {
    /// Takes from these places; the first that has a step gives it.
    pub fn new(places: Vec<Box<dyn SharedPlace>>) -> Self {
        let places = places.into_iter().map(|place| Place { place, index: OnceLock::new() }).collect();
        Self { places, ..Self::default() }
    }

    /// What the user should know of the places, once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.warnings))
    }

    /// Whether a layer could not be had (bringing it here failed), so that the build is worth another attempt without
    /// the places. From then on they are not asked any more.
    pub fn give_up(&self) -> bool {
        let is_broken = self.is_given_up.load(Ordering::Relaxed);
        if is_broken {
            locked(&self.pending).clear();
            *locked(&self.trail) = Trail::default();
        }
        is_broken
    }

    /// The record of a step made elsewhere, and the id of the snapshot that it made, if it made one.
    pub(crate) fn find(
        &self,
        store: &Store,
        key: &Digest,
        top: Option<&SnapshotId>,
    ) -> Option<(CacheRecord, Option<SnapshotId>)> {
        let (place, index, step) = self
            .indexes()
            .find_map(|(at, index)| index.steps.get(key).map(|step| (at, index, &index.document.steps[*step])))?;
        let record = |snapshot: SnapshotId| CacheRecord {
            snapshot,
            parts: step.parts.clone(),
            made_ms: step.made_ms,
            result: step.result.clone(),
        };
        let mut pending = locked(&self.pending);
        let Some(layer) = step.layer else {
            let record = record(top?.clone());
            match pending.get_mut(&record.snapshot) {
                Some(below) => below.records.push((key.clone(), record.clone())),
                // That it cannot be kept costs asking again.
                None => drop(store.cache_put(key, &record)),
            }
            return Some((record, None));
        };
        let known = pending.iter().find(|(_, known)| known.key == *key && known.parent.as_ref() == top);
        let id = known.map_or_else(SnapshotId::new, |(id, _)| id.clone());
        let record = record(id.clone());
        pending.entry(id.clone()).or_insert_with(|| Pending {
            place,
            key: key.clone(),
            parent: top.cloned(),
            layer: index.document.layers[layer].clone(),
            records: vec![(key.clone(), record.clone())],
        });
        Some((record, Some(id)))
    }

    /// What a COPY took from a stage or image, found out elsewhere.
    pub(crate) fn selection(&self, key: &Digest) -> Option<Digest> {
        self.indexes().find_map(|(_, index)| index.document.selections.get(key).cloned())
    }

    /// Makes the snapshots of these layers (bottom first), where they are still to come.
    pub(crate) fn ensure(&self, store: &Store, scope: &Scope, layers: &[SnapshotId]) -> Result<(), LayerLost> {
        if locked(&self.pending).is_empty() {
            return Ok(());
        }
        let _guard = locked(&self.fetching);
        let wanted: Vec<(SnapshotId, Pending)> = {
            let pending = locked(&self.pending);
            layers.iter().filter_map(|id| Some((id.clone(), pending.get(id)?.clone()))).collect()
        };
        let lost = |place: usize, source: PlaceError| {
            self.is_given_up.store(true, Ordering::Relaxed);
            LayerLost { place: self.places[place].place.name(), source }
        };
        for (at, place) in self.places.iter().enumerate() {
            let blobs: Vec<Descriptor> = wanted
                .iter()
                .filter(|(_, layer)| layer.place == at)
                .map(|(_, layer)| layer.layer.blob.clone())
                .collect();
            if !blobs.is_empty() {
                place.place.fetch(store, scope, &blobs).map_err(|error| lost(at, error))?;
            }
        }
        for (id, layer) in wanted {
            let DocumentLayer { blob, diff_id, newest_s } = &layer.layer;
            store
                .apply_shared_layer(scope, &id, layer.parent.as_ref(), blob, diff_id, *newest_s)
                .map_err(|error| lost(layer.place, error.into()))?;
            let records = locked(&self.pending).remove(&id).map_or(layer.records, |now| now.records);
            for (key, record) in records {
                // That it cannot be kept costs asking again.
                let _ = store.cache_put(&key, &record);
            }
        }
        Ok(())
    }

    /// Fills a new cache mount with what another machine left in it; false when nobody has it.
    pub(crate) fn fill_mount(&self, store: &Store, scope: &Scope, name: &str, directory: &Path) -> bool {
        self.indexes().any(|(at, index)| {
            let Some(mount) = index.document.mounts.iter().find(|mount| mount.name == name) else { return false };
            let fetched = self.places[at].place.fetch(store, scope, std::slice::from_ref(&mount.blob));
            let filled = fetched.and_then(|()| {
                store.unpack_directory(directory, &mount.blob, &mount.diff_id).map_err(PlaceError::from)
            });
            filled.map_err(|error| self.warn(&self.places[at], &*error)).is_ok()
        })
    }

    pub(crate) fn note_step(&self, key: &Digest, layer: Option<&SnapshotId>, top: Option<&SnapshotId>) {
        let Some(top) = top else { return };
        let mut trail = locked(&self.trail);
        if trail.keys.insert(key.clone()) {
            trail.steps.push(UsedStep { key: key.clone(), layer: layer.cloned(), top: top.clone() });
        }
    }

    pub(crate) fn note_selection(&self, key: &Digest, files: &Digest) {
        locked(&self.trail).selections.insert(key.clone(), files.clone());
    }

    pub(crate) fn note_mount(&self, name: &str) {
        locked(&self.trail).mounts.insert(name.to_owned());
    }

    /// The documents of all places, fetched when first needed.
    fn indexes(&self) -> impl Iterator<Item = (usize, &Index)> {
        let is_given_up = self.is_given_up.load(Ordering::Relaxed);
        let places = self.places.iter().enumerate().filter(move |_| !is_given_up);
        places.map(|(at, place)| (at, place.index.get_or_init(|| self.read(place))))
    }

    fn read(&self, place: &Place) -> Index {
        let read = place.place.document().and_then(|document| {
            let document = document.unwrap_or_default();
            document.check()?;
            Ok(document)
        });
        let document = read.unwrap_or_else(|error| {
            self.warn(place, &*error);
            Document::default()
        });
        let steps = document.steps.iter().enumerate().map(|(at, step)| (step.key.clone(), at)).collect();
        Index { document, steps }
    }

    fn warn(&self, place: &Place, error: &(dyn Error + 'static)) {
        let mut text = format!("the cache {} is not used: {error}", place.place.name());
        let mut cause = error.source();
        while let Some(error) = cause {
            text = text + ": " + &error.to_string();
            cause = error.source();
        }
        locked(&self.warnings).push(text);
    }
}
