//! `seatrial shell`: inside a failed step or gate, an image, or a service that is up.

mod toolbox;

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use engine::{Attachment, ContainerSpec, Engine, EngineError, Limits, NetworkMode, Root, Stdio, Surroundings};
use engine_embedded::Embedded;
use events::RunId;
use evidence::Trust;
use store::{SnapshotId, Store};

use super::{
    exec,
    logs::{find_run, is_run},
    named,
    record::RunRecord,
    run::pairs,
};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::{self, Failure},
    solution::{
        client::{self, Answering},
        protocol::{Answer, Exec, Request},
        source::{ProjectArgs, Source},
    },
    terminal,
};

/// After a signal the command gets this long to end.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// docker's code for "the container could not be started".
const CANNOT_START: u8 = 125;
/// The best shell of an image.
const SHELL: [&str; 3] = ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi"];
/// SIGTERM's number.
const SIGTERM: i32 = 15;

/// Flags of `seatrial shell`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "seatrial shell [OPTIONS] <RUN|SERVICE|IMAGE> [STAGE] [COMMAND]...")]
#[command(after_help = "Examples:\n  \
    seatrial shell last                    where the last run failed\n  \
    seatrial shell 42 unit                 where the gate `unit` of run 42 failed\n  \
    seatrial shell last -- ls -l           one command where the last run failed\n  \
    seatrial shell debian:bookworm         a shell in an image\n  \
    seatrial shell app:1.2 python -V       one command in an image")]
pub(crate) struct ShellArgs {
    /// Number of a run (or `last`) with a stage of it (`build`, `setup`, a gate), a service that is up, or name or id of an
    /// image; behind it a command instead of a shell, as it is
    #[arg(required = true, trailing_var_arg = true, value_names = ["RUN|SERVICE|IMAGE", "STAGE|COMMAND"], num_args = 1..)]
    words: Vec<String>,
    /// User and group, as names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Variable for the environment; without `=`, ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Network: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Lend the image a shell and tools, read-only at /.seatrial: where it lacks them, always, or never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    toolbox: Lend,
    /// What docker needs to be told, and happens here anyway
    #[arg(short, long, hide = true)]
    interactive: bool,
    #[arg(short, long, hide = true)]
    tty: bool,
    #[arg(long, hide = true)]
    rm: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What [`ShellArgs::words`] say.
struct Wanted {
    target: String,
    /// Of a run.
    stage: Option<String>,
    /// Empty for a shell.
    command: Vec<String>,
}

impl Wanted {
    fn of(args: &ShellArgs) -> Result<Self, Failure> {
        let (target, rest) = args.words.split_first().expect("clap asks for one");
        let is_run = is_run(target);
        let (stage, rest) = match rest {
            [stage, rest @ ..] if is_run && stage != "--" => (Some(stage.clone()), rest),
            rest => (None, rest),
        };
        let command = match rest {
            [mark, command @ ..] if mark == "--" => command,
            [flag, ..] if flag.starts_with('-') => {
                return Err(Failure::usage(format!("`{flag}` stands behind what is entered"))
                    .hint(format!("flags come first: `seatrial shell {flag} … {target}`"))
                    .hint(format!("what is a command stands behind `--`: `seatrial shell {target} -- …`")));
            }
            command => command,
        };
        Ok(Self { target: target.clone(), stage, command: command.to_vec() })
    }

    fn command(&self) -> Vec<String> {
        if self.command.is_empty() { SHELL.map(str::to_owned).to_vec() } else { self.command.clone() }
    }
}

/// When a toolbox is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Lend {
    /// Where the image has no shell, or not the program that is asked for
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Starts a shell or command; its exit code is ours.
pub(crate) fn run(args: &ShellArgs, context: &Context) -> anyhow::Result<Exit> {
    let network = match args.network.as_str() {
        "default" | "bridge" => NetworkMode::Default,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        other => {
            return Err(Failure::usage(format!("there is no network mode `{other}`"))
                .hint("use `--network default`, `none` or `host`")
                .into());
        }
    };
    let wanted = Wanted::of(args)?;
    if let Some(exit) = in_service(args, &wanted, context)? {
        return Ok(exit);
    }
    let store = context.store()?;
    // What is entered is here already: nothing is fetched that could be judged.
    let engine = context.engine(&args.engine, Trust::default())?;
    let outcome = context.block_on(async {
        let (root, inside) = find(&wanted, store, &engine).await?;
        let mut spec = spec(args, &wanted, network, root, inside);
        toolbox::lend(args.toolbox, &wanted.command, store, &mut spec)?;
        enter(&engine, spec, context).await
    })?;
    match outcome {
        Ok(code) => Ok(Exit::Command(code)),
        // Docker's convention for a command that never ran.
        Err(error) => match error.downcast::<EngineError>() {
            Ok(error) => {
                let code = docker_code(&error);
                let mut failure = failure::explain(error.into());
                if code != CANNOT_START && args.toolbox == Lend::Never {
                    failure = failure.hint("the image may lack it: `--toolbox=auto` lends a shell and tools");
                }
                failure.exit = Exit::Command(code);
                Err(failure.into())
            }
            Err(error) => Err(error),
        },
    }
}

/// In a service of that name, if the project here is up and has one.
fn in_service(args: &ShellArgs, wanted: &Wanted, context: &Context) -> anyhow::Result<Option<Exit>> {
    if is_run(&wanted.target) {
        return Ok(None);
    }
    let Ok(project) = Source::new(&ProjectArgs::default(), context).name() else { return Ok(None) };
    let Some(stream) = client::find(context, &project)? else { return Ok(None) };
    let listed = Answering::call(stream, Request::List, &[])?.next()?;
    let Some(Answer::Containers(containers)) = listed else { return Ok(None) };
    if !containers.iter().any(|container| container.service == wanted.target) {
        return Ok(None);
    }
    let Some(stream) = client::find(context, &project)? else { return Ok(None) };
    let request = Exec {
        service: wanted.target.clone(),
        number: None,
        command: wanted.command(),
        env: args.env.iter().map(|given| exec::variable(given)).collect(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        terminal: None,
        detached: false,
    };
    exec::inside(stream, request, true).map(Some)
}

/// 127 for a program that is not there, 126 for one that cannot be executed, 125 for everything else.
fn docker_code(error: &EngineError) -> u8 {
    let start = error.source.as_ref().and_then(|source| source.downcast_ref::<runtime::StartError>());
    match start {
        Some(runtime::StartError::UnknownUser { .. }) => CANNOT_START,
        _ => error.command_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT_START),
    }
}

/// Where the shell starts, and as whom.
struct Inside {
    env: Vec<(String, String)>,
    user: String,
    workdir: String,
    mounts: Vec<engine::BindMount>,
    tmpfs: Vec<engine::Tmpfs>,
}

async fn find(wanted: &Wanted, store: &Store, engine: &Embedded) -> anyhow::Result<(Root, Inside)> {
    if is_run(&wanted.target)
        && (wanted.stage.is_some()
            || wanted.target.parse::<oci::Reference>().is_err()
            || named::find(store, &wanted.target).is_err())
    {
        return of_run(wanted, store);
    }
    let (_, image) = named::find(store, &wanted.target)?;
    let root = engine.root(&image).await?;
    let config = &root.config.config;
    let inside = Inside {
        env: pairs(&config.env),
        user: config.user.clone(),
        workdir: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
        mounts: Vec::new(),
        tmpfs: Vec::new(),
    };
    Ok((root, inside))
}

/// The root of a stage: what it was when the stage failed, else what a gate started from.
fn of_run(wanted: &Wanted, store: &Store) -> anyhow::Result<(Root, Inside)> {
    let run = find_run(store, &wanted.target)?;
    let number = run.number;
    let mut kept = RunRecord::read(&run).map(|record| record.kept).unwrap_or_default();
    let stage = match &wanted.stage {
        Some(stage) => stage.clone(),
        None => match kept.len() {
            1 => kept.keys().next().cloned().expect("there is one"),
            0 => {
                return Err(Failure::refused(format!("nothing failed in run {number} that could be entered"))
                    .hint(format!("name a gate: `seatrial shell {number} GATE`"))
                    .into());
            }
            _ => {
                let commands: Vec<String> =
                    kept.keys().map(|stage| format!("`seatrial shell {number} {stage}`")).collect();
                return Err(Failure::usage(format!("run {number} has several things to enter"))
                    .hint(format!("name one: {}", commands.join(", ")))
                    .into());
            }
        },
    };
    let started = pipeline::stage_record(&run, &stage);
    // What never was a container's own has no time to be kept.
    let is_own = |id: &SnapshotId| started.as_ref().is_none_or(|record| record.root != id.as_str());
    if let Some(gone) = kept.get(&stage).and_then(|kept| SnapshotId::try_from(kept.root.clone()).ok())
        && is_own(&gone)
        && !store.is_kept(&gone)
    {
        kept.remove(&stage);
        if started.is_none() {
            return Err(Failure::refused(format!("what `{stage}` of run {number} left is no longer kept"))
                .hint("run it again, and keep it longer with `--keep-failed 24h`")
                .into());
        }
        terminal::warning(&format!(
            "what `{stage}` of run {number} left is no longer kept: this is what it started from"
        ));
    }
    match (started, kept.remove(&stage)) {
        (Some(record), kept) => {
            let id = kept.map_or_else(|| record.root.clone(), |kept| kept.root);
            let (mounts, gone): (Vec<_>, Vec<_>) = record.bind_mounts().into_iter().partition(|at| at.source.exists());
            for mount in gone {
                // The source of a replay goes with it.
                let (target, source) = (mount.target, mount.source.display());
                terminal::warning(&format!(
                    "{target} is not mounted: {source} is gone (`replay --keep` keeps a replay's)"
                ));
            }
            let tmpfs = record.tmpfs();
            let inside = Inside { env: record.env, user: record.user, workdir: record.cwd, mounts, tmpfs };
            Ok((Root { id, config: record.config }, inside))
        }
        (None, Some(kept)) => {
            let config = oci::ImageConfig::scratch(&oci::Platform::host());
            let (mounts, tmpfs) = (Vec::new(), Vec::new());
            let inside = Inside { env: kept.env, user: kept.user, workdir: kept.cwd, mounts, tmpfs };
            Ok((Root { id: kept.root, config }, inside))
        }
        (None, None) if !run.path.join("log").join(pipeline::file_name(&stage)).exists() => {
            let command = [std::slice::from_ref(&stage), &wanted.command[..]].concat().join(" ");
            Err(Failure::refused(format!("run {number} has no stage `{stage}`"))
                .hint(format!(
                    "a command stands behind the stage, or behind `--`: `seatrial shell {number} -- {command}`"
                ))
                .into())
        }
        (None, None) => Err(Failure::refused(format!("`{stage}` of run {number} cannot be entered"))
            .hint("gates can, and steps that failed; they are not kept for ever: run it again with `--keep-failed 24h`")
            .into()),
    }
}

fn spec(args: &ShellArgs, wanted: &Wanted, network: NetworkMode, root: Root, inside: Inside) -> ContainerSpec {
    let mut env = inside.env;
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()));
    }
    if std::io::stdin().is_terminal() {
        env.push(("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    for given in &args.env {
        let (name, value) = exec::variable(given);
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    ContainerSpec {
        name: "shell".into(),
        root,
        args: wanted.command(),
        env,
        cwd: args.workdir.clone().unwrap_or(inside.workdir),
        user: args.user.clone().unwrap_or(inside.user),
        mounts: inside.mounts,
        network,
        attachment: Attachment::default(),
        surroundings: Surroundings { tmpfs: inside.tmpfs, ..Surroundings::default() },
        limits: Limits::default(),
        init: true,
        stdio: Stdio::Inherit,
    }
}

async fn enter(engine: &Embedded, spec: ContainerSpec, context: &Context) -> anyhow::Result<u8> {
    // Keys that are typed before the shell is there are its own.
    let _quiet = engine_embedded::terminal::size().map(|_| engine_embedded::terminal::quiet());
    let mut scope = engine.open_scope(RunId(0)).await?;
    let outcome = async {
        let container = scope.start(spec).await?;
        for warning in container.warnings() {
            terminal::warning(&warning);
        }
        tokio::select! {
            exit = container.wait() => exit,
            () = context.cancel.cancelled() => container.stop(SIGTERM, STOP_GRACE).await,
        }
    }
    .await;
    let closed = scope.close().await;
    let exit = outcome?;
    closed.context("cannot clean up after the container")?;
    Ok(u8::try_from(exit.code).unwrap_or(u8::MAX))
}
