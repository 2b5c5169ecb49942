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
#[command(after_help = "Examples:\n  \
    seatrial shell last                    where the last run failed\n  \
    seatrial shell 42 unit                 where the gate `unit` of run 42 failed\n  \
    seatrial shell debian:bookworm         a shell in an image\n  \
    seatrial shell app:1.2 -- python -V    one command in an image")]
pub(crate) struct ShellArgs {
    /// Number of a run (or `last`), a service that is up, or name or id of an image
    #[arg(value_name = "RUN|SERVICE|IMAGE")]
    target: String,
    /// Stage of the run: `build`, `setup`, or a gate
    stage: Option<String>,
    /// Command instead of a shell
    #[arg(last = true)]
    command: Vec<String>,
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
    #[command(flatten)]
    engine: EngineArgs,
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
    if let Some(exit) = in_service(args, context)? {
        return Ok(exit);
    }
    let store = context.store()?;
    // What is entered is here already: nothing is fetched that could be judged.
    let engine = context.engine(&args.engine, Trust::default())?;
    let outcome = context.block_on(async {
        let (root, inside) = find(args, store, &engine).await?;
        let mut spec = spec(args, network, root, inside);
        toolbox::lend(args.toolbox, &args.command, store, &mut spec)?;
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
fn in_service(args: &ShellArgs, context: &Context) -> anyhow::Result<Option<Exit>> {
    if args.stage.is_some() || is_run(&args.target) {
        return Ok(None);
    }
    let Ok(project) = Source::new(&ProjectArgs::default(), context).name() else { return Ok(None) };
    let Some(stream) = client::find(context, &project)? else { return Ok(None) };
    let listed = Answering::call(stream, Request::List, &[])?.next()?;
    let Some(Answer::Containers(containers)) = listed else { return Ok(None) };
    if !containers.iter().any(|container| container.service == args.target) {
        return Ok(None);
    }
    let Some(stream) = client::find(context, &project)? else { return Ok(None) };
    let command = if args.command.is_empty() { SHELL.map(str::to_owned).to_vec() } else { args.command.clone() };
    let request = Exec {
        service: args.target.clone(),
        number: None,
        command,
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
}

async fn find(args: &ShellArgs, store: &Store, engine: &Embedded) -> anyhow::Result<(Root, Inside)> {
    if is_run(&args.target)
        && (args.stage.is_some()
            || args.target.parse::<oci::Reference>().is_err()
            || named::find(store, &args.target).is_err())
    {
        return of_run(args, store);
    }
    if let Some(stage) = &args.stage {
        return Err(Failure::usage(format!("`{}` is not the number of a run", args.target))
            .hint(format!("run a command in an image with `seatrial shell {} -- {stage}`", args.target))
            .into());
    }
    let (_, image) = named::find(store, &args.target)?;
    let root = engine.root(&image).await?;
    let config = &root.config.config;
    let inside = Inside {
        env: pairs(&config.env),
        user: config.user.clone(),
        workdir: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
        mounts: Vec::new(),
    };
    Ok((root, inside))
}

/// The root of a stage: what it was when the stage failed, else what a gate started from.
fn of_run(args: &ShellArgs, store: &Store) -> anyhow::Result<(Root, Inside)> {
    let run = find_run(store, &args.target)?;
    let number = run.number;
    let mut kept = RunRecord::read(&run).map(|record| record.kept).unwrap_or_default();
    let stage = match &args.stage {
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
    if let Some(gone) = kept.get(&stage).and_then(|kept| SnapshotId::try_from(kept.root.clone()).ok())
        && !store.is_kept(&gone)
    {
        kept.remove(&stage);
        if pipeline::stage_record(&run, &stage).is_none() {
            return Err(Failure::refused(format!("what `{stage}` of run {number} left is no longer kept"))
                .hint("run it again, and keep it longer with `--keep-failed 24h`")
                .into());
        }
        terminal::warning(&format!(
            "what `{stage}` of run {number} left is no longer kept: this is what it started from"
        ));
    }
    let started = pipeline::stage_record(&run, &stage);
    match (started, kept.remove(&stage)) {
        (Some(record), kept) => {
            let id = kept.map_or_else(|| record.root.clone(), |kept| kept.root);
            let mounts = record.bind_mounts();
            let inside = Inside { env: record.env, user: record.user, workdir: record.cwd, mounts };
            Ok((Root { id, config: record.config }, inside))
        }
        (None, Some(kept)) => {
            let config = oci::ImageConfig::scratch(&oci::Platform::host());
            let inside = Inside { env: kept.env, user: kept.user, workdir: kept.cwd, mounts: Vec::new() };
            Ok((Root { id: kept.root, config }, inside))
        }
        (None, None) => Err(Failure::refused(format!("`{stage}` of run {number} cannot be entered"))
            .hint("gates can, and steps that failed; they are not kept for ever: run it again with `--keep-failed 24h`")
            .into()),
    }
}

fn spec(args: &ShellArgs, network: NetworkMode, root: Root, inside: Inside) -> ContainerSpec {
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
    let command = if args.command.is_empty() { SHELL.map(str::to_owned).to_vec() } else { args.command.clone() };
    ContainerSpec {
        name: "shell".into(),
        root,
        args: command,
        env,
        cwd: args.workdir.clone().unwrap_or(inside.workdir),
        user: args.user.clone().unwrap_or(inside.user),
        mounts: inside.mounts,
        network,
        attachment: Attachment::default(),
        surroundings: Surroundings::default(),
        limits: Limits::default(),
        init: true,
        stdio: Stdio::Inherit,
    }
}

async fn enter(engine: &Embedded, spec: ContainerSpec, context: &Context) -> anyhow::Result<u8> {
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
