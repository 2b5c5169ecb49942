//! `${git.sha}`, `${version}`, `${VAR:-default}` in values of the pipeline file; never in command text.

use std::collections::BTreeMap;

use crate::Version;

/// What templates are filled in with.
#[derive(Clone, Debug)]
pub struct Values {
    /// `git.sha`.
    pub git_sha: Option<String>,
    /// `git.short`.
    pub git_short: Option<String>,
    /// `git.branch`.
    pub git_branch: Option<String>,
    /// `git.tag`.
    pub git_tag: Option<String>,
    /// `version`.
    pub version: Version,
    /// `run.number`.
    pub run_number: Option<u64>,
    /// Everything else.
    pub env: BTreeMap<String, String>,
}
