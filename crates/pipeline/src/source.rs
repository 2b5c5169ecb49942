//! What Git and the CI system say about the source.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// Where the source comes from. Everything is optional: a directory without Git is fine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Top of the Git work tree.
    pub root: Option<PathBuf>,
    /// The commit, in full.
    pub sha: Option<String>,
    /// Git's own abbreviation of it, seven digits or more.
    pub short: Option<String>,
    /// The branch; with a detached HEAD what the CI system says.
    pub branch: Option<String>,
    /// The Git tag at the commit; of several the highest version.
    pub tag: Option<String>,
    /// `git describe --tags`.
    pub describe: Option<String>,
    /// Tracked files differ from the commit.
    pub is_dirty: bool,
    /// Time of the commit.
    pub commit_time: Option<SystemTime>,
    /// What happened to the repository.
    pub event: SourceEvent,
    /// Files that the commit changed, relative to the root; `None` until [`changed_paths`] was asked.
    pub changed: Option<Vec<String>>,
    /// Things that the user should know, such as Git refusing the directory.
    pub warnings: Vec<String>,
}

/// Why the pipeline runs, in Woodpecker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceEvent {
    /// A branch; also every run by hand.
    #[default]
    Push,
    /// A Git tag.
    Tag,
    /// A change request: never published.
    PullRequest,
}

/// Asks Git (two processes side by side) and the CI system's variables. Never fails: what cannot be known is `None`, with
/// a warning where that is a surprise.
pub fn read_source(directory: &Path, env: &BTreeMap<String, String>) -> Source {
    let _ = (directory, env);
    Source::default()
}

/// Files that the commit changed against its first parent. One Git process; asked only when a rule has `path`.
pub fn changed_paths(root: &Path) -> Option<Vec<String>> {
    let _ = root;
    None
}
