//! How layers and manifests are written, as a caller asks for it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use oci::media_type;
use serde::{Deserialize, Serialize};

use crate::{Compression, StoreError};

/// How the manifest of an image is written. The same image with the same options has the same digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestOptions {
    /// How layers made here are compressed.
    pub compression: Compression,
    /// Level of the compression; `None` is the usual one (gzip 6, zstd 3).
    #[serde(default)]
    pub level: Option<u8>,
    /// Layers that came compressed from elsewhere are compressed anew, where they are compressed otherwise.
    #[serde(default)]
    pub force: bool,
    /// Media types of docker's schema 2 instead of the image-spec's.
    #[serde(default)]
    pub docker_types: bool,
    /// Annotations of the manifest.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl From<Compression> for ManifestOptions {
    fn from(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }
}

impl ManifestOptions {
    /// Whether a manifest that came with the image may stand for one of these.
    pub(crate) fn takes_pulled(&self) -> bool {
        self.level.is_none() && !self.force && !self.docker_types && self.annotations.is_empty()
    }

    /// How one layer is written.
    pub(crate) fn layer(&self) -> LayerOptions {
        LayerOptions { compression: self.compression, level: self.level, force: self.force }
    }
}

/// How one layer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// Level of the compression; `None` is the usual one.
    pub level: Option<u8>,
    /// Also a layer that came compressed from elsewhere.
    pub force: bool,
}

impl From<Compression> for LayerOptions {
    fn from(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }
}

impl From<&ManifestOptions> for LayerOptions {
    fn from(options: &ManifestOptions) -> Self {
        options.layer()
    }
}

impl Compression {
    /// Levels that it takes.
    pub fn levels(self) -> std::ops::RangeInclusive<u8> {
        match self {
            Self::None => 0..=0,
            Self::Gzip => 0..=9,
            // As zstd's own tools; BuildKit takes the same.
            Self::Zstd => 0..=22,
        }
    }
}

/// Docker's name of a media type of the image-spec.
pub(crate) fn docker_type(kind: &str) -> &str {
    match kind {
        media_type::MANIFEST => media_type::DOCKER_MANIFEST,
        media_type::INDEX => media_type::DOCKER_MANIFEST_LIST,
        media_type::CONFIG => media_type::DOCKER_CONFIG,
        media_type::LAYER => media_type::DOCKER_LAYER,
        media_type::LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
        media_type::LAYER_ZSTD => media_type::DOCKER_LAYER_ZSTD,
        other => other,
    }
}

/// Asked now and then by long work, which ends with [`StoreError::Stopped`] once the answer is yes.
#[derive(Clone, Copy)]
pub struct Stop<'a>(&'a (dyn Fn() -> bool + Sync));

impl<'a> Stop<'a> {
    /// Goes on to the end.
    pub const NEVER: Stop<'static> = Stop(&|| false);

    /// Stops when `is_stopped` says so. It is asked for each piece of some kilobytes, from several threads.
    pub fn when(is_stopped: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self(is_stopped)
    }

    /// Between two pieces of work.
    ///
    /// # Errors
    /// [`StoreError::Stopped`].
    pub fn check(self) -> Result<(), StoreError> {
        if (self.0)() { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Work that was stopped failed for that reason, whatever the error says on its way up.
    pub(crate) fn told<T>(self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.map_err(|error| if (self.0)() { StoreError::Stopped } else { error })
    }

    /// A writer that fails once the work is to stop.
    pub(crate) fn watch<W: Write>(self, out: W) -> Watched<'a, W> {
        Watched { out, stop: self }
    }
}

/// See [`Stop::watch`].
pub(crate) struct Watched<'a, W> {
    out: W,
    stop: Stop<'a>,
}

impl<W> Watched<'_, W> {
    pub(crate) fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.stop.0)() {
            return Err(io::Error::other("it was stopped"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
