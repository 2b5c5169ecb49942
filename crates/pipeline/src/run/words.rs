//! Numbers for people, and the events around a stage.

use std::time::{Duration, Instant};

use events::{Event, EventSink, Verdict};

use crate::RunError;

/// `58.1 MB`, decimal.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `64 MB`, counted in 1024s as docker's words for memory are.
pub(super) fn memory(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", format!("{value:.1}").trim_end_matches(".0"), UNITS[unit])
}

/// `1 process`, `2 processes`.
pub(super) fn processes(number: u64) -> String {
    if number == 1 { "1 process".into() } else { format!("{number} processes") }
}

/// Name of a stage's files. Stages are named by the user, so a slash may not lead anywhere.
pub fn file_name(stage: &str) -> String {
    let legal = |c: char| match c {
        // It looks the same, and is part of a name.
        '/' => '\u{2215}',
        c if c.is_control() => '_',
        c => c,
    };
    let mut name: String = if stage.is_empty() || stage.starts_with('.') { "_".into() } else { String::new() };
    for c in stage.chars().map(legal) {
        if name.len() + c.len_utf8() > FILE_NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Name of a stage within its image: `build` of `api/build`.
pub fn name_in_image(stage: &str) -> &str {
    stage.rsplit_once('/').map_or(stage, |(_, name)| name)
}

/// Leaves room for `@1` and `.json` in the 255 that file systems have.
pub(crate) const FILE_NAME_BYTES_MAX: usize = 240;

/// `1 command`, `2 commands`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Why a stage could not be done, for its line.
pub(super) fn reason(error: &RunError) -> String {
    match error {
        RunError::Cancelled => "cancelled".into(),
        RunError::Build(error) => error.to_string(),
        error => error.to_string(),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A stage that has begun; told as ended exactly once.
pub(super) struct Stage<'a> {
    events: &'a EventSink,
    name: String,
    start: Instant,
}

impl<'a> Stage<'a> {
    pub(super) fn start(events: &'a EventSink, name: &str) -> Self {
        events.emit(Event::StageStarted { stage: name.into() });
        Self { events, name: name.into(), start: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn finish(self, verdict: Verdict, summary: impl Into<String>) -> Duration {
        let duration = self.start.elapsed();
        self.events.emit(Event::StageFinished {
            stage: self.name,
            verdict,
            duration_ms: millis(duration),
            summary: summary.into(),
        });
        duration
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_files_stay_in_their_directory() {
        let long = "x".repeat(300);
        for (stage, file) in [
            ("unit", "unit"),
            ("../../etc/passwd", "_..∕..∕etc∕passwd"),
            ("build api", "build api"),
            ("unit (3.11, a/b)", "unit (3.11, a∕b)"),
            ("", "_"),
            (long.as_str(), &long[..super::FILE_NAME_BYTES_MAX]),
        ] {
            assert_eq!(super::file_name(stage), file);
        }
    }

    #[test]
    fn memory_is_counted_as_docker_does() {
        for (bytes, text) in [(64 << 20, "64 MB"), (1536 << 20, "1.5 GB"), (6 << 20, "6 MB"), (500, "500 B")] {
            assert_eq!(super::memory(bytes), text);
        }
    }

    #[test]
    fn sizes_are_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (58_100_000, "58.1 MB"),
            (999_999, "1.0 MB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(super::bytes(bytes), text);
        }
    }
}
