//! What a build of a Dockerfile may be asked for: targets, arguments, secrets, SSH agents. Behind `build --call`.
//!
//! Follows BuildKit's `frontend.outline` and `frontend.targets`: an argument counts if the target, or a stage that it takes
//! something from, declares it or reads it on its FROM line; descriptions are the comments right above (`# name text`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::expand::expand_noting;
use crate::stages::{Base, Heirs, Stages, shortened};
use crate::{ArgDecl, Diagnostic, Dockerfile, InstructionKind, MountKind, RunMount, Span, Stage, nearest};

/// What the target may be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; `None`: the last stage has none.
    pub name: Option<String>,
    /// What a comment says of the target.
    pub description: Option<String>,
    /// Build arguments, in the order of the text.
    pub args: Vec<Arg>,
    /// `RUN --mount=type=secret`, in the order of the text.
    pub secrets: Vec<Need>,
    /// `RUN --mount=type=ssh`, in the order of the text.
    pub ssh: Vec<Need>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// The value it has: given, or the default.
    pub value: Option<String>,
    /// What a comment says of it.
    pub description: Option<String>,
    /// Its declaration.
    pub span: Span,
}

/// A secret or an SSH agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its id.
    pub id: String,
    /// Whether a build without it fails.
    pub is_required: bool,
    /// The mount that asks for it first.
    pub span: Span,
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `AS name`.
    pub name: Option<&'a str>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// What a comment says of it.
    pub description: Option<&'a str>,
    /// What it stands on, as written.
    pub base: &'a str,
    /// `--platform`, as written.
    pub platform: Option<&'a str>,
    /// Its FROM line.
    pub span: Span,
}

/// All stages in order.
pub fn targets(file: &Dockerfile) -> Vec<Target<'_>> {
    let last = file.stages.len() - 1;
    let stages = file.stages.iter().enumerate();
    stages
        .map(|(at, stage)| Target {
            name: stage.name.as_ref().map(|name| name.raw.as_str()),
            is_default: at == last,
            description: stage.description.as_deref(),
            base: &stage.base.raw,
            platform: stage.platform.as_ref().map(|word| word.raw.as_str()),
            span: stage.span.clone(),
        })
        .collect()
}

/// What a build of `target` (name or number; the last stage if absent) may be given.
///
/// # Errors
/// There is no such stage.
#[expect(clippy::result_large_err, reason = "asked once a command")]
pub fn outline(
    file: &Dockerfile,
    target: Option<&str>,
    build_args: &[(String, String)],
) -> Result<Outline, Diagnostic> {
    if let Some(wanted) = target.filter(|wanted| !is_stage(file, wanted)) {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_ref()).map(|name| name.raw.as_str());
        return Err(Diagnostic::error("ST120", format!("target stage `{wanted}` does not exist"))
            .with_suggestion(nearest(wanted, names)));
    }
    let stages = Stages::new(file, target, build_args, None);
    let mut walk = Walk { stages: &stages, build_args, scopes: Vec::new() };
    let mut heirs = Heirs::new(&stages);
    for at in 0..file.stages.len() {
        let mut scope = Scope::default();
        if let Base::Stage(earlier) = stages.bases[at] {
            scope.variables = heirs.inherit(earlier).unwrap_or_default();
        }
        walk.stage(at, &mut scope);
        heirs.leave(scope.variables);
        walk.scopes.push(scope.args);
    }
    let mut outline = Outline {
        name: file.stages[stages.last].name.as_ref().map(|name| name.raw.clone()),
        description: file.stages[stages.last].description.clone(),
        ..Outline::default()
    };
    walk.collect(&mut outline);
    outline.args.sort_by_key(|arg| arg.span.start);
    outline.secrets.sort_by_key(|need| need.span.start);
    outline.ssh.sort_by_key(|need| need.span.start);
    Ok(outline)
}

fn is_stage(file: &Dockerfile, wanted: &str) -> bool {
    let is_named = |stage: &Stage| stage.name.as_ref().is_some_and(|name| name.raw.eq_ignore_ascii_case(wanted));
    file.stages.iter().any(is_named) || wanted.parse().is_ok_and(|number: usize| number < file.stages.len())
}

/// By name.
type Args = BTreeMap<String, Arg>;

/// What a stage has seen when it ends.
#[derive(Default)]
struct Scope {
    variables: Rc<BTreeMap<String, String>>,
    /// Declared or read by this stage itself.
    args: Args,
}

struct Walk<'w, 'a> {
    stages: &'w Stages<'a>,
    build_args: &'w [(String, String)],
    scopes: Vec<Args>,
}

impl Walk<'_, '_> {
    fn stage(&self, at: usize, scope: &mut Scope) {
        let stage = &self.stages.file.stages[at];
        for word in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
            for name in self.stages.expand_from(word, false).unwrap_or_default().matched {
                self.global(&name, &mut scope.args);
            }
        }
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(args) => args.iter().for_each(|arg| self.declare(arg, &instruction.span, scope)),
                InstructionKind::Env(pairs) => {
                    let values: Vec<_> =
                        pairs.iter().map(|(name, value)| (name.raw.clone(), self.expand(&value.raw, scope))).collect();
                    Rc::make_mut(&mut scope.variables).extend(values);
                }
                _ => {}
            }
        }
    }

    fn given(&self, name: &str) -> Option<String> {
        self.build_args.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.clone())
    }

    fn declare(&self, arg: &ArgDecl, span: &Span, scope: &mut Scope) {
        let name = &arg.name.raw;
        let own = self.given(name).or_else(|| arg.default.as_ref().map(|default| self.expand(&default.raw, scope)));
        let global = self.stages.globals.get(name);
        let value = own.clone().or_else(|| global.cloned().flatten());
        // Without a value of its own it is the global argument, which is then shown.
        if own.is_none() && global.is_some() {
            self.global(name, &mut scope.args);
        } else {
            let of_global = || self.stages.global_arg(name)?.description.clone();
            let description = arg.description.clone().or_else(of_global);
            let declared = Arg { name: name.clone(), value: value.clone(), description, span: span.clone() };
            scope.args.insert(name.clone(), declared);
        }
        if let Some(value) = value {
            Rc::make_mut(&mut scope.variables).insert(name.clone(), value);
        }
    }

    /// A global argument that is read, and those that its default reads.
    fn global(&self, name: &str, args: &mut Args) {
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let Some(arg) = self.stages.global_arg(&name).filter(|_| !args.contains_key(&name)) else { continue };
            let default = arg.default.as_ref().filter(|_| self.given(&name).is_none());
            open.extend(default.and_then(|word| self.stages.expand_from(word, false)).unwrap_or_default().matched);
            let read = Arg {
                name: name.clone(),
                value: self.stages.globals.get(&name).cloned().flatten(),
                description: arg.description.clone(),
                span: arg.name.span.clone(),
            };
            args.insert(name, read);
        }
    }

    fn expand(&self, text: &str, scope: &Scope) -> String {
        let lookup = |name: &str| scope.variables.get(name).cloned();
        let found = expand_noting(text, self.stages.file.directives.escape, &lookup).unwrap_or_default();
        shortened(found.value)
    }

    /// The target first, then what it takes something from; the first mention of a name counts.
    fn collect(&self, outline: &mut Outline) {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.stages.last];
        let (mut args, mut secrets, mut ssh) = (Args::new(), BTreeMap::new(), BTreeMap::new());
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            for (name, arg) in &self.scopes[at] {
                args.entry(name.clone()).or_insert_with(|| arg.clone());
            }
            for instruction in &self.stages.file.stages[at].instructions {
                let InstructionKind::Run(run) = &instruction.kind else { continue };
                for mount in &run.mounts {
                    match mount.kind {
                        MountKind::Secret => add(&mut secrets, need(mount, secret_id(mount))),
                        MountKind::Ssh => {
                            add(&mut ssh, need(mount, option(mount, &["id"]).unwrap_or("default").to_owned()));
                        }
                        _ => {}
                    }
                }
            }
            open.extend(self.stages.sources[at].iter().rev());
        }
        outline.args.extend(args.into_values());
        outline.secrets.extend(secrets.into_values());
        outline.ssh.extend(ssh.into_values());
    }
}

fn option<'m>(mount: &'m RunMount, names: &[&str]) -> Option<&'m str> {
    let found = mount.options.iter().rev().find(|(name, _)| names.contains(&name.raw.as_str()))?;
    found.1.as_ref().map(|value| value.raw.as_str()).filter(|value| !value.is_empty())
}

/// `id`, else `source`, else the last part of the target.
fn secret_id(mount: &RunMount) -> String {
    let last_part = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let named = option(mount, &["id"]).or_else(|| option(mount, &["source", "src"])).map(str::to_owned);
    named.or_else(|| option(mount, &["target", "dst", "destination"]).map(last_part)).unwrap_or_default()
}

fn need(mount: &RunMount, id: String) -> Need {
    let required = mount.options.iter().rev().find(|(name, _)| name.raw == "required");
    // A bare flag means true.
    let is_required = required.is_some_and(|(_, value)| {
        value.as_ref().is_none_or(|value| matches!(value.raw.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
    });
    Need { id, is_required, span: mount.span.clone() }
}

/// Needed at one place is needed.
fn add(needs: &mut BTreeMap<String, Need>, need: Need) {
    match needs.get_mut(&need.id) {
        Some(known) => known.is_required |= need.is_required,
        None => {
            needs.insert(need.id.clone(), need);
        }
    }
}
