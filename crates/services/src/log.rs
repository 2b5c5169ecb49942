//! Where the output of services goes, and who looks at it on the way.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use engine::{OutputSink, Secret};
use regex::Regex;
use tokio::sync::watch;

/// Opens logs. The pipeline keeps them with the run; `up` keeps them with the project.
pub trait Logs: Send + Sync {
    /// Opens the log of a service whose program is `command`. Nothing of `secrets` may be seen in it.
    ///
    /// # Errors
    /// It cannot be written, in words.
    fn open(&self, service: &str, command: &str, secrets: &[Secret]) -> Result<Arc<dyn ServiceLog>, String>;
}

/// The log of one service.
pub trait ServiceLog: Send + Sync {
    /// Takes the bytes of its containers.
    fn sink(&self) -> OutputSink;

    /// Adds a line of our own.
    fn note(&self, line: &str);

    /// Ends it. What is told of the end is the same each time.
    fn finish(&self, exit_code: i32) -> LogEnd;
}

/// What is known of a log at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// Its last lines.
    pub tail: Vec<String>,
    /// Lines before them.
    pub earlier_lines: u64,
    /// The whole log.
    pub path: PathBuf,
}

/// A longer line is looked at in parts: memory is bounded.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Counts lines that match, while they go on to the log.
pub(crate) struct Watched {
    pattern: Regex,
    line: Mutex<Vec<u8>>,
    count: watch::Sender<u32>,
}

impl Watched {
    pub(crate) fn new(pattern: Regex) -> Arc<Self> {
        Arc::new(Self { pattern, line: Mutex::default(), count: watch::channel(0).0 })
    }

    /// A sink that looks at everything before it hands it on.
    pub(crate) fn sink(self: &Arc<Self>, next: OutputSink) -> OutputSink {
        let this = Arc::clone(self);
        Arc::new(move |bytes| {
            next(bytes);
            this.take(bytes);
        })
    }

    /// What was said before does not count any more.
    pub(crate) fn begin_again(&self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.count.send_replace(0);
    }

    pub(crate) fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// Matches so far.
    pub(crate) fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Waits for so many matches.
    pub(crate) async fn reached(&self, times: u32) {
        // The sender lives in `self`, so waiting cannot end by its loss.
        let _ = self.count.subscribe().wait_for(|count| *count >= times).await;
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            if line.ends_with(b"\n") || line.len() >= LINE_BYTES_MAX || piece.ends_with(b"\n") {
                let text = String::from_utf8_lossy(&line);
                if self.pattern.is_match(text.trim_end_matches(['\n', '\r'])) {
                    self.count.send_modify(|count| *count = count.saturating_add(1));
                }
                line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_in_pieces_are_counted_once() {
        let watched = Watched::new(Regex::new("^ready$").expect("valid"));
        let sink = watched.sink(Arc::new(|_| {}));
        for (bytes, count) in
            [("rea", 0), ("dy", 0), ("\nnot ready\nready\r", 1), ("\nready", 2), ("\n", 3), (" ready\n", 3)]
        {
            sink(bytes.as_bytes());
            assert_eq!(watched.count(), count, "{bytes:?}");
        }
        sink(&vec![b'x'; 3 * LINE_BYTES_MAX]);
        sink(b"\nready\n");
        assert_eq!(watched.count(), 4);
        // Half a line of a former life is none of the next.
        sink(b"not ");
        watched.begin_again();
        sink(b"ready\n");
        assert_eq!(watched.count(), 1);
    }
}
