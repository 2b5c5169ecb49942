//! Digests of files, remembered by (path, inode, size, mtime, ctime), so that a rebuild without a change reads none.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    os::fd::BorrowedFd,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oci::Hasher;
use rustix::fs::OFlags;

use crate::{
    attributes,
    tree::{self, Entry, Kind, Time},
};

/// A file that changed this shortly before it was hashed may change again without a new time stamp, so its digest is not
/// remembered: time stamps move with the kernel's tick of 1 to 10 ms.
const RACY_TICK: Duration = Duration::from_millis(40);
/// The same for file systems that keep whole or even seconds only (git's "racily clean").
const RACY_COARSE: Duration = Duration::from_secs(2);
/// Entries of one memo; a context with more files is hashed partly anew rather than remembered without bound.
const MEMO_ENTRIES_MAX: usize = 2_000_000;
/// Below this many files to hash a second thread costs more than it brings.
const FILES_PER_THREAD_MIN: usize = 16;
/// Read at once while hashing: enough to keep sha256 busy, little enough for the processor's cache.
const BUFFER_BYTES: usize = 128 * 1024;
const MAGIC: &[u8] = b"seatrial-files 1\n";

/// What was known about a file when it was hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    inode: u64,
    size: u64,
    mtime: Time,
    ctime: Time,
    digest: [u8; 32],
}

/// Digests remembered for one directory tree.
#[derive(Default)]
pub(crate) struct FileMemo {
    files: HashMap<Vec<u8>, Known>,
    pub(crate) is_changed: bool,
}

impl FileMemo {
    /// Reads what [`FileMemo::to_bytes`] wrote; anything else is an empty memo.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self { files: parse(bytes).unwrap_or_default(), is_changed: false }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (path, known) in self.files.iter().take(MEMO_ENTRIES_MAX) {
            out.extend((path.len() as u32).to_le_bytes());
            out.extend(path);
            out.extend(known.inode.to_le_bytes());
            out.extend(known.size.to_le_bytes());
            for time in [known.mtime, known.ctime] {
                out.extend(time.0.to_le_bytes());
                out.extend(time.1.to_le_bytes());
            }
            out.extend(known.digest);
        }
        out
    }

    /// Fills in the digests of all files among `entries`, which were scanned from `from`; reads only what is not known.
    pub(crate) fn fill(&mut self, root: BorrowedFd<'_>, from: &[u8], entries: &mut [Entry]) -> io::Result<()> {
        let mut unknown: Vec<&mut Entry> = Vec::new();
        let mut path = from.to_vec();
        for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::File && entry.digest.is_none()) {
            path.truncate(from.len());
            if !from.is_empty() && !entry.path.is_empty() {
                path.push(b'/');
            }
            path.extend(&entry.path);
            match self.files.get(&path) {
                Some(known) if known.fits(entry) => entry.digest = Some(known.digest),
                _ => unknown.push(entry),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now();
        hash_all(root, from, &mut unknown)?;
        for entry in unknown {
            let digest = entry.digest.expect("hash_all filled it in");
            if is_racy(entry, now) {
                continue;
            }
            self.is_changed = true;
            let Entry { inode, size, mtime, ctime, .. } = *entry;
            self.files.insert(tree::join(from, &entry.path), Known { inode, size, mtime, ctime, digest });
        }
        Ok(())
    }
}

impl Known {
    fn fits(&self, entry: &Entry) -> bool {
        (self.inode, self.size, self.mtime, self.ctime) == (entry.inode, entry.size, entry.mtime, entry.ctime)
    }
}

fn parse(bytes: &[u8]) -> Option<HashMap<Vec<u8>, Known>> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(count)?;
        *rest = tail;
        Some(head)
    }
    fn number(rest: &mut &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
    }
    fn small(rest: &mut &[u8]) -> Option<u32> {
        Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
    }
    let mut rest = bytes.strip_prefix(MAGIC)?;
    // Paths are rarely shorter than this, so the map grows at most once.
    let mut files = HashMap::with_capacity(rest.len() / 100);
    while !rest.is_empty() {
        let length = small(&mut rest)? as usize;
        let path = take(&mut rest, length)?.to_vec();
        let (inode, size) = (number(&mut rest)?, number(&mut rest)?);
        let mtime = (number(&mut rest)? as i64, small(&mut rest)?);
        let ctime = (number(&mut rest)? as i64, small(&mut rest)?);
        let digest = take(&mut rest, 32)?.try_into().ok()?;
        files.insert(path, Known { inode, size, mtime, ctime, digest });
    }
    Some(files)
}

/// Only the change time matters: every write moves it, and nobody can set it.
fn is_racy(entry: &Entry, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let window = if entry.ctime.1 == 0 { RACY_COARSE } else { RACY_TICK };
    Duration::new(u64::try_from(entry.ctime.0).unwrap_or(0), entry.ctime.1) + window >= now
}

/// Hashes files on a few threads.
fn hash_all(root: BorrowedFd<'_>, from: &[u8], entries: &mut [&mut Entry]) -> io::Result<()> {
    let threads = threads_for(entries.len());
    if threads == 1 {
        let mut buffer = vec![0; BUFFER_BYTES];
        return entries.iter_mut().try_for_each(|entry| hash_one(root, from, entry, &mut buffer));
    }
    // Small pieces, so that one large file does not leave the other threads idle.
    let pieces: Vec<_> = entries.chunks_mut(64).map(std::sync::Mutex::new).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; BUFFER_BYTES];
                    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                        for entry in piece.lock().expect("each piece is taken once").iter_mut() {
                            hash_one(root, from, entry, &mut buffer)?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("hashing does not panic"))
    })
}

/// How many threads a job of so many files is worth.
pub(crate) fn threads_for(files: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (files / FILES_PER_THREAD_MIN).clamp(1, processors)
}

fn hash_one(root: BorrowedFd<'_>, from: &[u8], entry: &mut Entry, buffer: &mut [u8]) -> io::Result<()> {
    let path = tree::join(from, &entry.path);
    entry.digest = Some(hash_file(root, &path, buffer).map_err(|error| tree::named(error, "read", &path))?);
    Ok(())
}

fn hash_file(root: BorrowedFd<'_>, path: &[u8], buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    // Without NONBLOCK a FIFO that took the file's place would block us for good.
    let descriptor = tree::open_beneath(root, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let names = attributes::of(&descriptor)?;
    let mut file = std::fs::File::from(descriptor);
    let mut hasher = Hasher::new();
    loop {
        match file.read(buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let content = hasher.finish();
    if names.is_empty() {
        return Ok(raw(&content));
    }
    let mut hasher = Hasher::new();
    hasher.update(content.hex().as_bytes());
    for (name, value) in &names {
        hasher.update(&(name.len() as u32).to_le_bytes());
        hasher.update(name);
        hasher.update(&(value.len() as u32).to_le_bytes());
        hasher.update(value);
    }
    Ok(raw(&hasher.finish()))
}

fn raw(digest: &oci::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let pair = &digest.hex()[at * 2..at * 2 + 2];
        *byte = u8::from_str_radix(pair, 16).expect("a digest is hex digits");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memo_survives_writing_and_reading_and_rejects_torn_bytes() {
        let mut memo = FileMemo::default();
        let known = Known { inode: 7, size: 9, mtime: (1, 2), ctime: (3, 4), digest: [5; 32] };
        memo.files.insert(b"a/\xffb".to_vec(), known);
        let bytes = memo.to_bytes();
        assert!(FileMemo::parse(&bytes).files[b"a/\xffb".as_slice()] == known);
        assert!(FileMemo::parse(&bytes[..bytes.len() - 1]).files.is_empty());
        assert!(FileMemo::parse(b"junk").files.is_empty());
    }
}
