//! Tags of the storage: several set in one step, on conditions; a step that was cut off is finished at the next start.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use oci::Digest;
use serde::{Deserialize, Serialize};

use super::{
    backend::Record,
    storage::{RepositoryName, Storage, repository, tag_key},
};

/// What must hold of tags before they are written (RFC 9110, "Conditional Requests").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing.
    None,
    /// Each tag names one of these (`If-Match: "<digest>"`).
    Names(Vec<Digest>),
    /// Each tag exists (`If-Match: *`).
    Exists,
    /// No tag exists (`If-None-Match: *`).
    Absent,
}

impl Condition {
    fn holds(&self, current: Option<&Digest>) -> bool {
        match self {
            Condition::None => true,
            Condition::Names(digests) => current.is_some_and(|current| digests.contains(current)),
            Condition::Exists => current.is_some(),
            Condition::Absent => current.is_none(),
        }
    }
}

/// Why tags were not written.
#[derive(Debug)]
pub(super) enum TagFailure<R> {
    /// The condition does not hold for this tag, which names that.
    Unmet(String, Option<Digest>),
    /// A rule is against it.
    Refused(R),
    Storage(io::Error),
}

impl<R> From<io::Error> for TagFailure<R> {
    fn from(error: io::Error) -> Self {
        TagFailure::Storage(error)
    }
}

/// A change of several tags, as it lies in the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    repository: String,
    tags: Vec<String>,
    digest: Digest,
}

impl Storage {
    /// Digest of what a tag names.
    pub(super) fn tag(&self, name: &RepositoryName, tag: &str) -> io::Result<Option<Digest>> {
        if let Some(digest) = self.cache.tag(name, tag) {
            return Ok(Some(digest));
        }
        let _lock = self.lock_tags(name);
        self.read_tag(name, tag)
    }

    /// Under the repository's lock: what is read is kept in memory, and nobody writes meanwhile.
    fn read_tag(&self, name: &RepositoryName, tag: &str) -> io::Result<Option<Digest>> {
        if let Some(digest) = self.cache.tag(name, tag) {
            return Ok(Some(digest));
        }
        let Some(bytes) = self.backend.read(&tag_key(name, tag))? else { return Ok(None) };
        let digest: Digest = String::from_utf8_lossy(&bytes).trim().parse().map_err(io::Error::other)?;
        self.cache.keep_tags(name, &[tag.to_owned()], &digest);
        Ok(Some(digest))
    }

    /// Sets tags to a digest: all of them or none, and nobody sees one without the others. `judge` hears what each of them
    /// names now, and can look at other tags.
    pub(super) fn set_tags<R>(
        &self,
        name: &RepositoryName,
        tags: &[String],
        digest: &Digest,
        condition: &Condition,
        judge: impl FnOnce(&TagView<'_>) -> io::Result<Result<(), R>>,
    ) -> Result<(), TagFailure<R>> {
        let _lock = self.lock_tags(name);
        let view = TagView { storage: self, name };
        for tag in tags {
            let current = self.read_tag(name, tag)?;
            if !condition.holds(current.as_ref()) {
                return Err(TagFailure::Unmet(tag.clone(), current));
            }
        }
        judge(&view)?.map_err(TagFailure::Refused)?;
        let change = Change { repository: name.as_str().into(), tags: tags.to_vec(), digest: digest.clone() };
        let journal = match tags {
            [] => return Ok(()),
            // One tag is written whole or not at all by itself.
            [_] => None,
            _ => {
                let key = format!("journal/{:016x}", RandomState::new().build_hasher().finish());
                self.backend.write(&[Record::new(key.clone(), oci::to_json(&change))])?;
                Some(key)
            }
        };
        self.apply(name, &change)?;
        self.cache.keep_tags(name, tags, digest);
        if let Some(key) = journal {
            // It is gone for good before the next change of these tags: it must never come back over that.
            self.backend.remove(&[key])?;
        }
        Ok(())
    }

    fn apply(&self, name: &RepositoryName, change: &Change) -> io::Result<()> {
        let digest = change.digest.to_string();
        let records: Vec<Record> =
            change.tags.iter().map(|tag| Record::new(tag_key(name, tag), digest.as_bytes())).collect();
        let written = self.backend.write(&records);
        if written.is_err() {
            // Some may be written: what is remembered of them is no longer sure.
            change.tags.iter().for_each(|tag| self.cache.forget_tag(name, tag));
        }
        written
    }

    /// Finishes the changes of a process that was killed in the middle of them.
    pub(super) fn finish_tag_changes(&self) -> io::Result<()> {
        for id in self.backend.list("journal")? {
            let key = format!("journal/{id}");
            let Some(bytes) = self.backend.read(&key)? else { continue };
            let change: Change = serde_json::from_slice(&bytes)?;
            let name = RepositoryName::parse(&change.repository)
                .ok_or_else(|| io::Error::other("the journal names no repository"))?;
            self.apply(&name, &change)?;
            self.backend.remove(&[key])?;
        }
        Ok(())
    }

    pub(super) fn delete_tag(&self, name: &RepositoryName, tag: &str) -> io::Result<bool> {
        let _lock = self.lock_tags(name);
        self.cache.forget_tag(name, tag);
        Ok(self.backend.remove(&[tag_key(name, tag)])? == 1)
    }

    /// As [`Self::delete_tag`], when `condition` holds.
    pub(super) fn delete_tag_if(
        &self,
        name: &RepositoryName,
        tag: &str,
        condition: &Condition,
    ) -> Result<bool, TagFailure<std::convert::Infallible>> {
        let _lock = self.lock_tags(name);
        let current = self.read_tag(name, tag)?;
        if current.is_some() && !condition.holds(current.as_ref()) {
            return Err(TagFailure::Unmet(tag.to_owned(), current));
        }
        self.cache.forget_tag(name, tag);
        Ok(self.backend.remove(&[tag_key(name, tag)])? == 1)
    }

    /// All tags, sorted; `None` for a repository that nothing was pushed to.
    pub(super) fn tags(&self, name: &RepositoryName) -> io::Result<Option<Vec<String>>> {
        if !self.exists(name)? {
            return Ok(None);
        }
        self.backend.list(&format!("{}/_tags", repository(name))).map(Some)
    }

    fn lock_tags(&self, name: &RepositoryName) -> MutexGuard<'_, ()> {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(name, &mut hasher);
        let locks: &[Mutex<()>] = &self.tag_locks;
        let place = hasher.finish() as usize % locks.len();
        locks[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tags of a repository while nobody else writes them.
pub(super) struct TagView<'a> {
    storage: &'a Storage,
    name: &'a RepositoryName,
}

impl TagView<'_> {
    /// What a tag names.
    pub(super) fn names(&self, tag: &str) -> io::Result<Option<Digest>> {
        self.storage.read_tag(self.name, tag)
    }

    /// All tags, sorted.
    pub(super) fn all(&self) -> io::Result<Vec<String>> {
        Ok(self.storage.tags(self.name)?.unwrap_or_default())
    }
}
