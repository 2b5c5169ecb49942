//! Directories of the store that are no layers (cache mounts) as blobs, and back.

use std::path::Path;

use oci::{Descriptor, DiffId};

use crate::{
    ApplyError, ApplyErrorKind, LayerOptions, Scope, Stop, Store, StoreError,
    archive::TarWriter,
    diff,
    layer::Source,
    seal::Both,
    tree::{self, View},
    unpack::Unpacker,
};

impl Store {
    /// Packs a directory's content into a blob, which is leased. Times are kept.
    pub fn pack_directory(
        &self,
        scope: &Scope,
        directory: &Path,
        options: LayerOptions,
        stop: Stop<'_>,
    ) -> Result<(Descriptor, DiffId), StoreError> {
        let mut tar = TarWriter::new(stop.watch(self.both(options)?));
        stop.told(diff::write_layer(&[directory.to_owned()], &[], false, i64::MAX, &mut tar))?;
        let (out, _) = tar.finish()?;
        let Both { hasher, blob } = out.into_inner();
        let (digest, size) = blob.finish()?.commit(None)?;
        scope.lease_blob(&digest)?;
        Ok((Descriptor::new(options.compression.media_type(), digest, size), DiffId(hasher.finish())))
    }

    /// Unpacks a blob into an empty directory that nobody else uses yet, checked as a layer is. After an error the
    /// directory is empty again.
    pub fn unpack_directory(&self, directory: &Path, blob: &Descriptor, diff_id: &DiffId) -> Result<(), ApplyError> {
        let unpack = || -> Result<(), ApplyErrorKind> {
            let file = self.open_blob(&blob.digest)?.ok_or(ApplyErrorKind::MissingBlob)?;
            let unpacker = Unpacker::new(tree::open_dir(directory)?, View::open(&[])?, self.inner.options, true);
            self.read_checked(Source::Stored(file), unpacker, blob, diff_id).map(drop)
        };
        unpack().map_err(|kind| {
            if let Ok(root) = tree::open_dir(directory) {
                for name in tree::sorted_names(&root).unwrap_or_default() {
                    // The first failure is the story.
                    let _ = tree::remove_at(&root, &name);
                }
            }
            ApplyError { layer: blob.digest.clone(), kind }
        })
    }
}
