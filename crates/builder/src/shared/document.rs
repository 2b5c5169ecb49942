//! What a place has, as JSON. The blobs that it speaks of lie beside it.

use std::collections::BTreeMap;

use oci::{Descriptor, DiffId, Digest, media_type};
use serde::{Deserialize, Serialize};

/// Raised when a reader of this form would misread a newer one.
const VERSION: u32 = 1;
/// A large monorepo has some hundred steps; each takes about a kilobyte here.
const STEPS_MAX: usize = 100_000;
/// Layers and mounts beyond this are no honest document either.
const BLOBS_MAX: usize = 100_000;

/// Records of steps with the layers that they made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Form of the document.
    pub version: u32,
    /// Steps, each after those that it was made on.
    pub steps: Vec<DocumentStep>,
    /// Layers, by position.
    pub layers: Vec<DocumentLayer>,
    /// What a COPY from a stage or image took: digest of the question to digest of the files.
    #[serde(default)]
    pub selections: BTreeMap<Digest, Digest>,
    /// Cache mounts.
    #[serde(default)]
    pub mounts: Vec<DocumentMount>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DocumentStep {
    /// Its cache key.
    pub key: Digest,
    /// The parts of the key, as (what, value).
    #[serde(default)]
    pub parts: Vec<(String, String)>,
    /// What making it took, in milliseconds.
    #[serde(default)]
    pub made_ms: u64,
    /// What else came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Position of the layer that it made; `None` when the file system stayed as it was.
    pub layer: Option<usize>,
}

/// One layer, to be unpacked on the layers of the step below.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob that holds it.
    pub blob: Descriptor,
    /// Its latest file time, in seconds since 1970.
    #[serde(default)]
    pub newest_s: Option<i64>,
}

/// The content of a cache mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentMount {
    /// The mount's name in every store: it follows from its id and owner.
    pub name: String,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob that holds it.
    pub blob: Descriptor,
}

/// The document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// Written by a newer program.
    #[error("it has version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// More than an honest document has.
    #[error("it lists more than {0} {1}")]
    TooMany(usize, &'static str),
    /// It speaks of a layer that it does not list.
    #[error("it speaks of layer {0}, which it does not list")]
    NoLayer(usize),
    /// A blob that is no layer.
    #[error("{0} is no media type of a layer")]
    MediaType(String),
}

impl Default for Document {
    fn default() -> Self {
        let (steps, layers, selections, mounts) = Default::default();
        Self { version: VERSION, steps, layers, selections, mounts }
    }
}

impl Document {
    /// Whether everything in it can be followed.
    ///
    /// # Errors
    /// It is of another version, out of bounds, or contradicts itself.
    pub fn check(&self) -> Result<(), InvalidDocument> {
        if self.version != VERSION {
            return Err(InvalidDocument::Version(self.version));
        }
        if self.steps.len().max(self.selections.len()) > STEPS_MAX {
            return Err(InvalidDocument::TooMany(STEPS_MAX, "steps"));
        }
        if self.layers.len().max(self.mounts.len()) > BLOBS_MAX {
            return Err(InvalidDocument::TooMany(BLOBS_MAX, "layers"));
        }
        let mut listed = self.steps.iter().filter_map(|step| step.layer);
        if let Some(unknown) = listed.find(|layer| *layer >= self.layers.len()) {
            return Err(InvalidDocument::NoLayer(unknown));
        }
        let blobs = self.layers.iter().map(|layer| &layer.blob).chain(self.mounts.iter().map(|mount| &mount.blob));
        let is_layer = |kind: &str| matches!(kind, media_type::LAYER | media_type::LAYER_GZIP | media_type::LAYER_ZSTD);
        match blobs.map(|blob| &blob.media_type).find(|kind| !is_layer(kind)) {
            Some(foreign) => Err(InvalidDocument::MediaType(foreign.clone())),
            None => Ok(()),
        }
    }
}
