//! Writes what arrives from the network on threads that may block, while the next bytes arrive.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes collected before they go to a blocking thread: large enough that the hand-over does not show, small enough
/// that a hundred transfers stay below fifty megabytes (one such batch is collected while another is written).
const BATCH_BYTES: usize = 256 * 1024;

/// A writer that is fed from async code. No thread is held while the network is awaited.
pub(crate) struct Spool<W> {
    batch: Vec<Bytes>,
    batch_bytes: usize,
    state: State<W>,
}

enum State<W> {
    Idle(W),
    Writing(JoinHandle<(W, io::Result<()>)>),
    /// An earlier write failed; the writer is kept for the caller.
    Failed(W, io::Error),
    Lost,
}

impl<W: Write + Send + 'static> Spool<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self { batch: Vec::new(), batch_bytes: 0, state: State::Idle(writer) }
    }

    /// Takes bytes; waits while the batch before is still being written. An error may be of an earlier call's bytes.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.settle().await;
        self.start()
    }

    /// Writes the rest and gives the writer back, together with how writing went.
    pub(crate) async fn finish(mut self) -> (Option<W>, io::Result<()>) {
        self.settle().await;
        if let Err(error) = self.start() {
            return (self.into_writer(), Err(error));
        }
        self.settle().await;
        match self.state {
            State::Idle(writer) => (Some(writer), Ok(())),
            State::Failed(writer, error) => (Some(writer), Err(error)),
            State::Writing(_) | State::Lost => (None, Err(io::Error::other("the writing thread panicked"))),
        }
    }

    fn into_writer(self) -> Option<W> {
        match self.state {
            State::Idle(writer) | State::Failed(writer, _) => Some(writer),
            State::Writing(_) | State::Lost => None,
        }
    }

    fn start(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(mut writer) => {
                let batch = std::mem::take(&mut self.batch);
                self.batch_bytes = 0;
                self.state = if batch.is_empty() {
                    State::Idle(writer)
                } else {
                    State::Writing(spawn_blocking(move || {
                        let outcome = batch.iter().try_for_each(|bytes| writer.write_all(bytes));
                        (writer, outcome)
                    }))
                };
                Ok(())
            }
            State::Failed(writer, error) => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.state = State::Failed(writer, error);
                Err(told)
            }
            State::Writing(_) | State::Lost => Err(io::Error::other("the writing thread panicked")),
        }
    }

    /// Waits until no write is under way. Keeps its state when it is cancelled.
    async fn settle(&mut self) {
        if let State::Writing(handle) = &mut self.state {
            self.state = match handle.await {
                Ok((writer, Ok(()))) => State::Idle(writer),
                Ok((writer, Err(error))) => State::Failed(writer, error),
                Err(_) => State::Lost,
            };
        }
    }
}
