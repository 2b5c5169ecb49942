//! A digest that is worked out beside the reading of its input: hashing and reading take about as long as one another.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver, SyncSender},
    thread::{self, JoinHandle},
};

use oci::{Digest, Hasher};

/// Handed over at once. An input that is shorter is hashed where it is read.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces under way; they bound the memory.
const PIECES_MAX: usize = 4;

/// Hashes what is written to it, from the second piece on with a thread of its own.
#[derive(Default)]
pub(crate) struct SideHasher {
    piece: Vec<u8>,
    thread: Option<HashThread>,
}

struct HashThread {
    pieces: SyncSender<Vec<u8>>,
    /// Pieces that were hashed come back, so that their memory is used again.
    used: Receiver<Vec<u8>>,
    hashing: JoinHandle<Hasher>,
}

impl SideHasher {
    /// The digest of all that was written.
    pub(crate) fn finish(self) -> Digest {
        let mut hasher = match self.thread {
            None => Hasher::new(),
            Some(HashThread { pieces, hashing, .. }) => {
                drop(pieces);
                hashing.join().expect("hashing does not panic")
            }
        };
        hasher.update(&self.piece);
        hasher.finish()
    }

    fn hand_over(&mut self) {
        let thread = self.thread.get_or_insert_with(HashThread::start);
        let next = thread.used.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE_BYTES));
        let piece = std::mem::replace(&mut self.piece, next);
        thread.pieces.send(piece).expect("the thread takes pieces until we stop");
    }
}

impl HashThread {
    fn start() -> Self {
        let (pieces, taken) = mpsc::sync_channel::<Vec<u8>>(PIECES_MAX);
        let (give_back, used) = mpsc::channel();
        let hashing = thread::spawn(move || {
            let mut hasher = Hasher::new();
            for mut piece in taken {
                hasher.update(&piece);
                piece.clear();
                // Nobody wants it after the last one.
                let _ = give_back.send(piece);
            }
            hasher
        });
        Self { pieces, used, hashing }
    }
}

impl Write for SideHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_BYTES {
            self.hand_over();
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_bytes_however_they_come() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES as u32 + 17).map(|at| (at % 251) as u8).collect();
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, bytes.len()] {
            for step in [1000, PIECE_BYTES, bytes.len()] {
                let mut hasher = SideHasher::default();
                for part in bytes[..length].chunks(step) {
                    hasher.write_all(part).unwrap();
                }
                assert_eq!(hasher.finish(), Digest::of(&bytes[..length]), "{length} bytes by {step}");
            }
        }
    }
}
