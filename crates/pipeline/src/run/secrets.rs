//! Secrets of a run: read once, shown to those who name them, masked everywhere.

use std::{collections::BTreeMap, io::Read, path::Path, sync::Arc};

use engine::{Masks, MemoryFile, Secret};
use events::{Event, Place};

use super::{publish::Intention, selection::Selection};
use crate::{Plan, RunContext, RunError, RunOptions, SecretPlan, SecretUsePlan, SourceEvent};

/// BuildKit refuses longer ones (`session/secrets`, `MaxSecretSize`).
const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// What the secrets hold.
pub(super) struct Secrets {
    values: BTreeMap<String, Secret>,
    /// What no output may show.
    pub(super) masks: Option<Arc<Masks>>,
}

impl Secrets {
    /// Reads those that something selected names, and looks whether the key that signs is there. A change request from a fork gets none.
    pub(super) fn read(
        cx: RunContext<'_>,
        plan: &Plan,
        options: &RunOptions,
        work: &Selection<'_>,
    ) -> Result<Secrets, RunError> {
        let setup = plan.test.setup.iter().filter(|_| work.has_setup(plan)).flat_map(|command| &command.secrets);
        let gates = work.gates.iter().flat_map(|gate| &gate.bounds.secrets);
        let mut wanted: BTreeMap<&str, &Option<Place>> = BTreeMap::new();
        for one in plan.build.secrets.iter().chain(setup).chain(gates) {
            wanted.entry(&one.source).or_insert(&one.place);
        }
        if Intention::may_publish_files(plan, options) && work.seals {
            if let Some(signer) = options.signers.get(&plan.entry).filter(|_| !options.dry_run) {
                signer.look()?;
            }
            let files = plan.publish.iter().flat_map(|publish| &publish.files);
            for (name, place) in files.filter_map(|entry| Some((entry.secret.as_deref()?, &entry.place))) {
                wanted.entry(name).or_insert(place);
            }
        }
        if plan.source.is_fork {
            if let Some(place) = wanted.values().next() {
                let names = wanted.keys().copied().collect::<Vec<_>>().join(", ");
                let message = format!("there are no secrets for a change request from a fork; absent: {names}");
                cx.events.emit(Event::Warning { message, place: (*place).clone() });
            }
            wanted.clear();
        }
        let mut values = BTreeMap::new();
        for (name, place) in wanted {
            values.insert(name.to_owned(), read(plan, name, place.as_ref(), options.allow_secret_commands)?);
        }
        let masks = Masks::new(values.values()).map(Arc::new);
        Ok(Secrets { values, masks })
    }

    /// As files of a container; those that are absent are left out.
    pub(super) fn files(&self, uses: &[SecretUsePlan]) -> Vec<MemoryFile> {
        let file = |one: &SecretUsePlan| {
            let content = self.values.get(&one.source)?.clone();
            Some(MemoryFile { target: one.target.clone(), content, mode: one.mode, uid: one.uid, gid: one.gid })
        };
        uses.iter().filter_map(file).collect()
    }

    /// One that was read, as a line of text: a password or token.
    pub(super) fn text(&self, name: &str) -> Result<String, RunError> {
        let wrong = |message: String| RunError::Usage { message, hint: None };
        let content = self.values.get(name).ok_or_else(|| wrong(format!("secret `{name}` was not read")))?;
        let text = std::str::from_utf8(content.expose()).map_err(|_| wrong(format!("secret `{name}` is no text")))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() || text.contains(char::is_control) {
            return Err(wrong(format!("secret `{name}` is not one line of text")));
        }
        Ok(text.to_owned())
    }

    /// By the ids that RUN names.
    pub(super) fn of_build(&self, plan: &Plan) -> BTreeMap<String, Secret> {
        let uses = plan.build.secrets.iter();
        uses.filter_map(|one| Some((one.target.clone(), self.values.get(&one.source)?.clone()))).collect()
    }
}

/// The secrets of the plan that can be read here and now: what nothing that is written down may hold.
pub fn known_secrets(plan: &Plan) -> Vec<Secret> {
    plan.secrets.keys().filter_map(|name| read(plan, name, None, false).ok()).collect()
}

fn read(plan: &Plan, name: &str, place: Option<&Place>, allow_commands: bool) -> Result<Secret, RunError> {
    let at = place.map(|place| format!(" ({}:{}:{})", place.file, place.line, place.column)).unwrap_or_default();
    let wrong = |message: String, hint: Option<String>| RunError::Usage { message: message + &at, hint };
    let content = match plan.secrets.get(name) {
        Some(SecretPlan::Environment(variable)) => {
            let value = plan.values.env.get(variable).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| {
                let message = format!("secret `{name}` is needed, and `{variable}` is not set");
                wrong(message, Some(format!("set it in the environment: `export {variable}=…`")))
            })?;
            value.clone().into_bytes()
        }
        Some(SecretPlan::File(path)) => read_file(path, plan.source.root.as_deref())
            .map_err(|error| wrong(format!("secret `{name}` is needed, and its file cannot be read: {error}"), None))?,
        Some(SecretPlan::Command(command)) => {
            if plan.source.event == SourceEvent::PullRequest || !allow_commands {
                let message = format!("secret `{name}` is what a command says, which is not permitted here");
                let hint =
                    "write `secrets.command` into ~/.config/seatrial/allow; change requests never may".to_owned();
                return Err(wrong(message, Some(hint)));
            }
            said(command, plan)
                .map_err(|reason| wrong(format!("secret `{name}` is needed, and its command {reason}"), None))?
        }
        // The planner has refused it.
        None => return Err(wrong(format!("there is no secret `{name}`"), None)),
    };
    if content.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong(format!("secret `{name}` is larger than 500 KiB"), None));
    }
    Ok(Secret::new(content))
}

/// What a command says on its standard output, without the newline at its end. What it says besides is the user's to read.
fn said(command: &str, plan: &Plan) -> Result<Vec<u8>, String> {
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-ec", command]).env_clear().envs(&plan.values.env).stdin(std::process::Stdio::null());
    shell.stderr(std::process::Stdio::inherit()).stdout(std::process::Stdio::piped());
    shell.current_dir(plan.source.root.as_deref().unwrap_or(&plan.build.context));
    let mut child = shell.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let mut content = Vec::new();
    let output = child.stdout.take().map(|output| output.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content));
    let status = child.wait().map_err(|error| error.to_string())?;
    output.transpose().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("ended with {status}"));
    }
    while content.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        content.pop();
    }
    if content.is_empty() { Err("says nothing".into()) } else { Ok(content) }
}

/// A file of the repository, also when links are followed: a stranger's branch may not read the machine's files.
fn read_file(path: &Path, root: Option<&Path>) -> std::io::Result<Vec<u8>> {
    let resolved = fs_err::canonicalize(path)?;
    let within = root.or(path.parent()).map(fs_err::canonicalize).transpose()?;
    if within.is_some_and(|within| !resolved.starts_with(within)) {
        return Err(std::io::Error::other("it leads out of the repository"));
    }
    let file = fs_err::File::open(resolved)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}
