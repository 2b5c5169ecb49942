//! Rules for repositories: tags that never change, tags that only move forward, what is kept, how much room there is.

use std::{cmp::Ordering, fmt, io, time::Duration};

use globset::{GlobBuilder, GlobMatcher};
use oci::Digest;

use super::{GitHistory, tags::TagView};
use crate::{Judgement, Ordered, TagState, forward::reads_as_moving, judge_tag};

/// Rules of a server. The first entry whose pattern matches a repository is the one that applies to it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Rules by repository, in order.
    pub repositories: Vec<RepositoryRules>,
    /// Largest size of all content together, in bytes.
    pub bytes_max: Option<u64>,
}

/// Rules of the repositories that a pattern matches.
#[derive(Clone, Debug)]
pub struct RepositoryRules {
    /// Which repositories.
    pub repositories: Pattern,
    /// Tags that stay what they are once they are written.
    pub immutable: Vec<Pattern>,
    /// `latest`, `1` and `1.2` never go back to a lower version than one that the repository has (by SemVer, or by PEP 440).
    pub is_forward_only: bool,
    /// Largest size of the repository's blobs together, in bytes.
    pub bytes_max: Option<u64>,
    /// What garbage collection leaves of its tags; `None` for all.
    pub retention: Option<Retention>,
}

/// Which tags stay. One that any of these speaks for stays; so does each manifest that a tag, an index or a subject that
/// stays refers to.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// Tags that may expire; empty for all of them.
    pub tags: Vec<Pattern>,
    /// So many stay, the youngest.
    pub last: usize,
    /// Those written within this time stay.
    pub younger_than: Option<Duration>,
    /// Those pulled within this time stay.
    pub pulled_within: Option<Duration>,
    /// Images of commits that a Git repository's branches and tags reach stay.
    pub history: Option<GitHistory>,
    /// Manifests that no tag and nothing else names are removed after this time; `None`: never.
    pub untagged_after: Option<Duration>,
}

/// A pattern for names: `*` within one part of a path, `**` across parts, `?`, `[a-z]`, `{a,b}`.
#[derive(Clone)]
pub struct Pattern(GlobMatcher);

/// The text is no pattern.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{0}` is not a pattern")]
pub struct InvalidPattern(pub String);

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(|glob| Self(glob.compile_matcher())).map_err(|_| InvalidPattern(text.to_owned()))
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    /// Whether it is the pattern that every name fits.
    pub(super) fn matches_all(&self) -> bool {
        self.0.glob().glob() == "**"
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

/// Why a tag was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("tag `{tag}` is immutable here (pattern `{pattern}`) and names {current}")]
    Immutable { tag: String, pattern: String, current: Digest },
    #[error("tag `{tag}` is immutable here (pattern `{pattern}`)")]
    Delete { tag: String, pattern: String },
    #[error("tag `{tag}` only moves forward here: {reason}")]
    Backward { tag: String, reason: String },
}

impl Rules {
    /// The rules of a repository.
    pub(super) fn of(&self, repository: &str) -> Option<&RepositoryRules> {
        self.repositories.iter().find(|rules| rules.repositories.matches(repository))
    }
}

impl RepositoryRules {
    fn immutable(&self, tag: &str) -> Option<String> {
        self.immutable.iter().find(|pattern| pattern.matches(tag)).map(|pattern| format!("{pattern:?}"))
    }

    pub(super) fn forbids_delete(&self, tag: &str) -> Option<Denied> {
        self.immutable(tag).map(|pattern| Denied::Delete { tag: tag.to_owned(), pattern })
    }
}

/// Whether `tags` may be set to a digest. `annotated` is the version that the manifest itself tells.
pub(super) fn judge(
    rules: &RepositoryRules,
    tags: &[String],
    digest: &Digest,
    annotated: Option<&str>,
    view: &TagView<'_>,
) -> io::Result<Result<(), Denied>> {
    for tag in tags {
        if let Some(pattern) = rules.immutable(tag)
            && let Some(current) = view.names(tag)?
            && current != *digest
        {
            return Ok(Err(Denied::Immutable { tag: tag.clone(), pattern, current }));
        }
    }
    if !rules.is_forward_only || !tags.iter().any(|tag| reads_as_moving(tag, None)) {
        return Ok(Ok(()));
    }
    let all = view.all()?;
    let Some(version) = version_of(tags, digest, annotated, &all, view)? else {
        // An image that no version is known of cannot be judged.
        return Ok(Ok(()));
    };
    for tag in tags.iter().filter(|tag| reads_as_moving(tag, Some(&version))) {
        let now = view.names(tag)?.map(|digest| TagState { digest, version: None });
        if let Judgement::Stays(reason) = judge_tag(tag, digest, Some(&version), now.as_ref(), &all) {
            return Ok(Err(Denied::Backward { tag: tag.clone(), reason }));
        }
    }
    Ok(Ok(()))
}

/// The version that an image tells of itself; else the highest that a tag of this request says, or one that it has already.
fn version_of(
    tags: &[String],
    digest: &Digest,
    annotated: Option<&str>,
    all: &[String],
    view: &TagView<'_>,
) -> io::Result<Option<Ordered>> {
    let told = annotated.and_then(Ordered::parse);
    let told = told.or_else(|| tags.iter().filter_map(|tag| Ordered::whole(tag)).reduce(higher));
    if told.is_some() {
        return Ok(told);
    }
    let mut highest = None;
    for (tag, version) in all.iter().filter_map(|tag| Some((tag, Ordered::whole(tag)?))) {
        if view.names(tag)?.as_ref() == Some(digest) {
            highest = Some(highest.map_or_else(|| version.clone(), |known| higher(known, version.clone())));
        }
    }
    Ok(highest)
}

fn higher(one: Ordered, other: Ordered) -> Ordered {
    if one.compare(&other).is_some_and(Ordering::is_lt) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_within_a_part() {
        let pattern = Pattern::parse("team/*").unwrap();
        assert!(pattern.matches("team/app"));
        assert!(!pattern.matches("team/app/x"));
        assert!(Pattern::parse("**").unwrap().matches("team/app/x"));
        assert!(Pattern::parse("[").is_err());
    }
}
