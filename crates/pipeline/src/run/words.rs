//! Numbers for people, and the events around a stage.

use std::time::{Duration, Instant};

use events::{Event, EventSink, Verdict};

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

/// `1 command`, `2 commands`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
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
