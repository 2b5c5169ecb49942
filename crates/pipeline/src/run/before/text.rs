//! Commands as a Dockerfile, and its failures as the user wrote them.

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::{BuildError, FailedStep};
use events::{Event, EventSink, Place, Record, Subscriber};

use crate::{BeforePlan, CommandPlan, RunError};

/// Where the copy of the context is, inside.
const CONTEXT: &str = "/seatrial/context";
/// The instruction that brings it there.
const COPY_CONTEXT: &str = "COPY . .";

/// A Dockerfile with the line of each command.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) lines: Vec<usize>,
}

pub(super) fn dockerfile(image: &str, entry: &BeforePlan) -> Text {
    let mut text =
        format!("FROM {image} AS before\nUSER 0\nWORKDIR {CONTEXT}\n{COPY_CONTEXT}\nSHELL [\"/bin/sh\", \"-ec\"]\n");
    for (name, value) in [("CI", "true")]
        .into_iter()
        .chain(entry.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    {
        // Inside of double quotes these three have a meaning (Dockerfile reference, ENV).
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\n', " ");
        let _ = writeln!(text, "ENV {name}=\"{value}\"");
    }
    let mut lines = Vec::new();
    for command in &entry.commands {
        lines.push(text.lines().count() + 1);
        text.push_str(&run(&command.run));
    }
    text.push_str("FROM scratch\n");
    for pattern in &entry.output {
        // Braces are ours; COPY has no such thing.
        let pattern = pattern.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\\\$");
        let _ = writeln!(text, "COPY --from=before --parents [\"{CONTEXT}/./{pattern}\", \"/\"]");
    }
    Text { text, lines }
}

/// In its plain form where nothing in it could be read in another way.
fn run(command: &str) -> String {
    let is_plain = !command.contains(['\n', '\\'])
        && !command.contains("<<")
        && !command.starts_with(['-', '[', '#'])
        && !command.ends_with('`');
    if is_plain {
        return format!("RUN {command}\n");
    }
    let mut mark = "SEATRIAL".to_owned();
    while command.lines().any(|line| line.trim() == mark) {
        mark.push('_');
    }
    format!("RUN <<'{mark}'\n{command}\n{mark}\n")
}

/// `.git` and what Git ignores stay out.
pub(super) fn ignore_file(ignored: &[String]) -> String {
    let mut text = ".git\n".to_owned();
    for path in ignored {
        let escaped: String = path
            .chars()
            .flat_map(|c| matches!(c, '\\' | '*' | '?' | '[' | '!' | '#').then_some('\\').into_iter().chain([c]))
            .collect();
        let _ = writeln!(text, "/{escaped}");
    }
    text
}

/// The failure of a command rather than of an instruction.
pub(super) fn as_written(failed: FailedStep, entry: &BeforePlan, lines: &[usize]) -> FailedStep {
    match command_at(failed.place.as_ref(), entry, lines) {
        Some(command) => FailedStep { text: command.run.clone(), place: command.place.clone(), ..failed },
        None => FailedStep { place: entry.place.clone(), ..failed },
    }
}

/// The command whose instruction begins at a line.
fn command_at<'a>(place: Option<&Place>, entry: &'a BeforePlan, lines: &[usize]) -> Option<&'a CommandPlan> {
    let line = place?.line;
    entry.commands.get(lines.iter().position(|start| *start == line)?)
}

/// Hands on the events of the small Dockerfile's build: commands at their places in the user's file, the copy of the
/// context by its name, and nothing of the other instructions.
pub(super) struct AsWritten {
    events: EventSink,
    entry: BeforePlan,
    lines: Vec<usize>,
    /// Steps that nobody wrote.
    hidden: Mutex<HashSet<u64>>,
}

impl AsWritten {
    pub(super) fn sink(events: &EventSink, entry: &BeforePlan, lines: &[usize]) -> EventSink {
        events.through(Arc::new(Self {
            events: events.clone(),
            entry: entry.clone(),
            lines: lines.to_vec(),
            hidden: Mutex::default(),
        }))
    }

    /// What a step is called, and where it was written.
    fn named(&self, text: &str, place: Option<&Place>) -> Option<(String, Option<Place>)> {
        match command_at(place, &self.entry, &self.lines) {
            Some(command) => Some((command.run.clone(), command.place.clone())),
            None if text == COPY_CONTEXT => Some(("the build context".into(), None)),
            None => None,
        }
    }

    fn hide(&self, step: u64) {
        self.hidden().insert(step);
    }

    fn hidden(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for AsWritten {
    fn event(&self, record: &Record) {
        let event = match record.event.clone() {
            Event::StepStarted { stage, step, text, place } => match self.named(&text, place.as_ref()) {
                Some((text, place)) => Event::StepStarted { stage, step, text, place },
                None => return self.hide(step),
            },
            Event::StepCached { stage, step, text, place, saved_ms } => match self.named(&text, place.as_ref()) {
                Some((text, place)) => Event::StepCached { stage, step, text, place, saved_ms },
                None => return self.hide(step),
            },
            Event::StepLog { step, .. } | Event::StepMissed { step, .. } | Event::StepFinished { step, .. }
                if self.hidden().contains(&step) =>
            {
                return;
            }
            // Of the small Dockerfile itself, which nobody has written.
            Event::Warning { place: Some(place), .. } if place.file == super::STAGE => return,
            event => event,
        };
        self.events.emit(event);
    }
}

/// Why there is nothing, at its place in the user's file. `number` is that of the run.
pub(super) fn error_as_written(error: BuildError, entry: &BeforePlan, number: u64, stage: &str) -> RunError {
    match error {
        BuildError::Base { reference, is_auth, source, .. } => {
            RunError::Build(BuildError::Base { reference, place: entry.image_place.clone(), is_auth, source })
        }
        BuildError::Untrusted { reference, missing, .. } => {
            RunError::Build(BuildError::Untrusted { reference, place: entry.image_place.clone(), missing })
        }
        BuildError::Invalid { diagnostics, .. } if !diagnostics.is_empty() => {
            let outputs: Vec<&String> = entry.output.iter().collect();
            let named = diagnostics.iter().find_map(|diagnostic| {
                outputs.iter().find(|output| diagnostic.message.contains(&format!("{CONTEXT}/./{output}`")))
            });
            match named {
                Some(output) => nothing_matches(output, number, stage),
                None => RunError::Refused {
                    message: format!("`before`: {}", diagnostics[0].message),
                    hint: format!("look at its log: `seatrial logs {number} {stage}`"),
                },
            }
        }
        error => super::super::build::not_cancelled(error),
    }
}

/// A pattern of the output that finds nothing.
pub(super) fn nothing_matches(output: &str, number: u64, stage: &str) -> RunError {
    RunError::Refused {
        message: format!("`before` made nothing that matches `{output}`"),
        hint: format!("look at its log: `seatrial logs {number} {stage}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_apart_from_flags_and_heredocs() {
        assert_eq!(run("make wheel"), "RUN make wheel\n");
        assert_eq!(run("a\nb"), "RUN <<'SEATRIAL'\na\nb\nSEATRIAL\n");
        assert_eq!(run("cat << SEATRIAL\nx\nSEATRIAL"), "RUN <<'SEATRIAL_'\ncat << SEATRIAL\nx\nSEATRIAL\nSEATRIAL_\n");
        assert!(run("--network=host x").starts_with("RUN <<"));
    }

    #[test]
    fn what_git_ignores_is_ignored_by_name() {
        assert_eq!(ignore_file(&["dist/".into(), "a[1]*".into()]), ".git\n/dist/\n/a\\[1]\\*\n");
    }
}
