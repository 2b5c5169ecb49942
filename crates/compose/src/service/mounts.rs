//! What a service sees beside its image's files: mounts, file systems in memory, files of configs and secrets.

use std::path::PathBuf;

use events::Place;
use oci::Reference;
use serde::Serialize;

use crate::is_default;

/// An entry of `volumes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mount {
    /// Where it stands.
    pub place: Option<Place>,
    /// What is shown.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, absolute.
    Bind {
        /// The path.
        path: PathBuf,
        /// Whether a missing directory is made first.
        create: bool,
    },
    /// A volume of [`Project::volumes`](crate::Project::volumes), by its key there.
    Volume {
        /// The key.
        name: String,
        /// Directory in the volume; `None`: its root.
        subpath: Option<String>,
        /// Whether a fresh volume stays empty rather than getting the image's files at the target.
        nocopy: bool,
    },
    /// A fresh volume of this container alone.
    Anonymous,
    /// The files of an image, read-only.
    Image {
        /// The image.
        image: Reference,
        /// Directory in the image; `None`: its root.
        subpath: Option<String>,
    },
}

/// A filesystem in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Size in bytes; `None`: the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: Option<u64>,
    /// Permission bits; `None`: 1777.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<u32>,
    /// Further mount options, as written (`uid=1000`, `noexec`).
    #[serde(skip_serializing_if = "is_default")]
    pub options: Vec<String>,
}

/// An entry of `configs` or `secrets`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FileGrant {
    /// Key in [`Project::configs`](crate::Project::configs) or [`Project::secrets`](crate::Project::secrets).
    pub source: String,
    /// Absolute path in the container: `/<source>`, or `/run/secrets/<source>` for secrets; in `build.secrets`, the id.
    pub target: String,
    /// Owner; `None`: the container's user.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: Option<u32>,
    /// Group; `None`: the container's user's.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: Option<u32>,
    /// Permission bits; `None`: 0444.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<u32>,
}
