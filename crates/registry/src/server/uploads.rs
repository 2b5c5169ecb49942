//! Uploads under way: bytes on disk, a running hash in memory (made again from the bytes after a restart).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Body, http::StatusCode};
use fs_err as fs;
use futures::StreamExt;
use oci::{Digest, Hasher};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    Shared,
    answer::Refusal,
    directory::{make_dir, remove},
    storage::RepositoryName,
};
use crate::spool::Spool;

/// Uploads open at once. Each costs a file and some memory; nobody pushes this many layers at a time.
const UPLOADS_MAX: usize = 10_000;
/// A request waits so long for an earlier one of the same upload, whose connection may have just broken.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Hex digits of an upload's name.
const ID_LENGTH: usize = 32;

/// The uploads that this process has seen.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    open: Mutex<HashMap<String, Arc<Upload>>>,
}

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) id: String,
    repository: RepositoryName,
    path: PathBuf,
    offset: Arc<AtomicU64>,
    used: Mutex<Instant>,
    // `None` when the writer was lost in a panic; it is then made again from the file.
    writer: Arc<AsyncMutex<Option<UploadFile>>>,
}

impl Upload {
    /// Bytes received.
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }
}

/// The file of an upload, with the hash of what it holds.
struct UploadFile {
    file: Arc<File>,
    hasher: Hasher,
    // Told to those who ask while bytes come in.
    offset: Arc<AtomicU64>,
}

impl UploadFile {
    fn new(file: fs::File, hasher: Hasher) -> Self {
        let offset = Arc::new(AtomicU64::new(hasher.length_bytes()));
        Self { file: Arc::new(file.into_parts().0), hasher, offset }
    }
}

impl std::fmt::Debug for UploadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UploadFile({} bytes)", self.hasher.length_bytes())
    }
}

impl Write for UploadFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.offset.store(self.hasher.length_bytes(), Ordering::Release);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Uploads {
    /// Opens a new upload.
    pub(super) fn begin(&self, shared: &Shared, repository: &RepositoryName) -> Result<Arc<Upload>, Refusal> {
        if self.lock().len() >= UPLOADS_MAX {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many open uploads"));
        }
        let id = new_id()?;
        let path = shared.storage.upload_path(repository, &id);
        make_dir(path.parent().expect("uploads are in a directory"))?;
        let file = fs::OpenOptions::new().create_new(true).append(true).read(true).open(&path)?;
        let writer = UploadFile::new(file, Hasher::new());
        Ok(self.keep(id, repository, path, writer))
    }

    /// Finds an open upload, also one of an earlier process.
    pub(super) fn find(&self, shared: &Shared, repository: &RepositoryName, id: &str) -> Result<Arc<Upload>, Refusal> {
        let unknown = || Refusal::missing("BLOB_UPLOAD_UNKNOWN", "no such upload");
        if id.len() != ID_LENGTH || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(unknown());
        }
        if let Some(upload) = self.lock().get(id).cloned() {
            return if upload.repository == *repository { Ok(upload) } else { Err(unknown()) };
        }
        let path = shared.storage.upload_path(repository, id);
        match reopen(&path) {
            Ok(writer) => Ok(self.keep(id.to_owned(), repository, path, writer)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    fn keep(&self, id: String, repository: &RepositoryName, path: PathBuf, writer: UploadFile) -> Arc<Upload> {
        let upload = Upload {
            id: id.clone(),
            repository: repository.clone(),
            path,
            offset: Arc::clone(&writer.offset),
            used: Mutex::new(Instant::now()),
            writer: Arc::new(AsyncMutex::new(Some(writer))),
        };
        // Two requests may have reopened it at the same time; the first one counts.
        Arc::clone(self.lock().entry(id).or_insert_with(|| Arc::new(upload)))
    }

    /// Uploads that this process has seen and that have not ended.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Forgets an upload and removes its bytes.
    pub(super) fn cancel(&self, upload: &Upload) -> io::Result<()> {
        self.lock().remove(&upload.id);
        remove(&upload.path).map(drop)
    }

    /// Forgets uploads that nobody used for so long; their files are the storage's to remove.
    pub(super) fn forget_idle(&self, life: Duration) {
        self.lock().retain(|_, upload| upload.used.lock().is_ok_and(|used| used.elapsed() < life));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that one request has to itself.
pub(super) struct Turn {
    pub(super) upload: Arc<Upload>,
    writer: OwnedMutexGuard<Option<UploadFile>>,
}

impl Turn {
    pub(super) async fn take(upload: Arc<Upload>) -> Result<Self, Refusal> {
        let waited = timeout(TURN_WAIT_MAX, Arc::clone(&upload.writer).lock_owned()).await;
        let busy = || Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "the upload is being written to");
        let writer = waited.map_err(|_| busy().header(axum::http::header::RETRY_AFTER, "1"))?;
        if let Ok(mut used) = upload.used.lock() {
            *used = Instant::now();
        }
        Ok(Self { upload, writer })
    }

    /// Appends a body. What arrives before a connection breaks is kept, so that the upload can go on from there.
    pub(super) async fn append(&mut self, body: Body, idle: Duration) -> Result<(), Refusal> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let path = self.upload.path.clone();
                let writer = spawn_blocking(move || reopen(&path)).await??;
                UploadFile { offset: Arc::clone(&self.upload.offset), ..writer }
            }
        };
        let mut spool = Spool::new(writer);
        let mut stream = body.into_data_stream();
        let outcome = loop {
            match timeout(idle, stream.next()).await {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(bytes))) => {
                    if let Err(error) = spool.push(bytes).await {
                        break Err(error.into());
                    }
                }
                Ok(Some(Err(_))) => break Err(Refusal::bad("BLOB_UPLOAD_INVALID", "the connection was cut")),
                Err(_) => break Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "no data came")),
            }
        };
        let (writer, written) = spool.finish().await;
        // After a failed write the file may be longer than the hash knows: it is read again at the next request.
        *self.writer = if written.is_ok() { writer } else { None };
        if self.writer.is_none() {
            let length = fs::metadata(&self.upload.path)?.len();
            self.upload.offset.store(length, Ordering::Release);
        }
        outcome.and(written.map_err(Refusal::from))
    }

    /// Checks the digest and makes the bytes a blob of the repository. A wrong digest ends the upload.
    pub(super) async fn finish(mut self, shared: Arc<Shared>, digest: Digest) -> Result<(), Refusal> {
        let writer = self.writer.take();
        let upload = Arc::clone(&self.upload);
        spawn_blocking(move || {
            let UploadFile { file, hasher, .. } = match writer {
                Some(writer) => writer,
                None => reopen(&upload.path)?,
            };
            let found = hasher.finish();
            if found != digest {
                shared.uploads.cancel(&upload)?;
                return Err(Refusal::bad("DIGEST_INVALID", format!("the content's digest is {found}")));
            }
            let size_bytes = file.metadata()?.len();
            if let Err(refusal) =
                shared.storage.check_room(&shared.options.rules, &upload.repository, &digest, Some(size_bytes))
            {
                shared.uploads.cancel(&upload)?;
                return Err(refusal);
            }
            shared.storage.commit_upload(&upload.repository, &file, &upload.path, &digest)?;
            shared.uploads.lock().remove(&upload.id);
            Ok(())
        })
        .await?
    }
}

/// Opens an upload's file and hashes what it holds.
fn reopen(path: &std::path::Path) -> io::Result<UploadFile> {
    let mut file = fs::OpenOptions::new().append(true).read(true).open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(UploadFile::new(file, hasher)),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// A name that cannot be guessed: whoever knows it may write to the upload.
pub(super) fn new_id() -> io::Result<String> {
    let mut random = [0; ID_LENGTH / 2];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
