//! Which stage builds on which, with the values that global arguments give.

use std::collections::BTreeMap;

use super::LintInput;
use crate::expand::{Expansion, expand_noting};
use crate::{Dockerfile, Instruction, InstructionKind, Stage, Word};

/// Arguments that are always there for FROM, whether declared or not.
pub(super) const PLATFORM_ARGS: [&str; 10] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
];

/// What a stage stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// An earlier stage.
    Stage(usize),
    /// `scratch`.
    Scratch,
    /// An image; empty when the name cannot be known.
    Image(String),
}

/// The stages of a file with their bases.
pub(super) struct Stages<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) bases: Vec<Base>,
    /// Position of the stage that is built.
    pub(super) last: usize,
    /// Values of global arguments, `--build-arg`s applied.
    pub(super) globals: BTreeMap<String, Option<String>>,
    /// The same from defaults only.
    pub(super) defaults: BTreeMap<String, Option<String>>,
}

impl<'a> Stages<'a> {
    pub(super) fn new(file: &'a Dockerfile, input: &LintInput<'_>) -> Stages<'a> {
        let mut stages = Stages {
            file,
            bases: Vec::new(),
            last: 0,
            globals: globals(file, input.build_args),
            defaults: globals(file, &[]),
        };
        for (at, stage) in file.stages.iter().enumerate() {
            let name = stages.expand_from(&stage.base, false).map(|found| found.value).unwrap_or_default();
            let base = match stages.position(&name, at) {
                Some(earlier) => Base::Stage(earlier),
                None if name == "scratch" => Base::Scratch,
                None => Base::Image(name),
            };
            stages.bases.push(base);
        }
        let count = file.stages.len();
        let by_number = |name: &str| name.parse().ok().filter(|&number: &usize| number < count);
        let target = input.target.and_then(|name| stages.position(name, count).or_else(|| by_number(name)));
        stages.last = target.unwrap_or(count.saturating_sub(1));
        stages
    }

    /// The last stage of this name before `before`.
    fn position(&self, name: &str, before: usize) -> Option<usize> {
        self.file.stages[..before]
            .iter()
            .rposition(|stage| stage.name.as_ref().is_some_and(|known| known.raw.eq_ignore_ascii_case(name)))
    }

    /// A word of a FROM line; `None` if it cannot be expanded.
    pub(super) fn expand_from(&self, word: &Word, only_defaults: bool) -> Option<Expansion> {
        let values = if only_defaults { &self.defaults } else { &self.globals };
        let lookup = |name: &str| match values.get(name) {
            Some(value) => value.clone(),
            None => PLATFORM_ARGS.contains(&name).then(|| platform_value(name).to_owned()),
        };
        expand_noting(&word.raw, self.file.directives.escape, &lookup).ok()
    }

    /// The built stage, what it stands on, and so on down.
    pub(super) fn chain(&self) -> Vec<&'a Stage> {
        let mut chain = Vec::new();
        let mut at = Some(self.last).filter(|&last| last < self.bases.len());
        while let Some(position) = at {
            chain.push(&self.file.stages[position]);
            at = match self.bases[position] {
                Base::Stage(earlier) => Some(earlier),
                _ => None,
            };
        }
        chain
    }

    /// Instructions of the built image from first to last.
    pub(super) fn built(&self) -> impl Iterator<Item = &'a Instruction> {
        self.chain().into_iter().rev().flat_map(|stage| &stage.instructions)
    }
}

/// Stand-ins that make a name valid where a platform argument is part of it.
fn platform_value(name: &str) -> &'static str {
    match name {
        "BUILDPLATFORM" | "TARGETPLATFORM" => "linux/amd64",
        "BUILDOS" | "TARGETOS" => "linux",
        "BUILDARCH" | "TARGETARCH" => "amd64",
        _ => "",
    }
}

fn globals(file: &Dockerfile, build_args: &[(String, String)]) -> BTreeMap<String, Option<String>> {
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    for arg in &file.global_args {
        let given = build_args.iter().rfind(|(name, _)| *name == arg.name.raw).map(|(_, value)| value.clone());
        let default = || {
            let default = arg.default.as_ref()?;
            let lookup = |name: &str| values.get(name).cloned().flatten();
            expand_noting(&default.raw, file.directives.escape, &lookup).ok().map(|found| found.value)
        };
        let value = given.or_else(default);
        values.insert(arg.name.raw.clone(), value);
    }
    values
}

/// Whether an instruction is one of the kind that only its last occurrence counts for.
pub(super) fn single_use(kind: &InstructionKind) -> Option<&'static str> {
    match kind {
        InstructionKind::Cmd(_) => Some("CMD"),
        InstructionKind::Entrypoint(_) => Some("ENTRYPOINT"),
        InstructionKind::Healthcheck(_) => Some("HEALTHCHECK"),
        _ => None,
    }
}
