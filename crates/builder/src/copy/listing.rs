//! What a COPY takes, as text: one line for each file. Its digest is part of the key; the text tells what changed.

use std::collections::{BTreeMap, HashSet};

use events::{Cause, Change, FileChange, FileState};
use oci::Digest;
use store::Store;

use super::source::Match;
use crate::tree::{self, Entry, Kind};

/// Memo namespace of listings, by their digest.
const MEMO: &str = "copy-files";

/// What a selection takes, as text, and where each match's lines begin in it.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) text: Vec<u8>,
    begins: Vec<usize>,
}

/// The listing of everything that was selected.
pub(crate) fn listing(matches: &[Match], has_owners: bool) -> Listing {
    let mut listing = Listing::default();
    let text = &mut listing.text;
    for matched in matches {
        listing.begins.push(text.len());
        for entry in &matched.entries {
            // The directory itself is not copied, its contents are.
            if !(entry.path.is_empty() && matched.is_dir()) {
                text.extend(line(matched, entry, has_owners));
                text.push(b'\n');
            } else {
                text.extend(b"directory\n");
            }
        }
    }
    listing
}

/// Kind, mode, owner, content and path of one file, without times.
pub(crate) fn line(matched: &Match, entry: &Entry, has_owners: bool) -> Vec<u8> {
    line_of(entry, &destination(matched, entry), has_owners)
}

/// The same of an entry that goes to `path`: `kind+mode [uid:gid] content path`.
pub(crate) fn line_of(entry: &Entry, path: &[u8], has_owners: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(110 + path.len());
    line.push(entry.kind.letter() as u8);
    // A link's mode means nothing.
    let mode = if entry.kind == Kind::Symlink { 0 } else { entry.mode };
    line.extend(format!("{mode:o} ").bytes());
    if has_owners {
        line.extend(format!("{}:{} ", entry.uid, entry.gid).bytes());
    }
    match (entry.kind, &entry.digest) {
        (Kind::File, Some(digest)) => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            line.extend(digest.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]));
            line.extend(format!("/{}", entry.size).bytes());
        }
        (Kind::Symlink, _) => escape(&entry.link, &mut line),
        (Kind::Char | Kind::Block, _) => line.extend(entry.device.to_string().bytes()),
        _ => line.push(b'-'),
    }
    line.push(b' ');
    escape(path, &mut line);
    line
}

/// Path relative to the destination directory.
pub(crate) fn destination(matched: &Match, entry: &Entry) -> Vec<u8> {
    if matched.is_dir() && matched.parents.is_empty() {
        return entry.path.clone();
    }
    tree::join(&tree::join(&matched.parents, &matched.name), &entry.path)
}

/// Blanks and all that is not printable ASCII are escaped, so that a line can be cut at blanks again.
fn escape(path: &[u8], line: &mut Vec<u8>) {
    for byte in path {
        match byte {
            b'\\' | 0..=b' ' | 127.. => line.extend(format!("\\x{byte:02x}").bytes()),
            byte => line.push(*byte),
        }
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend(rest[..at].bytes());
        match rest.get(at + 2..at + 4).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => break,
        }
        rest = &rest[at + 4..];
    }
    bytes.extend(rest.bytes());
    tree::show(&bytes)
}

/// Keeps a listing for the next build's comparison, each match led by where it comes from: people know the paths of the
/// source. That it cannot be done costs an explanation.
pub(crate) fn save(store: &Store, digest: &Digest, listing: &Listing, matches: &[Match]) {
    let mut text = Vec::with_capacity(listing.text.len() + 100 * matches.len());
    let ends = listing.begins.iter().skip(1).copied().chain([listing.text.len()]);
    for ((begin, end), matched) in listing.begins.iter().copied().zip(ends).zip(matches) {
        text.extend(FROM.bytes());
        escape(&matched.path, &mut text);
        text.push(b' ');
        escape(&destination_of_match(matched), &mut text);
        text.push(b'\n');
        text.extend(&listing.text[begin..end]);
    }
    save_text(store, digest, &text);
}

/// Begins a line that says where the following ones come from, and what their destinations begin with. No kind of file
/// has this letter.
const FROM: &str = "from ";

fn destination_of_match(matched: &Match) -> Vec<u8> {
    if matched.is_dir() && matched.parents.is_empty() {
        return Vec::new();
    }
    tree::join(&matched.parents, &matched.name)
}

/// Keeps a listing that was made otherwise.
pub(crate) fn save_text(store: &Store, digest: &Digest, text: &[u8]) {
    let _ = store.memo_put(MEMO, digest.hex(), text);
}

pub(crate) fn load(store: &Store, digest: &str) -> Option<Vec<u8>> {
    store.memo_get(MEMO, digest.strip_prefix("sha256:").unwrap_or(digest))
}

/// What differs between two listings, by their digests; `mount` is where the files are shown.
pub(crate) fn difference(store: &Store, old: &str, new: &str, mount: Option<&str>) -> Cause {
    let load = |digest| Some(String::from_utf8_lossy(&load(store, digest)?).into_owned());
    let (Some(old), Some(new)) = (load(old), load(new)) else {
        return Cause::Files { mount: mount.map(str::to_owned), files: Vec::new(), changed: 0, added: 0, removed: 0 };
    };
    compare(&old, &new, mount)
}

fn compare(old: &str, new: &str, mount: Option<&str>) -> Cause {
    // Most lines of most listings are the same: only the others are read.
    let (old_lines, new_lines): (HashSet<&str>, HashSet<&str>) = (old.lines().collect(), new.lines().collect());
    let before = by_path(old, &new_lines);
    let now = by_path(new, &old_lines);
    let (mut changed, mut added, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for (path, (source, state)) in &now {
        match before.get(path) {
            Some((_, former)) => {
                changed.push((source, Change::Changed, Some(former.clone()), Some(state.clone())));
            }
            None => added.push((source, Change::Added, None, Some(state.clone()))),
        }
    }
    for (path, (source, state)) in &before {
        if !now.contains_key(path) {
            removed.push((source, Change::Removed, Some(state.clone()), None));
        }
    }
    let count = |changes: &[_]| u64::try_from(changes.len()).unwrap_or(u64::MAX);
    let counts = (count(&changed), count(&added), count(&removed));
    let files = changed.into_iter().chain(added).chain(removed).take(FILES_TOLD_MAX);
    let files = files.map(|(path, change, old, new)| FileChange { path: path.clone(), change, old, new }).collect();
    let (changed, added, removed) = counts;
    Cause::Files { mount: mount.map(str::to_owned), files, changed, added, removed }
}

/// As many files are named; of the others the number is told.
const FILES_TOLD_MAX: usize = 20;

type States<'a> = BTreeMap<&'a str, (String, FileState)>;

/// Lines that the other listing does not have, by destination.
fn by_path<'a>(text: &'a str, other: &HashSet<&str>) -> States<'a> {
    let mut found = States::new();
    let mut from = ("", "");
    for line in text.lines() {
        if let Some(begin) = line.strip_prefix(FROM) {
            from = begin.split_once(' ').unwrap_or((begin, ""));
        } else if !other.contains(line)
            && let Some((rest, path)) = line.rsplit_once(' ')
            && let Some(state) = state(rest)
        {
            let below = path.strip_prefix(from.1).unwrap_or(path).trim_start_matches('/');
            let source = [from.0, below].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            found.insert(path, (unescape(&source), state));
        }
    }
    found
}

/// The part of a line before its path.
fn state(text: &str) -> Option<FileState> {
    let mut words = text.split(' ');
    let (kind, mode) = words.next()?.split_at_checked(1)?;
    let kind = kind.chars().next()?;
    let content = words.next_back()?;
    let file = content.split_once('/').filter(|_| kind == '-');
    Some(FileState {
        kind,
        mode: mode.to_owned(),
        owner: words.next().map(str::to_owned),
        digest: file.and_then(|(hex, _)| format!("sha256:{hex}").parse().ok()),
        size_bytes: file.and_then(|(_, size)| size.parse().ok()),
        link: (kind == 'l').then(|| unescape(content)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_compared_by_destination_and_told_by_source() {
        let hex = |byte: &str| byte.repeat(32);
        let (a, b) = (hex("aa"), hex("bb"));
        let old = format!(
            "from src \ndirectory\n-644 {a}/1 a.py\n-644 {a}/1 gone\nl0 to\\x20x link\nfrom x.txt x.txt\n-600 {a}/1 x.txt\n"
        );
        let new = format!(
            "from src \ndirectory\n-644 {b}/2 a.py\n-644 {a}/1 new\nl0 to\\x20x link\nfrom x.txt x.txt\n-644 {a}/1 x.txt\n"
        );
        let cause = compare(&old, &new, None);
        let Cause::Files { files, changed, added, removed, .. } = &cause else { panic!("{cause:?}") };
        let told: Vec<(&str, &str, Change)> = files.iter().map(|f| (f.path.as_str(), f.what(), f.change)).collect();
        assert_eq!(
            told,
            [
                ("src/a.py", "the content", Change::Changed),
                ("x.txt", "the mode", Change::Changed),
                ("src/new", "the file", Change::Added),
                ("src/gone", "the file", Change::Removed)
            ]
        );
        assert_eq!((*changed, *added, *removed), (2, 1, 1));
        assert_eq!(files[0].new.as_ref().and_then(|state| state.size_bytes), Some(2));
        assert_eq!(cause.summary(), "src/a.py changed, and 3 more");
    }
}
