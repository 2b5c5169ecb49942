//! A stage's log: whole on disk up to a limit, as events by line, and its tail in memory.

use std::{
    collections::VecDeque,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use engine::{Masker, Masks, OutputSink};
use events::{Event, EventSink, Place};

use super::words;
use crate::{RunContext, RunError};

/// Whole logs are kept, but a program in an endless loop may not fill the disk.
const LOG_BYTES_MAX: u64 = 100 * 1_000_000;
/// A longer line is told in parts: nobody reads it, and memory is bounded.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Lines that are shown of a failure.
const TAIL_LINES_MAX: usize = 40;
/// A kept line is cut here: forty of them have to fit a screen.
const TAIL_LINE_BYTES_MAX: usize = 2_000;
/// Begins the lines by which a gate's shell tells that its next command starts: a control character that programs do
/// not print, followed by a number that they cannot guess.
pub(super) const MARK: u8 = 0x1e;

/// One command of a stage, for events.
pub(super) struct StepText {
    pub(super) text: String,
    pub(super) place: Option<Place>,
}

/// Takes in a container's output.
#[derive(Clone)]
pub(super) struct StageLog(Arc<Mutex<Inner>>);

struct Inner {
    events: EventSink,
    stage: String,
    path: PathBuf,
    file: Option<std::fs::File>,
    written_bytes: u64,
    lost_bytes: u64,
    line: Vec<u8>,
    /// The line so far is the start of one whose first part was told.
    is_continued: bool,
    tail: VecDeque<String>,
    lines: u64,
    steps: Vec<StepText>,
    /// Line by which the shell tells the next step.
    mark: Option<Vec<u8>>,
    /// Steps begun; the last one runs.
    begun: usize,
    step_id: u64,
    step_start: Instant,
    is_finished: bool,
    masker: Option<Masker>,
}

/// What is known at the end.
pub(super) struct Tail {
    pub(super) lines: Vec<String>,
    pub(super) earlier: u64,
    pub(super) path: PathBuf,
}

impl StageLog {
    /// Opens `log/<stage>` of the run. Without `mark` the first step begins at once, and is the only one.
    pub(super) fn open(
        cx: RunContext<'_>,
        stage: &str,
        steps: Vec<StepText>,
        mark: Option<String>,
        masks: Option<Arc<Masks>>,
    ) -> Result<StageLog, RunError> {
        let path = path(cx, stage);
        let open = || {
            path.parent().map_or(Ok(()), fs_err::create_dir_all)?;
            fs_err::File::create(&path)
        };
        let file = open().map_err(|error| RunError::local(format!("write the log of {stage}"), error))?;
        let mark = mark.map(|nonce| [&[MARK], nonce.as_bytes()].concat());
        Ok(Self::new(cx, stage, steps, mark, masks, Some(file.into_parts().0)))
    }

    /// One command of a stage whose log is written by whoever hears the events, because others write it too.
    pub(super) fn told(cx: RunContext<'_>, stage: &str, step: StepText) -> StageLog {
        Self::new(cx, stage, vec![step], None, None, None)
    }

    fn new(
        cx: RunContext<'_>,
        stage: &str,
        steps: Vec<StepText>,
        mark: Option<Vec<u8>>,
        masks: Option<Arc<Masks>>,
        file: Option<std::fs::File>,
    ) -> StageLog {
        let mut inner = Inner {
            events: cx.events.clone(),
            stage: stage.into(),
            path: path(cx, stage),
            file,
            written_bytes: 0,
            lost_bytes: 0,
            line: Vec::new(),
            is_continued: false,
            tail: VecDeque::new(),
            lines: 0,
            steps,
            mark,
            begun: 0,
            step_id: 0,
            step_start: Instant::now(),
            is_finished: false,
            masker: masks.map(Masker::new),
        };
        if inner.mark.is_none() {
            inner.begin_step();
        }
        StageLog(Arc::new(Mutex::new(inner)))
    }

    pub(super) fn sink(&self) -> OutputSink {
        let log = self.clone();
        Arc::new(move |bytes| log.lock().take(bytes))
    }

    /// Steps that have begun.
    pub(super) fn begun(&self) -> usize {
        self.lock().begun
    }

    /// Adds a line of our own.
    pub(super) fn note(&self, line: &str) {
        self.lock().take(format!("{line}\n").as_bytes());
    }

    /// Ends the running step and the log.
    pub(super) fn finish(&self, exit_code: i32) -> Tail {
        let mut inner = self.lock();
        inner.finish(exit_code);
        let earlier = inner.lines.saturating_sub(inner.tail.len() as u64);
        Tail { lines: inner.tail.iter().cloned().collect(), earlier, path: inner.path.clone() }
    }

    // A panic in a subscriber poisons the lock; the log itself is still sound.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(cx: RunContext<'_>, stage: &str) -> PathBuf {
    cx.run.path.join("log").join(words::file_name(stage))
}

impl Inner {
    fn take(&mut self, bytes: &[u8]) {
        match &mut self.masker {
            Some(masker) => {
                let masked = masker.push(bytes);
                self.take_masked(&masked);
            }
            None => self.take_masked(bytes),
        }
    }

    fn take_masked(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let room = LINE_BYTES_MAX - self.line.len();
            let length = newline.unwrap_or(bytes.len()).min(room);
            self.line.extend_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            if newline == Some(length) {
                bytes = &bytes[1..];
                self.end_line(true);
            } else if self.line.len() == LINE_BYTES_MAX {
                self.end_line(false);
            }
        }
    }

    fn end_line(&mut self, with_newline: bool) {
        let mut line = std::mem::take(&mut self.line);
        if with_newline
            && !self.is_continued
            && let Some(mark) = &self.mark
            && line.ends_with(mark)
        {
            // What stands before it is the end of the former command's output, without a newline of its own.
            line.truncate(line.len() - mark.len());
            if !line.is_empty() {
                self.tell(&line, true);
            }
            self.begin_step();
            return;
        }
        self.tell(&line, with_newline);
        self.is_continued = !with_newline;
    }

    fn tell(&mut self, line: &[u8], with_newline: bool) {
        let is_stored = self.store(line, with_newline);
        let mut text = String::from_utf8_lossy(line).into_owned();
        if text.ends_with('\r') {
            text.pop();
        }
        let mut cut = TAIL_LINE_BYTES_MAX.min(text.len());
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(text[..cut].to_owned());
        self.lines += 1;
        if is_stored {
            self.events.emit(Event::StepLog { stage: self.stage.clone(), step: self.step_id, line: text });
        }
    }

    /// Writes to the file; false when the limit is reached.
    fn store(&mut self, line: &[u8], with_newline: bool) -> bool {
        let length = line.len() as u64 + u64::from(with_newline);
        if self.lost_bytes > 0 || self.written_bytes + length > LOG_BYTES_MAX {
            if self.lost_bytes == 0 {
                let message = format!("the log of {} is cut after {}", self.stage, words::bytes(LOG_BYTES_MAX));
                self.events.emit(Event::Warning { message, place: None });
            }
            self.lost_bytes += length;
            return false;
        }
        self.written_bytes += length;
        if let Some(file) = &mut self.file {
            let newline: &[u8] = if with_newline { b"\n" } else { b"" };
            let written = file.write_all(&[line, newline].concat());
            if let Err(error) = written {
                let message = format!("the log {} cannot be written: {error}", self.path.display());
                self.events.emit(Event::Warning { message, place: None });
                self.file = None;
            }
        }
        true
    }

    fn begin_step(&mut self) {
        if self.begun > 0 {
            self.end_step(0);
        }
        let Some(step) = self.steps.get(self.begun) else { return };
        self.step_id = self.events.next_step();
        self.step_start = Instant::now();
        self.begun += 1;
        self.events.emit(Event::StepStarted {
            stage: self.stage.clone(),
            step: self.step_id,
            text: step.text.clone(),
            place: step.place.clone(),
        });
    }

    fn end_step(&mut self, exit_code: i32) {
        self.events.emit(Event::StepFinished {
            stage: self.stage.clone(),
            step: self.step_id,
            exit_code,
            duration_ms: words::millis(self.step_start.elapsed()),
            reason: None,
        });
    }

    fn finish(&mut self, exit_code: i32) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        if let Some(masker) = &mut self.masker {
            let rest = masker.finish();
            self.take_masked(&rest);
        }
        if !self.line.is_empty() {
            self.end_line(false);
        }
        if self.begun > 0 {
            self.end_step(exit_code);
        }
        if self.lost_bytes > 0
            && let Some(file) = &mut self.file
        {
            // The mark may go beyond the limit: it is what tells that the log is not whole.
            let mark = format!("\n[seatrial: log cut here, {} more were left out]\n", words::bytes(self.lost_bytes));
            drop(file.write_all(mark.as_bytes()));
        }
        self.file = None;
    }
}

#[cfg(test)]
mod tests;
