//! Content on its way to a client: read on threads that may block, one piece ahead of the network.

use std::{io, ops::Range, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use tokio::task::{JoinHandle, spawn_blocking};

use super::backend::ReadAt;

/// Bytes of one piece: each is a hand-over to a blocking thread, which smaller ones do not repay. Two of them are in memory
/// per reader.
const PIECE_BYTES: u64 = 256 * 1024;

/// Content whose first piece was read together with its opening: most blobs that are asked for often have no second one.
pub(super) struct First {
    piece: Bytes,
    rest: Rest,
}

#[derive(Clone)]
struct Rest {
    content: Arc<dyn ReadAt>,
    range: Range<u64>,
}

impl First {
    /// Reads the first piece of a range. Blocks.
    pub(super) fn read(content: Arc<dyn ReadAt>, range: Range<u64>) -> io::Result<Self> {
        let (piece, rest) = Rest { content, range }.read()?;
        Ok(Self { piece, rest })
    }
}

impl Rest {
    /// The next piece, and what comes after it.
    fn read(mut self) -> io::Result<(Bytes, Self)> {
        let length = (self.range.end - self.range.start).min(PIECE_BYTES) as usize;
        let mut piece = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.content.read_at(&mut piece[filled..], self.range.start + filled as u64) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "content is shorter than it was")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.range.start += length as u64;
        Ok((piece.into(), self))
    }

    fn begin(self) -> Option<JoinHandle<io::Result<(Bytes, Self)>>> {
        (!self.range.is_empty()).then(|| spawn_blocking(move || self.read()))
    }
}

/// A body of the whole range.
pub(super) fn stream(first: First) -> Body {
    if first.rest.range.is_empty() {
        return Body::from(first.piece);
    }
    let next = first.rest.begin();
    Body::from_stream(stream::unfold((Some(first.piece), next), |(piece, next)| async move {
        if let Some(piece) = piece {
            return Some((Ok(piece), (None, next)));
        }
        let outcome = match next?.await {
            Ok(outcome) => outcome,
            Err(error) => Err(io::Error::other(error)),
        };
        // The next piece is read while this one is sent.
        Some(match outcome {
            Ok((piece, rest)) => (Ok(piece), (None, rest.begin())),
            Err(error) => (Err(error), (None, None)),
        })
    }))
}
