//! Which stages are built, on what, and in which order they need one another: plain data, worked out before anything runs.

use std::collections::BTreeMap;

use dockerfile::{Diagnostic, Dockerfile, InstructionKind, Span, Stage, Word, nearest};
use engine::NamedContext;
use oci::{Platform, Reference};

use crate::variables::Globals;

/// Each needed stage has a thread of its own. Real Dockerfiles have some dozens of stages.
const NEEDED_STAGES_MAX: usize = 1000;

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
    /// A named context stands for it: its instructions are not run.
    pub(crate) is_replaced: bool,
}

/// `--build-context`.
pub(crate) type Contexts = BTreeMap<String, NamedContext>;

/// The whole file, resolved.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<StagePlan>,
    pub(crate) target: usize,
    pub(crate) globals: Globals,
    /// Stages that the target needs, itself included, in the file's order.
    pub(crate) needed: Vec<usize>,
}

/// The named context that a FROM or `--from` means, with its name as it was given. Images are the same however their
/// name is written (`docker.io/library/x:latest` is `x`).
pub(crate) fn named_context<'a>(contexts: &'a Contexts, name: &str) -> Option<(&'a str, &'a NamedContext)> {
    let familiar = |name: &str| {
        let reference = name.parse::<Reference>().ok()?.familiar();
        Some(reference.strip_suffix(":latest").map_or_else(|| reference.clone(), str::to_owned))
    };
    let exact = contexts.get_key_value(name);
    let found = exact.or_else(|| {
        let wanted = Some(name).filter(|_| !contexts.is_empty()).and_then(familiar)?;
        contexts.iter().find(|(known, _)| familiar(known).is_some_and(|known| known == wanted))
    });
    found.map(|(name, context)| (name.as_str(), context))
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
    pub(crate) fn new(
        file: &Dockerfile,
        target: Option<&str>,
        globals: Globals,
        contexts: &Contexts,
    ) -> Result<Self, Box<Diagnostic>> {
        let target = find_target(file, target)?;
        let mut stages = Vec::with_capacity(file.stages.len());
        for (at, stage) in file.stages.iter().enumerate() {
            stages.push(plan_stage(file, at, stage, &globals, contexts));
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
        let needed: Vec<usize> = (0..stages.len()).filter(|at| is_needed[*at]).collect();
        if needed.len() > NEEDED_STAGES_MAX {
            let message = format!("{} stages are needed, and the limit is {NEEDED_STAGES_MAX}", needed.len());
            let span = file.stages[target].base.span.clone();
            return Err(Box::new(Diagnostic::error("ST123", message).with_span(span)));
        }
        // Stages that are not needed keep their place with a plan that nobody asks for.
        let unused = || StagePlan { base: Base::Scratch, platform: None, needs: Vec::new(), is_replaced: false };
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
    contexts: &Contexts,
) -> Result<StagePlan, Box<Diagnostic>> {
    let escape = file.directives.escape;
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
    let own_name = stage.name.as_ref().map(|name| name.raw.as_str());
    let replacement = own_name.and_then(|name| named_context(contexts, name));
    let is_replaced = replacement.is_some();
    let base = if let Some((name, context)) = replacement {
        base_of_context(file, at, name, context, &stage.base.span)?
    } else if name == "scratch" {
        Base::Scratch
    } else if let Some(below) = stage_by_name_only(file, &name, at) {
        Base::Stage(below)
    } else if let Some((name, context)) = named_context(contexts, &name) {
        base_of_context(file, at, name, context, &stage.base.span)?
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
    for instruction in stage.instructions.iter().filter(|_| !is_replaced) {
        for from in froms(&instruction.kind) {
            if let From::Stage(used) = resolve_from(file, at, from, globals, contexts)? {
                needs.push(used);
            }
        }
    }
    Ok(StagePlan { base, platform, needs, is_replaced })
}

/// What a stage stands on if a named context is its base.
fn base_of_context(
    file: &Dockerfile,
    at: usize,
    name: &str,
    context: &NamedContext,
    span: &Span,
) -> Result<Base, Box<Diagnostic>> {
    match context {
        NamedContext::Stage(target) => Ok(Base::Stage(target_stage(file, at, name, target, span)?)),
        NamedContext::Image(reference) if reference.familiar() == "scratch:latest" => Ok(Base::Scratch),
        _ => Ok(Base::Image(name.to_owned())),
    }
}

/// The stage that `--build-context NAME=target:STAGE` means where stage `at` uses it.
fn target_stage(file: &Dockerfile, at: usize, name: &str, target: &str, span: &Span) -> Result<usize, Box<Diagnostic>> {
    if let Some(stage) = named_stage(file, target, at) {
        return Ok(stage);
    }
    let message = match named_stage(file, target, file.stages.len()) {
        Some(later) if later == at => format!("the named context `{name}` is this very stage"),
        Some(_) => format!("the named context `{name}` is stage `{target}`, which is defined further below"),
        None => format!("the named context `{name}` is stage `{target}`, which does not exist"),
    };
    Err(Box::new(
        Diagnostic::error("ST120", message)
            .with_span(span.clone())
            .with_suggestion(nearest(target, stage_names(file)))
            .with_help("a stage can use only the stages above it"),
    ))
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
    contexts: &Contexts,
) -> Result<From, Box<Diagnostic>> {
    let fail = |diagnostic: Diagnostic| Err(Box::new(diagnostic.with_span(word.span.clone())));
    let name = match dockerfile::expand::expand(&word.raw, file.directives.escape, &|name| globals.get(name)) {
        Ok(name) => name,
        Err(error) => return fail(Diagnostic::error("ST118", format!("`{}`: {error}", word.raw))),
    };
    if let Some(stage) = named_stage(file, &name, at) {
        return Ok(From::Stage(stage));
    }
    match named_context(contexts, &name) {
        Some((name, NamedContext::Stage(target))) => {
            return target_stage(file, at, name, target, &word.span).map(From::Stage);
        }
        Some((name, _)) => return Ok(From::Other(name.to_owned())),
        None => {}
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
