//! A store in a temporary directory, and images made of layers of files.

use std::time::SystemTime;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Platform, media_type};
use store::{Image, Scope, SnapshotId, Store, StoreOptions};

pub(crate) struct World {
    pub(crate) store: Store,
    scope: Scope,
    _home: tempfile::TempDir,
}

/// A layer: files, links and whiteouts by their names in the archive.
#[derive(Default)]
pub(crate) struct Layer(Vec<(String, Entry)>);

enum Entry {
    File { content: Vec<u8>, mode: u32 },
    Link(String),
}

impl Layer {
    pub(crate) fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.push((path.into(), Entry::File { content: content.as_ref().to_vec(), mode: 0o644 }));
        self
    }

    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        self.0.push((path.into(), Entry::Link(target.into())));
        self
    }

    pub(crate) fn program(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.push((path.into(), Entry::File { content: content.as_ref().to_vec(), mode: 0o755 }));
        self
    }

    /// Takes away what lower layers have (image-spec, "Whiteouts").
    pub(crate) fn gone(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap();
        self.file(&format!("{parent}/.wh.{name}"), "")
    }

    fn tar(self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in self.0 {
            let mut header = tar::Header::new_gnu();
            match entry {
                Entry::File { content, mode } => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content.as_slice()).unwrap();
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        tar.into_inner().unwrap()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(false)
    }

    /// With a store that copies where others mount.
    pub(crate) fn copying() -> Self {
        Self::with(true)
    }

    fn with(copy_snapshots: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        let options = StoreOptions { copy_snapshots, user_xattr: !is_root, ignore_chown_errors: !is_root };
        let store = Store::open(&home.path().join("store"), options).unwrap();
        let scope = store.open_scope().unwrap();
        Self { store, scope, _home: home }
    }

    /// An image of these layers, lowest first.
    pub(crate) fn image(&self, layers: impl IntoIterator<Item = Layer>) -> Image {
        let mut config = ImageConfig::scratch(&Platform::host());
        let mut snapshots: Vec<SnapshotId> = Vec::new();
        for layer in layers {
            let tar = layer.tar();
            self.store.put_blob(&tar).unwrap();
            let parent = snapshots.last();
            let chain = parent.map(|parent| self.store.snapshot(parent).unwrap().unwrap().chain_id.unwrap());
            let (blob, diff_id) = (Descriptor::of(media_type::LAYER, &tar), DiffId(Digest::of(&tar)));
            let snapshot = self.store.apply_layer(&self.scope, parent, chain.as_ref(), &blob, &diff_id).unwrap();
            snapshots.push(snapshot);
            config.rootfs.diff_ids.push(diff_id);
        }
        self.store.put_image(&config, &snapshots, SystemTime::UNIX_EPOCH).unwrap()
    }
}
