//! Directories that containers share, filled as docker fills named volumes: a scope's own, and lasting ones of the store.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
        if volume.is_lasting {
            let directory = lasting(store, scope, root, volume)?;
            return Ok(Mount {
                target: volume.target.clone(),
                kind: MountKind::Bind(directory),
                readonly: volume.readonly,
            });
        }
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

/// The directory of a lasting volume, made first when there is none.
fn lasting(
    store: &Store,
    scope: &store::Scope,
    root: Option<&SnapshotId>,
    volume: &VolumeMount,
) -> Result<PathBuf, StoreError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let place = place_of(store, &volume.name);
    let content = place.join(CONTENT);
    if content.is_dir() {
        return Ok(content);
    }
    fs_err::create_dir_all(place.parent().unwrap_or(store.root()))?;
    // Filled beside its scope and put in place at once: nobody sees half of it, and a killed process leaves nothing.
    let draft = scope.dir().join(format!("lasting-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let inner = draft.join(CONTENT);
    fs_err::create_dir_all(&inner)?;
    if let Some(root) = root {
        store.copy_directory(root, &volume.target, &inner)?;
    }
    match fs_err::rename(&draft, &place) {
        Ok(()) => {}
        // Somebody else was first.
        Err(_) if content.is_dir() => drop(fs_err::remove_dir_all(&draft)),
        Err(error) => return Err(error.into()),
    }
    Ok(content)
}

/// Whether there is a lasting volume of this name.
pub(crate) fn exists(store: &Store, name: &str) -> bool {
    place_of(store, name).join(CONTENT).is_dir()
}

/// Removes a lasting volume; false when there is none.
pub(crate) fn remove(store: &Store, name: &str) -> std::io::Result<bool> {
    match fs_err::remove_dir_all(place_of(store, name)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The volume's files, in a directory of their own: its owner and mode are the image's, those around it ours.
const CONTENT: &str = "content";

/// Names are the user's: what could not be a file name is written in hexadecimal.
fn place_of(store: &Store, name: &str) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let name: String = name
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect();
    store.root().join("volumes").join(name)
}
