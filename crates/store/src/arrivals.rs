//! Blobs on their way into the store, for whoever unpacks them meanwhile.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use oci::Digest;

/// The first read gives at least as many, unless there are no more: the compression is told by them.
const FIRST_BYTES: u64 = 64;

/// What has come of some blobs. Whoever brings them tells; whoever unpacks them waits. [`Arrivals::end`] lets all go.
#[derive(Debug)]
pub struct Arrivals {
    states: Mutex<HashMap<Digest, State>>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// Nothing that could be read.
    Awaited,
    /// The first bytes are there. The file is there until somebody reads it.
    Growing { file: Option<File>, bytes: u64 },
    /// It is a blob of the store.
    Here,
    /// What came was wrong, or nobody brings it any more.
    Lost,
}

impl Arrivals {
    /// Blobs of which nothing has come.
    pub fn of<'a>(blobs: impl IntoIterator<Item = &'a Digest>) -> Self {
        let states = blobs.into_iter().map(|blob| (blob.clone(), State::Awaited)).collect();
        Self { states: Mutex::new(states), changed: Condvar::new() }
    }

    /// The blob is written to `file`, which holds its first `bytes`.
    pub fn begins(&self, blob: &Digest, file: File, bytes: u64) {
        self.change(blob, |state| {
            // Another attempt, from the start: what was read of the first is worth nothing.
            *state = match state {
                State::Awaited => State::Growing { file: Some(file), bytes },
                _ => State::Lost,
            };
        });
    }

    /// More of it was written.
    pub fn grew(&self, blob: &Digest, by_bytes: u64) {
        self.change(blob, |state| {
            if let State::Growing { bytes, .. } = state {
                *bytes += by_bytes;
            }
        });
    }

    /// The store has the blob: its size and digest are what they should be.
    pub fn is_here(&self, blob: &Digest) {
        self.change(blob, |state| {
            if !matches!(state, State::Lost) {
                *state = State::Here;
            }
        });
    }

    /// No more comes. Whoever waits for a blob that is not here gets an error.
    pub fn end(&self) {
        for state in self.lock().values_mut().filter(|state| !matches!(state, State::Here)) {
            *state = State::Lost;
        }
        self.changed.notify_all();
    }

    /// Waits for the first bytes of a blob. `None`: the store has it.
    pub(crate) fn open(&self, blob: &Digest) -> io::Result<Option<Arriving<'_>>> {
        let mut states = self.lock();
        loop {
            match states.get_mut(blob) {
                None | Some(State::Here) => return Ok(None),
                Some(State::Growing { file, .. }) => {
                    let file = file.take().ok_or_else(lost)?;
                    return Ok(Some(Arriving { arrivals: self, blob: blob.clone(), file, at: 0 }));
                }
                Some(State::Awaited) => states = self.wait(states),
                Some(State::Lost) => return Err(lost()),
            }
        }
    }

    /// Waits until the store has a blob.
    pub(crate) fn wait_for(&self, blob: &Digest) -> io::Result<()> {
        let mut states = self.lock();
        loop {
            match states.get(blob) {
                None | Some(State::Here) => return Ok(()),
                Some(State::Lost) => return Err(lost()),
                Some(State::Awaited | State::Growing { .. }) => states = self.wait(states),
            }
        }
    }

    fn change(&self, blob: &Digest, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.lock().get_mut(blob) {
            change(state);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, states: MutexGuard<'a, HashMap<Digest, State>>) -> MutexGuard<'a, HashMap<Digest, State>> {
        self.changed.wait(states).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that is read while it grows. Its end comes when the store has it: then it was what its digest says.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    arrivals: &'a Arrivals,
    blob: Digest,
    file: File,
    at: u64,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut states = self.arrivals.lock();
        let present = loop {
            match states.get(&self.blob) {
                Some(State::Growing { bytes, .. }) if *bytes >= FIRST_BYTES.max(self.at + 1) => break *bytes - self.at,
                Some(State::Growing { .. }) => states = self.arrivals.wait(states),
                // All of the file.
                Some(State::Here) => break u64::MAX,
                _ => return Err(lost()),
            }
        };
        drop(states);
        let wanted = usize::try_from(present).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn lost() -> io::Error {
    io::Error::other("the blob did not arrive")
}
