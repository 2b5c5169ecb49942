//! Logical lines to [`Dockerfile`].

mod arguments;
mod flags;
mod instruction;
mod mount;

use crate::syntax::{self, RawFile, RawInstruction, words};
use crate::{ArgDecl, Diagnostic, Directives, Dockerfile, Instruction, InstructionKind, Stage, Word, nearest};
pub(crate) use arguments::is_legacy_pair;
use instruction::{Context, KEYWORDS};

/// A Dockerfile together with what is doubtful about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The file's values.
    pub dockerfile: Dockerfile,
    /// Things that are read otherwise than they look.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// All mistakes that were found, in the order of the text; at least one.
pub fn parse(text: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    parse_with_warnings(text).map(|parsed| parsed.dockerfile)
}

/// Reads a Dockerfile and also gives warnings.
///
/// # Errors
/// All findings, of which at least one is an error.
pub fn parse_with_warnings(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let file = syntax::read(text);
    let mut context = Context::new(file.escape);
    let mut builder = Builder::default();
    for raw in &file.instructions {
        builder.add(raw, &mut context);
    }
    let directives = directives(&file);
    let mut problems = file.problems;
    problems.append(&mut context.problems);
    if file.instructions.is_empty() && problems.is_empty() {
        problems.push(
            Diagnostic::error("ST101", "the Dockerfile holds no instructions").with_help("begin with `FROM image`"),
        );
    } else if builder.stages.is_empty() && !problems.iter().any(Diagnostic::is_error) {
        problems.push(Diagnostic::error("ST101", "the Dockerfile has no stage").with_help("add `FROM image`"));
    }
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(0, |span| span.start));
    if problems.iter().any(Diagnostic::is_error) {
        return Err(problems);
    }
    let dockerfile = Dockerfile { directives, global_args: builder.global_args, stages: builder.stages };
    Ok(Parsed { dockerfile, warnings: problems })
}

/// Reads an instruction that a base image stores as an ONBUILD trigger. Spans are places in `text`.
///
/// # Errors
/// It is not exactly one instruction, or one that cannot be a trigger.
pub fn parse_trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let file = syntax::read(text);
    let mut context = Context::new(file.escape);
    context.problems = file.problems;
    let mut found = None;
    match &file.instructions[..] {
        [raw] => found = context.trigger(&raw.joined.all(), raw),
        _ => context.error(Diagnostic::error("ST112", "an ONBUILD trigger is exactly one instruction")),
    }
    match found {
        Some(instruction) if !context.problems.iter().any(Diagnostic::is_error) => Ok(instruction),
        _ => Err(context.problems),
    }
}

fn directives(file: &RawFile) -> Directives {
    let word = |name: &str| {
        let directive = file.directives.iter().find(|directive| directive.name == name)?;
        Some(Word { raw: directive.value.clone(), span: directive.value_span.clone() })
    };
    Directives { syntax: word("syntax"), escape: file.escape, check: word("check") }
}

#[derive(Default)]
struct Builder {
    global_args: Vec<ArgDecl>,
    stages: Vec<Stage>,
    /// A FROM was seen, be it a wrong one: what follows is not "before FROM".
    in_stage: bool,
    /// "Before FROM" is said once.
    is_early_noted: bool,
}

impl Builder {
    fn add(&mut self, raw: &RawInstruction, context: &mut Context) {
        let line = raw.joined.all();
        let command = words::split_command(&line);
        let keyword = command.keyword.as_str().to_ascii_uppercase();
        if !KEYWORDS.contains(&keyword.as_str()) {
            context.error(unknown_instruction(&command.keyword.to_word()));
            return;
        }
        if keyword == "FROM" {
            self.in_stage = true;
            self.stages.extend(context.from(raw, &command));
            return;
        }
        let is_allowed = self.in_stage || keyword == "ARG";
        if !is_allowed && !std::mem::replace(&mut self.is_early_noted, true) {
            context.error(
                Diagnostic::error("ST103", format!("{keyword} stands before the first FROM"))
                    .with_span(command.keyword.span())
                    .with_label("only ARG may stand here"),
            );
        }
        let Some(instruction) = context.instruction(&line, raw) else { return };
        match (self.stages.last_mut(), instruction.kind) {
            (None, InstructionKind::Arg(args)) if !self.in_stage => self.global_args.extend(args),
            (Some(stage), kind) => stage.instructions.push(Instruction { kind, ..instruction }),
            // An error has been noted already: there is no stage, or its FROM was wrong.
            (None, _) => {}
        }
    }
}

fn unknown_instruction(keyword: &Word) -> Diagnostic {
    let name = &keyword.raw;
    let message =
        if name.is_empty() { "missing instruction".to_owned() } else { format!("unknown instruction `{name}`") };
    let diagnostic = Diagnostic::error("ST102", message)
        .with_span(keyword.span.clone())
        .with_suggestion(nearest(name, KEYWORDS.iter().copied()));
    match diagnostic.label {
        Some(_) => diagnostic,
        None => diagnostic.with_help("if the line above goes on here, it has to end with the escape character"),
    }
}
