//! Versions: from package files and from Git, and their order.

mod describe;
mod file;
mod pom;
mod python;

pub use describe::{DescribeForm, Described};
pub use file::{VersionFileError, from_file};
pub use registry::{Ordered, of_tag};

/// The version that a Git tag names where tags have a prefix of their own: `api-v1.2.3` with `api-v*` is `1.2.3`. What the
/// pattern says before its first wildcard is no part of the version.
pub fn of_tag_like<'t>(tag: &'t str, pattern: &str) -> &'t str {
    let literal = pattern.split(['*', '?', '[', '{', '\\']).next().unwrap_or_default();
    // `v*` and `api-*` both leave it to the rest whether there is a `v`.
    of_tag(tag.strip_prefix(literal).filter(|rest| !rest.is_empty()).unwrap_or(tag))
}

/// For ordering: anything that reads as a semantic version is higher than anything that does not.
pub(crate) fn semantic(tag: &str) -> Option<semver::Version> {
    let version = of_tag(tag);
    semver::Version::parse(version).ok().or_else(|| {
        let (main, rest) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
        let parts = main.split('.').count();
        (parts < 3).then(|| semver::Version::parse(&format!("{main}{}{rest}", ".0".repeat(3 - parts))).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_versions() {
        for (tag, version) in [
            ("v1.2.3", "1.2.3"),
            ("1.2", "1.2"),
            ("release-2.0", "2.0"),
            ("app/v1.0", "1.0"),
            ("vnext", "vnext"),
            ("latest", "latest"),
        ] {
            assert_eq!(of_tag(tag), version);
        }
        for (tag, pattern, version) in [
            ("api-v1.2.3", "api-v*", "1.2.3"),
            ("api-v1.2.3", "api-*", "1.2.3"),
            ("api/1.2.3", "api/*", "1.2.3"),
            ("api/v1.2.3", "*/v*", "1.2.3"),
            ("2024.1", "[0-9]*", "2024.1"),
            ("stable", "stable", "stable"),
        ] {
            assert_eq!(of_tag_like(tag, pattern), version, "{tag} {pattern}");
        }
        assert!(semantic("v1.10.0") > semantic("v1.9.0"));
        assert!(semantic("v1.0.0") > semantic("v1.0.0-rc1"));
        assert!(semantic("1.2") > semantic("nightly"));
    }
}
