//! Large files begin their way to the disk while others are still being made, so that the sync at the end has little left.

use std::{
    fs::File,
    sync::mpsc::{self, SyncSender},
    thread,
};

/// Smaller files are left to the sync at the end, which writes many at once.
const LARGE_BYTES: u64 = 4 * 1024 * 1024;
/// Files that wait. More are left to the sync at the end.
const WAITING_MAX: usize = 64;

/// Writes files to the disk, one at a time, beside whoever makes them. A courtesy: it keeps no promise and reports nothing.
#[derive(Debug)]
pub(crate) struct Flusher {
    files: Option<SyncSender<File>>,
}

impl Flusher {
    /// The thread begins with the first large file, and ends with the flusher.
    pub(crate) fn new() -> Self {
        Self { files: None }
    }

    /// Takes a file of which `length_bytes` were written.
    pub(crate) fn take(&mut self, file: &File, length_bytes: u64) {
        if length_bytes < LARGE_BYTES {
            return;
        }
        let files = self.files.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::sync_channel::<File>(WAITING_MAX);
            thread::spawn(move || {
                for file in receiver {
                    // The sync at the end tells of a disk that fails.
                    let _ = file.sync_data();
                }
            });
            sender
        });
        if let Ok(file) = file.try_clone() {
            let _ = files.try_send(file);
        }
    }
}
