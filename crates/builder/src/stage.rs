//! One stage: from its base through its instructions.

use std::sync::Arc;

use dockerfile::{CopyLike, Diagnostic, Instruction, InstructionKind, Span, Word, expand};
use engine::BuildError;
use oci::{History, ImageConfig};

use crate::{
    base,
    context::Context,
    copy,
    former::{Below, Chain},
    metadata,
    plan::{Base, span_in},
    remote, run,
    settle::settle,
    step::{Key, Layers, Made, Outcome, StepInfo, Steps},
    variables::Env,
    work::{During as _, Work},
};

/// An image in the making.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) config: ImageConfig,
    pub(crate) layers: Layers,
    /// ENV and ARG as instructions see them.
    pub(crate) env: Env,
    /// Names and values of ARGs, for the history of RUN.
    pub(crate) args: Env,
    /// CMD was set since ENTRYPOINT would reset it (it resets an inherited one only).
    pub(crate) is_cmd_set: bool,
    pub(crate) unpublishable: Option<String>,
    /// The steps that made it.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// One instruction with what is known around it.
pub(crate) struct At<'a> {
    pub(crate) work: &'a Work<'a>,
    pub(crate) stage: usize,
    /// Position in the stage, triggers of the base first.
    pub(crate) number: usize,
    pub(crate) instruction: &'a Instruction,
    /// Where it is shown: an ONBUILD trigger stands at its FROM.
    pub(crate) span: Span,
    /// Text of a trigger instead of the Dockerfile: spans within are no places.
    pub(crate) is_trigger: bool,
    pub(crate) chain: &'a Chain,
}

pub(crate) fn build_stage(work: &Work<'_>, at: usize) -> Result<State, BuildError> {
    let stage = &work.file.stages[at];
    let (mut state, below) = begin(work, at)?;
    if work.plan.stages[at].is_replaced {
        return Ok(state);
    }
    let triggers = std::mem::take(&mut state.config.config.on_build);
    let mut instructions = Vec::new();
    for trigger in &triggers {
        let instruction = dockerfile::parse_trigger(trigger).map_err(|problems| {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            work.invalid(
                Diagnostic::error("ST112", format!("the base's ONBUILD trigger `{trigger}` is wrong: {text}"))
                    .with_span(stage.base.span.clone()),
            )
        })?;
        instructions.push((instruction, true));
    }
    instructions.extend(stage.instructions.iter().map(|instruction| (instruction.clone(), false)));
    let texts = instructions.iter().map(|(instruction, _)| instruction.text.clone()).collect();
    let chain = Arc::new(Chain::new(&chain_name(work, at), below, state.layers.key.clone(), texts));
    work.add_chain(&chain);
    for (number, (instruction, is_trigger)) in instructions.iter().enumerate() {
        work.check()?;
        let span = if *is_trigger { stage.span.clone() } else { instruction.span.clone() };
        let at = At { work, stage: at, number, instruction, span, is_trigger: *is_trigger, chain: &chain };
        at.apply(&mut state)?;
    }
    chain.finish();
    state.chain = Some(chain);
    Ok(state)
}

/// The state that FROM gives, and what it came from.
fn begin(work: &Work<'_>, at: usize) -> Result<(State, Below), BuildError> {
    let stage = &work.file.stages[at];
    let plan = &work.plan.stages[at];
    match &plan.base {
        Base::Scratch => Ok((scratch(work), Below::Fixed)),
        Base::Stage(below) => {
            let name = stage.base.raw.clone();
            let below = work.stage(*below)?;
            // What ENTRYPOINT may reset is what this stage inherits.
            let state = State { is_cmd_set: false, ..State::clone(&below) };
            Ok((state, below.chain.clone().map_or(Below::Fixed, |chain| Below::Stage(name, chain))))
        }
        Base::Image(name) => {
            if let Some(context) = remote::named(work, name, &stage.base.span)? {
                return directory(work, at, name, context);
            }
            let base = base::find(work, name, plan.platform.as_ref(), &stage.base.span)?;
            let mut config = base.image.config;
            metadata::inherit(&mut config);
            let below = Below::Image { reference: name.clone(), id: base.image.id };
            Ok((State::new(config, base.layers, base.unpublishable), below))
        }
    }
}

/// An empty file system.
fn scratch(work: &Work<'_>) -> State {
    // As BuildKit: nothing was made for the platform that FROM names.
    let mut config = ImageConfig::scratch(&work.request.platform);
    // As BuildKit: nothing to inherit a PATH from, so that programs are found later.
    config.config.set_env("PATH", crate::variables::DEFAULT_PATH);
    config.config.working_dir = "/".into();
    let layers = Layers { key: oci::Digest::of(b"scratch"), layers: Vec::new() };
    State::new(config, layers, None)
}

/// A named directory as the base: its files are the whole file system, in a layer of its own.
fn directory(work: &Work<'_>, at: usize, name: &str, context: Arc<Context>) -> Result<(State, Below), BuildError> {
    let stage = &work.file.stages[at];
    let mut state = scratch(work);
    let instruction = Instruction {
        text: format!("FROM {name}"),
        ..dockerfile::parse_trigger("COPY / /").expect("this is an instruction")
    };
    let chain_name = crate::step::digest_of([chain_name(work, at).hex().as_bytes(), b"base"]);
    let texts = vec![instruction.text.clone()];
    let chain = Arc::new(Chain::new(&chain_name, Below::Fixed, state.layers.key.clone(), texts));
    work.add_chain(&chain);
    let span = stage.span.clone();
    let at = At { work, stage: at, number: 0, instruction: &instruction, span, is_trigger: true, chain: &chain };
    let outcome = copy::whole_root(&at, &mut state, context)?;
    at.history(&mut state, instruction.text.clone(), outcome);
    chain.finish();
    Ok((state, Below::Stage(name.to_owned(), chain)))
}

/// Names a stage of a Dockerfile for a platform, so that its next build is compared with this one.
fn chain_name(work: &Work<'_>, at: usize) -> oci::Digest {
    let file = &work.request.dockerfile;
    let origin = work.context.origin();
    // What was fetched lies in another directory each time.
    let path = file.path.as_deref().filter(|_| origin.is_none());
    let path = path.map_or(file.name.as_bytes(), |path| path.as_os_str().as_encoded_bytes());
    let place = origin.unwrap_or(work.context.path()).as_os_str().as_encoded_bytes();
    let name = work.file.stages[at].name.as_ref().map_or("", |name| name.raw.as_str());
    let platform = work.plan.stages[at].platform.as_ref().unwrap_or(&work.request.platform).to_string();
    // A stage without a name is known by its number.
    let number = if name.is_empty() { at.to_string() } else { String::new() };
    crate::step::digest_of([path, place, name.as_bytes(), number.as_bytes(), platform.as_bytes()])
}

impl State {
    fn new(config: ImageConfig, layers: Layers, unpublishable: Option<String>) -> Self {
        let env = Env::of_config(&config.config.env);
        Self { config, layers, env, args: Env::default(), is_cmd_set: false, unpublishable, chain: None }
    }

    /// A path as it is seen from the working directory, cleaned as Go's `path.Clean` does.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let mut parts: Vec<&str> = Vec::new();
        let base = if path.starts_with('/') { "" } else { self.config.config.working_dir.as_str() };
        for part in base.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }
}

impl At<'_> {
    /// Lets the instruction change the state.
    fn apply(&self, state: &mut State) -> Result<(), BuildError> {
        match &self.instruction.kind {
            InstructionKind::Run(run) => {
                let outcome = run::run(self, state, run)?;
                self.history(state, run::history_text(state, self), outcome);
            }
            InstructionKind::Copy(copy) => self.copy(state, copy, false)?,
            InstructionKind::Add(copy) => self.copy(state, copy, true)?,
            InstructionKind::Workdir(path) => self.workdir(state, path)?,
            _ => {
                metadata::apply(self, state)?;
                self.history(state, self.instruction.text.clone(), Outcome::Nothing);
            }
        }
        Ok(())
    }

    fn copy(&self, state: &mut State, copy: &CopyLike, is_add: bool) -> Result<(), BuildError> {
        let outcome = copy::copy(self, state, copy, is_add)?;
        self.history(state, self.instruction.text.clone(), outcome);
        Ok(())
    }

    fn workdir(&self, state: &mut State, path: &Word) -> Result<(), BuildError> {
        let path = self.expand(state, path)?;
        if path.is_empty() {
            let message = "the path of WORKDIR is empty after expansion";
            return Err(self.invalid(Diagnostic::error("ST123", message), None));
        }
        let path = state.absolute(&path);
        if path == "/proc" || path.starts_with("/proc/") {
            let message = format!("`{path}` cannot be a working directory: /proc is each container's own");
            return Err(self.invalid(Diagnostic::error("ST123", message), None));
        }
        state.config.config.working_dir.clone_from(&path);
        let mut outcome = Outcome::Nothing;
        if path != "/" {
            let mut key = Key::new(&state.layers.key);
            key.add("instruction", format!("WORKDIR {path}"));
            // What is made belongs to the user, as in BuildKit.
            let user = state.config.config.user.clone();
            if !user.is_empty() {
                key.add("user", &user);
            }
            outcome = self.step(state, key, |layers, _| self.make_directory(layers, &path, &user))?;
        }
        self.history(state, self.instruction.text.clone(), outcome);
        Ok(())
    }

    /// Runs a cached step. `make` gets the file system below.
    pub(crate) fn step(
        &self,
        state: &mut State,
        key: Key,
        make: impl FnOnce(&Layers, &crate::step::Running<'_>) -> Result<Made, BuildError>,
    ) -> Result<Outcome, BuildError> {
        let work = self.work;
        let info = StepInfo {
            stage: work.request.stage.clone(),
            text: self.instruction.text.clone(),
            place: Some(work.place(&self.span)),
            number: self.number,
        };
        let steps = Steps { host: work.host, events: work.events, tally: &work.tally, chain: self.chain };
        let below = state.layers.clone();
        steps.run(&mut state.layers, &info, key, self.cache_off(), |running| make(&below, running))
    }

    /// The flag that forbids the cache for this stage.
    fn cache_off(&self) -> Option<String> {
        if self.work.request.no_cache {
            return Some("--no-cache".into());
        }
        let name = self.work.file.stages[self.stage].name.as_ref().map(|name| name.raw.as_str());
        let is_filtered = |filter: &&String| {
            name.is_some_and(|name| name.eq_ignore_ascii_case(filter)) || **filter == self.stage.to_string()
        };
        let filter = self.work.request.no_cache_filter.iter().find(is_filtered)?;
        Some(format!("--no-cache-filter={filter}"))
    }

    fn history(&self, state: &mut State, created_by: String, outcome: Outcome) {
        state.config.history.push(History {
            created: Some(crate::build::rfc3339(self.work.epoch)),
            created_by: Some(created_by),
            empty_layer: outcome == Outcome::Nothing,
            ..History::default()
        });
    }

    /// A word's value.
    pub(crate) fn expand(&self, state: &State, word: &Word) -> Result<String, BuildError> {
        self.expand_text(state, &word.raw, Some(&word.span))
    }

    pub(crate) fn expand_text(&self, state: &State, text: &str, span: Option<&Span>) -> Result<String, BuildError> {
        expand::expand(text, self.escape(), &|name| state.env.get(name).map(str::to_owned))
            .map_err(|error| self.cannot_expand(text, &error, span))
    }

    /// The words that a word becomes.
    pub(crate) fn expand_words(&self, state: &State, word: &Word) -> Result<Vec<String>, BuildError> {
        expand::expand_words(&word.raw, self.escape(), &|name| state.env.get(name).map(str::to_owned))
            .map_err(|error| self.cannot_expand(&word.raw, &error, Some(&word.span)))
    }

    pub(crate) fn cannot_expand(&self, text: &str, error: &expand::ExpandError, span: Option<&Span>) -> BuildError {
        self.invalid(Diagnostic::error("ST118", format!("`{text}`: {error}")), span)
    }

    /// Triggers were written for another file: its escape character is the default.
    fn escape(&self) -> char {
        if self.is_trigger { '\\' } else { self.work.file.directives.escape }
    }

    /// The Dockerfile is wrong at `span`, or at this instruction.
    pub(crate) fn invalid(&self, diagnostic: Diagnostic, span: Option<&Span>) -> BuildError {
        self.work.invalid(diagnostic.with_span(self.place_of(span)))
    }

    /// `span` where it is one of the Dockerfile, or this instruction.
    pub(crate) fn place_of(&self, span: Option<&Span>) -> Span {
        let within = span.filter(|_| !self.is_trigger);
        let span = within.and_then(|span| span_in(&self.work.request.dockerfile.text, span));
        span.unwrap_or_else(|| self.span.clone())
    }

    fn make_directory(&self, layers: &Layers, path: &str, user: &str) -> Result<Made, BuildError> {
        let attempt = || format!("cannot make directory {path}");
        let work = self.work;
        let active = work.host.store.prepare(work.host.scope, layers.top()).during(attempt)?;
        let target = copy::Target::open(&active).during(attempt)?;
        let resolved = target.resolve(path.as_bytes()).during(attempt)?;
        if resolved.node.is_some_and(|node| node.kind == crate::tree::Kind::Dir) {
            return Ok(Made { snapshot: None, result: None });
        }
        let made = target.ensure_dir(&resolved.path, target.owner(user));
        drop(made.map_err(|error| copy::write_failure(self, error))?);
        drop(target);
        settle(work.host.store, &active, work.epoch).during(attempt)?;
        Ok(Made::layer(active.commit().during(attempt)?))
    }
}
