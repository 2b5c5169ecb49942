//! Events as JSON lines: on stdout for programs, and in the run's directory always.

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use events::{Event, Record, Subscriber};

/// `--progress=json`: one event a line on stdout; the stream is the result that was asked for.
pub(crate) struct JsonLines;

impl Subscriber for JsonLines {
    fn event(&self, record: &Record) {
        super::result_line(&line(record));
    }
}

fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("events have string keys and always serialise")
}

/// A stage's log on disk ends here, with a mark; a runaway gate must not fill the disk.
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Same bound for the record of the run.
const EVENTS_BYTES_MAX: u64 = 1 << 30;

/// Logs on disk are not older than this while a stage speaks.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// `events.jsonl` and `log/<stage>` in a run's directory. A full disk loses log lines, never the run.
pub(crate) struct RunLog {
    files: Mutex<Files>,
}

struct Files {
    flushed: Instant,
    directory: PathBuf,
    events: Option<Bounded>,
    logs: HashMap<String, Option<Bounded>>,
}

struct Bounded {
    out: BufWriter<std::fs::File>,
    left: u64,
}

impl Bounded {
    fn create(path: &Path, limit_bytes: u64) -> Option<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).ok()?;
        Some(Self { out: BufWriter::new(file), left: limit_bytes })
    }

    fn line(&mut self, line: &str) {
        let length = line.len() as u64 + 1;
        if self.left == 0 {
            return;
        }
        if length > self.left {
            self.left = 0;
            let _ = writeln!(self.out, "[cut here: the limit of {LOG_BYTES_MAX} bytes is reached]");
            return;
        }
        self.left -= length;
        let _ = writeln!(self.out, "{line}");
    }
}

impl RunLog {
    /// Starts recording in the directory of a run.
    pub(crate) fn open(directory: &Path) -> Self {
        let events = Bounded::create(&directory.join("events.jsonl"), EVENTS_BYTES_MAX);
        let files = Files { flushed: Instant::now(), directory: directory.to_owned(), events, logs: HashMap::new() };
        Self { files: Mutex::new(files) }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.flushed = Instant::now();
        let Files { events, logs, .. } = &mut *files;
        for file in logs.values_mut().flatten().chain(events) {
            let _ = file.out.flush();
        }
    }
}

impl Drop for RunLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Subscriber for RunLog {
    fn event(&self, record: &Record) {
        // Progress of transfers is for eyes only.
        if matches!(record.event, Event::Transfer { .. }) {
            return;
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match &record.event {
            Event::StepLog { stage, line, .. } if is_ours(stage) => files.log(stage, line),
            Event::StepStarted { stage, text, .. } if is_ours(stage) => files.log(stage, &format!("$ {text}")),
            Event::StepCached { stage, text, .. } if is_ours(stage) => files.log(stage, &format!("$ {text} (cached)")),
            _ => {}
        }
        if let Some(events) = &mut files.events {
            events.line(&line(record));
        }
        // What was said is on disk soon, also when this process is killed.
        let is_due = files.flushed.elapsed() >= FLUSH_EVERY;
        let is_mark =
            matches!(record.event, Event::StageFinished { .. } | Event::RunFinished { .. } | Event::RunStarted { .. });
        if is_due || is_mark {
            drop(files);
            self.flush();
        }
    }
}

/// Builds, `before` and setups tell their output as events only; the logs of gates are written by the pipeline, byte by byte.
fn is_ours(stage: &str) -> bool {
    let stage = pipeline::name_in_image(stage);
    stage == "build" || stage.starts_with("build ") || stage == "before" || stage == "setup"
}

impl Files {
    fn log(&mut self, stage: &str, line: &str) {
        let directory = self.directory.join("log");
        let file = self.logs.entry(stage.to_owned()).or_insert_with(|| {
            let _ = std::fs::create_dir_all(&directory);
            Bounded::create(&directory.join(pipeline::file_name(stage)), LOG_BYTES_MAX)
        });
        if let Some(file) = file {
            file.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_recorded_whole_and_without_transfers() {
        let directory = tempfile::tempdir().unwrap();
        let log = RunLog::open(directory.path());
        for event in [
            Event::StageStarted { stage: "build".into() },
            Event::StepLog { stage: "build".into(), step: 1, line: "hello".into() },
            Event::Transfer { stage: "build".into(), item: "x".into(), done_bytes: 1, total_bytes: None, rate: None },
        ] {
            log.event(&Record { v: 1, at_ms: 5, image: None, event });
        }
        drop(log);
        let events = std::fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
        assert_eq!(events.lines().count(), 2);
        assert!(events.lines().all(|line| serde_json::from_str::<Record>(line).is_ok()));
        assert_eq!(std::fs::read_to_string(directory.path().join("log/build")).unwrap(), "hello\n");
    }
}
