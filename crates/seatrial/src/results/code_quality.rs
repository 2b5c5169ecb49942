//! GitLab's code quality report: a JSON list of what stands in changed files of a merge request (Code Climate's format).

use std::collections::HashSet;

use events::{Problem, ProblemKind, ProblemLevel};
use oci::Digest;
use pipeline::Outcome;
use serde_json::{Value, json};

pub(super) fn of(outcome: &Outcome) -> String {
    let mut seen = HashSet::new();
    let gates = outcome.parts().flat_map(|part| &part.gates);
    let problems = gates.flat_map(|gate| gate.problems.iter().map(move |problem| (&gate.gate, problem)));
    let entries: Vec<Value> = problems.filter_map(|(gate, problem)| entry(gate, problem, &mut seen)).collect();
    serde_json::to_string_pretty(&entries).expect("values of text and numbers always serialise") + "\n"
}

/// GitLab shows nothing that has no place in the repository.
fn entry(gate: &str, problem: &Problem, seen: &mut HashSet<String>) -> Option<Value> {
    let path = problem.file.as_ref().filter(|_| problem.in_repository)?;
    let severity = match (problem.kind, problem.level) {
        (ProblemKind::Test, _) => "critical",
        (ProblemKind::Finding, ProblemLevel::Error) => "major",
        (ProblemKind::Finding, ProblemLevel::Warning) => "minor",
        (ProblemKind::Finding, ProblemLevel::Note) => "info",
    };
    // The line is no part of it: a problem that moves is the same one.
    let what = format!("{gate}\0{path}\0{}\0{}", problem.name, problem.message);
    let fingerprint = (0..).map(|copy: u32| Digest::of(format!("{what}\0{copy}").as_bytes()).hex().to_owned());
    let fingerprint = fingerprint.into_iter().find(|fingerprint| seen.insert(fingerprint.clone()))?;
    Some(json!({
        "description": if problem.message.is_empty() { &problem.name } else { &problem.message },
        "check_name": if problem.name.is_empty() { gate } else { &problem.name },
        "fingerprint": fingerprint,
        "severity": severity,
        "location": {"path": path, "lines": {"begin": problem.line.unwrap_or(1)}},
    }))
}
