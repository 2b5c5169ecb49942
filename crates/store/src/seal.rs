//! Sealing: a snapshot becomes a layer blob. One pass makes the tar, its digest, the compression and the blob's digest.
//!
//! What was made is remembered by diff id (`layers/<hex>.json`), so it is made once. A layer that came from an image keeps
//! that image's own blob, so that a derived image is pushed with the very same digests.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use oci::{Descriptor, DiffId, Digest, Hasher, media_type};
use serde::{Deserialize, Serialize};

use crate::{
    SnapshotId, Store, StoreError,
    archive::{self, Compressor, Format, SideHasher, TarWriter},
    diff,
    options::{LayerOptions, Stop},
    snapshot::MetaFile,
};

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which everything reads.
    #[default]
    Gzip,
    /// zstd: faster and smaller; docker reads it since 23.0.
    Zstd,
}

impl Compression {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::None => media_type::LAYER,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }
}

/// `layers/<diff id>.json`: blobs that hold one layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    #[serde(default)]
    pub(crate) tar_bytes: u64,
    /// Where it came from, as its image says.
    #[serde(default)]
    pub(crate) pulled: Option<Known>,
    /// Made here.
    #[serde(default)]
    pub(crate) made: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) compression: Compression,
    /// Level of the compression, if it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<u8>,
    /// What made it, where the bytes follow from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) maker: Option<String>,
    pub(crate) descriptor: Descriptor,
}

impl Known {
    fn of(descriptor: Descriptor, format: Format) -> Self {
        let compression = match format {
            Format::Plain => Compression::None,
            Format::Gzip => Compression::Gzip,
            Format::Zstd => Compression::Zstd,
        };
        // Our manifests are OCI's: docker's names for the same content become OCI's.
        let media_type = compression.media_type().into();
        let descriptor = Descriptor { media_type, annotations: Default::default(), platform: None, ..descriptor };
        Self { compression, level: None, maker: None, descriptor }
    }

    /// Made by this program.
    fn made(compression: Compression, level: Option<u8>, descriptor: Descriptor) -> Self {
        let maker = (compression == Compression::Gzip).then(|| archive::GZIP_MAKER.to_owned());
        Self { compression, level, maker, descriptor }
    }

    fn is_made_as(&self, options: LayerOptions) -> bool {
        let is_ours = self.compression != Compression::Gzip || self.maker.as_deref() == Some(archive::GZIP_MAKER);
        self.compression == options.compression && self.level == options.level && is_ours
    }
}

impl LayerRecord {
    /// The blob came with an image.
    pub(crate) fn add_pulled(&mut self, descriptor: Descriptor, format: Format, tar_bytes: u64) {
        self.pulled = Some(Known::of(descriptor, format));
        self.tar_bytes = tar_bytes;
    }

    /// The blob was made by a store like this one.
    pub(crate) fn add_made(&mut self, descriptor: Descriptor, format: Format, tar_bytes: u64) {
        let Known { compression, level, descriptor, .. } = Known::of(descriptor, format);
        let made = Known::made(compression, level, descriptor);
        if self.made.iter().all(|known| !known.is_made_as(LayerOptions { level, ..LayerOptions::from(compression) })) {
            self.made.push(made);
        }
        self.tar_bytes = tar_bytes;
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Known> {
        self.pulled.iter().chain(&self.made)
    }
}

impl Store {
    /// Digest and size in bytes of a snapshot's uncompressed tar, computed once and remembered. Deterministic: sorted, file
    /// times later than `epoch` are `epoch`, whole seconds, numeric owners, PAX only where needed, hard links within the
    /// layer, whiteouts.
    pub fn diff_id(&self, id: &SnapshotId, epoch: SystemTime) -> Result<(DiffId, u64), StoreError> {
        self.diff_id_or_stop(id, epoch, Stop::NEVER)
    }

    /// As [`Store::diff_id`], unless it is stopped.
    pub fn diff_id_or_stop(
        &self,
        id: &SnapshotId,
        epoch: SystemTime,
        stop: Stop<'_>,
    ) -> Result<(DiffId, u64), StoreError> {
        let mut meta = self.meta_of(id)?;
        if let Some(known) = self.known_diff_id(id, &meta, seconds(epoch)) {
            return Ok(known);
        }
        let hashed = stop.told(self.write_tar(id, &meta, epoch, stop.watch(SideHasher::default())))?;
        let found = (DiffId(hashed.out.into_inner().finish()), hashed.tar_bytes);
        self.remember_diff_id(id, &mut meta, epoch, &found, hashed.newest_s)?;
        Ok(found)
    }

    /// The layer as a blob in the store, made once and remembered by diff id. A layer that was pulled compressed stays what
    /// it was, whatever `compression` asks for: registries have it already.
    pub fn seal(
        &self,
        id: &SnapshotId,
        epoch: SystemTime,
        options: impl Into<LayerOptions>,
    ) -> Result<Descriptor, StoreError> {
        self.seal_or_stop(id, epoch, options.into(), Stop::NEVER)
    }

    /// As [`Store::seal`], unless it is stopped.
    pub fn seal_or_stop(
        &self,
        id: &SnapshotId,
        epoch: SystemTime,
        options: LayerOptions,
        stop: Stop<'_>,
    ) -> Result<Descriptor, StoreError> {
        stop.check()?;
        let mut meta = self.meta_of(id)?;
        if meta.meta.diff_id.is_none() && self.is_empty(id, &meta)? {
            // `RUN true`: known without a pass.
            self.diff_id(id, epoch)?;
            meta = self.meta_of(id)?;
        }
        if let Some((diff_id, _)) = self.known_diff_id(id, &meta, seconds(epoch)) {
            if let Some(known) = self.known_blob(&diff_id, options) {
                return Ok(known);
            }
            if let Some(made) = self.recompress(&diff_id, options, stop)? {
                return Ok(made);
            }
            if meta.is_unpacked {
                return Err(StoreError::LayerGone { diff_id });
            }
        }
        let out = stop.watch(self.both(options)?);
        let pass = stop.told(self.write_tar(id, &meta, epoch, out))?;
        let Both { hasher, blob } = pass.out.into_inner();
        let diff_id = DiffId(hasher.finish());
        self.remember_diff_id(id, &mut meta, epoch, &(diff_id.clone(), pass.tar_bytes), pass.newest_s)?;
        self.keep_blob(blob, &diff_id, pass.tar_bytes, options)
    }

    /// The latest file time of a sealed snapshot's layer in seconds since 1970, as the layer has it; `None` where nothing
    /// tells, because the layer came from an image.
    pub fn newest_time(&self, id: &SnapshotId, epoch: SystemTime) -> Result<Option<i64>, StoreError> {
        let meta = self.meta_of(id)?;
        Ok(meta.newest_s.filter(|_| !meta.is_unpacked).map(|newest_s| newest_s.min(seconds(epoch))))
    }

    /// Digest and size in bytes of a compressed blob of this layer that is there: the registry's own, or one made here.
    pub fn compressed_layer(&self, diff_id: &DiffId) -> Option<Descriptor> {
        let record = self.layer_record(diff_id)?;
        let is_there = |known: &&Known| {
            known.compression != Compression::None
                && self.has_blob(&known.descriptor.digest) == Some(known.descriptor.size)
        };
        record.all().find(is_there).map(|known| known.descriptor.clone())
    }

    /// A blob that holds this layer and is there.
    fn known_blob(&self, diff_id: &DiffId, options: LayerOptions) -> Option<Descriptor> {
        let record = self.layer_record(diff_id)?;
        let fits = |known: &&Known| {
            let is_pulled = record.pulled.as_ref() == Some(*known);
            // Forced means a compression of one kind, not of ours: what came that way may stay.
            let is_pulled_alike = is_pulled
                && (known.compression == options.compression
                    || (!options.force
                        && known.compression != Compression::None
                        && options.compression != Compression::None));
            (is_pulled_alike || (!is_pulled && known.is_made_as(options)))
                && self.has_blob(&known.descriptor.digest) == Some(known.descriptor.size)
        };
        record.all().find(fits).map(|known| known.descriptor.clone())
    }

    /// Makes another compression from a blob that is there. For unpacked layers that is the only way to the same diff id.
    fn recompress(
        &self,
        diff_id: &DiffId,
        options: LayerOptions,
        stop: Stop<'_>,
    ) -> Result<Option<Descriptor>, StoreError> {
        let Some(record) = self.layer_record(diff_id) else { return Ok(None) };
        for known in record.all() {
            let Some(blob) = self.open_blob(&known.descriptor.digest)? else { continue };
            let (_, mut plain) = archive::decompress(blob)?;
            let mut out = stop.watch(self.both(options)?);
            let copied = io::copy(&mut plain, &mut out);
            stop.check()?;
            let Both { hasher, blob } = out.into_inner();
            let actual = DiffId(hasher.finish());
            match copied {
                Ok(tar_bytes) if actual == *diff_id => {
                    return self.keep_blob(blob, diff_id, tar_bytes, options).map(Some);
                }
                Err(error) if crate::error::is_no_space(&error) => return Err(error.into()),
                // A corrupt one: the next may do.
                _ => self.check_blob(&known.descriptor.digest)?,
            }
        }
        Ok(None)
    }

    /// Hashes a blob that gave wrong content; a corrupt one is moved aside.
    fn check_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let Some(mut blob) = self.open_blob(digest)? else { return Ok(()) };
        let mut hasher = Hasher::new();
        io::copy(&mut blob, &mut hasher)?;
        let actual = hasher.finish();
        if actual != *digest {
            // The error is for whoever needs this very blob; here another source is tried.
            let _ = self.set_aside(digest, actual);
        }
        Ok(())
    }

    fn keep_blob(
        &self,
        blob: Compressor<crate::BlobWriter>,
        diff_id: &DiffId,
        tar_bytes: u64,
        options: LayerOptions,
    ) -> Result<Descriptor, StoreError> {
        let LayerOptions { compression, level, .. } = options;
        let (digest, size) = blob.finish()?.commit(None)?;
        let descriptor = Descriptor::new(compression.media_type(), digest, size);
        let mut record = self.layer_record(diff_id).unwrap_or_default();
        record.tar_bytes = tar_bytes;
        record.made.retain(|known| !known.is_made_as(options));
        record.made.push(Known::made(compression, level, descriptor.clone()));
        self.put_layer_record(diff_id, &record)?;
        Ok(descriptor)
    }

    pub(crate) fn both(&self, options: LayerOptions) -> Result<Both<crate::BlobWriter>, StoreError> {
        let blob = Compressor::new(self.blob_writer()?, options.compression, options.level)?;
        Ok(Both { hasher: SideHasher::default(), blob })
    }

    pub(crate) fn layer_record(&self, diff_id: &DiffId) -> Option<LayerRecord> {
        self.get_record(&self.layer_path(diff_id))
    }

    pub(crate) fn put_layer_record(&self, diff_id: &DiffId, record: &LayerRecord) -> Result<(), StoreError> {
        self.put_record(&self.layer_path(diff_id), record)
    }

    fn layer_path(&self, diff_id: &DiffId) -> std::path::PathBuf {
        self.path("layers").join(format!("{}.json", diff_id.0.hex()))
    }

    fn meta_of(&self, id: &SnapshotId) -> Result<MetaFile, StoreError> {
        self.meta_file(id)?.ok_or_else(|| StoreError::UnknownSnapshot(id.clone()))
    }

    fn is_empty(&self, id: &SnapshotId, meta: &MetaFile) -> Result<bool, StoreError> {
        if meta.is_full || meta.meta.over.is_some() {
            return Ok(false);
        }
        Ok(std::fs::read_dir(self.snapshot_fs(id)).is_ok_and(|mut entries| entries.next().is_none()))
    }

    fn remember_diff_id(
        &self,
        id: &SnapshotId,
        meta: &mut MetaFile,
        epoch: SystemTime,
        found: &(DiffId, u64),
        newest_s: i64,
    ) -> Result<(), StoreError> {
        if meta.is_unpacked {
            return Ok(());
        }
        if meta.meta.diff_id.is_some() && meta.epoch_s != Some(seconds(epoch)) {
            // Another epoch's is known, which images made with it go on asking for.
            let value = oci::to_json(&(&found.0, found.1));
            return self.memo_put(OTHER_EPOCHS, &epoch_key(id, seconds(epoch)), &value);
        }
        meta.meta.diff_id = Some(found.0.clone());
        meta.meta.tar_bytes = Some(found.1);
        meta.epoch_s = Some(seconds(epoch));
        meta.newest_s = Some(newest_s);
        self.put_meta_file(id, meta)
    }

    /// Writes a layer's uncompressed tar.
    pub(crate) fn write_layer_tar(
        &self,
        id: &SnapshotId,
        epoch: SystemTime,
        out: impl Write,
    ) -> Result<(), StoreError> {
        let meta = self.meta_of(id)?;
        let mut pass = self.write_tar(id, &meta, epoch, io::BufWriter::with_capacity(256 * 1024, out))?;
        Ok(pass.out.flush()?)
    }

    fn write_tar<W: Write>(
        &self,
        id: &SnapshotId,
        meta: &MetaFile,
        epoch: SystemTime,
        out: W,
    ) -> Result<TarPass<W>, StoreError> {
        let mut tar = TarWriter::new(out);
        let below = match &meta.meta.parent {
            Some(parent) => self.lowers(parent)?,
            None => Vec::new(),
        };
        let newest_s =
            diff::write_layer(&self.layer_fs(id, &meta.meta), &below, meta.is_full, seconds(epoch), &mut tar)?;
        let (out, tar_bytes) = tar.finish()?;
        Ok(TarPass { out, tar_bytes, newest_s })
    }
}

struct TarPass<W> {
    out: W,
    tar_bytes: u64,
    newest_s: i64,
}

impl Store {
    /// The diff id with this epoch, if it was found before.
    fn known_diff_id(&self, id: &SnapshotId, meta: &MetaFile, epoch_s: i64) -> Option<(DiffId, u64)> {
        known_diff_id(meta, epoch_s).or_else(|| {
            meta.meta.diff_id.as_ref()?;
            serde_json::from_slice(&self.memo_get(OTHER_EPOCHS, &epoch_key(id, epoch_s))?).ok()
        })
    }
}

/// Memo namespace: diff ids with other epochs than the first.
const OTHER_EPOCHS: &str = "diff-ids";

fn epoch_key(id: &SnapshotId, epoch_s: i64) -> String {
    format!("{id} {epoch_s}")
}

/// The diff id in the meta file, if it holds for this epoch.
fn known_diff_id(meta: &MetaFile, epoch_s: i64) -> Option<(DiffId, u64)> {
    let known = (meta.meta.diff_id.clone()?, meta.meta.tar_bytes?);
    let same = meta.is_unpacked
        || meta.epoch_s == Some(epoch_s)
        // No file is as new as either epoch: nothing was clamped.
        || meta.newest_s.is_some_and(|newest_s| newest_s <= epoch_s && Some(newest_s) <= meta.epoch_s);
    same.then_some(known)
}

/// Whole seconds since 1970; earlier is 1970, as tar headers have no sign.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Hashes and compresses the same bytes.
pub(crate) struct Both<W: Write> {
    pub(crate) hasher: SideHasher,
    pub(crate) blob: Compressor<W>,
}

impl<W: Write> Write for Both<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.blob.write(bytes)?;
        self.hasher.write_all(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
