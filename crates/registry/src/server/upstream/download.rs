//! A blob on its way from the upstream: written to a file, read by all who wait for it, kept only if it is what it should be.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use fs_err as fs;
use futures::stream;
use oci::{Descriptor, Digest, Hasher, Reference};
use tokio::{sync::watch, task::spawn_blocking};

use super::{Known, digest_key};
use crate::{
    BlobTarget, CommitError, NoProgress,
    server::{Shared, answer::Refusal, storage::RepositoryName, uploads::new_id},
};

/// Downloads at a time. Each costs a connection, a file and some memory.
const DOWNLOADS_MAX: usize = 256;
/// Bytes of one piece on its way to a client.
const PIECE_BYTES: u64 = 256 * 1024;

/// The downloads of a server, by repository and digest.
#[derive(Debug)]
pub(super) struct Downloads {
    directory: PathBuf,
    running: Mutex<HashMap<String, Arc<Download>>>,
}

impl Downloads {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, running: Mutex::default() }
    }

    pub(super) fn running(&self, key: &str) -> Option<Arc<Download>> {
        self.lock().get(key).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Download>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download.
#[derive(Debug)]
pub(in super::super) struct Download {
    pub(super) size_bytes: u64,
    file: Arc<File>,
    state: watch::Receiver<State>,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes are in the file. Nothing is known of their being right.
    Written(u64),
    /// All of it is right, and kept.
    Kept,
    Failed,
}

impl Download {
    /// Begins to fetch a blob of `remote`. Called by one at a time for each blob.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        upstream: &Known,
        name: &RepositoryName,
        digest: &Digest,
        remote: Reference,
        size_bytes: u64,
    ) -> Result<Arc<Self>, Refusal> {
        let downloads = &shared.upstreams.downloads;
        if downloads.lock().len() >= DOWNLOADS_MAX {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many downloads"));
        }
        let directory = downloads.directory.clone();
        let (file, path) = spawn_blocking(move || -> io::Result<_> {
            let path = directory.join(new_id()?);
            let file = fs::OpenOptions::new().create_new(true).read(true).append(true).open(&path)?;
            Ok((Arc::new(file.into_parts().0), path))
        })
        .await??;
        let (tell, state) = watch::channel(State::Written(0));
        let download = Arc::new(Self { size_bytes, file: Arc::clone(&file), state });
        let key = digest_key(name, digest);
        downloads.lock().insert(key.clone(), Arc::clone(&download));

        let target = Target {
            shared: Arc::clone(shared),
            name: name.clone(),
            file,
            path,
            hasher: Hasher::new(),
            tell: tell.clone(),
            is_kept: false,
        };
        let (shared, client) = (Arc::clone(shared), upstream.options.client.clone());
        let descriptor = Descriptor::new("application/octet-stream", digest.clone(), size_bytes);
        let ending = Ending { shared: Arc::clone(&shared), key, tell };
        shared.upstreams.background.spawn(async move {
            let ending = ending;
            // What came first is on its way to clients: a second copy would be no use to them.
            let first = Mutex::new(Some(target));
            let open = || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
                let target = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                target.map(|target| Box::new(target) as Box<dyn BlobTarget>).ok_or_else(|| "it was wrong".into())
            };
            if client.fetch_blob(&remote, &descriptor, &open, &NoProgress).await.is_ok() {
                ending.tell.send_replace(State::Kept);
            }
        });
        Ok(download)
    }

    /// A body of a range of it. Its last byte waits until the whole blob has arrived and was found right; otherwise the
    /// body is cut off.
    pub(in super::super) fn body(self: Arc<Self>, range: Range<u64>) -> Body {
        let state = self.state.clone();
        Body::from_stream(stream::try_unfold((self, state, range), |(download, mut state, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the upstream did not give what it should");
            let ready = loop {
                let now = *state.borrow_and_update();
                let ready = match now {
                    State::Kept => range.end,
                    State::Written(written) => written.min(range.end - 1),
                    State::Failed => return Err(cut()),
                };
                if ready > range.start {
                    break ready;
                }
                state.changed().await.map_err(|_| cut())?;
            };
            let piece = range.start..ready.min(range.start + PIECE_BYTES);
            let (file, wanted) = (Arc::clone(&download.file), piece.clone());
            let bytes = spawn_blocking(move || read(&file, wanted)).await.map_err(io::Error::other)??;
            Ok(Some((bytes, (download, state, piece.end..range.end))))
        }))
    }
}

fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// However a download ends, nobody waits for it any more.
struct Ending {
    shared: Arc<Shared>,
    key: String,
    tell: watch::Sender<State>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.upstreams.downloads.lock().remove(&self.key);
        self.tell.send_if_modified(|state| {
            let is_open = matches!(state, State::Written(_));
            if is_open {
                *state = State::Failed;
            }
            is_open
        });
    }
}

/// Where its bytes go.
struct Target {
    shared: Arc<Shared>,
    name: RepositoryName,
    file: Arc<File>,
    path: PathBuf,
    hasher: Hasher,
    tell: watch::Sender<State>,
    is_kept: bool,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.tell.send_replace(State::Written(self.hasher.length_bytes()));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobTarget for Target {
    fn commit(mut self: Box<Self>, digest: &Digest, _: u64) -> Result<(), CommitError> {
        let found = std::mem::take(&mut self.hasher).finish();
        if found != *digest {
            return Err(CommitError::WrongDigest(found));
        }
        let kept = self.shared.storage.commit_upload(&self.name, &self.file, &self.path, digest);
        kept.map_err(|error| CommitError::Failed(error.into()))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
