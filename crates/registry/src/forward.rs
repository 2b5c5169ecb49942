//! Tags that move with the versions, `latest`, `1` and `1.2`, go forward only: judged against what the registry has.

use std::cmp::Ordering;

use oci::Digest;

use crate::Ordered;

/// The name of the newest of all.
const NEWEST: &str = "latest";

/// What a tag names in the registry now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// Manifest digest.
    pub digest: Digest,
    /// The version that the image tells of itself, if it does.
    pub version: Option<ImageVersion>,
}

/// The version that an image tells of itself (`org.opencontainers.image.version`), and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVersion {
    /// An annotation of the manifest or index, which is of this image alone.
    Annotation(String),
    /// A label of the config, which may be that of a base image.
    Label(String),
}

impl ImageVersion {
    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            Self::Annotation(text) | Self::Label(text) => text,
        }
    }

    /// Its order, as far as it can be relied on: a label has to be what one of the repository's tags says.
    fn reliable(&self, tags: &[String]) -> Option<Ordered> {
        let version = Ordered::parse(self.text())?;
        let is_same = |tag: &String| Ordered::parse(tag)?.compare(&version);
        match self {
            Self::Label(_) if !tags.iter().any(|tag| is_same(tag) == Some(Ordering::Equal)) => None,
            _ => Some(version),
        }
    }
}

/// What becomes of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is written, or moves.
    Moves,
    /// It names the image already.
    IsThere,
    /// It stays where it is, for this reason.
    Stays(String),
}

/// Whether a tag stands for the newest of several versions, of which this is one: `latest`, `1` and `1.2` for `1.2.3`. All other
/// tags (branches, commits, whole versions, numbers that are no part of the version) say what they say and move freely.
pub fn is_moving(tag: &str, version: Option<&Ordered>) -> bool {
    tag == NEWEST || version.is_some_and(|version| is_short(tag, version))
}

/// Judges a moving tag: may it come to name the image `digest` of this version? `now` is what it names, `tags` are all of the
/// repository. Without a version, and where nothing is known of a higher one, it may.
///
/// What the tag names holds it back whatever version that is, except by a label that no tag agrees with; other tags do when they
/// are whole releases of its kind. A version before its release moves no short version, and `latest` only where there is no release.
pub fn judge_tag(
    tag: &str,
    digest: &Digest,
    version: Option<&Ordered>,
    now: Option<&TagState>,
    tags: &[String],
) -> Judgement {
    if now.is_some_and(|now| now.digest == *digest) {
        return Judgement::IsThere;
    }
    let Some(version) = version else { return Judgement::Moves };
    if version.is_prerelease() && tag != NEWEST {
        return Judgement::Stays("a version before its release moves no short version".into());
    }
    let named = now.and_then(|now| now.version.as_ref());
    let named = named.and_then(|named| Some((named.text(), named.reliable(tags)?)));
    if let Some((text, named)) = &named {
        if named.compare(version) == Some(Ordering::Greater) {
            return Judgement::Stays(format!("it names {text}, which is higher"));
        }
        if version.is_prerelease() && !named.is_prerelease() {
            return Judgement::Stays(format!("it names the release {text}, and this is a version before one"));
        }
    }
    match newest(tag, version, tags) {
        Some((text, newest)) if newest.compare(version) == Some(Ordering::Greater) => {
            Judgement::Stays(format!("the repository has {text}, which is higher"))
        }
        Some((text, _)) if version.is_prerelease() => {
            Judgement::Stays(format!("the repository has the release {text}, and this is a version before one"))
        }
        _ => Judgement::Moves,
    }
}

/// The tag among `tags` that a moving tag has to name rather than an image of this version: the newest release of its kind, where
/// that is higher.
pub fn higher_tag<'t>(tag: &str, version: Option<&Ordered>, tags: &'t [String]) -> Option<&'t str> {
    let version = version?;
    newest(tag, version, tags)
        .filter(|(_, newest)| newest.compare(version) == Some(Ordering::Greater))
        .map(|(tag, _)| tag)
}

/// The newest of the releases that a moving tag may stand for.
fn newest<'t>(tag: &str, version: &Ordered, tags: &'t [String]) -> Option<(&'t str, Ordered)> {
    let releases = tags.iter().filter_map(|tag| Some((tag.as_str(), release(tag, version)?)));
    let of_its_kind = releases.filter(|(_, release)| tag == NEWEST || is_short(tag, release));
    of_its_kind.reduce(|one, other| match one.1.compare(&other.1) {
        Some(Ordering::Less) => other,
        _ => one,
    })
}

/// Whether a tag reads as `latest`, or as the beginning of some version (that is written out as far as `like` is): `1`, `v1.2`.
pub(crate) fn reads_as_moving(tag: &str, like: Option<&Ordered>) -> bool {
    let is_short = |parts: Vec<u64>| like.is_none_or(|like| parts.len() < like.release().len());
    tag == NEWEST || numbers(tag).is_some_and(is_short)
}

/// Whether a tag is the beginning of a version: `1` or `v1.2` of 1.2.3.
fn is_short(tag: &str, version: &Ordered) -> bool {
    let parts = numbers(tag);
    parts.is_some_and(|parts| parts.len() < version.release().len() && version.release().starts_with(&parts))
}

/// `v1.2` as 1, 2; `None` for what has more than numbers.
fn numbers(tag: &str) -> Option<Vec<u64>> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').map(|part| part.parse().ok().filter(|_| is_number(part))).collect()
}

/// The release that a tag says, written out as far as `like` is: where versions have three numbers, `1.2` is none.
fn release(tag: &str, like: &Ordered) -> Option<Ordered> {
    let version = Ordered::parse(tag)?;
    (version.release().len() >= like.release().len() && !version.is_prerelease()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tag version | what the tag names | other tags`; `-` for nothing, `?` for an image without a version, `~1.2` for a label.
    fn judge(case: &str) -> String {
        let parts: Vec<&str> = case.split('|').map(str::trim).collect();
        let (tag, version) = parts[0].split_once(' ').unwrap();
        let version = Ordered::parse(version);
        if !is_moving(tag, version.as_ref()) {
            return "free".into();
        }
        let ours = Digest::of(b"ours");
        let now = match parts[1] {
            "-" => None,
            "ours" => Some(TagState { digest: ours.clone(), version: None }),
            "?" => Some(TagState { digest: Digest::of(b"other"), version: None }),
            text => {
                let version = match text.strip_prefix('~') {
                    Some(label) => ImageVersion::Label(label.into()),
                    None => ImageVersion::Annotation(text.into()),
                };
                Some(TagState { digest: Digest::of(b"other"), version: Some(version) })
            }
        };
        let tags: Vec<String> = parts[2].split_whitespace().map(str::to_owned).collect();
        match judge_tag(tag, &ours, version.as_ref(), now.as_ref(), &tags) {
            Judgement::Moves => "moves".into(),
            Judgement::IsThere => "is there".into(),
            Judgement::Stays(reason) => reason,
        }
    }

    #[test]
    fn the_table_of_moving_tags() {
        for (case, expected) in [
            // Which tags move at all.
            ("main 1.2.3 | 9.9.9 | 9.9.9", "free"),
            ("1.2.3 1.2.3 | 9.9.9 | 9.9.9", "free"),
            ("3f2a91c 1.2.3 | - |", "free"),
            ("42 1.2.3 | - |", "free"),
            ("1.3 1.2.3 | - |", "free"),
            ("1.x 1.2.3 | - |", "free"),
            ("1.2 1.2 | - |", "free"),
            ("1..2 1.2.3 | - |", "free"),
            // Forward.
            ("latest 1.2.3 | - |", "moves"),
            ("latest 1.2.3 | 1.2.2 | 1.2.2 1.2 1", "moves"),
            ("latest 1.10.0 | 1.9.0 | 1.9.0", "moves"),
            ("latest 1.2.3 | 1.2.3 | 1.2.3", "moves"),
            ("latest 1.2.3 | ours | 9.0.0", "is there"),
            ("1 1.2.3 | 1.2.2 | 1.2.2 2.0.0", "moves"),
            ("v1.2 1.2.3 | 1.2.2 | v1.2.2 v1.3.0", "moves"),
            ("1.2 1.2.3 | - | 1.3.0 1.10.1", "moves"),
            ("latest 2.0 | 1.9 | 1.9 1 2", "moves"),
            ("1 1.2.post1 | 1.2 | 1.2", "moves"),
            // Backward, by what the tag names.
            ("latest 1.2.3 | 1.3.0 |", "it names 1.3.0, which is higher"),
            ("latest 1.9.9 | 1.10.0 |", "it names 1.10.0, which is higher"),
            ("1.2 1.2.3 | v1.2.4 |", "it names v1.2.4, which is higher"),
            ("latest 1.9.0 | 2.0.0-rc.1 |", "it names 2.0.0-rc.1, which is higher"),
            ("latest 1.9 | 2.0rc1 |", "it names 2.0rc1, which is higher"),
            ("1 1.2.dev1 | 1.2 |", "a version before its release moves no short version"),
            // A label is believed where a tag agrees: else it may be a base image's.
            ("latest 1.2.3 | ~1.3.0 | v1.3.0", "it names 1.3.0, which is higher"),
            ("latest 1.9.0 | ~2.0.0-rc.1 | 2.0.0-rc.1", "it names 2.0.0-rc.1, which is higher"),
            ("latest 2.0.1 | ~24.04 | 2.0.0 2.0 2", "moves"),
            ("2.0 2.0.1 | ~24.04 | 2.0.0 2.0 2", "moves"),
            ("latest 1.9.1 | ~24.04 | 2.0.0", "the repository has 2.0.0, which is higher"),
            ("latest 2.0.0-rc.1 | ~1.9.0 |", "moves"),
            // Backward, by other tags, also where the image tells no version.
            ("latest 1.2.3 | ? | 1.2.2 1.3.0 1.4.0", "the repository has 1.4.0, which is higher"),
            ("latest 1.2.3 | - | v1.10.0 v1.9.0", "the repository has v1.10.0, which is higher"),
            ("1 1.2.3 | 1.2.2 | 1.2.9 2.0.0", "the repository has 1.2.9, which is higher"),
            ("1.2 1.2.3 | ? | 1.2.10 1.2.9", "the repository has 1.2.10, which is higher"),
            // What is no whole release holds nothing back: short versions, commits, dates, variants, candidates.
            ("latest 1.2.3 | ? | 2 2.0 20240101 3f2a91c 123a456 2.0.0-alpine 2.0.0-rc.1", "moves"),
            ("latest 1.2 | ? | 3 20240101", "moves"),
            // Before a release.
            ("latest 2.0.0-rc.1 | - |", "moves"),
            ("latest 2.0.0-rc.2 | 2.0.0-rc.1 | 2.0.0-rc.1", "moves"),
            ("latest 2.0.0-rc.1 | 2.0.0-rc.2 |", "it names 2.0.0-rc.2, which is higher"),
            ("latest 2.0.0-rc.1 | 1.9.0 |", "it names the release 1.9.0, and this is a version before one"),
            ("latest 2.0.0.dev1 | ? | 1.9.0", "the repository has the release 1.9.0, and this is a version before one"),
            ("2.0 2.0.0-rc.1 | - |", "a version before its release moves no short version"),
            // Nothing to judge by.
            ("latest none | 9.9.9 | 9.9.9", "moves"),
            ("latest 1.2.3 | nightly | nightly", "moves"),
        ] {
            assert_eq!(judge(case), expected, "{case}");
        }
    }
}
