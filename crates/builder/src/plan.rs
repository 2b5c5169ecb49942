//! Which stages are built, on what, and in which order they need one another: plain data, worked out before anything runs.

use dockerfile::{Diagnostic, Dockerfile, InstructionKind, Span, Stage, Word, nearest};
use oci::Platform;

use crate::variables::Globals;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// A stage above.
    Stage(usize),
    /// An image or a named context, after expansion.
    Image(String),
}

/// One stage, resolved.
#[derive(Clone, Debug)]
pub(crate) struct StagePlan {
    pub(crate) base: Base,
    /// `--platform`, if given.
    pub(crate) platform: Option<Platform>,
    /// Stages that it uses, its base first.
    pub(crate) needs: Vec<usize>,
}

/// The whole file, resolved.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<StagePlan>,
    pub(crate) target: usize,
    pub(crate) globals: Globals,
    /// Stages that the target needs, itself included, in the file's order.
    pub(crate) needed: Vec<usize>,
}

/// What a `--from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Stage(usize),
    /// A named context or an image.
    Other(String),
}

impl Plan {
    /// Resolves names. Only what the target needs can be wrong: unused stages are not looked at further.
    pub(crate) fn new(file: &Dockerfile, target: Option<&str>, globals: Globals) -> Result<Self, Box<Diagnostic>> {
        let target = find_target(file, target)?;
        let mut stages = Vec::with_capacity(file.stages.len());
        let escape = file.directives.escape;
        for (at, stage) in file.stages.iter().enumerate() {
            stages.push(plan_stage(file, at, stage, &globals, escape));
        }
        // Stages are used only by stages below them, so one walk upwards finds all.
        let mut is_needed = vec![false; stages.len()];
        is_needed[target] = true;
        for at in (0..=target).rev() {
            if is_needed[at] {
                for need in &stages[at].as_ref().map_err(Clone::clone)?.needs {
                    is_needed[*need] = true;
                }
            }
        }
        let needed = (0..stages.len()).filter(|at| is_needed[*at]).collect();
        // Stages that are not needed keep their place with a plan that nobody asks for.
        let unused = || StagePlan { base: Base::Scratch, platform: None, needs: Vec::new() };
        let stages = stages.into_iter().map(|stage| stage.unwrap_or_else(|_| unused())).collect();
        Ok(Self { stages, target, globals, needed })
    }
}

/// Position of the stage that `--target` names; the last one without it.
pub(crate) fn find_target(file: &Dockerfile, target: Option<&str>) -> Result<usize, Box<Diagnostic>> {
    let Some(name) = target else { return Ok(file.stages.len() - 1) };
    if let Some(at) = named_stage(file, name, file.stages.len()) {
        return Ok(at);
    }
    Err(Box::new(
        Diagnostic::error("ST120", format!("stage `{name}` does not exist"))
            .with_suggestion(nearest(name, stage_names(file)))
            .with_note(match stage_names(file).collect::<Vec<_>>()[..] {
                [] => format!("the file has {} stages and none has a name", file.stages.len()),
                ref names => format!("stages: {}", names.join(", ")),
            }),
    ))
}

fn stage_names(file: &Dockerfile) -> impl Iterator<Item = &str> {
    file.stages.iter().filter_map(|stage| stage.name.as_ref()).map(|name| name.raw.as_str())
}

/// The last stage of this name (or number) above `before`.
fn named_stage(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let by_name = (0..before)
        .rev()
        .find(|at| file.stages[*at].name.as_ref().is_some_and(|known| known.raw.eq_ignore_ascii_case(name)));
    by_name.or_else(|| name.parse().ok().filter(|at| *at < before))
}

fn plan_stage(
    file: &Dockerfile,
    at: usize,
    stage: &Stage,
    globals: &Globals,
    escape: char,
) -> Result<StagePlan, Box<Diagnostic>> {
    let expand = |word: &Word| {
        dockerfile::expand::expand(&word.raw, escape, &|name| globals.get(name)).map_err(|error| {
            Box::new(Diagnostic::error("ST118", format!("`{}`: {error}", word.raw)).with_span(word.span.clone()))
        })
    };
    let name = expand(&stage.base)?;
    if name.is_empty() {
        return Err(Box::new(
            Diagnostic::error("ST123", format!("`{}` is empty after expansion", stage.base.raw))
                .with_span(stage.base.span.clone())
                .with_help("give the argument a default before the first FROM, or pass it with `--build-arg`"),
        ));
    }
    let base = if name == "scratch" {
        Base::Scratch
    } else if let Some(below) = stage_by_name_only(file, &name, at) {
        Base::Stage(below)
    } else {
        Base::Image(name)
    };
    let platform = match &stage.platform {
        None => None,
        Some(word) => {
            let text = expand(word)?;
            let platform = text.parse().map_err(|error: oci::InvalidPlatform| {
                Box::new(Diagnostic::error("ST123", error.to_string()).with_span(word.span.clone()))
            })?;
            Some(platform)
        }
    };
    let mut needs = Vec::new();
    if let Base::Stage(below) = base {
        needs.push(below);
    }
    for instruction in &stage.instructions {
        for from in froms(&instruction.kind) {
            if let From::Stage(used) = resolve_from(file, at, from, globals)? {
                needs.push(used);
            }
        }
    }
    Ok(StagePlan { base, platform, needs })
}

/// FROM knows names only: `FROM 0` is an image called `0`.
fn stage_by_name_only(file: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    named_stage(file, name, before).filter(|_| !is_number)
}

fn froms(kind: &InstructionKind) -> Vec<&Word> {
    match kind {
        InstructionKind::Copy(copy) => copy.from.iter().collect(),
        InstructionKind::Run(run) => run
            .mounts
            .iter()
            .flat_map(|mount| &mount.options)
            .filter(|(key, _)| key.raw == "from")
            .filter_map(|(_, value)| value.as_ref())
            .collect(),
        _ => Vec::new(),
    }
}

/// What `--from=` in stage `at` names.
pub(crate) fn resolve_from(
    file: &Dockerfile,
    at: usize,
    word: &Word,
    globals: &Globals,
) -> Result<From, Box<Diagnostic>> {
    let fail = |diagnostic: Diagnostic| Err(Box::new(diagnostic.with_span(word.span.clone())));
    let name = match dockerfile::expand::expand(&word.raw, file.directives.escape, &|name| globals.get(name)) {
        Ok(name) => name,
        Err(error) => return fail(Diagnostic::error("ST118", format!("`{}`: {error}", word.raw))),
    };
    if let Some(stage) = named_stage(file, &name, at) {
        return Ok(From::Stage(stage));
    }
    if let Some(later) = named_stage(file, &name, file.stages.len()) {
        let place = if later == at { "it is this very stage" } else { "it is defined further below" };
        return fail(
            Diagnostic::error("ST121", format!("stage `{name}` cannot be used here: {place}"))
                .with_help("a stage can use only the stages above it"),
        );
    }
    if name.parse::<usize>().is_ok() {
        return fail(Diagnostic::error("ST120", format!("there is no stage {name} above this one")));
    }
    if name.is_empty() {
        return fail(Diagnostic::error("ST123", "the name of the stage is empty after expansion"));
    }
    Ok(From::Other(name))
}

/// The stage name that a name which turned out to be no image was probably meant to be.
pub(crate) fn nearest_stage<'a>(file: &'a Dockerfile, name: &str) -> Option<&'a str> {
    nearest(name, stage_names(file))
}

/// Where a word stands, or the whole instruction when the word came from elsewhere.
pub(crate) fn span_in(text: &str, span: &Span) -> Option<Span> {
    (span.end <= text.len() && text.is_char_boundary(span.start) && text.is_char_boundary(span.end))
        .then(|| span.clone())
}
