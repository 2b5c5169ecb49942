//! The block that stays when a run is over: verdict, image, tags, what was slow; and `✗` blocks for what failed.

use std::{path::Path, time::Duration};

use engine::{Exit, FailedStep};
use events::{Place, Problem, ProblemKind, ProblemLevel, Verdict};
use pipeline::{FileFate, Foreseen, GateFailure, GateOutcome, Outcome, Published, ServiceFailure, TagFate};

use super::{
    Palette,
    model::{Model, State},
    text,
};

/// Lines of a failure's output that are shown in its block.
const BLOCK_LINES_MAX: usize = 12;
/// Failing tests and findings that are listed.
const PROBLEMS_SHOWN_MAX: usize = 20;
/// The same without a terminal: the log may be all that is left.
const BLOCK_LINES_PLAIN_MAX: usize = 40;

/// A command that said no, ready to be shown.
pub(crate) struct Failed {
    /// `gate unit`, `build`, `health check`.
    pub(crate) what: String,
    /// The command as the user wrote it.
    pub(crate) command: String,
    /// `exited 1`.
    pub(crate) reason: String,
    /// The reason is a sentence of its own, and the command is shown below it.
    pub(crate) tells_itself: bool,
    pub(crate) place: Option<Place>,
    /// Failing tests and findings of its reports.
    pub(crate) problems: Vec<Problem>,
    /// All of them, also those that are not in the list.
    pub(crate) problems_total: u64,
    pub(crate) tail: Vec<String>,
    pub(crate) earlier_lines: u64,
    pub(crate) duration: Duration,
    /// Whole commands.
    pub(crate) hints: Vec<String>,
    /// The command that shows the whole log.
    pub(crate) log_command: String,
}

impl Failed {
    /// A failed instruction of a build, or command of a setup.
    pub(crate) fn step(what: &str, stage: &str, run: u64, step: &FailedStep) -> Self {
        let mut hints = Vec::new();
        if step.kept.is_some() {
            hints.push(format!("enter the failed step's root filesystem with `seatrial shell {run} {stage}`"));
        }
        hints.extend(network_hint(&step.tail));
        Self {
            what: what.to_owned(),
            command: step.text.clone(),
            reason: exit_words(&step.exit),
            tells_itself: false,
            place: step.place.clone(),
            problems: Vec::new(),
            problems_total: 0,
            tail: step.tail.clone(),
            earlier_lines: step.earlier_lines,
            duration: step.duration,
            hints,
            log_command: format!("seatrial logs {run} {stage}"),
        }
    }

    /// A failed gate or health check.
    pub(crate) fn gate(run: u64, failure: &GateFailure) -> Self {
        let name = shell_word(&failure.gate);
        let is_health = pipeline::name_in_image(&failure.gate) == "health";
        let mut hints = Vec::new();
        hints.extend(failure.hint.clone());
        if failure.kept.is_some() {
            hints.push(format!("enter the failed container with `seatrial shell {run} {name}`"));
        }
        let is_files = pipeline::name_in_image(&failure.gate).starts_with(pipeline::FILES_STAGE);
        hints.push(if is_health {
            "repeat the health check alone with `seatrial health`".to_owned()
        } else if is_files {
            "nothing was published; repeat it alone with `seatrial publish`".to_owned()
        } else {
            format!("repeat this gate alone with `seatrial test {name}`")
        });
        Self {
            what: match failure.gate.strip_suffix("/health") {
                Some(image) => format!("health check of {image}"),
                None if is_files => "publish.files".to_owned(),
                None if is_health => "health check".to_owned(),
                None => format!("gate {}", failure.gate),
            },
            command: failure.command.clone(),
            reason: failure.reason.clone(),
            tells_itself: is_health,
            place: failure.place.clone(),
            problems: Vec::new(),
            problems_total: 0,
            tail: failure.tail.clone(),
            earlier_lines: failure.earlier_lines,
            duration: failure.duration,
            hints,
            log_command: format!("seatrial logs {run} {name}"),
        }
    }

    /// A service that is not ready; `logs` is the command that shows logs of services.
    pub(crate) fn service(logs: &str, failure: &ServiceFailure) -> Self {
        let mut hints = Vec::new();
        hints.extend(failure.hint.clone());
        Self {
            what: format!("service {}", failure.service),
            command: failure.command.clone(),
            reason: failure.reason.clone(),
            tells_itself: false,
            place: failure.place.clone(),
            problems: Vec::new(),
            problems_total: 0,
            tail: failure.tail.clone(),
            earlier_lines: failure.earlier_lines,
            duration: failure.duration,
            hints,
            log_command: format!("{logs} {}", failure.service),
        }
    }

    /// The `✗` block.
    pub(crate) fn render(&self, palette: Palette, lines_max: usize) -> String {
        let command = self.command.lines().next().unwrap_or_default();
        let more = if self.command.lines().nth(1).is_some() { " …" } else { "" };
        let command = format!("`{}{more}`", text::fit(&text::one_line(command), 200));
        let subject = if self.tells_itself { String::new() } else { format!("{command} ") };
        let took = text::duration(self.duration);
        // The reason may name a time of its own.
        let took = if self.tells_itself || self.reason.contains(" after ") {
            format!(" ({took})")
        } else {
            format!(" after {took}")
        };
        let words = format!("{}: {subject}{}{took}", text::one_line(&self.what), self.reason);
        let mut out = format!("{} {}\n", palette.bad("✗"), palette.strong(&words));
        if let Some(Place { file, line, column }) = &self.place {
            out.push_str(&format!(" {} {}:{line}:{column}\n", palette.hint("-->"), text::one_line(file)));
        }
        if self.tells_itself {
            out.push_str(&format!("  {}\n", palette.faint(&command)));
        }
        for problem in self.problems.iter().take(PROBLEMS_SHOWN_MAX) {
            out.push_str(&format!("  {} {}\n", palette.bad("✗"), problem_words(problem)));
        }
        let shown = self.problems.len().min(PROBLEMS_SHOWN_MAX) as u64;
        if self.problems_total > shown && shown > 0 {
            out.push_str(&format!("    … and {} more\n", self.problems_total - shown));
        }
        let skip = self.tail.len().saturating_sub(lines_max);
        for line in &self.tail[skip..] {
            out.push_str(&format!("  {} {}\n", palette.faint("│"), text::clean_line(line)));
        }
        match self.earlier_lines + skip as u64 {
            0 => {}
            1 => out.push_str(&format!("  1 earlier line: {}\n", self.log_command)),
            earlier => out.push_str(&format!("  {earlier} earlier lines: {}\n", self.log_command)),
        }
        out.push_str(&super::hints(&self.hints, palette));
        out
    }
}

/// `tests/test_even.py:12 test_returns_even: assert 1 == 0`.
fn problem_words(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let place = problem.file.as_deref().map(|file| format!("{file}{line} ")).unwrap_or_default();
    let message = if problem.message.is_empty() { String::new() } else { format!(": {}", problem.message) };
    text::fit(&text::one_line(&format!("{place}{}{message}", problem.name)), 200)
}

/// A name as an argument of a command that can be copied.
fn shell_word(name: &str) -> String {
    let name = text::one_line(name);
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if name.chars().all(is_plain) { name } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

/// How a process ended, in words.
pub(crate) fn exit_words(exit: &Exit) -> String {
    if exit.out_of_memory {
        return "was killed: it hit the memory limit".into();
    }
    if exit.out_of_pids {
        return format!("exited {} (it hit the limit of processes)", exit.code);
    }
    if exit.timed_out {
        return "was stopped: its time was over".into();
    }
    match (exit.signal, exit.code) {
        (Some(signal), _) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, 126) => "exited 126 (the program could not be executed)".into(),
        (None, 127) => "exited 127 (the program was not found)".into(),
        (None, code) => format!("exited {code}"),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

/// Output that looks like a missing network; the container's own words seldom say how to give it one.
fn network_hint(tail: &[String]) -> Option<String> {
    let words = ["temporary failure in name resolution", "could not resolve", "network is unreachable", "bad address"];
    let found = tail.iter().any(|line| {
        let line = line.to_ascii_lowercase();
        words.iter().any(|word| line.contains(word))
    });
    found.then(|| "the step found no network: try `--network host`, and see `seatrial doctor`".to_owned())
}

/// Lines of a failure's output that are shown.
pub(crate) fn block_lines_max(is_terminal: bool) -> usize {
    if is_terminal { BLOCK_LINES_MAX } else { BLOCK_LINES_PLAIN_MAX }
}

/// Everything that stays of a run: the blocks of what failed, then the summary.
pub(crate) fn run(
    outcome: &Outcome,
    model: &Model,
    before_bytes: &dyn Fn(&Outcome) -> Option<u64>,
    is_terminal: bool,
    palette: Palette,
) -> String {
    let lines_max = block_lines_max(is_terminal);
    let mut out = String::new();
    for failed in outcome.parts().flat_map(failures) {
        out.push('\n');
        out.push_str(&failed.render(palette, lines_max));
    }
    for (part, broken) in outcome.parts().flat_map(|part| part.broken_limits.iter().map(move |broken| (part, broken))) {
        let of = part.entry.as_ref().map(|entry| format!(" of {entry}")).unwrap_or_default();
        let words = palette.strong(&format!("limit{of}: {}", text::one_line(broken)));
        out.push_str(&format!("\n{} {words}\n", palette.bad("✗")));
    }
    out.push('\n');
    out.push_str(&verdict_line(outcome, model, before_bytes(outcome), palette));
    let push = |out: &mut String, lines: &[String]| {
        lines.iter().filter(|line| !line.is_empty()).for_each(|line| out.push_str(&format!("  {line}\n")));
    };
    push(&mut out, &[counts_line(outcome, model), services_line(outcome)]);
    for image in &outcome.images {
        out.push_str(&image_lines(image, model, before_bytes(image), palette));
    }
    push(&mut out, &[miss_line(model)]);
    push(&mut out, &tags_lines(outcome));
    push(&mut out, &[slowest_line(outcome, model)]);
    foreseen_lines(outcome).iter().for_each(|line| out.push_str(&format!("    {line}\n")));
    out
}

/// Why the cache did not have it all; empty when there is nothing to tell.
pub(crate) fn miss_line(model: &Model) -> String {
    let Some((what, cause)) = &model.miss else { return String::new() };
    let run = model.run.map(|run| format!(" · more: seatrial explain {run}")).unwrap_or_default();
    format!("made again from {what}: {cause}{run}")
}

/// What failed, in the order in which it was tried.
fn failures(outcome: &Outcome) -> Vec<Failed> {
    let run = outcome.run.0;
    let of = outcome.entry.as_ref().map(|entry| format!(" of {entry}")).unwrap_or_default();
    let failed = |stage: &str, step| Failed::step(&format!("{stage}{of}"), &outcome.stage(stage), run, step);
    let before = outcome.before_failure.iter().map(|step| failed("before", step));
    let build = outcome.build_failure.iter().map(|step| failed("build", step));
    let setup = outcome.setup_failure.iter().map(|step| failed("setup", step));
    let gates = outcome.gates.iter().filter_map(|gate| Some(failed_gate(run, gate, gate.failure.as_ref()?)));
    let health =
        outcome.health.iter().filter_map(|health| health.failure.as_ref()).map(|failure| Failed::gate(run, failure));
    let files = outcome.files_failure.iter().map(|failure| Failed::gate(run, failure));
    before.chain(build).chain(setup).chain(gates).chain(health).chain(files).collect::<Vec<_>>()
}

/// Tests that failed come first; of findings only errors are worth a line here.
fn failed_gate(run: u64, gate: &GateOutcome, failure: &GateFailure) -> Failed {
    let is_told = |problem: &&Problem| problem.kind == ProblemKind::Test || problem.level == ProblemLevel::Error;
    let mut problems: Vec<Problem> = gate.problems.iter().filter(is_told).cloned().collect();
    problems.sort_by_key(|problem| problem.kind != ProblemKind::Test);
    let errors = problems.iter().filter(|problem| problem.kind == ProblemKind::Finding).count() as u64;
    let problems_total = gate.tests.map_or(0, |tests| tests.failed) + errors;
    Failed { problems, problems_total, ..Failed::gate(run, failure) }
}

fn verdict_line(outcome: &Outcome, model: &Model, before_bytes: Option<u64>, palette: Palette) -> String {
    let took = text::duration(outcome.duration);
    let mut line = match outcome.verdict {
        Verdict::Passed => format!("{} {}", palette.good("✓"), palette.strong(&format!("passed in {took}"))),
        Verdict::Skipped => format!("{} {}", palette.good("✓"), palette.strong(&format!("built in {took}"))),
        Verdict::Failed => format!("{} {}", palette.bad("✗"), palette.strong(&format!("failed in {took}"))),
    };
    if !outcome.images.is_empty() {
        line.push_str(&format!("  {}", text::count(outcome.images.len(), "image")));
    }
    line + &image_words(outcome, model, before_bytes) + "\n"
}

/// `  sha256:9cde3ad6…  58.1 MB (+0.2 MB), 7 layers`, as far as there is an image.
fn image_words(outcome: &Outcome, model: &Model, before_bytes: Option<u64>) -> String {
    let Some(image) = &outcome.image else { return String::new() };
    let mut line = String::new();
    if let Some(digest) = image.digest.as_ref().or(image.id.as_ref()) {
        line.push_str(&format!("  {}…", &digest.to_string()[..15]));
    }
    if let Some(size_bytes) = image.size_bytes {
        line.push_str(&format!("  {}", text::bytes(size_bytes)));
        let delta = before_bytes.map(|before| text::delta(size_bytes, before)).unwrap_or_default();
        if !delta.is_empty() {
            line.push_str(&format!(" {delta}"));
        }
        line.push_str(&format!(
            ", {}",
            text::count(model.image.as_ref().map_or(image.built.layers.len(), |image| image.layers), "layer")
        ));
    }
    line
}

/// One of several images: its verdict, what was counted, its names.
fn image_lines(outcome: &Outcome, model: &Model, before_bytes: Option<u64>, palette: Palette) -> String {
    let (mark, name) = match outcome.verdict {
        Verdict::Passed => (palette.good("✓"), palette.strong(&outcome.name)),
        Verdict::Failed => (palette.bad("✗"), palette.strong(&outcome.name)),
        Verdict::Skipped => (palette.faint("-"), palette.faint(&outcome.name)),
    };
    let skipped = outcome.skipped.as_ref().map(|reason| format!("  skipped: {}", text::one_line(reason)));
    let words = skipped.unwrap_or_else(|| image_words(outcome, model, before_bytes));
    let mut out = format!("  {mark} {name}{words}\n");
    let counts = if outcome.skipped.is_some() { String::new() } else { counts_line(outcome, model) };
    let lines = [counts, services_line(outcome)].into_iter().chain(tags_lines(outcome));
    for line in lines.filter(|line| !line.is_empty()) {
        out.push_str(&format!("      {line}\n"));
    }
    foreseen_lines(outcome).iter().for_each(|line| out.push_str(&format!("        {line}\n")));
    out
}

/// `db ready after 0.4s, from its snapshot · cache ready after 0.1s`.
fn services_line(outcome: &Outcome) -> String {
    let words = outcome.services.iter().map(|service| {
        let warm = if service.is_warm { ", from its snapshot" } else { "" };
        format!("{} ready after {}{warm}", text::one_line(&service.service), text::duration(service.duration))
    });
    words.collect::<Vec<_>>().join(" · ")
}

fn counts_line(outcome: &Outcome, model: &Model) -> String {
    let mut parts = Vec::new();
    if let Some(State::Done { duration_ms, .. }) = model.find_stage(&outcome.stage("build")).map(|stage| &stage.state) {
        let built = outcome.image.as_ref().map_or(Duration::ZERO, |image| image.built.saved);
        let built_ms = u64::try_from(built.as_millis()).unwrap_or(u64::MAX);
        let saved_ms = model.image.as_ref().map_or(built_ms, |image| image.saved_ms);
        let saved = if saved_ms >= 1000 { format!(" (cache saved {})", text::millis(saved_ms)) } else { String::new() };
        parts.push(format!("build {}{saved}", text::millis(*duration_ms)));
    }
    if !outcome.gates.is_empty() {
        parts.push(gates_words(&outcome.gates));
    }
    parts.extend(pipeline::counts(outcome.tests, outcome.coverage, outcome.findings));
    if let Some(health) = &outcome.health
        && !health.summary.is_empty()
    {
        let what = if health.verdict == Verdict::Skipped { "health: " } else { "" };
        parts.push(format!("{what}{}", text::one_line(&health.summary)));
    }
    parts.join(" · ")
}

fn gates_words(gates: &[GateOutcome]) -> String {
    let failed = gates.iter().filter(|gate| gate.verdict == Verdict::Failed).count();
    let skipped = gates.iter().filter(|gate| gate.verdict == Verdict::Skipped).count();
    let allowed = gates.iter().filter(|gate| gate.verdict == Verdict::Failed && gate.allow_failure).count();
    let mut words = text::count(gates.len(), "gate");
    if failed > 0 {
        words = format!("{words}, {failed} failed");
        if allowed > 0 {
            words = format!("{words} ({allowed} allowed)");
        }
    }
    if skipped > 0 {
        words = format!("{words}, {skipped} skipped");
    }
    let flaky: Vec<String> =
        gates.iter().filter(|gate| gate.is_flaky()).map(|gate| text::one_line(&gate.gate)).collect();
    if !flaky.is_empty() {
        words = format!("{words}, {} flaky ({})", flaky.len(), flaky.join(", "));
    }
    let unchanged = gates.iter().filter(|gate| gate.known_from.is_some()).count();
    if unchanged > 0 {
        words = format!("{words}, {unchanged} unchanged");
    }
    words
}

/// What became of the names, as many parts in a line as are read at a glance.
fn tags_lines(outcome: &Outcome) -> Vec<String> {
    let mut parts = Vec::new();
    if !outcome.tagged.is_empty() {
        parts.push(format!("tagged {}", tag_words(&outcome.tagged)));
    }
    if !outcome.published.is_empty() {
        let evidence = outcome.evidence.as_deref().unwrap_or("without evidence: `publish.sign` names no key");
        parts.push(format!("published {}", published_words(&outcome.published)));
        parts.push(short_key(evidence));
    }
    let sent: Vec<String> = outcome
        .files
        .iter()
        .filter(|file| file.fate == FileFate::Sent)
        .map(|file| text::one_line(&file.words()))
        .collect();
    parts.extend((!sent.is_empty()).then(|| format!("sent {}", sent.join(", "))));
    let there = outcome.files.iter().filter(|file| file.fate == FileFate::WasThere).count() as u64;
    parts.extend((there > 0).then(|| format!("{} there already", text::count(there as usize, "file"))));
    parts.extend(outcome.git_tag.as_ref().map(|name| format!("Git tag {}", text::one_line(name))));
    let stay = outcome.kept_tags.iter();
    parts.extend(
        stay.map(|kept| format!("{} stays: {}", text::one_line(&kept.reference), text::one_line(&kept.reason))),
    );
    if let Some(reason) = &outcome.not_published {
        let would = if outcome.publish_tags.is_empty() || !outcome.foreseen.is_empty() {
            String::new()
        } else {
            format!(" (would be {})", tag_words(&outcome.publish_tags))
        };
        parts.push(format!("not published: {}{would}", text::one_line(reason)));
    }
    if !outcome.skipped_tags.is_empty() && outcome.verdict == Verdict::Passed {
        parts.extend(outcome.skipped_tags.iter().map(|skipped| {
            format!("skipped `{}`: {}", text::one_line(&skipped.template), text::one_line(&skipped.reason))
        }));
    }
    filled(parts)
}

/// Longest line of several parts: more is a wall, also where the terminal is wider.
const PARTS_COLUMNS_MAX: usize = 78;

/// Parts side by side as far as they fit, ` · ` between them.
fn filled(parts: Vec<String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + part.chars().count() <= PARTS_COLUMNS_MAX => {
                line.push_str(" · ");
                line.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}

/// `signed by SHA256:44728f1d2114…`: as much of a key as tells it from others.
fn short_key(evidence: &str) -> String {
    const SHOWN: usize = 12;
    match evidence.split_once("SHA256:") {
        Some((before, key)) if key.len() > SHOWN && key.is_ascii() => format!("{before}SHA256:{}…", &key[..SHOWN]),
        _ => evidence.to_owned(),
    }
}

/// What publishing would do, a line for each tag.
fn foreseen_lines(outcome: &Outcome) -> Vec<String> {
    let words = |foreseen: &Foreseen| {
        let reference = text::one_line(&foreseen.reference);
        match &foreseen.fate {
            TagFate::New => format!("{reference} would be written"),
            TagFate::Moves(from) => format!("{reference} would move, from {}", text::one_line(from)),
            TagFate::IsThere => format!("{reference} names this image already"),
            TagFate::Stays(reason) => format!("{reference} would stay: {}", text::one_line(reason)),
        }
    };
    let files = outcome.files.iter().filter_map(|file| {
        let what = match file.fate {
            FileFate::Absent => "would be sent",
            FileFate::WasThere if outcome.published.is_empty() => "is there already",
            _ => return None,
        };
        Some(
            format!("{} {what} to {}", text::one_line(&file.name), text::one_line(&file.to))
                .replace("already to", "already, at"),
        )
    });
    files.chain(outcome.foreseen.iter().map(words)).collect()
}

/// `registry.example/app: 1.2, latest`.
fn published_words(published: &[Published]) -> String {
    let mut repositories: Vec<(String, Vec<String>)> = Vec::new();
    for Published { reference, .. } in published {
        let reference = text::one_line(reference);
        let slash = reference.rfind('/').map_or(0, |slash| slash + 1);
        let colon = reference[slash..].find(':').map_or(reference.len(), |colon| slash + colon);
        let (repository, tag) = (reference[..colon].to_owned(), reference[colon..].trim_start_matches(':').to_owned());
        match repositories.iter_mut().find(|(known, _)| *known == repository) {
            Some((_, tags)) => tags.push(tag),
            None => repositories.push((repository, vec![tag])),
        }
    }
    let words: Vec<String> =
        repositories.iter().map(|(repository, tags)| format!("{repository}: {}", tags.join(", "))).collect();
    words.join("; ")
}

/// References of one repository are shown by their tags.
fn tag_words(references: &[String]) -> String {
    let short: Vec<String> = references
        .iter()
        .map(|reference| {
            let name = reference.rsplit('/').next().unwrap_or(reference);
            text::one_line(name.split_once(':').map_or(name, |(_, tag)| tag))
        })
        .collect();
    short.join(", ")
}

/// Below this nobody waits.
const SLOW: Duration = Duration::from_millis(500);
/// Slow things that are named.
const SLOW_SHOWN: usize = 3;

fn slowest_line(outcome: &Outcome, model: &Model) -> String {
    let mut slow: Vec<(String, Duration)> =
        outcome.parts().flat_map(|part| &part.slowest).map(|(what, took)| (text::one_line(what), *took)).collect();
    let is_build = |stage: &str| {
        let stage = pipeline::name_in_image(stage);
        stage == "build" || stage.starts_with("build ") || stage == "setup"
    };
    slow.extend(model.slowest.iter().filter(|step| is_build(&step.stage)).map(|step| {
        let place = step.place.as_ref().map(|place| format!("{}:{} ", text::one_line(&place.file), place.line));
        (format!("{}{}", place.unwrap_or_default(), text::fit(&step.text, 30)), Duration::from_millis(step.duration_ms))
    }));
    slow.retain(|(_, took)| *took >= SLOW);
    slow.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    let slow: Vec<String> = slow
        .iter()
        .take(SLOW_SHOWN)
        .map(|(what, took)| format!("{} {}", text::fit(what, 50), text::duration(*took)))
        .collect();
    if slow.is_empty() { String::new() } else { format!("slowest: {}", slow.join(", ")) }
}

/// Where a path is, as the user would name it from the working directory.
pub(crate) fn relative<'a>(path: &'a Path, cwd: &Path) -> &'a Path {
    path.strip_prefix(cwd).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_failed_gate_says_where_and_how_to_go_on() {
        let failed = Failed {
            what: "gate unit".into(),
            command: "python -m pytest tests".into(),
            reason: exit_words(&Exit { code: 1, ..Exit::default() }),
            tells_itself: false,
            place: Some(Place { file: "seatrial.yaml".into(), line: 18, column: 12 }),
            problems: Vec::new(),
            problems_total: 0,
            tail: vec![
                "old".into(),
                "tests/test_even.py:12 test_returns_even: assert 1 == 0".into(),
                "1 failed, 23 passed in 1.21s".into(),
            ],
            earlier_lines: 205,
            duration: Duration::from_millis(19_600),
            hints: vec![
                "enter the failed container with `seatrial shell 42 unit`".into(),
                "repeat this gate alone with `seatrial test unit`".into(),
            ],
            log_command: "seatrial logs 42 unit".into(),
        };
        expect![[r#"
            ✗ gate unit: `python -m pytest tests` exited 1 after 19.6s
             --> seatrial.yaml:18:12
              │ tests/test_even.py:12 test_returns_even: assert 1 == 0
              │ 1 failed, 23 passed in 1.21s
              206 earlier lines: seatrial logs 42 unit

            hint: enter the failed container with `seatrial shell 42 unit`
            hint: repeat this gate alone with `seatrial test unit`
        "#]]
        .assert_eq(&failed.render(Palette::new(false), 2));
    }

    #[test]
    fn ends_have_words() {
        let exit = |code, signal| Exit { code, signal, ..Exit::default() };
        assert_eq!(exit_words(&exit(137, Some(9))), "was killed by signal 9 (SIGKILL)");
        assert_eq!(exit_words(&exit(127, None)), "exited 127 (the program was not found)");
        assert_eq!(
            exit_words(&Exit { out_of_memory: true, ..exit(137, Some(9)) }),
            "was killed: it hit the memory limit"
        );
    }
}
