//! Cache records and remembered values: one small file for each key, written without a sync.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{SnapshotId, Store, StoreError, store::names_in};

/// A record's file time says when it was last used; writing it more often than this gains nothing.
const USE_NOTED_EVERY: Duration = Duration::from_secs(3600);

/// The result of a step, by its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheRecord {
    /// What the step made.
    pub snapshot: SnapshotId,
    /// The key's parts in order, as (what, value), so that `explain` can name the first difference.
    pub parts: Vec<(String, String)>,
    /// What making it took, in milliseconds.
    pub made_ms: u64,
    /// What else came of it.
    pub result: Option<serde_json::Value>,
}

impl Store {
    /// The record of a key. Torn, foreign or lost to a power loss is a miss, and so is one whose snapshot is gone.
    pub fn cache_get(&self, key: &Digest) -> Option<CacheRecord> {
        let path = self.cache_path(key);
        let record: CacheRecord = self.get_record(&path)?;
        rustix::fs::access(self.snapshot_dir(&record.snapshot), rustix::fs::Access::EXISTS).ok()?;
        if note_use(&path) {
            crate::limit::note_snapshot_use(self, &record.snapshot);
        }
        Some(record)
    }

    /// Writes the record of a key.
    pub fn cache_put(&self, key: &Digest, record: &CacheRecord) -> Result<(), StoreError> {
        self.put_record(&self.cache_path(key), record)
    }

    /// A remembered value of another crate, by namespace (`[a-z0-9-]+`) and any key.
    pub fn memo_get(&self, namespace: &str, key: &str) -> Option<Vec<u8>> {
        let path = self.memo_path(namespace, key);
        let bytes = std::fs::read(&path).ok()?;
        // The first line is the stamped key, the rest the value: values are bytes, and the length shows a torn one.
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head: MemoHead = self.parse_record(&bytes[..end])?;
        let value = &bytes[end + 1..];
        (head.key == key && head.value == Digest::of(value)).then(|| value.to_vec())
    }

    /// Remembers a value; same durability as cache records.
    pub fn memo_put(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.memo_put_about(namespace, key, value, None)
    }

    /// As [`Store::memo_put`], of a value that says nothing any more when its subject is gone: prune then forgets it.
    pub fn memo_put_about(
        &self,
        namespace: &str,
        key: &str,
        value: &[u8],
        about: Option<MemoSubject>,
    ) -> Result<(), StoreError> {
        let mut bytes = self.record_bytes(&MemoHead { key: key.to_owned(), value: Digest::of(value), about });
        bytes.push(b'\n');
        bytes.extend_from_slice(value);
        self.write_file(&self.memo_path(namespace, key), &bytes)
    }

    /// Forgets a value; one that is not known is fine.
    pub fn memo_forget(&self, namespace: &str, key: &str) {
        // What cannot be removed goes with the next prune.
        let _ = std::fs::remove_file(self.memo_path(namespace, key));
    }

    /// As [`Store::memo_put_about`], in a namespace that may not grow without end: each of its 256 parts keeps what was
    /// written last.
    pub fn memo_put_bounded(
        &self,
        namespace: &str,
        key: &str,
        value: &[u8],
        per_part: usize,
        about: Option<MemoSubject>,
    ) -> Result<(), StoreError> {
        self.memo_put_about(namespace, key, value, about)?;
        let path = self.memo_path(namespace, key);
        let part = path.parent().expect("it lies in a part of its namespace");
        let names = crate::store::names_in(part)?;
        if names.len() <= per_part {
            return Ok(());
        }
        let written = |name: &String| std::fs::metadata(part.join(name)).and_then(|file| file.modified()).ok();
        let mut by_age: Vec<_> = names.into_iter().map(|name| (written(&name), name)).collect();
        by_age.sort();
        for (_, name) in &by_age[..by_age.len() - per_part] {
            // Another process may have been quicker.
            drop(std::fs::remove_file(part.join(name)));
        }
        Ok(())
    }

    /// Forgets what is remembered in a namespace; says how many values went.
    pub fn memo_clear(&self, namespace: &str) -> Result<usize, StoreError> {
        let directory = self.path("memo").join(namespace);
        let mut gone = 0;
        for part in crate::store::names_in(&directory)? {
            for name in crate::store::names_in(&directory.join(&part))? {
                gone += usize::from(std::fs::remove_file(directory.join(&part).join(name)).is_ok());
            }
        }
        Ok(gone)
    }

    /// Two levels, so that a million records do not lie in one directory.
    fn cache_path(&self, key: &Digest) -> PathBuf {
        self.path("cache").join(&key.hex()[..2]).join(key.hex())
    }

    fn memo_path(&self, namespace: &str, key: &str) -> PathBuf {
        let is_legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        assert!(!namespace.is_empty() && namespace.bytes().all(is_legal), "namespaces are words of the program");
        let name = Digest::of(key.as_bytes());
        self.path("memo").join(namespace).join(&name.hex()[..2]).join(name.hex())
    }
}

#[derive(Serialize, Deserialize)]
struct MemoHead {
    key: String,
    value: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<MemoSubject>,
}

/// What a remembered value speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoSubject {
    /// An image of the store, by its id.
    Image(Digest),
    /// A snapshot.
    Snapshot(SnapshotId),
}

/// What nobody has written for so long is worked out again, should somebody ask: longer than any value counts.
const MEMO_AGE_MAX: Duration = Duration::from_secs(60 * 24 * 3600);
/// Values that a namespace keeps through a prune, the latest: a few hundred bytes each, so some megabytes in all.
const MEMOS_MAX: usize = 20_000;
/// The first line of a value's file; keys are paths and digests.
const MEMO_HEAD_BYTES_MAX: u64 = 16 * 1024;

impl Store {
    /// Forgets values that are old, whose subject is gone, or that are too many. Says how many. What was written after
    /// `young_since` stays.
    pub(crate) fn sweep_memos(&self, young_since: SystemTime, dry_run: bool) -> Result<usize, StoreError> {
        let old_since = SystemTime::now().checked_sub(MEMO_AGE_MAX).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut gone = 0;
        for namespace in names_in(&self.path("memo"))? {
            let directory = self.path("memo").join(namespace);
            let mut kept = Vec::new();
            for part in names_in(&directory)? {
                for name in names_in(&directory.join(&part))? {
                    let path = directory.join(&part).join(name);
                    let written = std::fs::metadata(&path).and_then(|file| file.modified());
                    // Another process may have been quicker.
                    let Ok(written) = written else { continue };
                    if written >= young_since {
                        continue;
                    }
                    if written < old_since || self.is_about_nothing(&path) {
                        gone += usize::from(dry_run || std::fs::remove_file(&path).is_ok());
                    } else {
                        kept.push((written, path));
                    }
                }
            }
            kept.sort_unstable();
            for (_, path) in &kept[..kept.len().saturating_sub(MEMOS_MAX)] {
                gone += usize::from(dry_run || std::fs::remove_file(path).is_ok());
            }
        }
        Ok(gone)
    }

    /// Whether the subject of a value is gone, or the value cannot be read any more.
    fn is_about_nothing(&self, path: &Path) -> bool {
        use std::io::{BufRead as _, Read as _};
        let Ok(file) = std::fs::File::open(path) else { return false };
        let mut line = Vec::new();
        let read = std::io::BufReader::new(file).take(MEMO_HEAD_BYTES_MAX).read_until(b'\n', &mut line);
        let head = read.ok().and_then(|_| self.parse_record::<MemoHead>(line.strip_suffix(b"\n")?));
        match head.map(|head| head.about) {
            None => true,
            Some(None) => false,
            Some(Some(MemoSubject::Image(id))) => self.image_record(&id).is_none(),
            Some(Some(MemoSubject::Snapshot(id))) => !self.snapshot_dir(&id).exists(),
        }
    }
}

/// Sets the file's time to now when it is old: prune removes what was not used for long. True when it was.
fn note_use(path: &std::path::Path) -> bool {
    let is_old = std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|used| used.elapsed().is_ok_and(|age| age > USE_NOTED_EVERY));
    if is_old && let Ok(file) = std::fs::File::options().append(true).open(path) {
        // Only a hint for prune.
        let _ = file.set_modified(std::time::SystemTime::now());
    }
    is_old
}
