//! Which stage builds on which, with the values that global arguments give.

use std::collections::{BTreeMap, HashMap};

use crate::expand::{Expansion, expand_noting};
use crate::lint::{BaseImage, BaseLookup};
use crate::{ArgDecl, Dockerfile, Instruction, InstructionKind, Stage, Word};

/// Arguments that are always there for FROM, whether declared or not.
pub(crate) const PLATFORM_ARGS: [&str; 11] = [
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
    "TARGETSTAGE",
];

/// What a stage stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// An earlier stage.
    Stage(usize),
    /// `scratch`.
    Scratch,
    /// An image; empty when the name cannot be known.
    Image(String),
}

/// The stages of a file with their bases.
pub(crate) struct Stages<'a> {
    pub(crate) file: &'a Dockerfile,
    pub(crate) bases: Vec<Base>,
    /// The image below each stage (below the stages it stands on), where it is known.
    pub(crate) images: Vec<Option<BaseImage>>,
    /// Position of the stage that is built.
    pub(crate) last: usize,
    /// Whether the built stage needs it.
    pub(crate) needed: Vec<bool>,
    /// Stages that each one takes something from: its base, and those of COPY and mounts.
    pub(crate) sources: Vec<Vec<usize>>,
    /// Values of global arguments, `--build-arg`s applied.
    pub(crate) globals: BTreeMap<String, Option<String>>,
    /// The same from defaults only.
    defaults: BTreeMap<String, Option<String>>,
    /// Positions of the global arguments; of several with one name the last.
    global_args: HashMap<&'a str, usize>,
}

impl<'a> Stages<'a> {
    /// `target` is the name or number of the stage to be built; an unknown one counts as none.
    pub(crate) fn new(
        file: &'a Dockerfile,
        target: Option<&str>,
        build_args: &[(String, String)],
        images: Option<&BaseLookup<'_>>,
    ) -> Stages<'a> {
        let mut stages = Stages {
            file,
            bases: Vec::new(),
            images: Vec::new(),
            last: 0,
            needed: Vec::new(),
            sources: Vec::new(),
            globals: globals(file, build_args),
            defaults: globals(file, &[]),
            global_args: file.global_args.iter().enumerate().map(|(at, arg)| (arg.name.raw.as_str(), at)).collect(),
        };
        // Of several stages with one name the latest so far is meant.
        let mut named: HashMap<String, usize> = HashMap::new();
        for (at, stage) in file.stages.iter().enumerate() {
            let name = stages.expand_from(&stage.base, false).map(|found| found.value).unwrap_or_default();
            let base = match named.get(&name.to_lowercase()) {
                Some(&earlier) => Base::Stage(earlier),
                None if name == "scratch" => Base::Scratch,
                None => Base::Image(name),
            };
            let image = match &base {
                Base::Stage(earlier) => stages.images[*earlier].clone(),
                Base::Scratch => Some(BaseImage::default()),
                Base::Image(name) => images.and_then(|lookup| {
                    let platform = stage.platform.as_ref().and_then(|word| stages.expand_from(word, false));
                    lookup(name, platform.map(|found| found.value).filter(|value| !value.is_empty()).as_deref())
                }),
            };
            let copied = copied_from(stage)
                .filter_map(|from| named.get(&from.to_lowercase()).copied().or_else(|| from.parse().ok()));
            let below = if let Base::Stage(earlier) = base { Some(earlier) } else { None };
            stages.sources.push(copied.chain(below).filter(|&source| source < at).collect());
            stages.bases.push(base);
            stages.images.push(image);
            named.extend(stage.name.as_ref().map(|name| (name.raw.clone(), at)));
        }
        let count = file.stages.len();
        let by_number = |name: &str| name.parse().ok().filter(|&number: &usize| number < count);
        let target = target.and_then(|name| named.get(&name.to_lowercase()).copied().or_else(|| by_number(name)));
        stages.last = target.unwrap_or(count.saturating_sub(1));
        stages.needed = vec![false; count];
        let mut open: Vec<usize> = (count > 0).then_some(stages.last).into_iter().collect();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut stages.needed[at], true) {
                open.extend(&stages.sources[at]);
            }
        }
        stages
    }

    /// A word of a FROM line; `None` if it cannot be expanded.
    pub(crate) fn expand_from(&self, word: &Word, only_defaults: bool) -> Option<Expansion> {
        let values = if only_defaults { &self.defaults } else { &self.globals };
        let builtin = |name: &str| PLATFORM_ARGS.contains(&name).then(|| platform_value(name).to_owned());
        // `ARG TARGETPLATFORM` without a value leaves the builtin one.
        let lookup = |name: &str| values.get(name).cloned().flatten().or_else(|| builtin(name));
        expand_noting(&word.raw, self.file.directives.escape, &lookup).ok()
    }

    /// The last declaration of a global argument.
    pub(crate) fn global_arg(&self, name: &str) -> Option<&'a ArgDecl> {
        self.global_args.get(name).map(|&at| &self.file.global_args[at])
    }

    /// The built stage, what it stands on, and so on down.
    pub(crate) fn chain(&self) -> Vec<&'a Stage> {
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
    pub(crate) fn built(&self) -> impl Iterator<Item = &'a Instruction> {
        self.chain().into_iter().rev().flat_map(|stage| &stage.instructions)
    }

    /// The image below the one that is built, where it is known.
    pub(crate) fn built_on(&self) -> Option<&BaseImage> {
        self.images.get(self.last)?.as_ref()
    }
}

/// Hands what a stage leaves to those that build on it: a copy to each but the last, which gets the thing itself, so that
/// a long chain of stages copies nothing.
pub(crate) struct Heirs<T> {
    count: Vec<usize>,
    left: Vec<Option<T>>,
}

impl<T: Clone> Heirs<T> {
    pub(crate) fn new(stages: &Stages<'_>) -> Heirs<T> {
        let mut count = vec![0; stages.bases.len()];
        for base in &stages.bases {
            if let Base::Stage(earlier) = base {
                count[*earlier] += 1;
            }
        }
        Heirs { count, left: Vec::new() }
    }

    /// What the earlier stage left.
    pub(crate) fn inherit(&mut self, earlier: usize) -> Option<T> {
        self.count[earlier] -= 1;
        let left = &mut self.left[earlier];
        if self.count[earlier] == 0 { left.take() } else { left.clone() }
    }

    /// What the next stage leaves.
    pub(crate) fn leave(&mut self, thing: T) {
        let is_wanted = self.count[self.left.len()] > 0;
        self.left.push(is_wanted.then_some(thing));
    }
}

/// A variable's value as far as checks and outlines keep it: values can double with each ENV, and no path or port is longer.
pub(crate) fn shortened(mut value: String) -> String {
    const BYTES_MAX: usize = 4096;
    if value.len() > BYTES_MAX {
        value.truncate(crate::diagnostic::boundary(&value, BYTES_MAX));
        value.shrink_to_fit();
    }
    value
}

/// Names or numbers that COPY and mounts of a stage take files from.
fn copied_from(stage: &Stage) -> impl Iterator<Item = &str> {
    stage.instructions.iter().flat_map(|instruction| match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(|word| word.raw.as_str()).collect(),
        InstructionKind::Run(run) => {
            let options = run.mounts.iter().flat_map(|mount| &mount.options);
            options
                .filter(|(key, _)| key.raw == "from")
                .filter_map(|(_, value)| value.as_ref().map(|word| word.raw.as_str()))
                .collect()
        }
        _ => Vec::new(),
    })
}

/// Stand-ins that make a name valid where a platform argument is part of it.
fn platform_value(name: &str) -> &'static str {
    match name {
        "BUILDPLATFORM" | "TARGETPLATFORM" => "linux/amd64",
        "BUILDOS" | "TARGETOS" => "linux",
        "BUILDARCH" | "TARGETARCH" => "amd64",
        "TARGETSTAGE" => "default",
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
            let found = expand_noting(&default.raw, file.directives.escape, &lookup).ok()?;
            Some(shortened(found.value))
        };
        let value = given.or_else(default);
        values.insert(arg.name.raw.clone(), value);
    }
    values
}
