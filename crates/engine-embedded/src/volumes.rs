//! Directories of a scope that its containers share, filled as docker fills named volumes.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use engine::VolumeMount;
use runtime::{Mount, MountKind};
use store::{SnapshotId, Store, StoreError};

/// The volumes of one scope, by name. They go with the scope's own directory.
#[derive(Default)]
pub(crate) struct Volumes(Mutex<BTreeMap<String, Arc<Mutex<Option<PathBuf>>>>>);

impl Volumes {
    /// The volume as a mount; made first when nobody has mounted it yet.
    pub(crate) fn mount(
        &self,
        store: &Store,
        scope: &store::Scope,
        root: Option<&SnapshotId>,
        volume: &VolumeMount,
    ) -> Result<Mount, StoreError> {
        let (slot, number) = {
            let mut volumes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let number = volumes.len();
            (volumes.entry(volume.name.clone()).or_default().clone(), number)
        };
        // Held while it is filled, so that a second container does not see half of it.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = match &*slot {
            Some(directory) => directory.clone(),
            None => {
                // Names are the user's and no file names.
                let directory = scope.dir().join(format!("volume-{number}"));
                fs_err::create_dir(&directory)?;
                if let Some(root) = root {
                    store.copy_directory(root, &volume.target, &directory)?;
                }
                slot.insert(directory).clone()
            }
        };
        Ok(Mount { target: volume.target.clone(), kind: MountKind::Bind(directory), readonly: volume.readonly })
    }
}
