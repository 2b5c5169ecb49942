//! The JUnit file: a test suite for each stage that has a verdict. A gate is a test of its own, beside those that it reports.

use std::{fmt::Write as _, path::Path, time::Duration};

use events::Verdict;
use pipeline::{Case, CaseOutcome, GateFailure, GateOutcome, Outcome, Plan};

/// A report is read again up to this size; larger ones were refused when they were collected.
const REPORT_BYTES_MAX: u64 = 64 << 20;

pub(super) fn of(plan: &Plan, outcome: &Outcome) -> String {
    let suites: Vec<Suite> = outcome.parts().flat_map(|part| suites(plan, part)).collect();
    document(&outcome.name, outcome.duration, &suites)
}

/// Of one image, or of the whole.
fn suites(plan: &Plan, outcome: &Outcome) -> Vec<Suite> {
    let mut suites = Vec::new();
    let Outcome { before_failure, build_failure, setup_failure, .. } = outcome;
    for (stage, step) in [("before", before_failure), ("build", build_failure), ("setup", setup_failure)] {
        let stage = &outcome.stage(stage);
        if let Some(step) = step {
            let message = format!("`{}` exited {}", step.text, step.exit.code);
            let text = step.tail.join("\n");
            suites.push(Suite {
                name: stage.clone(),
                seconds: step.duration.as_secs_f64(),
                cases: vec![failed(stage, message, text)],
            });
        }
    }
    suites.extend(outcome.gates.iter().map(|gate| of_gate(plan, gate)));
    if let Some(health) = outcome.health.as_ref().filter(|health| health.verdict != Verdict::Skipped) {
        let stage = outcome.stage("health");
        let own = own_case(&stage, health.duration, health.failure.as_ref(), None);
        suites.push(Suite { name: stage, seconds: health.duration.as_secs_f64(), cases: vec![own] });
    }
    for broken in &outcome.broken_limits {
        suites.push(Suite {
            name: outcome.stage("limits"),
            seconds: 0.0,
            cases: vec![failed(&outcome.stage("limits"), broken.clone(), String::new())],
        });
    }
    suites
}

pub(super) fn of_error(name: &str, message: &str) -> String {
    let suite =
        Suite { name: "run".into(), seconds: 0.0, cases: vec![failed("run", message.to_owned(), String::new())] };
    document(name, Duration::ZERO, &[suite])
}

struct Suite {
    name: String,
    seconds: f64,
    cases: Vec<Test>,
}

struct Test {
    case: Case,
    /// Failures of earlier attempts (Surefire, `flakyFailure`).
    flaky: Vec<String>,
    /// Name and value.
    properties: Vec<(&'static str, String)>,
}

fn of_gate(plan: &Plan, gate: &GateOutcome) -> Suite {
    let mut own = own_case(&gate.gate, gate.duration, gate.failure.as_ref(), gate.skipped.as_deref());
    own.flaky =
        if gate.is_flaky() { gate.former.iter().map(|attempt| attempt.reason.clone()).collect() } else { Vec::new() };
    if let Some(run) = gate.known_from {
        own.properties.push(("seatrial.known_from_run", run.to_string()));
    }
    if let Some(image) = &gate.image {
        own.properties.push(("seatrial.image", format!("{} {}", image.reference, image.id)));
    }
    let mut cases = vec![own];
    let mut gates = plan.parts().flat_map(|part| &part.test.gates);
    let patterns = gates.find(|known| known.name == gate.gate).and_then(|gate| gate.reports.get("junit"));
    if let (Some(directory), Some(patterns)) = (&gate.reports, patterns) {
        let files = pipeline::report_files(directory, patterns);
        // Those that are malformed were warned of when they were collected.
        let reported = files.iter().filter_map(|file| pipeline::junit(&read(file)?).ok()).flatten();
        cases.extend(reported.map(|case| Test { case, flaky: Vec::new(), properties: Vec::new() }));
    }
    Suite { name: gate.gate.clone(), seconds: gate.duration.as_secs_f64(), cases }
}

fn read(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let opened = fs_err::File::open(file).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, REPORT_BYTES_MAX), &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The verdict of a stage as a test.
fn own_case(stage: &str, duration: Duration, failure: Option<&GateFailure>, skipped: Option<&str>) -> Test {
    let mut test = match failure {
        Some(failure) => failed(stage, format!("`{}` {}", failure.command, failure.reason), failure.tail.join("\n")),
        None => Test {
            case: Case { name: stage.into(), class: "seatrial".into(), ..Case::default() },
            flaky: Vec::new(),
            properties: Vec::new(),
        },
    };
    if let Some(place) = failure.and_then(|failure| failure.place.as_ref()) {
        (test.case.file, test.case.line) = (Some(place.file.clone()), u64::try_from(place.line).ok());
    }
    if let Some(reason) = skipped {
        test.case.outcome = CaseOutcome::Skipped { message: reason.to_owned() };
    }
    test.case.seconds = Some(duration.as_secs_f64());
    test
}

fn failed(stage: &str, message: String, text: String) -> Test {
    let outcome = CaseOutcome::Failed { message, text };
    let case = Case { name: stage.into(), class: "seatrial".into(), outcome, ..Case::default() };
    Test { case, flaky: Vec::new(), properties: Vec::new() }
}

fn document(name: &str, duration: Duration, suites: &[Suite]) -> String {
    let all = || suites.iter().flat_map(|suite| &suite.cases);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let head = format!("name=\"{}\" {} time=\"{:.3}\"", escape(name), numbers(all()), duration.as_secs_f64());
    writeln(&mut out, &format!("<testsuites {head}>"));
    for suite in suites {
        let head =
            format!("name=\"{}\" {} time=\"{:.3}\"", escape(&suite.name), numbers(suite.cases.iter()), suite.seconds);
        writeln(&mut out, &format!("  <testsuite {head}>"));
        for test in &suite.cases {
            write_case(&mut out, test);
        }
        writeln(&mut out, "  </testsuite>");
    }
    writeln(&mut out, "</testsuites>");
    out
}

fn numbers<'t>(tests: impl Iterator<Item = &'t Test> + Clone) -> String {
    let failures = tests.clone().filter(|test| matches!(test.case.outcome, CaseOutcome::Failed { .. })).count();
    let skipped = tests.clone().filter(|test| matches!(test.case.outcome, CaseOutcome::Skipped { .. })).count();
    format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"", tests.count())
}

fn write_case(out: &mut String, test: &Test) {
    let Case { class, name, file, line, seconds, outcome, .. } = &test.case;
    let mut head = format!("classname=\"{}\" name=\"{}\"", escape(class), escape(name));
    let optional = [
        file.as_ref().map(|file| format!(" file=\"{}\"", escape(file))),
        line.map(|line| format!(" line=\"{line}\"")),
        seconds.filter(|seconds| seconds.is_finite()).map(|seconds| format!(" time=\"{seconds:.3}\"")),
    ];
    head.extend(optional.into_iter().flatten());
    let mut inside = String::new();
    if !test.properties.is_empty() {
        writeln(&mut inside, "      <properties>");
        for (name, value) in &test.properties {
            writeln(&mut inside, &format!("        <property name=\"{name}\" value=\"{}\"/>", escape(value)));
        }
        writeln(&mut inside, "      </properties>");
    }
    for reason in &test.flaky {
        writeln(&mut inside, &format!("      <flakyFailure message=\"{}\" type=\"gate\"/>", escape(reason)));
    }
    match outcome {
        CaseOutcome::Passed => {}
        CaseOutcome::Skipped { message } => {
            writeln(&mut inside, &format!("      <skipped message=\"{}\"/>", escape(message)));
        }
        CaseOutcome::Failed { message, text } => {
            let line = format!("      <failure message=\"{}\">{}</failure>", escape(message), escape(text));
            writeln(&mut inside, &line);
        }
    }
    if inside.is_empty() {
        writeln(out, &format!("    <testcase {head}/>"));
    } else {
        writeln(out, &format!("    <testcase {head}>\n{inside}    </testcase>"));
    }
}

fn writeln(out: &mut String, line: &str) {
    // A String takes everything.
    let _ = writeln!(out, "{line}");
}

/// For content and attributes; characters that XML 1.0 does not have are left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push('\t'),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c < ' ' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containers_say_cannot_break_the_document() {
        let test = failed("unit", "</failure>\"&\u{1b}[31m\u{0}".into(), "a\n]]>\u{ffff}b".into());
        let suite = Suite { name: "<unit>".into(), seconds: 1.5, cases: vec![test] };
        let text = document("app", Duration::from_secs(2), &[suite]);
        let cases = pipeline::junit(&text).expect("it is JUnit");
        assert_eq!(cases[0].suite, "<unit>");
        let CaseOutcome::Failed { message, text } = &cases[0].outcome else { panic!("{cases:?}") };
        assert_eq!((message.as_str(), text.as_str()), ("</failure>\"&[31m", "a\n]]>b"));
    }
}
