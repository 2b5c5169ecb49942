//! Commands as a Dockerfile, and its failures as the user wrote them.

use std::fmt::Write as _;

use engine::FailedStep;

use crate::BeforePlan;

/// Where the copy of the context is, inside.
const CONTEXT: &str = "/seatrial/context";

/// A Dockerfile with the line of each command.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) lines: Vec<usize>,
}

pub(super) fn dockerfile(image: &str, entry: &BeforePlan) -> Text {
    let mut text =
        format!("FROM {image} AS before\nUSER 0\nWORKDIR {CONTEXT}\nCOPY . .\nSHELL [\"/bin/sh\", \"-ec\"]\n");
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
    let line = failed.place.as_ref().map(|place| place.line);
    let command = lines.iter().position(|start| Some(*start) == line).and_then(|index| entry.commands.get(index));
    match command {
        Some(command) => FailedStep { text: command.run.clone(), place: command.place.clone(), ..failed },
        None => FailedStep { place: entry.place.clone(), ..failed },
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
