//! A COPY of many files of which few changed: only these are written, over the result of an earlier build.
//!
//! The first result of such a COPY notes what it wrote, so that a later one is compared without a look at the disk.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use engine::BuildError;
use store::{ActiveSnapshot, CacheRecord};

use super::{
    Request, Selection,
    source::Match,
    target::Target,
    write::{Changes, Transfer},
};
use crate::{
    stage::At,
    step::Layers,
    tree::{self, Entry, Kind, Time},
    work::During as _,
};

/// Below this many files linking the unchanged ones costs less than one more directory in every later mount.
const FILES_MIN: usize = 256;
/// One part in so many may differ. With more, the unchanged files are linked, and later builds compare with that result.
const CHANGED_PART_MAX: usize = 8;
const MAGIC: &[u8] = b"seatrial-copy 1\n";

/// What a COPY left in its snapshot.
struct Note<'n> {
    /// Canonical path of the destination.
    to: &'n [u8],
    rows: HashMap<&'n [u8], Row<'n>>,
}

/// One file as it was written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Row<'n> {
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    device: u64,
    time: Time,
    /// Digest of a file, target of a link.
    content: &'n [u8],
}

impl<'n> Row<'n> {
    fn of(entry: &'n Entry, changes: &Changes<'_>) -> Self {
        let content: &[u8] = match &entry.digest {
            Some(digest) => digest,
            None => &entry.link,
        };
        let mode = if entry.kind == Kind::Symlink { 0 } else { changes.mode(entry) };
        let (owner, time) = (changes.owner(entry), changes.time(entry));
        Self { kind: entry.kind.letter() as u8, mode, owner, device: entry.device, time, content }
    }

    /// Whether `now` would be written the same. A time that was later than an earlier epoch stands for "new" as well as one that
    /// is later than today's.
    fn fits(&self, now: &Row<'_>, entry: &Entry) -> bool {
        let same_time = self.time == now.time || (now.time != entry.mtime && self.time <= now.time);
        same_time && *self == Row { time: self.time, ..*now }
    }
}

/// Notes what is written to `to`, if a later build may want to write over it.
pub(super) fn note(
    request: &Request,
    selection: &Selection<'_>,
    transfer: &Transfer<'_>,
    active: &ActiveSnapshot,
) -> io::Result<()> {
    let Some(matched) = single(request, selection) else { return Ok(()) };
    let to = transfer.target.resolve(&request.dest.as_bytes()[1..])?.path;
    active.note(&bytes(matched, &to, &transfer.changes)).map_err(io::Error::other)
}

/// The former result that a COPY may write over.
pub(super) struct Over {
    pub(super) active: ActiveSnapshot,
    note: Vec<u8>,
}

/// A snapshot in the making over the former result of this COPY, if it left a note.
pub(super) fn open(
    at: &At<'_>,
    request: &Request,
    selection: &Selection<'_>,
    layers: &Layers,
    former: Option<&CacheRecord>,
) -> Result<Option<Over>, BuildError> {
    let (Some(_), Some(former)) = (single(request, selection), former) else { return Ok(None) };
    let attempt = || format!("cannot make `{}`", at.instruction.text);
    let (store, scope) = (at.work.host.store, at.work.host.scope);
    let Some(meta) = store.snapshot(&former.snapshot).during(attempt)? else { return Ok(None) };
    let base = meta.over.as_ref().unwrap_or(&former.snapshot);
    let Some(note) = store.snapshot_note(base) else { return Ok(None) };
    let active = store.prepare_over(scope, layers.top(), base).during(attempt)?;
    Ok(active.map(|active| Over { active, note }))
}

impl Over {
    /// Canonical path of the destination and what is left to be written to it; `None` when that is too much, or when it
    /// could not be told from a COPY of everything.
    pub(super) fn rest(
        &self,
        request: &Request,
        selection: &Selection<'_>,
        target: &Target,
        changes: &Changes<'_>,
    ) -> io::Result<Option<(Vec<u8>, Match)>> {
        let (Some(matched), Some(note)) = (single(request, selection), Note::parse(&self.note)) else {
            return Ok(None);
        };
        let Some(differing) = Differing::find(&note, matched, changes) else { return Ok(None) };
        let to = target.resolve(&request.dest.as_bytes()[1..])?.path;
        if to != note.to {
            return Ok(None);
        }
        let Some(entries) = differing.entries(&note, matched, target)? else { return Ok(None) };
        let (path, name, parents) = (matched.path.clone(), matched.name.clone(), matched.parents.clone());
        Ok(Some((to, Match { path, name, parents, entries })))
    }
}

/// The one directory that a COPY takes, if it is large enough. Several names of one file are left to a COPY of everything:
/// which of them is the first would have to be found among those that are not written.
fn single<'s>(request: &Request, selection: &'s Selection<'_>) -> Option<&'s Match> {
    let [matched] = selection.matches.as_slice() else { return None };
    let is_plain = matched.is_dir() && !request.parents && request.heredocs.is_empty() && request.remotes.is_empty();
    if !is_plain || matched.entries.len() < FILES_MIN {
        return None;
    }
    let mut inodes = HashSet::new();
    let mut linked = matched.entries.iter().filter(|entry| entry.links > 1 && entry.kind == Kind::File);
    linked.all(|entry| inodes.insert(entry.inode)).then_some(matched)
}

/// Places of the entries that are not as they were, and paths that are no more.
struct Differing<'n> {
    changed: Vec<bool>,
    gone: Vec<&'n [u8]>,
}

impl<'n> Differing<'n> {
    /// `None`: too many, or none at all.
    fn find(note: &Note<'n>, matched: &Match, changes: &Changes<'_>) -> Option<Self> {
        let entries = &matched.entries[1..];
        let mut seen = 0;
        let mut changed = Vec::with_capacity(entries.len());
        for entry in entries {
            let former = note.rows.get(entry.path.as_slice());
            seen += usize::from(former.is_some());
            changed.push(!former.is_some_and(|former| former.fits(&Row::of(entry, changes), entry)));
        }
        let mut gone = Vec::new();
        if seen < note.rows.len() {
            let paths: HashSet<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
            gone = note.rows.keys().filter(|path| !paths.contains(*path)).copied().collect();
        }
        let count = changed.iter().filter(|changed| **changed).count() + gone.len();
        (1..=entries.len() / CHANGED_PART_MAX).contains(&count).then_some(Self { changed, gone })
    }

    /// What has to be written: the changed entries, a whiteout for each that is gone, and the directories above. `None`
    /// when a whiteout would hide something below as well.
    fn entries(self, note: &Note<'_>, matched: &Match, target: &Target) -> io::Result<Option<Vec<Entry>>> {
        let Self { mut changed, gone } = self;
        let all = &matched.entries[1..];
        let places: HashMap<&[u8], usize> = all.iter().enumerate().map(|(at, entry)| (&*entry.path, at)).collect();
        let mut whiteouts: HashMap<&[u8], Vec<Entry>> = HashMap::new();
        for path in gone {
            let above = tree::parent(path);
            // With its directory goes what is in it.
            if !above.is_empty() && !places.get(above).is_some_and(|at| all[*at].kind == Kind::Dir) {
                continue;
            }
            if target.lookup_below(&tree::join(note.to, path))?.is_some() {
                return Ok(None);
            }
            whiteouts.entry(above).or_default().push(whiteout(path));
            if let Some(at) = places.get(above) {
                changed[*at] = true;
            }
        }
        mark_below(&mut changed, note, all, target)?;
        for at in (0..all.len()).rev() {
            if changed[at]
                && let Some(above) = places.get(tree::parent(&all[at].path))
            {
                changed[*above] = true;
            }
        }
        let mut entries = vec![matched.entries[0].clone()];
        entries.extend(whiteouts.remove(b"".as_slice()).unwrap_or_default());
        for (entry, _) in all.iter().zip(&changed).filter(|(_, changed)| **changed) {
            entries.push(entry.clone());
            entries.extend(whiteouts.remove(&*entry.path).unwrap_or_default());
        }
        Ok(Some(entries))
    }
}

/// What meets something of the file systems below is written as if nothing had been there: directories that are merged take
/// attributes from below, and a file where a directory is below is refused.
fn mark_below(changed: &mut [bool], note: &Note<'_>, all: &[Entry], target: &Target) -> io::Result<()> {
    let mut merged: HashSet<&[u8]> = HashSet::new();
    if target.lookup_below(note.to)?.is_none() {
        return Ok(());
    }
    merged.insert(b"");
    for (at, entry) in all.iter().enumerate() {
        if !merged.contains(tree::parent(&entry.path)) {
            continue;
        }
        let below = target.lookup_below(&tree::join(note.to, &entry.path))?;
        if below.is_some_and(|below| below.kind == Kind::Dir || entry.kind == Kind::Dir) {
            changed[at] = true;
            if entry.kind == Kind::Dir {
                merged.insert(&entry.path);
            }
        }
    }
    Ok(())
}

/// A character device 0:0, as overlayfs hides names (overlayfs.rst, "whiteouts and opaque directories").
fn whiteout(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: Kind::Char,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        inode: 0,
        device: 0,
        links: 1,
        mtime: (0, 0),
        ctime: (0, 0),
        link: Vec::new(),
        digest: None,
    }
}

fn bytes(matched: &Match, to: &[u8], changes: &Changes<'_>) -> Vec<u8> {
    fn put(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    }
    let mut out = MAGIC.to_vec();
    put(&mut out, to);
    for entry in &matched.entries[1..] {
        let row = Row::of(entry, changes);
        put(&mut out, &entry.path);
        out.push(row.kind);
        for number in [row.mode, row.owner.0, row.owner.1, row.time.1] {
            out.extend(number.to_le_bytes());
        }
        out.extend(row.device.to_le_bytes());
        out.extend(row.time.0.to_le_bytes());
        put(&mut out, row.content);
    }
    out
}

impl<'n> Note<'n> {
    /// Anything but what [`bytes`] wrote is no note.
    fn parse(bytes: &'n [u8]) -> Option<Self> {
        fn take<'n>(rest: &mut &'n [u8], count: usize) -> Option<&'n [u8]> {
            let (head, tail) = rest.split_at_checked(count)?;
            *rest = tail;
            Some(head)
        }
        fn number(rest: &mut &[u8]) -> Option<u32> {
            Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
        }
        fn text<'n>(rest: &mut &'n [u8]) -> Option<&'n [u8]> {
            let length = number(rest)?;
            take(rest, length as usize)
        }
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let to = text(&mut rest)?;
        // Rows are rarely shorter than this, so the map grows at most once.
        let mut rows = HashMap::with_capacity(rest.len() / 100);
        while !rest.is_empty() {
            let path = text(&mut rest)?;
            let kind = take(&mut rest, 1)?[0];
            let (mode, uid, gid, nanoseconds) =
                (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
            let device = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let seconds = i64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let content = text(&mut rest)?;
            let time = (seconds, nanoseconds);
            rows.insert(path, Row { kind, mode, owner: (uid, gid), device, time, content });
        }
        Some(Self { to, rows })
    }
}
