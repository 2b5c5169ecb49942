//! GitHub's annotations: what failed, shown beside the changed lines of a pull request.

use events::{ProblemLevel, Verdict};
use pipeline::{GateOutcome, Outcome};

/// GitHub shows ten of each kind of one step.
const SHOWN_MAX: usize = 10;

/// Workflow commands, one on a line.
pub(crate) fn of(outcome: &Outcome) -> String {
    let (mut errors, mut warnings, mut notices) = (Vec::new(), Vec::new(), Vec::new());
    for gate in outcome.parts().flat_map(|part| &part.gates) {
        let title = |name: &str| if name.is_empty() { gate.gate.clone() } else { format!("{}: {name}", gate.gate) };
        for problem in &gate.problems {
            let place = problem.file.as_deref().filter(|_| problem.in_repository);
            let message = if problem.message.is_empty() { "failed" } else { &problem.message };
            let of_level = match problem.level {
                // What a passing gate reports does not stop anything.
                ProblemLevel::Error if gate.blocks() => ("error", &mut errors),
                ProblemLevel::Error | ProblemLevel::Warning => ("warning", &mut warnings),
                ProblemLevel::Note => ("notice", &mut notices),
            };
            let (kind, lines) = of_level;
            lines.push(command(kind, place, problem.line, &title(&problem.name), message));
        }
        if let Some(line) = of_gate(gate) {
            if gate.blocks() { errors.push(line) } else { warnings.push(line) }
        }
    }
    [errors, warnings, notices].into_iter().flat_map(|lines| lines.into_iter().take(SHOWN_MAX)).collect()
}

/// The gate itself, where no problem of its reports says it better.
fn of_gate(gate: &GateOutcome) -> Option<String> {
    let failure = gate.failure.as_ref().filter(|_| gate.problems.is_empty() && gate.verdict == Verdict::Failed)?;
    let (file, line) = match &failure.place {
        Some(place) => (Some(place.file.as_str()), u64::try_from(place.line).ok()),
        None => (None, None),
    };
    let kind = if gate.blocks() { "error" } else { "warning" };
    let message = format!("`{}` {}", failure.command, failure.reason);
    Some(command(kind, file, line, &format!("gate {}", gate.gate), &message))
}

fn command(kind: &str, file: Option<&str>, line: Option<u64>, title: &str, message: &str) -> String {
    let mut properties = Vec::new();
    if let Some(file) = file {
        properties.push(format!("file={}", property(file)));
        properties.extend(line.map(|line| format!("line={line}")));
    }
    properties.push(format!("title={}", property(title)));
    format!("::{kind} {}::{}\n", properties.join(","), data(message))
}

/// As GitHub's own toolkit does (actions/toolkit, `command.ts`, `escapeData`). Other control characters could speak to a
/// terminal.
fn data(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\r' | '\n')).collect();
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// `escapeProperty` of the same.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_smuggled_into_a_command() {
        assert_eq!(
            command("error", Some("a,b:c%.py"), Some(3), "unit: x\n::set-env::", "50 %\r\n::error::y\u{1b}[2J"),
            "::error file=a%2Cb%3Ac%25.py,line=3,title=unit%3A x%0A%3A%3Aset-env%3A%3A::50 %25%0D%0A::error::y[2J\n"
        );
        assert_eq!(command("notice", None, Some(3), "t", "m"), "::notice title=t::m\n");
    }
}
