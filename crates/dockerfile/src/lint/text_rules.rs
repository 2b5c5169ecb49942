//! Checks that look at how the file is written.

use super::Findings;
use super::stages::{Stages, single_use};
use crate::parse::is_legacy_pair;
use crate::syntax::{Piece, RawFile, RawInstruction, words};
use crate::{Command, InstructionKind};

/// Stage names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(raw: &RawFile, text: &str, stages: &Stages<'_>, findings: &mut Findings) {
    casing(raw, findings);
    for instruction in &raw.instructions {
        for blank in &instruction.blank_continuations {
            findings.add("NoEmptyContinuation", blank, "empty line inside a continued instruction");
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
                let message = format!("`{keyword} key=value` should be used instead of `{keyword} key value`");
                findings.add("LegacyKeyValueFormat", &line.trim().span(), message);
            }
            "MAINTAINER" => {
                let message = "MAINTAINER is deprecated in favour of a label";
                findings.add("MaintainerDeprecated", &split.keyword.span(), message).help =
                    Some(format!("write `LABEL org.opencontainers.image.authors=\"{}\"`", split.args.as_str()));
            }
            _ => {}
        }
    }
    stage_names(text, stages, findings);
    in_stages(stages, findings);
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
        let message = format!("casing of `{as_}` does not match that of `{from}`");
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
    let message = format!("comment for {instruction} should follow the format `# {name} <description>`");
    findings.add("InvalidDefinitionDescription", &comment.span, message).help =
        Some("if it is no description, put an empty line below it".to_owned());
}

/// All instructions like the majority, which is upper case in doubt.
fn casing(raw: &RawFile, findings: &mut Findings) {
    let lines: Vec<Piece<'_>> = raw.instructions.iter().map(|instruction| instruction.joined.all()).collect();
    let keywords: Vec<Piece<'_>> = lines.iter().map(|line| words::split_command(line).keyword).collect();
    let is_lower = |keyword: &str| keyword == keyword.to_ascii_lowercase();
    let is_upper = |keyword: &str| keyword == keyword.to_ascii_uppercase();
    let lower = keywords.iter().filter(|keyword| is_lower(keyword.as_str())).count();
    let upper = keywords.iter().filter(|keyword| is_upper(keyword.as_str())).count();
    for keyword in &keywords {
        let name = keyword.as_str();
        let (fits, casing) = if lower > upper { (is_lower(name), "lowercase") } else { (is_upper(name), "uppercase") };
        if !fits {
            let message = format!("`{name}` should match the casing of most instructions ({casing})");
            findings.add("ConsistentInstructionCasing", &keyword.span(), message);
        }
    }
}

fn stage_names(text: &str, stages: &Stages<'_>, findings: &mut Findings) {
    let mut seen: Vec<&str> = Vec::new();
    for name in stages.file.stages.iter().filter_map(|stage| stage.name.as_ref()) {
        let written = &text[name.span.clone()];
        if written.chars().any(char::is_uppercase) {
            let message = format!("stage name `{written}` should be lowercase");
            findings.add("StageNameCasing", &name.span, message);
        }
        if RESERVED.contains(&name.raw.as_str()) {
            let message = format!("`{}` is reserved and should not name a stage", name.raw);
            findings.add("ReservedStageName", &name.span, message);
        }
        if seen.contains(&name.raw.as_str()) {
            let message = format!("duplicate stage name `{}`, stage names should be unique", name.raw);
            findings.add("DuplicateStageName", &name.span, message);
        }
        seen.push(&name.raw);
    }
}

fn in_stages(stages: &Stages<'_>, findings: &mut Findings) {
    for stage in &stages.file.stages {
        let mut has_shell = false;
        for (at, instruction) in stage.instructions.iter().enumerate() {
            has_shell |= matches!(instruction.kind, InstructionKind::Shell(_));
            let Some(name) = single_use(&instruction.kind) else { continue };
            if let InstructionKind::Cmd(Command::Shell(_)) | InstructionKind::Entrypoint(Command::Shell(_)) =
                instruction.kind
                && !has_shell
            {
                let message = format!("JSON arguments recommended for {name}, so that signals reach the program");
                findings.add("JSONArgsRecommended", &instruction.span, message);
            }
            // The earlier one is reported, for it is the one without effect.
            if stage.instructions[at + 1..].iter().any(|later| single_use(&later.kind) == Some(name)) {
                let message = format!("several {name} in one stage: only the last one counts");
                findings.add("MultipleInstructionsDisallowed", &instruction.span, message);
            }
        }
    }
}
