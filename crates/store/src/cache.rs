//! Cache records and remembered values: one small file for each key, written without a sync.

use std::{path::PathBuf, time::Duration};

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{SnapshotId, Store, StoreError};

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
        let mut bytes = self.record_bytes(&MemoHead { key: key.to_owned(), value: Digest::of(value) });
        bytes.push(b'\n');
        bytes.extend_from_slice(value);
        self.write_file(&self.memo_path(namespace, key), &bytes)
    }

    /// Forgets a value; one that is not known is fine.
    pub fn memo_forget(&self, namespace: &str, key: &str) {
        // What cannot be removed goes with the next prune.
        let _ = std::fs::remove_file(self.memo_path(namespace, key));
    }

    /// As [`Store::memo_put`], in a namespace that may not grow without end: each of its 256 parts keeps what was written last.
    pub fn memo_put_bounded(
        &self,
        namespace: &str,
        key: &str,
        value: &[u8],
        per_part: usize,
    ) -> Result<(), StoreError> {
        self.memo_put(namespace, key, value)?;
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
