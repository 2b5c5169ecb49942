//! The order of versions as people write them: by SemVer where both are SemVer, else by PEP 440, else by their numbers.

use std::{cmp::Ordering, str::FromStr as _};

/// A version that can be compared with others.
#[derive(Clone, Debug)]
pub struct Ordered {
    semantic: Option<semver::Version>,
    python: Option<pep440_rs::Version>,
    release: Vec<u64>,
}

impl Ordered {
    /// Reads `1.2.3`, `v1.2.3-rc.1`, `1.2.3rc1`, `2024.1.post1`; `None` for what is a version in neither order.
    pub fn parse(text: &str) -> Option<Self> {
        let text = of_tag(text);
        let semantic = semver::Version::parse(text).ok();
        let python = pep440_rs::Version::from_str(text).ok();
        let release = match (&semantic, &python) {
            (Some(version), _) => vec![version.major, version.minor, version.patch],
            (None, Some(version)) => version.release().to_vec(),
            (None, None) => return None,
        };
        Some(Self { semantic, python, release })
    }

    /// A version with all its numbers: `1.2` may be short for one.
    pub fn whole(text: &str) -> Option<Self> {
        Self::parse(text).filter(|version| version.release.len() > 2)
    }

    /// The numbers before any suffix: 1, 2, 3.
    pub fn release(&self) -> &[u64] {
        &self.release
    }

    /// Whether it comes before a release: `-rc.1`, `a1`, `.dev3`.
    pub fn is_prerelease(&self) -> bool {
        match (&self.semantic, &self.python) {
            (Some(version), _) => !version.pre.is_empty(),
            (None, Some(version)) => version.any_prerelease(),
            (None, None) => false,
        }
    }

    /// Which one is higher; `None` when the two follow different orders and have the same numbers.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        if let (Some(one), Some(other)) = (&self.semantic, &other.semantic) {
            // Build metadata has no part in it (SemVer 2.0.0, 10).
            return Some(one.cmp_precedence(other));
        }
        if let (Some(one), Some(other)) = (&self.python, &other.python) {
            return Some(one.cmp(other));
        }
        Some(self.release.cmp(&other.release)).filter(|order| order.is_ne())
    }
}

/// The version that a Git tag names: `v1.2.3` and `release-1.2.3` are `1.2.3`, other tags are themselves.
pub fn of_tag(tag: &str) -> &str {
    let tag = tag.rsplit('/').next().unwrap_or(tag);
    for prefix in ["release-", "version-", "v", "V"] {
        if let Some(rest) = tag.strip_prefix(prefix)
            && rest.starts_with(|c: char| c.is_ascii_digit())
        {
            return rest;
        }
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_their_kind_has_it() {
        // Each is higher than the one before.
        for row in [
            "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0",
            "1.9.0 1.10.0 v1.11.0 release-2.0.0",
            "1.0.dev456 1.0a1 1.0a2.dev456 1.0a12 1.0b1 1.0rc1 1.0 1.0.post1 1.1.dev1",
            "0.9 0.10 1.0.1 1!0.1",
            // SemVer's and Python's ways together.
            "1.2.3rc1 1.2.3-rc.2 1.2.3 1.2.3.post1 1.2.4.dev0 1.3.0-alpha 1.3",
            "1.2.3-nightly 1.3rc1",
        ] {
            let versions: Vec<_> = row.split(' ').map(|text| Ordered::parse(text).expect(text)).collect();
            for pair in versions.windows(2) {
                assert_eq!(pair[0].compare(&pair[1]), Some(Ordering::Less), "{pair:?}");
                assert_eq!(pair[1].compare(&pair[0]), Some(Ordering::Greater), "{pair:?}");
            }
        }
        let compare = |one, other| Ordered::parse(one).unwrap().compare(&Ordered::parse(other).unwrap());
        assert_eq!(compare("1.2.3+a", "1.2.3+b"), Some(Ordering::Equal));
        assert_eq!(compare("1.2", "1.2.0"), Some(Ordering::Equal));
        assert_eq!(compare("1.2.3-nightly", "1.2.3.post1"), None);
        for text in ["latest", "", "1.x", "3f2a91c", "feature-1"] {
            assert!(Ordered::parse(text).is_none(), "{text}");
        }
        for (text, expected) in [("1.0.0-rc.1", true), ("1.0rc1", true), ("1.0.dev1", true), ("1.0.post1", false)] {
            assert_eq!(Ordered::parse(text).unwrap().is_prerelease(), expected, "{text}");
        }
    }
}
