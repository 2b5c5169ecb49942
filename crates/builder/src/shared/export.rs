//! A document of the steps that builds here used.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use oci::Descriptor;
use store::{LayerOptions, Scope, SnapshotId, Stop, Store, StoreError};

use super::{Document, DocumentLayer, DocumentMount, DocumentStep, PlaceError, Shared, UsedStep};
use crate::{mounts, work::locked};

/// What to export.
pub struct ExportRequest<'a> {
    /// Only steps of an image of these layers (`mode=min`); `None`: of all stages.
    pub only: Option<&'a [SnapshotId]>,
    /// File times later than this are this, as in the image.
    pub epoch: SystemTime,
    /// How layers are compressed.
    pub layers: LayerOptions,
    /// Also the content of cache mounts.
    pub with_mounts: bool,
    /// Ends it early.
    pub stop: Stop<'a>,
}

/// What to write at a place.
pub struct Exported {
    /// The document.
    pub document: Document,
    /// The blobs that it speaks of, once each.
    pub blobs: Vec<ExportBlob>,
    /// Names of cache mounts that could not be packed, and why.
    pub left_out: Vec<(String, StoreError)>,
}

/// A blob of an export.
pub struct ExportBlob {
    /// What it is.
    pub descriptor: Descriptor,
    /// It is not in the store: a place has it, from which [`Shared::bring`] gets it.
    from: Option<usize>,
}

impl ExportBlob {
    /// Whether the store lacks it until [`Shared::bring`] got it.
    pub fn is_elsewhere(&self) -> bool {
        self.from.is_some()
    }
}

impl Shared {
    /// Makes layers of the steps that were used, and a document that speaks of them. Steps whose results are gone
    /// meanwhile are left out.
    ///
    /// # Errors
    /// The store failed, or it was stopped.
    pub fn export(&self, store: &Store, scope: &Scope, request: &ExportRequest<'_>) -> Result<Exported, StoreError> {
        let only: Option<HashSet<&SnapshotId>> = request.only.map(|layers| layers.iter().collect());
        let is_wanted = |step: &&UsedStep| only.as_ref().is_none_or(|layers| layers.contains(&step.top));
        let mut exported = Exported { document: Document::default(), blobs: Vec::new(), left_out: Vec::new() };
        let mut places: HashMap<SnapshotId, usize> = HashMap::new();
        let trail = locked(&self.trail);
        for step in trail.steps.iter().filter(is_wanted) {
            let Some(mut entry) = self.step(store, step) else { continue };
            if let Some(layer) = &step.layer {
                entry.layer = Some(match places.get(layer) {
                    Some(place) => *place,
                    None => {
                        let (layer_entry, from) = self.layer(store, layer, request)?;
                        exported.add_blob(layer_entry.blob.clone(), from);
                        exported.document.layers.push(layer_entry);
                        places.insert(layer.clone(), exported.document.layers.len() - 1);
                        exported.document.layers.len() - 1
                    }
                });
            }
            exported.document.steps.push(entry);
        }
        exported.document.selections =
            trail.selections.iter().map(|(key, files)| (key.clone(), files.clone())).collect::<BTreeMap<_, _>>();
        let mounts = trail.mounts.clone();
        drop(trail);
        if request.with_mounts {
            self.mounts(store, scope, mounts, request, &mut exported)?;
        }
        Ok(exported)
    }

    /// Gets a blob that the store lacks.
    ///
    /// # Errors
    /// Its place does not give it any more.
    pub fn bring(&self, store: &Store, scope: &Scope, blob: &ExportBlob) -> Result<(), PlaceError> {
        match blob.from {
            Some(at) => self.places[at].place.fetch(store, scope, std::slice::from_ref(&blob.descriptor)),
            None => Ok(()),
        }
    }

    fn step(&self, store: &Store, step: &UsedStep) -> Option<DocumentStep> {
        let pending = locked(&self.pending);
        let waiting = pending.get(&step.top).and_then(|layer| layer.records.iter().find(|(key, _)| *key == step.key));
        let record = match waiting {
            Some((_, record)) => record.clone(),
            None => store.cache_get(&step.key)?,
        };
        Some(DocumentStep {
            key: step.key.clone(),
            parts: record.parts,
            made_ms: record.made_ms,
            result: record.result,
            layer: None,
        })
    }

    /// The layer of a snapshot: known elsewhere and not here, or sealed.
    fn layer(
        &self,
        store: &Store,
        id: &SnapshotId,
        request: &ExportRequest<'_>,
    ) -> Result<(DocumentLayer, Option<usize>), StoreError> {
        if let Some(pending) = locked(&self.pending).get(id) {
            return Ok((pending.layer.clone(), Some(pending.place)));
        }
        let blob = store.seal_or_stop(id, request.epoch, request.layers, request.stop)?;
        let (diff_id, _) = store.diff_id_or_stop(id, request.epoch, request.stop)?;
        Ok((DocumentLayer { diff_id, blob, newest_s: store.newest_time(id, request.epoch)? }, None))
    }

    /// Cache mounts that are here; what a place had of the others is passed on.
    fn mounts(
        &self,
        store: &Store,
        scope: &Scope,
        names: impl IntoIterator<Item = String>,
        request: &ExportRequest<'_>,
        exported: &mut Exported,
    ) -> Result<(), StoreError> {
        for name in names {
            let directory = mounts::directory(store, &name);
            if !directory.is_dir() {
                let known = self.indexes().find_map(|(at, index)| {
                    let mount = index.document.mounts.iter().find(|mount| mount.name == name)?;
                    Some((at, mount.clone()))
                });
                if let Some((at, mount)) = known {
                    exported.add_blob(mount.blob.clone(), Some(at));
                    exported.document.mounts.push(mount);
                }
                continue;
            }
            match store.pack_directory(scope, &directory, request.layers, request.stop) {
                Ok((blob, diff_id)) => {
                    exported.add_blob(blob.clone(), None);
                    exported.document.mounts.push(DocumentMount { name, diff_id, blob });
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                // Another build may be writing to it: the rest is worth having.
                Err(error) => exported.left_out.push((name, error)),
            }
        }
        Ok(())
    }
}

impl Exported {
    fn add_blob(&mut self, descriptor: Descriptor, from: Option<usize>) {
        if self.blobs.iter().all(|known| known.descriptor.digest != descriptor.digest) {
            self.blobs.push(ExportBlob { descriptor, from });
        }
    }
}
