//! Checks that look at how the file is written.

use std::collections::{HashMap, HashSet};

use super::Findings;
use crate::parse::is_legacy_pair;
use crate::stages::{Base, Stages};
use crate::syntax::{RawFile, RawInstruction, words};
use crate::{Command, InstructionKind, Severity};

/// Stage names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(raw: &RawFile, text: &str, stages: &Stages<'_>, findings: &mut Findings) {
    casing(raw, findings);
    for instruction in &raw.instructions {
        // Said once an instruction, at the first such line, as BuildKit does.
        if let Some(blank) = instruction.blank_continuations.first() {
            findings.add("NoEmptyContinuation", blank, "empty continuation line").help =
                Some("remove the line, or put a comment there".to_owned());
        }
        let line = instruction.joined.all();
        let split = words::split_command(&line);
        match split.keyword.as_str().to_ascii_uppercase().as_str() {
            "FROM" => from_line(&split, instruction, findings),
            "ARG" => {
                let names = words::split_quoted(&split.args, raw.escape);
                let names: Vec<&str> =
                    names.iter().map(|word| word.as_str().split('=').next().unwrap_or_default()).collect();
                description("ARG", &names, instruction, findings);
            }
            keyword @ ("ENV" | "LABEL")
                if words::split_quoted(&split.args, raw.escape).first().is_some_and(is_legacy_pair) =>
            {
                let written = split.keyword.as_str();
                let message =
                    format!("\"{written} key=value\" should be used instead of legacy \"{written} key value\" format");
                let finding = findings.add("LegacyKeyValueFormat", &line.trim().span(), message);
                if let Some((name, value)) = split.args.as_str().split_once(words::is_blank) {
                    let value = value.trim();
                    // A value with quotes or escapes would have to be read first.
                    if !value.contains(['"', '\'', '\\', '`']) {
                        finding.help = Some(format!("write `{keyword} {name}=\"{value}\"`"));
                    }
                }
            }
            "MAINTAINER" => {
                let message = "maintainer instruction is deprecated in favor of using label";
                findings.add("MaintainerDeprecated", &split.keyword.span(), message).help =
                    Some(format!("write `LABEL org.opencontainers.image.authors=\"{}\"`", split.args.as_str()));
            }
            _ => {}
        }
    }
    front_end(stages, findings);
    stage_names(text, stages, findings);
    in_stages(stages, findings);
}

/// The front end whose language this is.
const OUR_FRONT_END: &str = "docker/dockerfile";

fn front_end(stages: &Stages<'_>, findings: &mut Findings) {
    let Some(named) = &stages.file.directives.syntax else { return };
    let name = named.raw.trim_start_matches("docker.io/");
    let is_ours =
        name.strip_prefix(OUR_FRONT_END).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '-', '@']));
    let finding = findings.add("FrontEndIgnored", &named.span, format!("front end `{}` is not fetched", named.raw));
    if is_ours {
        finding.notes.push("Seatrial reads the Dockerfile itself, with the same meaning".to_owned());
    } else {
        finding.severity = Severity::Warning;
        finding.notes.push("the file is read as a Dockerfile, which may not be what its author means".to_owned());
    }
}

fn from_line(split: &words::Command<'_>, instruction: &RawInstruction, findings: &mut Findings) {
    let args = words::split_blanks(&split.args);
    let [_, keyword_as, name] = &args[..] else { return };
    let (from, as_) = (split.keyword.as_str(), keyword_as.as_str());
    let fits = if from == from.to_ascii_lowercase() {
        as_ == as_.to_ascii_lowercase()
    } else if from == from.to_ascii_uppercase() {
        as_ == as_.to_ascii_uppercase()
    } else {
        // A mixed FROM is another check's business.
        true
    };
    if !fits {
        let message = format!("'{as_}' and '{from}' keywords' casing do not match");
        findings.add("FromAsCasing", &keyword_as.span(), message);
    }
    description("FROM", &[&name.as_str().to_lowercase()], instruction, findings);
}

/// A comment right before a definition should describe it.
fn description(instruction: &str, names: &[&str], raw: &RawInstruction, findings: &mut Findings) {
    let Some(comment) = raw.comments.last() else { return };
    let first_word = comment.text.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first_word) {
        return;
    }
    let name = if let [name] = names { name } else { "<arg_key>" };
    let message = format!("comment for {instruction} should follow the format: `# {name} <description>`");
    findings.add("InvalidDefinitionDescription", &comment.span, message).help =
        Some("if it is no description, put an empty line below it".to_owned());
}

/// All instructions like the majority, which is upper case in doubt. Arguments before the first stage do not count.
fn casing(raw: &RawFile, findings: &mut Findings) {
    let lines: Vec<_> = raw.instructions.iter().map(|instruction| instruction.joined.all()).collect();
    let keywords = lines.iter().map(|line| words::split_command(line).keyword);
    let keywords: Vec<_> = keywords.skip_while(|keyword| !keyword.as_str().eq_ignore_ascii_case("FROM")).collect();
    let is_lower = |keyword: &str| keyword == keyword.to_ascii_lowercase();
    let is_upper = |keyword: &str| keyword == keyword.to_ascii_uppercase();
    let lower = keywords.iter().filter(|keyword| is_lower(keyword.as_str())).count();
    let upper = keywords.iter().filter(|keyword| is_upper(keyword.as_str())).count();
    for keyword in &keywords {
        let name = keyword.as_str();
        let (fits, casing) = if lower > upper { (is_lower(name), "lowercase") } else { (is_upper(name), "uppercase") };
        if !fits {
            let message = format!("command '{name}' should match the case of the command majority ({casing})");
            findings.add("ConsistentInstructionCasing", &keyword.span(), message);
        }
    }
}

fn stage_names(text: &str, stages: &Stages<'_>, findings: &mut Findings) {
    let mut seen: HashSet<&str> = HashSet::new();
    for name in stages.file.stages.iter().filter_map(|stage| stage.name.as_ref()) {
        let written = &text[name.span.clone()];
        if written.chars().any(char::is_uppercase) {
            let message = format!("stage name '{written}' should be lowercase");
            findings.add("StageNameCasing", &name.span, message);
        }
        if RESERVED.contains(&name.raw.as_str()) {
            let message = format!("stage name should not use the same name as reserved stage \"{}\"", name.raw);
            findings.add("ReservedStageName", &name.span, message);
        }
        if !seen.insert(&name.raw) {
            let message = format!("duplicate stage name \"{}\", stage names should be unique", name.raw);
            findings.add("DuplicateStageName", &name.span, message);
        }
    }
}

fn in_stages(stages: &Stages<'_>, findings: &mut Findings) {
    let mut has_shell: Vec<bool> = Vec::new();
    for (at, stage) in stages.file.stages.iter().enumerate() {
        let mut shell = match stages.bases[at] {
            Base::Stage(earlier) => has_shell[earlier],
            _ => stages.images[at].as_ref().is_some_and(|image| image.has_shell),
        };
        let mut earlier = HashMap::new();
        for instruction in &stage.instructions {
            shell |= matches!(instruction.kind, InstructionKind::Shell(_));
            let Some(name) = single_use(&instruction.kind) else { continue };
            if let InstructionKind::Cmd(Command::Shell(_)) | InstructionKind::Entrypoint(Command::Shell(_)) =
                instruction.kind
                && !shell
            {
                let message = format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                );
                findings.add("JSONArgsRecommended", &instruction.span, message);
            }
            // The earlier one is reported, for it is the one without effect.
            if let Some(span) = earlier.insert(name, &instruction.span) {
                let message = format!(
                    "multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                findings.add("MultipleInstructionsDisallowed", span, message);
            }
        }
        has_shell.push(shell);
    }
}

/// Whether an instruction is one of the kind that only its last occurrence counts for.
fn single_use(kind: &InstructionKind) -> Option<&'static str> {
    match kind {
        InstructionKind::Cmd(_) => Some("CMD"),
        InstructionKind::Entrypoint(_) => Some("ENTRYPOINT"),
        InstructionKind::Healthcheck(_) => Some("HEALTHCHECK"),
        _ => None,
    }
}
