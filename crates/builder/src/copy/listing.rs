//! What a COPY takes, as text: one line for each file. Its digest is part of the key; the text tells what changed.

use std::collections::BTreeMap;

use oci::Digest;
use store::Store;

use super::source::Match;
use crate::tree::{self, Entry, Kind};

/// Memo namespace of listings, by their digest.
const MEMO: &str = "copy-files";

/// The listing of everything that was selected.
pub(crate) fn text(matches: &[Match], has_owners: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for matched in matches {
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
    text
}

/// Kind, mode, owner, content and path of one file, without times.
pub(crate) fn line(matched: &Match, entry: &Entry, has_owners: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(100 + entry.path.len());
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
        }
        (Kind::Symlink, _) => escape(&entry.link, &mut line),
        (Kind::Char | Kind::Block, _) => line.extend(entry.device.to_string().bytes()),
        _ => line.push(b'-'),
    }
    line.push(b' ');
    escape(&destination(matched, entry), &mut line);
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

/// Keeps a listing for the next build's comparison. That it cannot be done costs an explanation.
pub(crate) fn save(store: &Store, digest: &Digest, text: &[u8]) {
    let _ = store.memo_put(MEMO, digest.hex(), text);
}

pub(crate) fn load(store: &Store, digest: &str) -> Option<Vec<u8>> {
    store.memo_get(MEMO, digest.strip_prefix("sha256:").unwrap_or(digest))
}

/// The first difference between two listings, in words.
pub(crate) fn difference(old: &str, new: &str) -> String {
    fn by_path(text: &str) -> BTreeMap<&str, &str> {
        text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(rest, path)| (path, rest)).collect()
    }
    let (before, now) = (by_path(old), by_path(new));
    let changed = now.iter().filter(|(path, rest)| before.get(*path).is_some_and(|old| old != *rest));
    let added = now.keys().filter(|path| !before.contains_key(*path));
    let gone = before.keys().filter(|path| !now.contains_key(*path));
    let changes: Vec<String> = changed
        .map(|(path, _)| format!("{} changed", unescape(path)))
        .chain(added.map(|path| format!("{} is new", unescape(path))))
        .chain(gone.map(|path| format!("{} is gone", unescape(path))))
        .collect();
    match changes.as_slice() {
        [] => "files changed".into(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    }
}
