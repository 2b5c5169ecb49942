//! Rules for repositories: tags that never change, tags that only move forward, what is kept, how much room there is.

use std::{fmt, io, time::Duration};

use globset::{GlobBuilder, GlobMatcher};
use oci::Digest;
use semver::Version;

use super::{GitHistory, tags::TagView};

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
    /// `latest`, `1` and `1.2` never go back to a lower version than one that the repository has (SemVer's order).
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
    #[error("tag `{tag}` would move back to {to}: the repository has {newest}")]
    Backward { tag: String, to: Version, newest: Version },
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
    let moving: Vec<(&String, Family)> = tags.iter().filter_map(|tag| Some((tag, Family::of(tag)?))).collect();
    if !rules.is_forward_only || moving.is_empty() {
        return Ok(Ok(()));
    }
    let all = view.all()?;
    let Some(version) = version_of(tags, digest, annotated, &all, view)? else {
        // An image that no version is known of cannot be judged.
        return Ok(Ok(()));
    };
    for (tag, family) in moving {
        let newest = all.iter().filter_map(|tag| full_version(tag)).filter(|known| family.has(known)).max();
        if let Some(newest) = newest.filter(|newest| *newest > version) {
            return Ok(Err(Denied::Backward { tag: tag.clone(), to: version, newest }));
        }
    }
    Ok(Ok(()))
}

/// The highest version that an image is known by: a tag of this request, its annotation, or a tag that it has already.
fn version_of(
    tags: &[String],
    digest: &Digest,
    annotated: Option<&str>,
    all: &[String],
    view: &TagView<'_>,
) -> io::Result<Option<Version>> {
    let told = tags.iter().map(String::as_str).chain(annotated).filter_map(full_version).max();
    if told.is_some() {
        return Ok(told);
    }
    let mut highest = None;
    for tag in all {
        if let Some(version) = full_version(tag)
            && highest.as_ref().is_none_or(|highest| version > *highest)
            && view.names(tag)?.as_ref() == Some(digest)
        {
            highest = Some(version);
        }
    }
    Ok(highest)
}

/// The versions that a moving tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    All,
    Major(u64),
    Minor(u64, u64),
}

impl Family {
    fn of(tag: &str) -> Option<Self> {
        if tag == "latest" {
            return Some(Self::All);
        }
        let mut parts = tag.strip_prefix('v').unwrap_or(tag).split('.');
        let number = |text: &str| -> Option<u64> {
            (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
        };
        match (number(parts.next()?)?, parts.next().map(number), parts.next()) {
            (major, None, None) => Some(Self::Major(major)),
            (major, Some(Some(minor)), None) => Some(Self::Minor(major, minor)),
            _ => None,
        }
    }

    /// A version before its release holds nothing back.
    fn has(self, version: &Version) -> bool {
        version.pre.is_empty()
            && match self {
                Self::All => true,
                Self::Major(major) => version.major == major,
                Self::Minor(major, minor) => (version.major, version.minor) == (major, minor),
            }
    }
}

fn full_version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_versions_are_families() {
        assert_eq!(Family::of("latest"), Some(Family::All));
        assert_eq!(Family::of("1"), Some(Family::Major(1)));
        assert_eq!(Family::of("v1.20"), Some(Family::Minor(1, 20)));
        for tag in ["1.2.3", "v", "main", "1.x", "1.2-rc", ""] {
            assert_eq!(Family::of(tag), None, "{tag}");
        }
        assert!(Family::Minor(1, 2).has(&Version::new(1, 2, 9)));
        assert!(!Family::Minor(1, 2).has(&Version::new(1, 20, 0)));
        assert!(!Family::All.has(&Version::parse("2.0.0-rc.1").unwrap()));
    }

    #[test]
    fn one_star_stays_within_a_part() {
        let pattern = Pattern::parse("team/*").unwrap();
        assert!(pattern.matches("team/app"));
        assert!(!pattern.matches("team/app/x"));
        assert!(Pattern::parse("**").unwrap().matches("team/app/x"));
        assert!(Pattern::parse("[").is_err());
    }
}
