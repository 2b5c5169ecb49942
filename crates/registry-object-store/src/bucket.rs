//! Keys of the registry as objects. An object store acknowledges what it has stored, so there is nothing to sync.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    future::Future,
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::Path as FilePath,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::try_join_all;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, WriteMultipart, path::Path};
use registry::{Backend, ReadAt, Record, Stat, Taking};
use tokio::runtime::{Builder, Runtime};

/// Content up to this size is sent in one request, larger content in parts of it; S3 allows 10,000 parts.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts on their way at once.
const PARTS_MAX: usize = 2;
/// Content is fetched this much at a time: each fetch is a request.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// Objects have no time that can be set. That a record is in use is remembered here, and the record is written anew when
/// this long has passed since it was, so that a restart forgets no more than that.
const REWRITTEN_EVERY: Duration = Duration::from_secs(1800);
/// Records in use that are remembered; beyond it all are forgotten and written anew when they are used again.
const TOUCHED_MAX: usize = 100_000;

pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    // `None` only while it is dropped.
    threads: Option<Runtime>,
    touched: Mutex<HashMap<String, Touch>>,
}

#[derive(Clone, Copy)]
struct Touch {
    used: SystemTime,
    written: SystemTime,
}

impl Bucket {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> io::Result<Self> {
        // Of its own, so that those who call need not be on a thread of a runtime.
        let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { store, prefix, threads: Some(threads), touched: Mutex::default() })
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn wait<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> io::Result<Option<T>> {
        let threads = self.threads.as_ref().expect("it is there until the end");
        match threads.block_on(work) {
            Ok(value) => Ok(Some(value)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn must<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        self.wait(work)?.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the object store's place is not there"))
    }

    fn touches(&self) -> std::sync::MutexGuard<'_, HashMap<String, Touch>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Bucket {
    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(key);
        let bytes = self.wait(async { self.store.get(&path).await?.bytes().await })?;
        Ok(bytes.map(Vec::from))
    }

    fn write(&self, records: &[Record]) -> io::Result<()> {
        let puts = records.iter().map(|record| async {
            let payload = Bytes::copy_from_slice(&record.bytes);
            self.store.put(&self.path(&record.key), payload.into()).await.map(drop)
        });
        self.must(try_join_all(puts)).map(drop)
    }

    fn remove(&self, keys: &[String]) -> io::Result<usize> {
        let removals = keys.iter().map(|key| async {
            let path = self.path(key);
            // Deleting what is not there succeeds in some of them.
            match self.store.head(&path).await {
                Err(Error::NotFound { .. }) => return Ok(0),
                other => other?,
            };
            match self.store.delete(&path).await {
                Ok(()) => Ok(1),
                Err(Error::NotFound { .. }) => Ok(0),
                Err(error) => Err(error),
            }
        });
        let counts: Vec<usize> = self.must(try_join_all(removals))?;
        let mut touched = self.touches();
        for key in keys {
            touched.remove(key);
        }
        Ok(counts.into_iter().sum())
    }

    fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        let path = self.path(key);
        let Some(meta) = self.wait(self.store.head(&path))? else { return Ok(None) };
        let written = SystemTime::from(meta.last_modified);
        let used = self.touches().get(key).map(|touch| touch.used);
        Ok(Some(Stat { size_bytes: meta.size, touched: used.map_or(written, |used| used.max(written)) }))
    }

    fn touch(&self, key: &str) -> io::Result<bool> {
        let path = self.path(key);
        let Some(meta) = self.wait(self.store.head(&path))? else { return Ok(false) };
        let now = SystemTime::now();
        let known = self.touches().get(key).map(|touch| touch.written);
        let mut written = known.unwrap_or_else(|| meta.last_modified.into());
        if now.duration_since(written).is_ok_and(|age| age > REWRITTEN_EVERY)
            && let Some(bytes) = self.read(key)?
        {
            self.must(self.store.put(&path, bytes.into()))?;
            written = now;
        }
        let mut touched = self.touches();
        if touched.len() >= TOUCHED_MAX {
            touched.clear();
        }
        touched.insert(key.to_owned(), Touch { used: now, written });
        Ok(true)
    }

    fn list(&self, key: &str) -> io::Result<Vec<String>> {
        let path = self.path(key);
        let Some(found) = self.wait(self.store.list_with_delimiter(Some(&path)))? else { return Ok(Vec::new()) };
        let groups = found.common_prefixes.iter();
        let records = found.objects.iter().map(|meta| &meta.location);
        let mut names: Vec<String> =
            groups.chain(records).filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    fn open(&self, key: &str) -> io::Result<Option<(Arc<dyn ReadAt>, u64)>> {
        let path = self.path(key);
        let Some(meta) = self.wait(self.store.head(&path))? else { return Ok(None) };
        let handle = self.threads.as_ref().expect("it is there until the end").handle().clone();
        let store = Arc::clone(&self.store);
        let remote = Remote { store, path, size_bytes: meta.size, handle, window: Mutex::default() };
        Ok(Some((Arc::new(remote), meta.size)))
    }

    fn adopt(&self, key: &str, file: &File, path: &FilePath, taking: Taking) -> io::Result<()> {
        let target = self.path(key);
        let size_bytes = file.metadata()?.len();
        if size_bytes <= PART_BYTES as u64 {
            let mut bytes = vec![0; size_bytes as usize];
            file.read_exact_at(&mut bytes, 0)?;
            self.must(self.store.put(&target, bytes.into()))?;
        } else {
            self.must(send_parts(&*self.store, &target, file, size_bytes))?;
        }
        if taking == Taking::Move {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Sends a file in parts; a failure leaves nothing behind.
async fn send_parts(store: &dyn ObjectStore, target: &Path, file: &File, size_bytes: u64) -> object_store::Result<()> {
    let local = |source: io::Error| Error::Generic { store: "local file", source: Box::new(source) };
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(target).await?, PART_BYTES);
    let mut offset = 0;
    while offset < size_bytes {
        let sent = async {
            upload.wait_for_capacity(PARTS_MAX).await?;
            let mut part = vec![0; (size_bytes - offset).min(PART_BYTES as u64) as usize];
            file.read_exact_at(&mut part, offset).map_err(local)?;
            offset += part.len() as u64;
            upload.put(part.into());
            Ok::<_, Error>(())
        };
        if let Err(error) = sent.await {
            // The first failure is the one that is told.
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.finish().await.map(drop)
}

/// Content in the object store, fetched window by window.
struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
    handle: tokio::runtime::Handle,
    window: Mutex<(u64, Bytes)>,
}

impl ReadAt for Remote {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.size_bytes || buffer.is_empty() {
            return Ok(0);
        }
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let is_inside = |window: &(u64, Bytes)| offset >= window.0 && offset < window.0 + window.1.len() as u64;
        if !is_inside(&window) {
            let range = offset..self.size_bytes.min(offset + WINDOW_BYTES.max(buffer.len() as u64));
            let bytes = self.handle.block_on(self.store.get_range(&self.path, range)).map_err(io::Error::other)?;
            *window = (offset, bytes);
        }
        if !is_inside(&window) {
            return Ok(0);
        }
        let rest = &window.1[(offset - window.0) as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.prefix)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may happen on a thread that must not wait.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
