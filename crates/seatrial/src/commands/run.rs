//! `seatrial run`, `test`, `health`, `publish`: the pipeline, whole or in part.

mod foreign;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use dockerfile::Diagnostic;
use engine::{
    BuildError, BuildRequest, Built, Engine, EngineError, ImageRequest, KeptRoot, ResolvedImage, Root, Scope,
};
use events::{RunId, Verdict};
use oci::Digest;
use pipeline::{
    GateFailure, Outcome, Plan, PrepareError, PrepareRequest, Prepared, PublishError, RunContext, RunError, RunOptions,
    ServiceError, SourceText, Stages,
};
use store::{RunDir, Stop, Store};

pub(crate) use foreign::hints;

use super::{
    build::warnings::{self, Warning},
    cache::{CacheArgs, Caches},
    capsule,
    init::environment,
    record::{GateRecord, RunRecord},
    sign::SignArgs,
    trust,
};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    failure::{self, Failure},
    results::{ResultArgs, annotations},
    settings::{self, Ci},
    terminal::{self, Palette, diagnostics::Findings, model::State, summary, text, views::Views},
};

/// In the file of what this machine permits: `before` without an image.
pub(crate) const HOST_COMMANDS: &str = "before.host";
/// Permission that commands of the pipeline file say secrets.
pub(crate) const SECRET_COMMANDS: &str = "secrets.command";

/// Flags of everything that walks the pipeline.
#[derive(Debug, clap::Args)]
pub(crate) struct PipelineArgs {
    /// This pipeline file instead of the nearest seatrial.yaml
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Ignore what is cached
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for base images also when they are here
    #[arg(long)]
    pull: bool,
    /// How long root filesystems of failed steps and gates are kept for `seatrial shell`
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    keep_failed: Option<Duration>,
    /// Gates that run at the same time [default: one for each processor]
    #[arg(short, long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Flags of what runs gates.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct GateArgs {
    /// Run gates also when they passed before with the same image, definition and files
    #[arg(long)]
    rerun: bool,
    #[command(flatten)]
    results: ResultArgs,
}

/// Flags of `seatrial run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Push what passed, where the rules of the pipeline file allow it
    #[arg(long)]
    publish: bool,
    /// With `--publish`: say what would become of each tag of the registry, and push nothing
    #[arg(short = 'n', long, requires = "publish")]
    dry_run: bool,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    gates: GateArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Images of `images:` in the pipeline file, with those that they are built on; all without a name
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Flags of `seatrial test`.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Gates to run, with what they need; all without a name. With several images: `IMAGE/GATE`, or `IMAGE` for all of its gates
    gates: Vec<String>,
    #[command(flatten)]
    args: GateArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Flags of `seatrial health`.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Flags of `seatrial publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Say what would become of each tag of the registry, and push nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// The whole pipeline.
pub(crate) fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Exit> {
    if !args.images.is_empty() {
        foreign::refuse_image(&args.pipeline, &args.images, context)?;
    }
    let push = Push::of(args.publish, args.dry_run);
    let wanted = Wanted { stages: Stages::All, images: args.images.clone(), push, sign: args.sign.clone() };
    trial("run", &args.pipeline, &args.gates, wanted, context)
}

/// One image of several, with those that it is built on.
pub(super) fn build(name: &str, args: &PipelineArgs, context: &Context) -> anyhow::Result<Exit> {
    let wanted =
        Wanted { stages: Stages::Build, images: vec![name.to_owned()], push: Push::No, sign: SignArgs::default() };
    trial("build", args, &GateArgs::default(), wanted, context)
}

impl PipelineArgs {
    /// Of `build`.
    pub(super) fn of_build(
        no_cache: bool,
        pull: bool,
        progress: Progress,
        cache: &CacheArgs,
        engine: &EngineArgs,
    ) -> Self {
        let (cache, engine) = (cache.clone(), engine.clone());
        Self { file: None, no_cache, pull, keep_failed: None, jobs: 0, progress, cache, engine }
    }
}

/// Build and gates.
pub(crate) fn test(args: &TestArgs, context: &Context) -> anyhow::Result<Exit> {
    trial("test", &args.pipeline, &args.args, Wanted::of(Stages::Gates(args.gates.clone()), Push::No), context)
}

/// Build and health check.
pub(crate) fn health(args: &HealthArgs, context: &Context) -> anyhow::Result<Exit> {
    trial("health", &args.pipeline, &GateArgs::default(), Wanted::of(Stages::Health, Push::No), context)
}

/// Push what passed before.
pub(crate) fn publish(args: &PublishArgs, context: &Context) -> anyhow::Result<Exit> {
    let push = Push::of(true, args.dry_run);
    let wanted = Wanted { sign: args.sign.clone(), ..Wanted::of(Stages::Publish, push) };
    trial("publish", &args.pipeline, &GateArgs::default(), wanted, context)
}

/// Whether what passes is pushed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Push {
    No,
    Yes,
    /// It is only said what would be written.
    Dry,
}

impl Push {
    fn of(is_wanted: bool, is_dry: bool) -> Push {
        match (is_wanted, is_dry) {
            (false, _) => Push::No,
            (true, false) => Push::Yes,
            (true, true) => Push::Dry,
        }
    }
}

/// What is asked of a run.
struct Wanted {
    stages: Stages,
    images: Vec<String>,
    push: Push,
    sign: SignArgs,
}

impl Wanted {
    fn of(stages: Stages, push: Push) -> Self {
        Self { stages, images: Vec::new(), push, sign: SignArgs::default() }
    }
}

/// One run: plan, surroundings, the pipeline's own story, what stays of it.
fn trial(
    command: &str,
    args: &PipelineArgs,
    gate_args: &GateArgs,
    wanted: Wanted,
    context: &Context,
) -> anyhow::Result<Exit> {
    let Wanted { stages, images, push, sign } = wanted;
    // A first look, so that a mistake in the files costs no run number.
    let first = prepare(context, args.file.as_ref(), None)?;
    let checked = check_dockerfiles(&first.plan, &stages, &images, context)?;
    let store = context.store()?;
    let run = store.new_run().context("cannot record a run in the store")?;
    let Prepared { plan, file, warnings, base } = prepare(context, args.file.as_ref(), Some(run.number))?;
    if let Some(file) = &file
        && args.progress != Progress::None
    {
        terminal::message(&drawn(file, &warnings, &plan.services.included));
    }
    let caches = Caches::read(&args.cache, context)?;
    let embedded = context.engine_with_cache(&args.engine, caches.imports.clone(), trust::of(&plan)?)?;
    let for_demo = ForDemo(&embedded);
    let engine: &dyn Engine = if is_for_demo(&plan, context) { &for_demo } else { &embedded };
    let pinned = context.settings.replayed.as_deref().map(|replayed| capsule::Pinned::new(engine, replayed));
    let engine = pinned.as_ref().map_or(engine, |pinned| pinned as &dyn Engine);
    let permitted = settings::locally_allowed(&|name| std::env::var_os(name));
    let permits = |name: &str| permitted.iter().any(|line| line == name);
    let options = RunOptions {
        publish: push != Push::No,
        dry_run: push == Push::Dry,
        stages,
        images,
        no_cache: args.no_cache,
        pull: args.pull,
        keep_failed: args.keep_failed,
        rerun: gate_args.rerun,
        allow_host_network: permits(settings::NETWORK_HOST),
        jobs: args.jobs,
        allow_host_commands: permits(HOST_COMMANDS),
        signers: if push == Push::Yes { sign.signers(&plan, context)? } else { BTreeMap::new() },
        allow_secret_commands: permits(SECRET_COMMANDS),
        allowed_devices: settings::allowed_devices(),
    };

    let views = Views::open(args.progress, context.settings.ci, Some(&run.path));
    let registry = context.client(&args.engine.insecure_registry);
    let cx =
        RunContext { engine, store, registry: &registry, events: views.sink(), run: &run, cancel: &context.cancel };
    let outcome = context.block_on(pipeline::run(cx, &plan, &options))?;
    // Only what passed is worth taking by others.
    let ids = outcome.iter().filter(|outcome| outcome.verdict == Verdict::Passed).flat_map(Outcome::parts);
    let ids = ids.filter_map(|part| part.image.as_ref()?.id.as_ref());
    let passed: Vec<store::Image> = ids.filter_map(|id| store.image(id).ok().flatten()).collect();
    if !passed.is_empty() {
        let (cancel, sink) = (context.cancel.clone(), views.sink());
        let is_stopped = || cancel.is_cancelled();
        caches.write(&embedded, &passed, Stop::when(&is_stopped), &|message| {
            sink.emit(events::Event::Warning { message, place: None });
        })?;
    }
    views.finish();
    if let Some(words) = context.keep_limit(&args.engine).filter(|_| views.shows_summary()) {
        terminal::message_line(&words);
    }
    match outcome {
        Ok(outcome) => {
            let exit = conclude(command, &plan, &base, &outcome, &views, store, &run);
            if outcome.verdict != Verdict::Failed && views.shows_summary() {
                terminal::message(&warnings::closing(&checked, "`seatrial check` shows them whole"));
            }
            if let Some(replayed) = &context.settings.replayed {
                capsule::compare(replayed, store, &run);
            }
            if context.settings.ci == Some(Ci::GitHub) && views.shows_summary() {
                terminal::message(&annotations::of(&outcome));
            }
            gate_args.results.write(&plan, &outcome, context)?;
            let refused = outcome.parts().find(|part| part.publish_refused);
            match refused.and_then(|part| Some((part.entry.as_ref(), part.not_published.as_ref()?))) {
                Some((entry, reason)) => {
                    let what = entry.map_or_else(|| "the image".to_owned(), |entry| format!("image {entry}"));
                    Err(Failure::refused(format!("{what} may not be published: {reason}")).into())
                }
                None => Ok(exit),
            }
        }
        Err(error) => {
            let message = failure::chain(&error);
            let failure = give_up(command, &plan, error, &views, &run, context);
            gate_args.results.write_error(
                &plan,
                &std::iter::once(failure.to_string()).chain(message).collect::<Vec<_>>().join(": "),
                context,
            )?;
            Err(failure)
        }
    }
}

/// What the build checks say about the Dockerfiles that are built; an error where one of them says so.
fn check_dockerfiles(
    plan: &Plan,
    stages: &Stages,
    images: &[String],
    context: &Context,
) -> Result<Vec<Warning>, Failure> {
    if matches!(stages, Stages::Publish) {
        return Ok(Vec::new());
    }
    let is_built = |part: &&Plan| match &part.entry {
        Some(entry) => images.is_empty() || images.contains(entry),
        None => plan.images.is_empty(),
    };
    let found = plan.parts().filter(is_built).map(|part| warnings::of_plan(part, context));
    Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Record, summary, exit code of a run that found out.
fn conclude(
    command: &str,
    plan: &Plan,
    base: &Path,
    outcome: &Outcome,
    views: &Views,
    store: &Store,
    run: &RunDir,
) -> Exit {
    let size_bytes = outcome.image.as_ref().and_then(|image| image.size_bytes);
    let plan_of = |part: &Outcome| plan.parts().find(|plan| plan.entry == part.entry);
    let before_bytes = |part: &Outcome| last_size(store, plan_of(part)?);
    if views.shows_summary() {
        let text = summary::run(outcome, &views.model(), &before_bytes, views.is_terminal(), Palette::stderr());
        terminal::message(text.strip_prefix('\n').unwrap_or(&text));
    }
    let duration_ms = u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX);
    let mut record = RunRecord::new(command, &outcome.name, outcome.verdict, duration_ms);
    record.commit = outcome.source.short.clone();
    record.branch = outcome.source.tag.clone().or_else(|| outcome.source.branch.clone());
    record.image = outcome.image.as_ref().and_then(|image| image.id.as_ref()).map(ToString::to_string);
    record.images = outcome
        .images
        .iter()
        .filter_map(|part| Some((part.name.clone(), part.image.as_ref()?.id.as_ref()?.to_string())))
        .collect();
    record.size_bytes = size_bytes;
    for part in outcome.parts() {
        let services = part.services.iter();
        record.services.extend(services.map(|service| (part.stage(&service.service), service.image.to_string())));
        record.kept.extend(kept(part));
        record.gates.extend(part.gates.iter().map(|gate| (gate.gate.clone(), GateRecord::of(gate))));
    }
    record.write(run);
    capsule::found::remember_images(outcome, run);
    if outcome.verdict == Verdict::Failed {
        capsule::found::remember(plan, base, run);
    }
    for part in outcome.parts().filter(|_| outcome.verdict != Verdict::Failed) {
        let size_bytes = part.image.as_ref().and_then(|image| image.size_bytes);
        if let (Some(size_bytes), Some(plan)) = (size_bytes, plan_of(part)) {
            // A size that cannot be remembered costs the next summary its difference, nothing else.
            let _ = store.memo_put("image-size", &size_key(plan), size_bytes.to_string().as_bytes());
        }
    }
    match outcome.verdict {
        Verdict::Failed => Exit::Refused,
        Verdict::Passed | Verdict::Skipped => Exit::Passed,
    }
}

/// The size of the last image of this name that passed.
fn last_size(store: &Store, plan: &Plan) -> Option<u64> {
    let bytes = store.memo_get("image-size", &size_key(plan))?;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// Several images may share a repository.
fn size_key(plan: &Plan) -> String {
    plan.stage(&plan.image.repository())
}

/// What `shell` can enter as it was when it failed.
fn kept(outcome: &Outcome) -> BTreeMap<String, KeptRoot> {
    let Outcome { before_failure, build_failure, setup_failure, .. } = outcome;
    let steps = [("before", before_failure), ("build", build_failure), ("setup", setup_failure)];
    let steps =
        steps.into_iter().filter_map(|(stage, step)| Some((outcome.stage(stage), step.as_ref()?.kept.clone()?)));
    let gates = outcome.gates.iter().filter_map(|gate| gate.failure.as_ref());
    let health = outcome.health.iter().filter_map(|health| health.failure.as_ref());
    let gates = gates.chain(health).filter_map(|failure| Some((failure.gate.clone(), gate_root(failure)?)));
    steps.chain(gates).collect()
}

/// A gate's environment and mounts are in its stage record.
fn gate_root(failure: &GateFailure) -> Option<KeptRoot> {
    let root = failure.kept.clone()?;
    Some(KeptRoot { root, env: Vec::new(), cwd: "/".into(), user: String::new() })
}

/// `NAME=value` as pairs.
pub(super) fn pairs(env: &[String]) -> Vec<(String, String)> {
    env.iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

/// Record and failure of a run that could not find out.
fn give_up(
    command: &str,
    plan: &Plan,
    error: RunError,
    views: &Views,
    run: &RunDir,
    context: &Context,
) -> anyhow::Error {
    let model = views.model();
    let duration_ms = model.finished.map_or(model.now_ms, |(_, duration_ms)| duration_ms);
    let mut record = RunRecord::new(command, &plan.name, Verdict::Failed, duration_ms);
    record.commit = plan.source.short.clone();
    record.branch = plan.source.tag.clone().or_else(|| plan.source.branch.clone());
    if let RunError::Build(BuildError::Invalid { kept: Some(root), .. }) = &error {
        record.kept.insert("build".to_owned(), (**root).clone());
    }
    let failure = run_failure(error, run.number);
    record.cancelled = failure.is_cancelled();
    record.write(run);
    if views.shows_summary() && (failure.is_cancelled() || context.cancel.is_cancelled()) {
        let palette = Palette::stderr();
        let is_done = |state: &State| matches!(state, State::Done { verdict, .. } if *verdict != Verdict::Skipped);
        let done = model.stages.iter().filter(|stage| is_done(&stage.state)).count();
        terminal::message_line(&format!(
            "{} {}  {done} of {} were done",
            palette.bad("✗"),
            palette.strong(&format!("cancelled after {}", text::millis(duration_ms))),
            text::count(model.stages.len(), "stage"),
        ));
    }
    failure.into()
}

fn run_failure(error: RunError, run: u64) -> Failure {
    match error {
        RunError::Invalid(invalid) => invalid_file(&invalid),
        RunError::Usage { message, hint } => {
            let failure = Failure::usage(message);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        RunError::Refused { message, hint } => Failure::refused(message).hint(hint),
        RunError::Build(error) => failure::build(error, run),
        RunError::Signing(error) => super::keys::signing_failure(&error),
        RunError::Cancelled => Failure::cancelled(),
        RunError::Service(error) => service_failure(error, run),
        RunError::InPart { cause, out, missing } => {
            let mut failure = run_failure(*cause, run);
            failure.causes.insert(0, std::mem::take(&mut failure.message));
            failure.message = format!("published only in part: {}", out.join(", "));
            failure.causes.push(format!("not published: {}", missing.join(", ")));
            failure.hint("repeat the command: what is out already is passed over")
        }
        RunError::File(error) => file_failure(&error),
        RunError::WithCleanup { first, cleanup } => {
            let mut failure = run_failure(*first, run);
            failure.causes.push(format!("cleaning up failed as well: {}", failure::chain(&cleanup).join(": ")));
            failure
        }
        error => failure::explain(error.into()),
    }
}

/// An index that says no.
fn file_failure(error: &PublishError) -> Failure {
    let causes = failure::chain(error);
    let message = causes.first().cloned().unwrap_or_default();
    let failure = match () {
        () if error.is_auth() => Failure::new(Exit::Authentication, message).hint(
            "name the password or token in `publish.files`: `secret: NAME`, and `user:` where the index wants one",
        ),
        () if error.is_taken() => {
            Failure::refused(message).hint("an index keeps what it has: give this another version")
        }
        () => Failure::surroundings(message),
    };
    Failure { causes: causes.into_iter().skip(1).collect(), ..failure }
}

/// The failure of a service that is built from the repository is a verdict, as a gate's. That of others is the surroundings'
/// matter, and what the file says wrongly is the user's mistake.
fn service_failure(error: ServiceError, run: u64) -> Failure {
    let message = error.to_string();
    match error {
        ServiceError::Failed(failed) => {
            let lines_max = summary::block_lines_max(terminal::streams().stderr_is_terminal);
            let logs = format!("seatrial logs {run}");
            let block = summary::Failed::service(&logs, &failed).render(Palette::stderr(), lines_max);
            let exit = if failed.is_own { Exit::Refused } else { Exit::Surroundings };
            Failure::new(exit, message).shown_as(block)
        }
        ServiceError::Invalid { place, hint, .. } => {
            let failure = Failure { place: place.map(Box::new), ..Failure::usage(message) };
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        ServiceError::Image { service, source } => failure::build_of(&service, source, run),
        ServiceError::Cancelled => Failure::cancelled(),
        ServiceError::Engine(error) => failure::explain(error.into()),
    }
}

fn invalid_file(invalid: &pipeline::Invalid) -> Failure {
    Failure::usage(invalid.to_string()).shown_as(drawn(&invalid.file, &invalid.diagnostics, &invalid.included))
}

/// Findings in the pipeline file and in files that it includes, each at its place.
fn drawn(file: &SourceText, diagnostics: &[Diagnostic], included: &[compose::Finding]) -> String {
    let own = Findings { name: &file.name, text: &file.text, diagnostics };
    let mut drawn = own.render(Palette::stderr());
    for compose::Finding { file, diagnostic } in included {
        let one = Findings { name: &file.name, text: &file.text, diagnostics: std::slice::from_ref(diagnostic) };
        if !drawn.is_empty() {
            drawn.push('\n');
        }
        drawn.push_str(&one.render(Palette::stderr()));
    }
    drawn
}

/// The plan for the working directory.
pub(super) fn prepare(context: &Context, file: Option<&PathBuf>, run_number: Option<u64>) -> Result<Prepared, Failure> {
    let request = PrepareRequest {
        directory: context.settings.cwd.clone(),
        file: file.map(|file| context.settings.cwd.join(file)),
        env: environment(),
        run_number,
    };
    pipeline::prepare(&request).map_err(prepare_failure)
}

/// Why there is no plan, with what helps.
pub(crate) fn prepare_failure(error: PrepareError) -> Failure {
    match error {
        PrepareError::Invalid(invalid) => invalid_file(&invalid),
        PrepareError::NothingToBuild { .. } => Failure::usage(error.to_string())
            .hint("go to a repository that has one, or begin with `seatrial init`")
            .hint("see it work first: `seatrial demo`"),
        PrepareError::Read(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Failure::usage("the pipeline file does not exist").because(&error)
        }
        PrepareError::Read(error) => Failure::surroundings("cannot read the pipeline file").because(&error),
    }
}

/// The demo's images are made of this machine's files, and only its own registry, which ends with it, takes them.
struct ForDemo<'a>(&'a dyn Engine);

fn is_for_demo(plan: &Plan, context: &Context) -> bool {
    let Some(registry) = &context.settings.demo_registry else { return false };
    let mut publishes = plan.parts().filter_map(|part| part.publish.as_ref()).peekable();
    publishes.peek().is_some()
        && publishes.all(|publish| publish.repositories.iter().all(|repository| repository.domain() == registry))
}

#[async_trait]
impl Engine for ForDemo<'_> {
    async fn build(&self, request: BuildRequest, events: &events::EventSink) -> Result<Built, BuildError> {
        let built = self.0.build(request, events).await?;
        Ok(Built { unpublishable: None, ..built })
    }

    async fn seal(&self, built: &Built) -> Result<(store::Image, store::SealedManifest), EngineError> {
        self.0.seal(built).await
    }

    async fn image(&self, request: ImageRequest, events: &events::EventSink) -> Result<ResolvedImage, BuildError> {
        self.0.image(request, events).await
    }

    async fn root(&self, image: &store::Image) -> Result<Root, EngineError> {
        self.0.root(image).await
    }

    async fn content(&self, path: &Path) -> Result<Digest, EngineError> {
        self.0.content(path).await
    }

    async fn open_scope(&self, run: RunId) -> Result<Box<dyn Scope>, EngineError> {
        self.0.open_scope(run).await
    }
}
