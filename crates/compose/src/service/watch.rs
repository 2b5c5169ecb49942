//! What is done about changes of files (`develop.watch`).

use std::path::PathBuf;

use events::Place;
use serde::Serialize;

use crate::{Hook, is_default};

/// An entry of `develop.watch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchRule {
    /// Where it stands.
    pub place: Option<Place>,
    /// File or directory on the host, absolute.
    pub path: PathBuf,
    /// What is done about a change.
    pub action: WatchAction,
    /// Patterns as in `.dockerignore`, relative to `path`.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore: Vec<String>,
    /// Only what matches one of these; empty: everything.
    #[serde(skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    /// Whether files are synchronised once at the start.
    #[serde(skip_serializing_if = "is_default")]
    pub initial_sync: bool,
}

/// What is done about a change; `target` is the absolute path in the container that `path` is copied to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchAction {
    /// The image is built again and the container replaced.
    Rebuild,
    /// The container is restarted.
    Restart,
    /// Files are copied into the container.
    Sync {
        /// Path in the container.
        target: String,
    },
    /// As `Sync`, then the container is restarted.
    SyncRestart {
        /// Path in the container.
        target: String,
    },
    /// As `Sync`, then a command runs in the container.
    SyncExec {
        /// Path in the container.
        target: String,
        /// The command.
        exec: Box<Hook>,
    },
}
