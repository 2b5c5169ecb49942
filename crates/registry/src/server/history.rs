//! Retention by Git history: images of commits that named branches and tags reach.

use std::{collections::HashSet, io, path::PathBuf, process::Command};

use oci::{ImageConfig, ManifestOrIndex};

use super::storage::{RepositoryName, Storage, content};

/// The label and annotation that names an image's commit (image-spec, "Pre-Defined Annotation Keys").
const REVISION: &str = "org.opencontainers.image.revision";
/// Shorter texts of hex digits are words and numbers as often as commits.
const COMMIT_DIGITS_MIN: usize = 7;
/// Commits that are looked at; the largest histories have some millions.
const COMMITS_MAX: usize = 10_000_000;
/// Configs have some ten kilobytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A Git repository whose commits decide what stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHistory {
    /// Its directory, bare or not.
    pub repository: PathBuf,
    /// Full names of branches and tags that count, with `*` across their parts: `refs/heads/main`, `refs/tags/*`.
    pub refs: Vec<String>,
}

/// Commits that are reached, sorted.
pub(super) struct Commits(Vec<String>);

impl GitHistory {
    /// Asks Git. That a pattern matches nothing is no error; that Git cannot be asked is.
    pub(super) fn commits(&self) -> io::Result<Commits> {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.repository).args(["for-each-ref", "--format=%(refname)", "--"]).args(&self.refs);
        let names = run(git)?;
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.repository).args(["rev-list", "--ignore-missing"]);
        git.arg(format!("--max-count={COMMITS_MAX}")).args(names.lines()).arg("--");
        if names.is_empty() {
            return Ok(Commits(Vec::new()));
        }
        let mut commits: Vec<String> = run(git)?.lines().map(str::to_owned).collect();
        commits.sort_unstable();
        Ok(Commits(commits))
    }
}

fn run(mut git: Command) -> io::Result<String> {
    let output = git.env("LC_ALL", "C").stdin(std::process::Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("git: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Commits {
    /// Whether a commit, perhaps shortened, is reached.
    fn has(&self, commit: &str) -> bool {
        let at = self.0.partition_point(|known| known.as_str() < commit);
        self.0.get(at).is_some_and(|known| known.starts_with(commit))
    }

    /// Whether a tag is named after a commit that is reached: all of it, or a part between `-`, `_` and `.`.
    pub(super) fn names(&self, tag: &str) -> bool {
        let is_commit = |part: &&str| {
            (COMMIT_DIGITS_MIN..=64).contains(&part.len())
                && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        tag.split(['-', '_', '.']).filter(is_commit).any(|part| self.has(part))
    }
}

impl Storage {
    /// Whether an image says that it was made of a commit that is reached. An index is asked by its first image as well.
    pub(super) fn is_of_commit(
        &self,
        name: &RepositoryName,
        digest: &oci::Digest,
        commits: &Commits,
    ) -> io::Result<bool> {
        let mut open = vec![digest.clone()];
        let mut seen = HashSet::new();
        while let Some(digest) = open.pop() {
            let Some(kept) = self.manifest(name, &digest)? else { continue };
            let Ok(document) = ManifestOrIndex::parse(&kept.bytes) else { continue };
            let told = document.annotations().get(REVISION).cloned();
            let told = match &document {
                ManifestOrIndex::Index(index) => {
                    if seen.is_empty() {
                        open.extend(index.manifests.first().map(|part| part.digest.clone()));
                    }
                    told
                }
                ManifestOrIndex::Manifest(manifest) => told.or(self.label(name, &manifest.config)?),
            };
            if told.is_some_and(|commit| commit.len() >= COMMIT_DIGITS_MIN && commits.has(&commit)) {
                return Ok(true);
            }
            seen.insert(digest);
        }
        Ok(false)
    }

    fn label(&self, name: &RepositoryName, config: &oci::Descriptor) -> io::Result<Option<String>> {
        if config.size > CONFIG_BYTES_MAX
            || self.backend.stat(&super::storage::blob_link(name, &config.digest))?.is_none()
        {
            return Ok(None);
        }
        let bytes = self.backend.read(&content(&config.digest))?.unwrap_or_default();
        let config: Option<ImageConfig> = serde_json::from_slice(&bytes).ok();
        Ok(config.and_then(|config| config.config.labels.get(REVISION).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_named_after_commits() {
        let commits = Commits(vec!["0123456789abcdef0123456789abcdef01234567".into(), "fe".repeat(20)]);
        for (tag, is_reached) in [
            ("0123456789abcdef0123456789abcdef01234567", true),
            ("0123456", true),
            ("sha-0123456789ab", true),
            ("main_fefefefe.amd64", true),
            ("012345", false),
            ("0123457", false),
            ("latest", false),
            ("1.2.3", false),
        ] {
            assert_eq!(commits.names(tag), is_reached, "{tag}");
        }
    }
}
