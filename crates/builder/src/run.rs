//! RUN: a command in a container on top of the file system so far.

use std::time::UNIX_EPOCH;

use dockerfile::{Command, Diagnostic, Run};
use engine::BuildError;

use crate::{
    emulation, metadata, mounts,
    process::{self, Job},
    rights,
    settle::Written,
    stage::{At, State},
    step::{Key, Made, Outcome},
    tree,
    work::During as _,
};

/// Set for commands so that what they write does not depend on the time (reproducible-builds.org), never part of a key.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";
/// Where ssh looks for its agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// Where a heredoc that is a program of its own is shown, as BuildKit does.
const SCRIPT_DIRECTORY: &str = "/dev/pipes";

pub(crate) fn run(at: &At<'_>, state: &mut State, run: &Run) -> Result<Outcome, BuildError> {
    let work = at.work;
    let rights = rights::of(at, state, run)?;
    let wishes = mounts::plan(at, state, run)?;
    let (args, script) = command(state, run);
    let mut env = metadata::environment(state);

    let mut key = Key::new(&state.layers.key);
    key.add("instruction", args.join("\0"));
    if let Some(script) = &script {
        key.add("script", &script.content);
    }
    for (name, value) in &env {
        let is_argument = state.args.get(name).is_some() && state.config.config.env_value(name).is_none();
        key.add(format!("{} {name}", if is_argument { "build argument" } else { "variable" }), value);
    }
    key.add("user", &state.config.config.user);
    key.add("working directory", &state.config.config.working_dir);
    key.add("platform", state.config.platform().to_string());
    wishes.add_to(&mut key);
    rights.add_to(&mut key);

    for (name, value) in work.plan.globals.proxies() {
        if state.env.get(name).is_none() {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    if state.env.get(EPOCH_VARIABLE).is_none() {
        let seconds = work.epoch.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        env.push((EPOCH_VARIABLE.into(), seconds.to_string()));
    }
    if let Some(agent) = wishes.agent.as_ref().filter(|_| state.env.get(AGENT_VARIABLE).is_none()) {
        env.push((AGENT_VARIABLE.into(), agent.clone()));
    }
    let secret_env = wishes.secret_env(at)?;
    let (cwd, user) = (working_directory(state), state.config.config.user.clone());
    let text = &at.instruction.text;
    let place = work.place(&at.span);
    let platform = state.config.platform();
    at.step(state, key, |layers, running| {
        let emulator = emulation::mount(at, &platform)?;
        let attempt = || format!("cannot run `{text}`");
        let active = work.host.store.prepare(work.host.scope, layers.top()).during(attempt)?;
        let scratch = work.host.scope.dir().join(format!("run-{}", running.step));
        let ready = mounts::prepare(at, &wishes, script.as_ref(), &scratch)?;
        let mounts = ready.mounts.iter().cloned().chain(emulator).collect();
        let job = Job {
            text,
            place: Some(&place),
            args,
            env,
            secret_env,
            cwd: &cwd,
            user: &user,
            mounts,
            network: rights.network,
            privileged: rights.privileged,
            settings: &work.request.run,
            masks: work.masks.as_ref(),
            extra_hosts: &work.request.extra_hosts,
            keep_failed: work.request.keep_failed,
        };
        let active = process::run(work.host, running, active, job, &|| work.is_stopped());
        drop(ready);
        // The scope removes its directory in the end in any case.
        let _ = fs_err::remove_dir_all(&scratch);
        let active = active?;
        let written = Written::find(&active).during(attempt)?;
        if let Some(path) = written.reserved_name() {
            let path = tree::show(path);
            let message = format!("this made `/{path}`: names that begin with `.wh.` mark deleted files in a layer");
            let help = "give the file another name, or remove it in the same RUN";
            return Err(at.invalid(Diagnostic::error("ST130", message).with_help(help), None));
        }
        if !work.host.store.options().copy_snapshots {
            written.settle(work.epoch).during(attempt)?;
        }
        Ok(Made::layer(active.commit().during(attempt)?))
    })
}

/// A heredoc with a `#!` line: a program of its own.
pub(crate) struct Script {
    /// Path within the container.
    pub(crate) target: String,
    pub(crate) content: String,
}

fn command(state: &State, run: &Run) -> (Vec<String>, Option<Script>) {
    match &run.script {
        Some(heredoc) if heredoc.content.starts_with("#!") => {
            let target = format!("{SCRIPT_DIRECTORY}/{}", heredoc.name.replace('/', "_"));
            (vec![target.clone()], Some(Script { target, content: heredoc.content.clone() }))
        }
        Some(heredoc) => (metadata::arguments(&state.config, &Command::Shell(heredoc.content.clone())), None),
        None => (metadata::arguments(&state.config, &run.command), None),
    }
}

fn working_directory(state: &State) -> String {
    match state.config.config.working_dir.as_str() {
        "" => "/".into(),
        path => state.absolute(path),
    }
}

/// What the image's history says: the instruction, led by the arguments that it could see.
pub(crate) fn history_text(state: &State, at: &At<'_>) -> String {
    let args: Vec<String> = state.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if args.is_empty() {
        return at.instruction.text.clone();
    }
    let text = at.instruction.text.strip_prefix("RUN ").unwrap_or(&at.instruction.text);
    format!("RUN |{} {} {text}", args.len(), args.join(" "))
}
