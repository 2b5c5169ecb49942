//! Layers of images as snapshots: verified while they are unpacked, found again by their chain.

use std::{
    io::{self, Read},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use oci::{ChainId, Descriptor, DiffId, Digest, Hasher};

use crate::{
    ActiveSnapshot, Scope, Skipped, SnapshotId, Store, StoreError,
    archive::{self, Format},
    arrivals::{Arrivals, Arriving},
    error::is_no_space,
    seal::LayerRecord,
    tree,
    unpack::{EntryError, Unpacker},
};

/// Unpacking runs this many pieces behind decompression at most.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;

/// A layer could not become a snapshot. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack layer {layer}")]
pub struct ApplyError {
    /// Digest of the blob.
    pub layer: Digest,
    /// Why not.
    #[source]
    pub kind: ApplyErrorKind,
}

/// Why a layer could not become a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ApplyErrorKind {
    /// The blob has to be fetched first.
    #[error("its blob is not in the store")]
    MissingBlob,
    /// The blob's bytes are not what its digest says; it was moved aside.
    #[error("its bytes are corrupt")]
    Corrupt(#[source] StoreError),
    /// The config lists another diff id than the layer has.
    #[error("its uncompressed bytes have {actual} where the image config says {expected}")]
    DiffId {
        /// In the config.
        expected: DiffId,
        /// What was unpacked.
        actual: DiffId,
    },
    /// The archive is malformed or hostile, or the file system failed.
    #[error("its archive cannot be unpacked")]
    Entry(#[from] EntryError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Reading the blob failed, or its compression is broken.
    #[error("its blob cannot be read")]
    Read(#[source] io::Error),
}

impl ApplyError {
    /// Whether the cause is a full disk or an exhausted quota.
    pub fn is_no_space(&self) -> bool {
        is_no_space(self)
    }
}

impl Store {
    /// Unpacks a layer (gzip, zstd or plain, by its content) onto `parent`, whose chain is `parent_chain`. A snapshot of the
    /// same chain is found first. The blob's digest and size and the `diff_id` are checked before anything is kept.
    pub fn apply_layer(
        &self,
        scope: &Scope,
        parent: Option<&SnapshotId>,
        parent_chain: Option<&ChainId>,
        layer: &Descriptor,
        diff_id: &DiffId,
    ) -> Result<SnapshotId, ApplyError> {
        self.apply_layer_from(scope, None, parent, parent_chain, layer, diff_id)
    }

    /// As [`Store::apply_layer`], for a layer that may be on its way still.
    pub(crate) fn apply_layer_from(
        &self,
        scope: &Scope,
        arrivals: Option<&Arrivals>,
        parent: Option<&SnapshotId>,
        parent_chain: Option<&ChainId>,
        layer: &Descriptor,
        diff_id: &DiffId,
    ) -> Result<SnapshotId, ApplyError> {
        let fail = |kind| ApplyError { layer: layer.digest.clone(), kind };
        let chain = ChainId::extend(parent_chain, diff_id);
        if let Some(known) = self.leased_chain(scope, &chain) {
            return Ok(known);
        }
        let arriving = arrivals.map(|arrivals| arrivals.open(&layer.digest)).transpose();
        let arriving = arriving.map_err(|error| fail(ApplyErrorKind::Read(error)))?.flatten();
        let unpacked = self.unpack_layer(scope, arriving, parent, layer, diff_id, LayerRecord::add_pulled);
        let mut active = unpacked.map_err(fail)?;
        active.meta.meta.chain_id = Some(chain.clone());
        active.meta.is_unpacked = true;
        let snapshot = active.commit().map_err(|error| fail(error.into()))?;
        let path = self.chain_path(&chain);
        self.put_record(&path, &snapshot).map_err(|error| fail(error.into()))?;
        Ok(snapshot)
    }

    /// Unpacks a layer of a step that another store made, onto `parent`, as the snapshot `id`. Checked as in
    /// [`Store::apply_layer`]. `newest_s`, its latest file time, says whether an epoch changes it.
    pub fn apply_shared_layer(
        &self,
        scope: &Scope,
        id: &SnapshotId,
        parent: Option<&SnapshotId>,
        layer: &Descriptor,
        diff_id: &DiffId,
        newest_s: Option<i64>,
    ) -> Result<(), ApplyError> {
        let fail = |kind| ApplyError { layer: layer.digest.clone(), kind };
        let mut active = self.unpack_layer(scope, None, parent, layer, diff_id, LayerRecord::add_made).map_err(fail)?;
        // The same store's own step would look like this, unless something had to be left out here.
        let is_whole = active.meta.meta.skipped == Skipped::default();
        active.meta.is_unpacked = !is_whole || newest_s.is_none();
        active.meta.newest_s = newest_s;
        active.meta.epoch_s = newest_s;
        active.commit_as(id.clone()).map(drop).map_err(|error| fail(error.into()))
    }

    /// The snapshot of a chain of layers, leased for the scope.
    fn leased_chain(&self, scope: &Scope, chain: &ChainId) -> Option<SnapshotId> {
        let known: SnapshotId = self.get_record(&self.chain_path(chain))?;
        self.meta_file(&known).ok()??;
        scope.lease(&known).ok()?;
        Some(known)
    }

    fn chain_path(&self, chain: &ChainId) -> std::path::PathBuf {
        self.path("chains").join(chain.0.hex())
    }

    fn unpack_layer(
        &self,
        scope: &Scope,
        arriving: Option<Arriving<'_>>,
        parent: Option<&SnapshotId>,
        layer: &Descriptor,
        diff_id: &DiffId,
        note: impl FnOnce(&mut LayerRecord, Descriptor, Format, u64),
    ) -> Result<ActiveSnapshot, ApplyErrorKind> {
        let source = match arriving {
            Some(arriving) => Source::Arriving(arriving),
            None => Source::Stored(self.open_blob(&layer.digest)?.ok_or(ApplyErrorKind::MissingBlob)?),
        };
        // It is open, so its bytes stay; the lease keeps its name for whoever pushes it later.
        let _ = scope.lease_blob(&layer.digest);
        let mut active = self.prepare(scope, parent)?;
        let root = tree::open_dir(active.upper())?;
        let unpacker = Unpacker::new(root, active.view()?, self.inner.options, active.meta.is_full);
        let read = self.read_checked(source, unpacker, layer, diff_id)?;
        active.meta.meta.diff_id = Some(read.diff_id);
        active.meta.meta.tar_bytes = Some(read.tar_bytes);
        active.meta.meta.skipped = read.skipped;
        self.update_layer(diff_id, |record| note(record, layer.clone(), read.format, read.tar_bytes))?;
        Ok(active)
    }

    /// Unpacks a blob and checks everything that was said of it.
    pub(crate) fn read_checked(
        &self,
        source: Source<'_>,
        unpacker: Unpacker,
        layer: &Descriptor,
        diff_id: &DiffId,
    ) -> Result<Unpacked, ApplyErrorKind> {
        let read = read_layer(source, |source| unpacker.unpack(source))?;
        if let Some((actual, actual_bytes)) = read.blob
            && (&actual, actual_bytes) != (&layer.digest, layer.size)
        {
            let moved = if actual == layer.digest {
                let (expected, expected_bytes) = (layer.digest.clone(), layer.size);
                StoreError::Mismatch { expected, expected_bytes, actual, actual_bytes }
            } else {
                self.set_aside(&layer.digest, actual)
            };
            return Err(ApplyErrorKind::Corrupt(moved));
        }
        // Only now: the broken entry of a corrupt blob is not the story.
        let skipped = read.outcome?;
        if read.diff_id != *diff_id {
            return Err(ApplyErrorKind::DiffId { expected: diff_id.clone(), actual: read.diff_id });
        }
        Ok(Unpacked { skipped, diff_id: read.diff_id, tar_bytes: read.tar_bytes, format: read.format })
    }

    fn update_layer(&self, diff_id: &DiffId, change: impl FnOnce(&mut LayerRecord)) -> Result<(), StoreError> {
        let mut record = self.layer_record(diff_id).unwrap_or_default();
        change(&mut record);
        self.put_layer_record(diff_id, &record)
    }
}

/// A blob that was unpacked and is what was said of it.
pub(crate) struct Unpacked {
    skipped: Skipped,
    diff_id: DiffId,
    tar_bytes: u64,
    format: Format,
}

/// What a pass over a layer's blob showed.
struct Pass {
    outcome: Result<Skipped, EntryError>,
    /// Digest and size of a stored blob; one that arrived was checked by whoever brought it.
    blob: Option<(Digest, u64)>,
    diff_id: DiffId,
    tar_bytes: u64,
    format: Format,
}

/// Where a layer's blob is read from.
pub(crate) enum Source<'a> {
    Stored(std::fs::File),
    Arriving(Arriving<'a>),
}

/// Reads and decompresses a blob beside `unpack`, hashing both forms to their ends.
fn read_layer(
    source: Source<'_>,
    unpack: impl FnOnce(&mut Pieces) -> Result<Skipped, EntryError>,
) -> Result<Pass, ApplyErrorKind> {
    let source = HashingReader { source, hasher: Hasher::new() };
    let (sender, receiver) = mpsc::sync_channel(PIECES_MAX);
    thread::scope(|threads| {
        let reader = threads.spawn(move || feed(source, &sender));
        let mut pieces = Pieces { receiver, piece: Vec::new(), at: 0, hasher: Hasher::new() };
        let outcome = unpack(&mut pieces);
        let Pieces { receiver, hasher: plain, .. } = pieces;
        // After a bad entry the reader stops to decompress (it may be a bomb) and only hashes the rest of the blob, to tell
        // a corrupt blob from a bad archive.
        drop(receiver);
        let (format, blob) = reader.join().expect("the reading thread does not panic").map_err(ApplyErrorKind::Read)?;
        let tar_bytes = plain.length_bytes();
        let blob = blob.map(|hasher| (hasher.length_bytes(), hasher.finish())).map(|(bytes, digest)| (digest, bytes));
        Ok(Pass { outcome, blob, diff_id: DiffId(plain.finish()), tar_bytes, format })
    })
}

/// Sends the decompressed blob in pieces until it ends or nobody wants more; then reads on to the blob's end.
/// Gives the hasher of a stored blob.
fn feed(
    mut source: HashingReader<'_>,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<(Format, Option<Hasher>)> {
    let (format, mut plain) = archive::decompress(&mut source)?;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = plain.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_end = piece.is_empty() || read.is_err();
        if !piece.is_empty() && pieces.send(Ok(piece)).is_err() {
            break;
        }
        if let Err(error) = read {
            // Nobody may be left to hear it.
            let _ = pieces.send(Err(error));
        }
        if is_end {
            break;
        }
    }
    drop(plain);
    io::copy(&mut source, &mut io::sink())?;
    Ok((format, matches!(source.source, Source::Stored(_)).then_some(source.hasher)))
}

/// Hashes what is read of a stored blob.
struct HashingReader<'a> {
    source: Source<'a>,
    hasher: Hasher,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Arriving(arriving) => arriving.read(buffer),
            Source::Stored(file) => {
                let read = file.read(buffer)?;
                self.hasher.update(&buffer[..read]);
                Ok(read)
            }
        }
    }
}

/// The decompressed blob as it comes from the other thread.
pub(crate) struct Pieces {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    hasher: Hasher,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            self.piece = match self.receiver.recv() {
                Ok(piece) => piece?,
                Err(_) => return Ok(0),
            };
            self.hasher.update(&self.piece);
            self.at = 0;
        }
        let read = buffer.len().min(self.piece.len() - self.at);
        buffer[..read].copy_from_slice(&self.piece[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}
