//! The store's directory, and how its small files are written.

use std::{
    collections::HashMap,
    ffi::OsStr,
    hash::{BuildHasher, Hasher as _},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use fs_err as fs;

use crate::{StoreError, durable};

/// Written into the file `format`; a change that an older program would misread gets a new number.
const FORMAT: &str = "seatrial-store 1\n";

/// Everything directly below the root.
const DIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "cache",
    "chains",
    "images",
    "layers",
    "manifests",
    "memo",
    "names",
    "runs",
    "scopes",
    "snapshots",
    "synced",
    "trash",
];

/// The store: one directory, many processes at once. Cheap to open (no scan, no sync) and to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// How snapshots are kept on this host; the engine finds it out once.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// overlayfs does not work here: each snapshot is a full copy of its parent.
    pub copy_snapshots: bool,
    /// Rootless overlay: `user.overlay.*` attributes; otherwise `trusted.overlay.*`.
    pub user_xattr: bool,
    /// chown to ids that are not mapped fails: keep going and count it.
    pub ignore_chown_errors: bool,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) options: StoreOptions,
    /// The kernel's id of the running boot.
    pub(crate) boot: String,
    /// Sync marks of former boots, which never change any more.
    pub(crate) marks: Mutex<HashMap<String, Option<u64>>>,
}

impl Store {
    /// Opens the store below `root` and makes it (mode 0700) when it is not there.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        let found = match fs::read_to_string(root.join("format")) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(root)?,
            Err(error) => return Err(error.into()),
        };
        if found != FORMAT {
            return Err(StoreError::Format { path: root.to_owned(), found: found.chars().take(40).collect() });
        }
        // Overlay mounts and journals need a path that does not depend on the working directory.
        let root = fs::canonicalize(root)?;
        let boot = durable::boot_id();
        let store = Self { inner: Arc::new(Inner { root, options, boot, marks: Mutex::default() }) };
        store.check_boot()?;
        Ok(store)
    }

    /// The store's directory, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The options it was opened with.
    pub fn options(&self) -> StoreOptions {
        self.inner.options
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.inner.root.join(relative)
    }

    /// Puts `bytes` at `path` at once or not at all: temporary name, rename. No sync.
    pub(crate) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_then(path, bytes, |_| Ok(()))?;
        self.mark_dirty()
    }

    /// As [`Self::write_file`], with something done to the open file before it gets its name, and no note for the next sync.
    pub(crate) fn write_then(
        &self,
        path: &Path,
        bytes: &[u8],
        before_rename: impl FnOnce(&fs::File) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let directory = path.parent().expect("files of the store lie in a directory of it");
        let temporary = directory.join(format!(".{:016x}.tmp", random()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = match options.open(&temporary) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(directory)?;
                options.open(&temporary)?
            }
            other => other?,
        };
        let written =
            file.write_all(bytes).map_err(StoreError::from).and_then(|()| before_rename(&file)).and_then(|()| {
                fs::rename(&temporary, path)?;
                Ok(())
            });
        if written.is_err() {
            // The first failure leads; a temporary file that cannot be removed either is left to prune.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Makes the directories; the format file comes last and says that they are all there.
fn make(root: &Path) -> Result<String, StoreError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let create = |path: &Path| {
        builder.create(path).map_err(|source| StoreError::At { action: "make", path: path.to_owned(), source })
    };
    create(root)?;
    // Set-id programs of images lie in here: nobody else may reach them (safety.md, "Unpacking").
    fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
    for directory in DIRECTORIES {
        create(&root.join(directory))?;
    }
    let temporary = root.join(format!(".{:016x}.tmp", random()));
    fs::write(&temporary, FORMAT)?;
    fs::rename(&temporary, root.join("format"))?;
    Ok(FORMAT.to_owned())
}

/// 64 bits that no other process or call gets: names of temporary files, snapshots and scopes. Not a secret.
pub(crate) fn random() -> u64 {
    // Keyed anew for each call, from the operating system's randomness.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u64(durable::now_ns());
    hasher.finish()
}

/// Names in a directory of the store, without temporary ones; none when it does not exist.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| !is_temporary(OsStr::new(name))) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
