//! `--parents`: sources keep the directories that they are written with, from `/./` on if it is there.
//!
//! As BuildKit: a source is a pattern for paths below the root (or below what stands before `/./`), `**` is any number of
//! directories, and directories on the way come with the attributes that they have.

use std::io;

use dockerfile::{dockerignore::PatternSet, glob};
use store::Store;

use super::source::{self, Match, NoMatch, Tree, clean};
use crate::tree::{self, Entry, Kind};

/// What a source names, as one directory with only that in it; `None` when it is a pattern and names nothing.
pub(super) fn select(
    store: &Store,
    tree: &Tree<'_>,
    pattern: &[u8],
    exclude: &PatternSet,
) -> Result<Option<Match>, NoMatch> {
    let (pivot, below) = split(pattern);
    let top = tree.resolve(&clean(pivot))?;
    if top.node.is_none_or(|node| node.kind != Kind::Dir) {
        return Err(NoMatch::Missing);
    }
    let below = clean(below);
    let mut entries = match glob::has_meta(&below) {
        true => matching(tree, &top.path, &below)?,
        false => {
            let path = tree::join(&top.path, &below);
            let resolved = tree.resolve(&path)?;
            if resolved.node.is_none() {
                return Err(NoMatch::Missing);
            }
            if resolved.path != path {
                return linked(store, tree, resolved.path, &below, exclude).map_err(NoMatch::Io);
            }
            with_way(tree, &top.path, &below)?
        }
    };
    if !exclude.is_empty() {
        entries = without_excluded(entries, exclude);
    }
    if entries.len() < 2 && !below.is_empty() {
        return Ok(None);
    }
    tree.digest(store, &top.path, &mut entries)?;
    Ok(Some(Match { path: top.path, name: Vec::new(), parents: Vec::new(), entries }))
}

/// `a/b/./c`: only what follows `/./` is kept.
fn split(pattern: &[u8]) -> (&[u8], &[u8]) {
    let at = pattern.windows(3).position(|window| window == b"/./");
    at.map_or((b"".as_slice(), pattern), |at| (&pattern[..at], &pattern[at + 3..]))
}

/// The top, what the pattern matches with everything below it, and the directories on the way there.
fn matching(tree: &Tree<'_>, top: &[u8], pattern: &[u8]) -> Result<Vec<Entry>, NoMatch> {
    let pattern = std::str::from_utf8(pattern).map_err(|_| NoMatch::BadPattern)?;
    let set = PatternSet::new([pattern]).map_err(|_| NoMatch::BadPattern)?;
    Ok(with_needed_directories(tree.scan(top)?, |entry| set.is_excluded(&entry.path)))
}

/// The top, the directories on the way to a canonical path below it, and that with everything below it.
fn with_way(tree: &Tree<'_>, top: &[u8], below: &[u8]) -> io::Result<Vec<Entry>> {
    let entry = |path: Vec<u8>| {
        let node = tree.lookup(&tree::join(top, &path))?.ok_or(io::ErrorKind::NotFound)?;
        Ok::<_, io::Error>(Entry::new(path, &node.stat, node.link))
    };
    let mut entries = Vec::new();
    let mut way = Vec::new();
    for part in tree::parts(below) {
        entries.push(entry(way.clone())?);
        way = tree::join(&way, part);
    }
    let found = tree.scan(&tree::join(top, below))?;
    entries.extend(found.into_iter().map(|entry| Entry { path: tree::join(below, &entry.path), ..entry }));
    Ok(entries)
}

/// A source behind a link: its directories are made as docker makes new ones, for those on the way are elsewhere.
fn linked(
    store: &Store,
    tree: &Tree<'_>,
    path: Vec<u8>,
    below: &[u8],
    exclude: &PatternSet,
) -> io::Result<Option<Match>> {
    let found = source::one(store, tree, &path, exclude)?;
    let (name, parents) = (tree::base_name(below).to_vec(), tree::parent(below).to_vec());
    Ok(found.map(|found| Match { name, parents, ..found }))
}

/// Patterns are relative to the top; a directory that is excluded itself stays if an exception keeps something in it.
fn without_excluded(entries: Vec<Entry>, exclude: &PatternSet) -> Vec<Entry> {
    with_needed_directories(entries, |entry| !exclude.is_excluded(&entry.path))
}

/// The entries that are kept, the first one, and each directory above one of them. Parents come before children.
fn with_needed_directories(entries: Vec<Entry>, is_kept: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries.into_iter().rev() {
        let is_needed = entry.path.is_empty()
            || (entry.kind == Kind::Dir
                && kept.last().is_some_and(|last| {
                    let rest = last.path.strip_prefix(entry.path.as_slice());
                    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
                }));
        if is_needed || is_kept(&entry) {
            kept.push(entry);
        }
    }
    kept.reverse();
    kept
}
