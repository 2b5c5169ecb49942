//! Deliveries as files: `pending/<id>.json` until they are taken, `failed/<id>.json` when that took too long, `last.json` the
//! last one that was taken. Names sort by time. Files are written whole under another name and renamed: whoever reads them
//! sees one state or the other.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Webhook;
use crate::server::directory::{found, make_dir, names_in};

/// Deliveries that wait for one receiver; what comes on top is dropped and counted.
const PENDING_MAX: usize = 10_000;
/// Failed deliveries of one receiver that are kept, the youngest.
const FAILED_MAX: usize = 1000;
/// Longest wait between two attempts.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(3600);
/// A delivery's file has an envelope of 64 events at most twice over.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is delivered, and how that went so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Its name.
    pub id: String,
    /// The repository that it is about.
    pub repository: String,
    /// What happened, in a few words.
    pub summary: String,
    /// When it happened, in milliseconds since 1970.
    pub created_ms: u64,
    /// When the wait for it began, as far as giving up is concerned: redelivery begins anew.
    pub since_ms: u64,
    /// When it is to be tried next, in milliseconds since 1970.
    pub next_ms: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// What the last attempt brought.
    pub answer: Option<HookAnswer>,
    /// The very bytes that are sent.
    pub body: String,
}

/// What a receiver said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookAnswer {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The beginning of its body, or why there was no answer.
    pub text: String,
}

/// The deliveries of one webhook.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) hook: Webhook,
    directory: PathBuf,
    /// When each is to be tried next.
    waiting: Mutex<BTreeMap<String, u64>>,
    /// Deliveries taken by this process.
    added: AtomicU64,
    /// There is more to deliver.
    pub(super) news: Notify,
    /// Nobody wants to wait any longer.
    pub(super) hurry: Notify,
}

impl Queue {
    pub(super) fn open(hook: Webhook, directory: &Path) -> io::Result<Self> {
        for part in ["pending", "failed"] {
            make_dir(&directory.join(part))?;
        }
        let queue = Self {
            hook,
            directory: directory.to_owned(),
            waiting: Mutex::default(),
            added: AtomicU64::new(0),
            news: Notify::new(),
            hurry: Notify::new(),
        };
        queue.load()?;
        Ok(queue)
    }

    /// Looks at what there is; all of it is tried at once.
    pub(super) fn load(&self) -> io::Result<()> {
        let pending = ids_in(&self.directory.join("pending"))?;
        *self.lock() = pending.into_iter().take(PENDING_MAX).map(|id| (id, 0)).collect();
        self.news.notify_one();
        self.hurry.notify_waiters();
        Ok(())
    }

    /// Takes a delivery; `false` when there are too many.
    pub(super) fn add(&self, repository: &str, body: String, summary: String) -> io::Result<bool> {
        if self.lock().len() >= PENDING_MAX {
            return Ok(false);
        }
        let now = now_ms();
        // What happens first is told first, also within one millisecond.
        let id = format!("{now:013}-{:06}", self.added.fetch_add(1, Ordering::Relaxed));
        let since_ms = now;
        let delivery = Delivery {
            id,
            repository: repository.to_owned(),
            summary,
            created_ms: now,
            since_ms,
            next_ms: now,
            attempts: 0,
            answer: None,
            body,
        };
        let path = self.file("pending", &delivery.id);
        write_whole(&path, &serde_json::to_vec(&delivery)?, Sync::Now)?;
        self.lock().insert(delivery.id, now);
        self.news.notify_one();
        Ok(true)
    }

    /// The first delivery that is due, or how long none is; `None` when there are none.
    pub(super) fn next(&self) -> Option<Result<String, Duration>> {
        let now = now_ms();
        // A clock that was set back must not keep anything for years.
        let wait = |at: u64| at.saturating_sub(now).min(RETRY_WAIT_MAX.as_millis() as u64);
        let waiting = self.lock();
        let (id, at) = waiting.iter().min_by_key(|(id, at)| (wait(**at), (*id).clone()))?;
        Some(match wait(*at) {
            0 => Ok(id.clone()),
            wait => Err(Duration::from_millis(wait)),
        })
    }

    pub(super) fn read(&self, id: &str) -> io::Result<Option<Delivery>> {
        let delivery = read(&self.file("pending", id))?;
        if delivery.is_none() {
            self.lock().remove(id);
        }
        Ok(delivery)
    }

    /// It was taken.
    pub(super) fn delivered(&self, delivery: &Delivery) -> io::Result<()> {
        self.lock().remove(&delivery.id);
        let bytes = serde_json::to_vec(delivery)?;
        write_whole(&self.directory.join("last.json"), &bytes, Sync::Later)?;
        found(fs::remove_file(self.file("pending", &delivery.id))).map(drop)
    }

    /// It was not taken: it is tried again later, or given up. Gives the wait, if there is one.
    pub(super) fn refused(&self, mut delivery: Delivery, answer: HookAnswer) -> io::Result<Option<Duration>> {
        let now = now_ms();
        delivery.attempts += 1;
        delivery.answer = Some(answer);
        let age = Duration::from_millis(now.saturating_sub(delivery.since_ms));
        if age >= self.hook.give_up_after {
            self.lock().remove(&delivery.id);
            self.write("failed", &delivery)?;
            found(fs::remove_file(self.file("pending", &delivery.id)))?;
            self.trim()?;
            return Ok(None);
        }
        let doublings = (delivery.attempts - 1).min(16);
        let wait = self.hook.retry_wait.saturating_mul(1 << doublings).min(RETRY_WAIT_MAX);
        delivery.next_ms = now + wait.as_millis() as u64;
        self.lock().insert(delivery.id.clone(), delivery.next_ms);
        self.write("pending", &delivery)?;
        Ok(Some(wait))
    }

    pub(super) fn pending(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn failed(&self) -> io::Result<Vec<String>> {
        ids_in(&self.directory.join("failed"))
    }

    fn trim(&self) -> io::Result<()> {
        let failed = self.failed()?;
        for id in &failed[..failed.len().saturating_sub(FAILED_MAX)] {
            found(fs::remove_file(self.file("failed", id)))?;
        }
        Ok(())
    }

    fn file(&self, part: &str, id: &str) -> PathBuf {
        self.directory.join(part).join(format!("{id}.json"))
    }

    fn write(&self, part: &str, delivery: &Delivery) -> io::Result<()> {
        write_whole(&self.file(part, &delivery.id), &serde_json::to_vec(delivery)?, Sync::Later)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deliveries in a directory, the oldest first. What a killed process had not renamed yet has another name.
pub(super) fn ids_in(directory: &Path) -> io::Result<Vec<String>> {
    Ok(names_in(directory)?.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
}

/// Reads a delivery; `None` when it is gone. One that cannot be read is somebody else's file.
pub(super) fn read(path: &Path) -> io::Result<Option<Delivery>> {
    let Some(metadata) = found(fs::metadata(path))? else { return Ok(None) };
    if metadata.len() > FILE_BYTES_MAX {
        return Ok(None);
    }
    let Some(bytes) = found(fs::read(path))? else { return Ok(None) };
    Ok(serde_json::from_slice(&bytes).ok())
}

/// What a power loss may do to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Nothing: the push that it tells of is acknowledged.
    Now,
    /// Take what happened in the second before it: at worst something is told twice.
    Later,
}

/// A crash leaves the old or the new file.
pub(super) fn write_whole(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let directory = path.parent().expect("each file of ours is in a directory");
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, bytes)?;
    if sync == Sync::Now {
        file.as_file().sync_data()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    if sync == Sync::Now { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
