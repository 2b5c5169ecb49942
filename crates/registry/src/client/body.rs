//! Where the bytes of an upload come from, and how they become a request's body.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::stream;
use tokio::task::spawn_blocking;

/// Bytes read from a file at a time.
const READ_BYTES: u64 = 128 * 1024;

/// Content that can be read from any place again, because an upload may have to go on after a broken connection.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// A file of exactly the blob's content. Read by position, so that the descriptor may be shared.
    File(Arc<File>),
    /// Content in memory: configs and other small things.
    Bytes(Bytes),
}

impl From<File> for BlobSource {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

impl From<Vec<u8>> for BlobSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Bytes> for BlobSource {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A part of a source on its way; `sent` tells how much of it the connection has taken.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) source: BlobSource,
    pub(super) from: u64,
    pub(super) to: u64,
    sent: Arc<AtomicU64>,
    /// Why the source could not be read: our fault, not the network's.
    failure: Arc<OnceLock<String>>,
}

impl Part {
    pub(super) fn new(source: BlobSource, from: u64, to: u64) -> Self {
        Self { source, from, to, sent: Arc::default(), failure: Arc::default() }
    }

    pub(super) fn length(&self) -> u64 {
        self.to - self.from
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The body of one request; each call starts at the part's beginning.
    pub(super) fn body(&self) -> reqwest::Body {
        self.sent.store(0, Ordering::Relaxed);
        let part = self.clone();
        reqwest::Body::wrap_stream(stream::try_unfold((part, self.from), |(part, at)| async move {
            part.sent.store(at - part.from, Ordering::Relaxed);
            if at == part.to {
                return Ok(None);
            }
            let length = READ_BYTES.min(part.to - at);
            let bytes = part.source.read(at, length).await.inspect_err(|error| {
                let _ = part.failure.set(error.to_string());
            })?;
            Ok::<_, io::Error>(Some((bytes, (part, at + length))))
        }))
    }
}

impl BlobSource {
    async fn read(&self, at: u64, length: u64) -> io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => {
                let range = at as usize..(at + length) as usize;
                if range.end > bytes.len() { Err(too_short()) } else { Ok(bytes.slice(range)) }
            }
            Self::File(file) => {
                let file = Arc::clone(file);
                spawn_blocking(move || {
                    let mut buffer = vec![0; length as usize];
                    file.read_exact_at(&mut buffer, at).map_err(|error| {
                        if error.kind() == io::ErrorKind::UnexpectedEof { too_short() } else { error }
                    })?;
                    Ok(buffer.into())
                })
                .await
                .map_err(io::Error::other)?
            }
        }
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the content is shorter than its descriptor says")
}
