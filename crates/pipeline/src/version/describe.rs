//! `git describe` as a version: where between two tags a commit stands, said so that it is ordered rightly.

use serde::Serialize;

use super::Ordered;

/// What `git describe` says, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The nearest tag before the commit, as it is.
    pub tag: String,
    /// Commits since then.
    pub distance: u64,
    /// The abbreviated commit, without the `g`.
    pub commit: Option<String>,
    /// Tracked files differ from the commit.
    pub is_dirty: bool,
}

/// How the parts become a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DescribeForm {
    /// Git's own: `1.2.3-4-gabc1234`, `-dirty` at the end.
    #[default]
    Git,
    /// A SemVer pre-release of the next patch: `1.2.4-dev.4+gabc1234`, after 1.2.3 and before 1.2.4.
    Semver,
    /// A PEP 440 development release of the next one, as setuptools-scm guesses it: `1.2.4.dev4+gabc1234`.
    Pep440,
    /// The version with a PEP 440 local part, which SemVer reads as build metadata: `1.2.3+4.gabc1234`.
    Local,
}

impl DescribeForm {
    /// Its names in the pipeline file.
    pub const NAMES: [&str; 4] = ["git", "semver", "pep440", "local"];

    /// By name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Git, Self::Semver, Self::Pep440, Self::Local]
            .into_iter()
            .zip(Self::NAMES)
            .find_map(|(form, known)| (known == name).then_some(form))
    }
}

impl Described {
    /// Reads `v1.2.3-4-gabc1234`, `v1.2.3` and both with `-dirty`.
    pub fn parse(text: &str) -> Self {
        let (text, is_dirty) = text.strip_suffix("-dirty").map_or((text, false), |text| (text, true));
        let mut parts = text.rsplitn(3, '-');
        if let (Some(commit), Some(distance), Some(tag)) = (parts.next(), parts.next(), parts.next())
            && let Some(commit) = commit.strip_prefix('g').filter(|c| c.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && let Ok(distance) = distance.parse()
        {
            return Self { tag: tag.to_owned(), distance, commit: Some(commit.to_owned()), is_dirty };
        }
        Self { tag: text.to_owned(), distance: 0, commit: None, is_dirty }
    }

    /// The version of this commit; `version` is what its tag names.
    ///
    /// # Errors
    /// Why there is none, in words: the tag names nothing that could be counted up.
    pub fn version(&self, version: &str, form: DescribeForm) -> Result<String, String> {
        let commit = self.commit.as_deref().map(|commit| format!("g{commit}"));
        if self.distance == 0 && !self.is_dirty {
            return Ok(version.to_owned());
        }
        if form == DescribeForm::Git {
            let since = commit.filter(|_| self.distance > 0).map(|commit| format!("-{}-{commit}", self.distance));
            let dirty = if self.is_dirty { "-dirty" } else { "" };
            return Ok(format!("{version}{}{dirty}", since.unwrap_or_default()));
        }
        let dirty = self.is_dirty.then(|| "dirty".to_owned());
        let local = |counted: Option<String>| -> String {
            counted.into_iter().chain(commit.clone()).chain(dirty.clone()).collect::<Vec<_>>().join(".")
        };
        let known = Ordered::parse(version)
            .ok_or_else(|| format!("the Git tag `{}` names no version that could be counted up", self.tag))?;
        let (own, _) = version.split_once('+').unwrap_or((version, ""));
        Ok(match form {
            DescribeForm::Git => unreachable!("it was answered above"),
            DescribeForm::Local => format!("{own}+{}", local(Some(self.distance.to_string()))),
            // A candidate is followed by something between it and its release (SemVer 11.4: more fields are higher).
            DescribeForm::Semver if known.is_prerelease() => {
                format!("{own}.dev.{}{}", self.distance, plus(&local(None)))
            }
            DescribeForm::Semver => {
                let mut numbers = known.release().to_vec();
                numbers.resize(3, 0);
                format!("{}-dev.{}{}", next(&numbers), self.distance, plus(&local(None)))
            }
            DescribeForm::Pep440 => {
                let next = next_pep440(own, &known);
                format!("{next}.dev{}{}", self.distance, plus(&local(None)))
            }
        })
    }
}

fn plus(local: &str) -> String {
    if local.is_empty() { String::new() } else { format!("+{local}") }
}

/// The last number counted up.
fn next(numbers: &[u64]) -> String {
    let (last, rest) = numbers.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
    rest.iter().chain(&[last.saturating_add(1)]).map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// The number of a candidate counted up (`1.0rc1` to `1.0rc2`), else the last of the release.
fn next_pep440(version: &str, known: &Ordered) -> String {
    let digits = version.len() - version.bytes().rev().take_while(u8::is_ascii_digit).count();
    match version[digits..].parse::<u64>() {
        Ok(number) if known.is_prerelease() => format!("{}{}", &version[..digits], number.saturating_add(1)),
        _ => next(known.release()),
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    #[test]
    fn a_commit_after_a_tag_is_a_version_between_two() {
        // What Git says | git, semver, pep440, local.
        for (said, expected) in [
            ("v1.2.3", ["1.2.3"; 4]),
            (
                "v1.2.3-4-gabc1234",
                ["1.2.3-4-gabc1234", "1.2.4-dev.4+gabc1234", "1.2.4.dev4+gabc1234", "1.2.3+4.gabc1234"],
            ),
            ("1.2-4-gabc1234", ["1.2-4-gabc1234", "1.2.1-dev.4+gabc1234", "1.3.dev4+gabc1234", "1.2+4.gabc1234"]),
            ("v1.2.3-dirty", ["1.2.3-dirty", "1.2.4-dev.0+dirty", "1.2.4.dev0+dirty", "1.2.3+0.dirty"]),
            (
                "v1.2.3-1-gabc1234-dirty",
                [
                    "1.2.3-1-gabc1234-dirty",
                    "1.2.4-dev.1+gabc1234.dirty",
                    "1.2.4.dev1+gabc1234.dirty",
                    "1.2.3+1.gabc1234.dirty",
                ],
            ),
            (
                "v2.0.0-rc.1-4-gabc1234",
                [
                    "2.0.0-rc.1-4-gabc1234",
                    "2.0.0-rc.1.dev.4+gabc1234",
                    "2.0.0-rc.2.dev4+gabc1234",
                    "2.0.0-rc.1+4.gabc1234",
                ],
            ),
            (
                "1.0rc1-4-gabc1234",
                ["1.0rc1-4-gabc1234", "1.0rc1.dev.4+gabc1234", "1.0rc2.dev4+gabc1234", "1.0rc1+4.gabc1234"],
            ),
        ] {
            let described = Described::parse(said);
            let version = super::super::of_tag(&described.tag);
            for (name, expected) in DescribeForm::NAMES.iter().zip(expected) {
                let form = DescribeForm::parse(name).expect("a known name");
                assert_eq!(described.version(version, form).as_deref(), Ok(expected), "{said} {name}");
            }
        }
        let described = Described::parse("nightly-4-gabc1234");
        assert_eq!(described.version("nightly", DescribeForm::Git).as_deref(), Ok("nightly-4-gabc1234"));
        assert!(described.version("nightly", DescribeForm::Semver).is_err());
        assert_eq!(Described::parse("my-tag-name").tag, "my-tag-name");
    }

    #[test]
    fn such_a_version_is_ordered_between_its_neighbours() {
        let described = Described::parse("v1.2.3-4-gabc1234");
        for form in [DescribeForm::Semver, DescribeForm::Pep440] {
            let between = described.version("1.2.3", form).expect("a version");
            let between = Ordered::parse(&between).unwrap_or_else(|| panic!("{between} is a version"));
            let compare = |other| Ordered::parse(other).expect("a version").compare(&between);
            assert_eq!(compare("1.2.3"), Some(Ordering::Less), "{form:?}");
            assert_eq!(compare("1.2.4"), Some(Ordering::Greater), "{form:?}");
            assert!(between.is_prerelease(), "{form:?}");
        }
    }
}
