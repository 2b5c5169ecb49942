//! Which of two versions of a package is the newer one, by the rules of its kind.

use std::cmp::Ordering;

use registry::Ordered;

/// Compares two versions of a package of a kind ([`super::Ecosystem::as_str`]); `None` where its rules do not tell.
pub fn compare_versions(kind: &str, old: &str, new: &str) -> Option<Ordering> {
    match kind {
        "deb" => Some(debian(old, new)),
        "rpm" => Some(rpm(old, new)),
        "apk" => Some(Alpine::parse(old)?.cmp(&Alpine::parse(new)?)),
        _ => Ordered::parse(old)?.compare(&Ordered::parse(new)?),
    }
}

/// deb-version(7): `[epoch:]upstream[-revision]`.
fn debian(old: &str, new: &str) -> Ordering {
    let parts = |text: &str| {
        let (epoch, rest) = epoch(text);
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch, upstream.to_owned(), revision.to_owned())
    };
    let ((old_epoch, old_upstream, old_revision), (new_epoch, new_upstream, new_revision)) = (parts(old), parts(new));
    old_epoch
        .cmp(&new_epoch)
        .then_with(|| debian_part(old_upstream.as_bytes(), new_upstream.as_bytes()))
        .then_with(|| debian_part(old_revision.as_bytes(), new_revision.as_bytes()))
}

fn epoch(text: &str) -> (u64, &str) {
    match text.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch.parse().unwrap_or(0), rest),
        _ => (0, text),
    }
}

/// Text and numbers by turns; in text `~` comes before the end, the end before letters, letters before all else.
fn debian_part(mut old: &[u8], mut new: &[u8]) -> Ordering {
    let rank = |text: &[u8]| match text.first() {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    while !old.is_empty() || !new.is_empty() {
        while rank(old) != 0 || rank(new) != 0 {
            let order = rank(old).cmp(&rank(new));
            if order.is_ne() {
                return order;
            }
            (old, new) = (&old[1..], &new[1..]);
        }
        let ((old_number, old_rest), (new_number, new_rest)) = (number(old), number(new));
        let order = by_number(old_number, new_number);
        if order.is_ne() {
            return order;
        }
        (old, new) = (old_rest, new_rest);
    }
    Ordering::Equal
}

/// The digits that a text begins with, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

/// Numbers of any length.
fn by_number(old: &[u8], new: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    let (old, new) = (&old[significant(old)..], &new[significant(new)..]);
    old.len().cmp(&new.len()).then_with(|| old.cmp(new))
}

/// rpm-version(7): `[epoch:]version-release`.
fn rpm(old: &str, new: &str) -> Ordering {
    let ((old_epoch, old), (new_epoch, new)) = (epoch(old), epoch(new));
    let parts =
        |text: &str| text.rsplit_once('-').map_or((text.to_owned(), String::new()), |(a, b)| (a.into(), b.into()));
    let ((old_version, old_release), (new_version, new_release)) = (parts(old), parts(new));
    old_epoch
        .cmp(&new_epoch)
        .then_with(|| rpm_part(old_version.as_bytes(), new_version.as_bytes()))
        .then_with(|| rpm_part(old_release.as_bytes(), new_release.as_bytes()))
}

/// `rpmvercmp`: runs of digits or letters, with whatever else between them; digits are newer than letters, `~` comes before the
/// end, `^` behind it and before all else.
fn rpm_part(mut old: &[u8], mut new: &[u8]) -> Ordering {
    let skip = |text: &mut &[u8]| {
        let at = text.iter().position(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'^'));
        *text = &text[at.unwrap_or(text.len())..];
    };
    'parts: loop {
        skip(&mut old);
        skip(&mut new);
        for mark in [b'~', b'^'] {
            let order = match (old.first() == Some(&mark), new.first() == Some(&mark)) {
                (false, false) => continue,
                (true, true) => {
                    (old, new) = (&old[1..], &new[1..]);
                    continue 'parts;
                }
                (true, false) if mark == b'~' || !new.is_empty() => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if mark == b'~' || !old.is_empty() => Ordering::Greater,
                (false, true) => Ordering::Less,
            };
            return order;
        }
        if old.is_empty() || new.is_empty() {
            return old.len().cmp(&new.len());
        }
        let is_number = old[0].is_ascii_digit();
        if is_number != new[0].is_ascii_digit() {
            return if is_number { Ordering::Greater } else { Ordering::Less };
        }
        let run = |text: &[u8]| {
            let ends = |byte: &u8| if is_number { !byte.is_ascii_digit() } else { !byte.is_ascii_alphabetic() };
            text.iter().position(ends).unwrap_or(text.len())
        };
        let ((old_run, old_rest), (new_run, new_rest)) = (old.split_at(run(old)), new.split_at(run(new)));
        let order = if is_number { by_number(old_run, new_run) } else { old_run.cmp(new_run) };
        if order.is_ne() {
            return order;
        }
        (old, new) = (old_rest, new_rest);
    }
}

/// apk-package(5): `1.2.3a_rc4-r5`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Alpine {
    numbers: Vec<u64>,
    letter: Option<char>,
    /// Ends with the rank of no suffix, so that `_rc1` comes before it and `_p1` behind.
    suffixes: Vec<(usize, u64)>,
    revision: u64,
}

/// In their order; the empty one is the release itself.
const ALPINE_SUFFIXES: [&str; 10] = ["alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"];

impl Alpine {
    fn parse(text: &str) -> Option<Self> {
        let (text, revision) = match text.rsplit_once("-r") {
            Some((text, revision)) => (text, revision.parse().ok()?),
            None => (text, 0),
        };
        let mut parts = text.split('_');
        let version = parts.next()?;
        let letter = version.chars().last().filter(char::is_ascii_lowercase);
        let numbers = version.strip_suffix(|last| Some(last) == letter).unwrap_or(version);
        let numbers = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let suffix = |part: &str| {
            let name = part.trim_end_matches(|c: char| c.is_ascii_digit());
            let rank = ALPINE_SUFFIXES.iter().position(|known| *known == name)?;
            Some((rank, part[name.len()..].parse().unwrap_or(0)))
        };
        let mut suffixes = parts.map(suffix).collect::<Option<Vec<_>>>()?;
        suffixes.push((ALPINE_SUFFIXES.iter().position(|known| known.is_empty())?, 0));
        Some(Self { numbers, letter, suffixes, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_the_rules_of_their_kind() {
        // Each is newer than the one before. Cases of deb-version(7), rpm-version(7) and apk-tools' test suite.
        for (kind, row) in [
            ("deb", "1.0~beta1 1.0~rc1-1 1.0-1 1.0-1+b1 1.0-2~deb12u1 1.0-2 1.0a-1 1.0.1 1.9 1.10 1:0.5"),
            ("deb", "3.0.11-1~deb12u2 3.0.11-1 3.0.13-1 3.0.13-1+deb13u1 3.00014"),
            ("rpm", "1.0~rc1-1 1.0-1.el9 1.0-2.el9 1.0^git1-1 1.0a-1 1.0.1-1 1.9-1 1.10-1 1:0.5-1"),
            ("rpm", "2.a-1 2.0-1 2.0.1-1 20240101-1"),
            ("apk", "1.2_alpha1-r0 1.2_rc1-r3 1.2-r0 1.2-r1 1.2_p1-r0 1.2a-r0 1.2.1-r0 1.10-r0"),
            ("python", "1.0rc1 1.0 1.0.post1 1.1"),
            ("npm", "1.0.0-rc.1 1.0.0 1.10.0"),
            ("go", "v0.9.0 v0.10.0-0.20240101000000-abcdefabcdef v0.10.0"),
        ] {
            let versions: Vec<&str> = row.split(' ').collect();
            for pair in versions.windows(2) {
                assert_eq!(compare_versions(kind, pair[0], pair[1]), Some(Ordering::Less), "{kind} {pair:?}");
                assert_eq!(compare_versions(kind, pair[1], pair[0]), Some(Ordering::Greater), "{kind} {pair:?}");
                assert_eq!(compare_versions(kind, pair[0], pair[0]), Some(Ordering::Equal), "{kind} {pair:?}");
            }
        }
        assert_eq!(compare_versions("deb", "1.00", "1.0"), Some(Ordering::Equal));
        assert_eq!(compare_versions("maven", "2.RELEASE", "x"), None);
        assert_eq!(compare_versions("apk", "what", "1"), None);
    }
}
