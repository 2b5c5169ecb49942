//! The version that only the built image tells, or a command: known before the gates start.

use std::{
    process::Stdio as Streams,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::{Attachment, Built, ContainerSpec, Exit, Limits, NetworkMode, Scope, Stdio, Surroundings};

use super::{before, gate};
use crate::{Plan, RunContext, RunError, RunOptions, Stages, Values, Version};

const SIGKILL: i32 = 9;
/// Name of the container.
const CONTAINER: &str = "version";
/// The command's own output is kept apart from what it complains of: the shell hands it on between two of these marks.
const MARK: char = '\u{1e}';
const CAPTURE: &str = r#"version=$(eval "$1"); printf '\036%s\036' "$version""#;
/// A version is a word; what a command says beyond this is not looked at.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Telling a version takes no longer, also where a build tool wakes up for it.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(120);

/// The plan's values with the version of what was built.
pub(super) async fn values(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    scope: &dyn Scope,
    built: &Built,
) -> Result<Values, RunError> {
    let config = &built.root.config.config;
    let version = match &plan.version {
        Version::ImageEnv(name) => {
            config.env_value(name).map(str::to_owned).ok_or(format!("the image has no ENV `{name}`"))
        }
        Version::ImageLabel(name) => config.labels.get(name).cloned().ok_or(format!("the image has no label `{name}`")),
        // Neither names anything by the version.
        Version::Command { .. } if matches!(options.stages, Stages::Build | Stages::Images | Stages::Health) => {
            Err("it was not asked for".into())
        }
        Version::Command { command, on_host } => {
            let told = if *on_host {
                on_this_machine(cx, plan, options, command).await?
            } else {
                in_image(cx, scope, built, command).await?
            };
            Ok(checked(command, told)?)
        }
        other => return Ok(Values { version: other.clone(), ..plan.values.clone() }),
    };
    let version = match version {
        Ok(version) if version.is_empty() => Version::Absent("the image's version is empty".into()),
        Ok(version) => Version::Known(version),
        Err(reason) => Version::Absent(reason),
    };
    Ok(Values { version, ..plan.values.clone() })
}

/// What a command said, and how it ended.
struct Told {
    code: i32,
    output: String,
    complaint: String,
}

/// One word, or why not.
fn checked(command: &str, told: Told) -> Result<String, RunError> {
    let Told { code, output, complaint } = told;
    let version = output.trim();
    let problem = match code {
        0 if version.is_empty() => "it prints nothing".to_owned(),
        0 if version.contains(char::is_whitespace) => {
            format!("it prints more than a version: `{}`", first_line(version))
        }
        0 => return Ok(version.to_owned()),
        code => {
            let last = complaint.trim().lines().last().unwrap_or_default();
            format!("it exits {code}{}{}", if last.is_empty() { "" } else { ": " }, first_line(last))
        }
    };
    let message = format!("`{command}` tells no version: {problem}");
    let hint = "`version.command` prints the version and nothing else on its standard output".to_owned();
    Err(RunError::Usage { message, hint: Some(hint) })
}

fn first_line(text: &str) -> String {
    const SHOWN_MAX: usize = 200;
    let is_shown = |c: &char| !c.is_control();
    text.lines().next().unwrap_or_default().chars().filter(is_shown).take(SHOWN_MAX).collect()
}

async fn in_image(cx: RunContext<'_>, scope: &dyn Scope, built: &Built, command: &str) -> Result<Told, RunError> {
    let said: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = Arc::clone(&said);
    let args = gate::SHELL.into_iter().chain([CAPTURE, gate::SHELL[0], command]);
    let spec = ContainerSpec {
        name: CONTAINER.into(),
        root: built.root.clone(),
        args: args.map(str::to_owned).collect(),
        env: gate::environment(&built.root, &Default::default(), &[]),
        cwd: gate::workdir(None, &built.root),
        user: built.root.config.config.user.clone(),
        mounts: Vec::new(),
        network: NetworkMode::None,
        attachment: Attachment::default(),
        surroundings: Surroundings::default(),
        limits: Limits::default(),
        init: true,
        stdio: Stdio::Sink(Arc::new(move |bytes| {
            let mut said = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let room = OUTPUT_BYTES_MAX.saturating_sub(said.len());
            said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        })),
    };
    let container = match scope.start(spec).await {
        Ok(container) => container,
        Err(error) => {
            let Some(code) = error.command_code else { return Err(RunError::Engine(error)) };
            return Ok(Told { code, output: String::new(), complaint: error.with_causes() });
        }
    };
    let ended = tokio::select! {
        biased;
        ended = container.wait() => Some(ended),
        () = cx.cancel.cancelled() => None,
        () = tokio::time::sleep(COMMAND_TIME_MAX) => Some(Ok(Exit { code: 124, ..Exit::default() })),
    };
    let stopped = container.stop(SIGKILL, Duration::ZERO).await;
    let exit = ended.ok_or(RunError::Cancelled)?.map_err(RunError::Engine)?;
    stopped.map_err(RunError::Engine)?;
    let said = String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    let marked = said.rsplit_once(MARK).and_then(|(before, _)| before.rsplit_once(MARK));
    let (complaint, output) = marked.unwrap_or((&said, ""));
    Ok(Told { code: exit.code, output: output.to_owned(), complaint: complaint.to_owned() })
}

async fn on_this_machine(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    command: &str,
) -> Result<Told, RunError> {
    let hint = "ask the image: without `in: host` the command runs there";
    before::refuse_on_host(plan, options, "`version.command` with `in: host`", hint)?;
    let mut child = tokio::process::Command::new("/bin/sh");
    child.args(["-ec", command]).current_dir(&plan.build.context).env("CI", "true");
    child.stdin(Streams::null()).stdout(Streams::piped()).stderr(Streams::piped()).kill_on_drop(true);
    let failed = |error| RunError::local(format!("run `{command}`"), error);
    tokio::select! {
        biased;
        output = child.output() => {
            let output = output.map_err(failed)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(OUTPUT_BYTES_MAX)]).into_owned();
            let code = output.status.code().unwrap_or(137);
            Ok(Told { code, output: text(&output.stdout), complaint: text(&output.stderr) })
        }
        () = cx.cancel.cancelled() => Err(RunError::Cancelled),
        () = tokio::time::sleep(COMMAND_TIME_MAX) => {
            Ok(Told { code: 124, output: String::new(), complaint: String::new() })
        }
    }
}
