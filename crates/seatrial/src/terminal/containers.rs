//! What becomes of containers, in docker compose's words, and what they say.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use events::Event;
use services::{Change, Step};

use super::{Palette, message_line, result_line, streams, text};
use crate::{
    solution::{logs::Line, protocol::Answer},
    terminal,
};

/// Shows the news of a call.
pub(crate) struct News {
    begun: BTreeMap<String, Instant>,
    started: Instant,
}

impl News {
    pub(crate) fn new() -> Self {
        Self { begun: BTreeMap::new(), started: Instant::now() }
    }

    pub(crate) fn show(&mut self, answer: Answer) {
        match answer {
            Answer::Change(change) => self.change(&change),
            Answer::Event(record) => event(&record.event),
            Answer::VolumeRemoved(name) => done("Volume", &name, "Removed", None),
            _ => {}
        }
    }

    fn change(&mut self, Change { container, step }: &Change) {
        let took = self.begun.get(container).unwrap_or(&self.started).elapsed();
        match step {
            Step::Starting | Step::Recreate | Step::Stopping => {
                self.begun.insert(container.clone(), Instant::now());
                let word = match step {
                    Step::Recreate => "Recreate",
                    Step::Stopping => "Stopping",
                    _ => "Starting",
                };
                goes_on(container, word);
            }
            Step::Started => {
                self.begun.entry(container.clone()).or_insert_with(Instant::now);
                goes_on(container, "Started");
            }
            Step::Running => goes_on(container, "Running"),
            Step::Ready(how) if how == "running" => {}
            Step::Ready(how) if how.starts_with("healthy") => done("Container", container, "Healthy", Some(took)),
            Step::Ready(how) if how == "ended with 0" => done("Container", container, "Exited", Some(took)),
            Step::Ready(how) if how == "still running" => done("Container", container, "Running", Some(took)),
            Step::Ready(how) => done("Container", container, &format!("Ready ({})", text::one_line(how)), Some(took)),
            Step::Failed(reason) => {
                let palette = Palette::stderr();
                let reason = text::one_line(reason);
                message_line(&format!(
                    " {} Container {container}  {}",
                    palette.bad("✘"),
                    palette.bad(&format!("Error {reason}"))
                ));
            }
            Step::Stopped => done("Container", container, "Stopped", Some(took)),
            Step::Removed => done("Container", container, "Removed", Some(took)),
            Step::Orphan => terminal::warning(&format!(
                "container {container} belongs to no service of the file any more; `--remove-orphans` removes it"
            )),
        }
    }
}

fn goes_on(container: &str, word: &str) {
    message_line(&format!("   Container {container}  {}", Palette::stderr().faint(word)));
}

fn done(kind: &str, name: &str, word: &str, took: Option<Duration>) {
    let palette = Palette::stderr();
    let took = took.map(|took| format!("  {}", palette.faint(&text::duration(took)))).unwrap_or_default();
    message_line(&format!(" {} {kind} {name}  {}{took}", palette.good("✔"), palette.good(word)));
}

/// Of builds and downloads.
fn event(event: &Event) {
    let palette = Palette::stderr();
    match event {
        Event::StepStarted { stage, text: step, .. } => {
            let line = format!("{stage}: {}", text::one_line(step));
            message_line(&format!(
                "   {}",
                palette.faint(&text::fit(&line, text::terminal_size().1.saturating_sub(4)))
            ));
        }
        Event::Warning { message, place } => terminal::warning(&terminal::with_place(message, place.as_ref())),
        _ => {}
    }
}

/// What stands before a line of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    /// The container.
    pub(crate) is_shown: bool,
    /// When the line was said.
    pub(crate) times: bool,
}

/// Shows lines of several containers.
pub(crate) struct Painter {
    prefix: Prefix,
    /// Containers as they came, each with a colour of its own.
    seen: Vec<String>,
    width: usize,
}

/// Docker compose's colours, in its order.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

impl Painter {
    pub(crate) fn new(prefix: Prefix) -> Self {
        Self { prefix, seen: Vec::new(), width: 0 }
    }

    pub(crate) fn show(&mut self, lines: &[Line]) {
        for line in lines {
            if !self.seen.contains(&line.container) {
                self.seen.push(line.container.clone());
            }
            self.width = self.width.max(text::width(&line.container));
        }
        for line in lines {
            self.line(line);
        }
    }

    fn line(&self, line: &Line) {
        let streams = streams();
        let mut out = String::new();
        if self.prefix.is_shown {
            let number = self.seen.iter().position(|seen| *seen == line.container).unwrap_or(0);
            let prefix = format!("{:width$}  | ", line.container, width = self.width);
            match streams.stdout_colours {
                true => out.push_str(&format!("\x1b[{}m{prefix}\x1b[0m", COLOURS[number % COLOURS.len()])),
                false => out.push_str(&prefix),
            }
        }
        if self.prefix.times {
            out.push_str(&time(line.at));
            out.push(' ');
        }
        match streams.stdout_is_terminal {
            true => out.push_str(&text::clean_line(&line.text)),
            false => out.push_str(&line.text),
        }
        result_line(&out);
    }
}

/// As docker writes times: `2026-01-02T03:04:05.123456789Z`.
fn time(at: u64) -> String {
    let (seconds, nanos) = (at / 1_000_000_000, at % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The civil date of a day since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_docker_s() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_772_323_199_500_000_000, "2026-02-28T23:59:59.500000000Z"),
        ] {
            assert_eq!(time(at), text);
        }
    }
}
