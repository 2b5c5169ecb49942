//! Secrets of a run: read once, shown to those who name them, masked everywhere.

use std::{collections::BTreeMap, io::Read, path::Path, sync::Arc};

use engine::{Masks, MemoryFile, Secret};
use events::{Event, Place};

use super::checks::Selection;
use crate::{Plan, RunContext, RunError, SecretPlan, SecretUsePlan};

/// BuildKit refuses longer ones (`session/secrets`, `MaxSecretSize`).
const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// What the secrets hold.
pub(super) struct Secrets {
    values: BTreeMap<String, Secret>,
    /// What no output may show.
    pub(super) masks: Option<Arc<Masks>>,
}

impl Secrets {
    /// Reads those that something selected names. A change request from a fork gets none.
    pub(super) fn read(cx: RunContext<'_>, plan: &Plan, work: &Selection<'_>) -> Result<Secrets, RunError> {
        let setup = plan.test.setup.iter().filter(|_| work.has_setup(plan)).flat_map(|command| &command.secrets);
        let gates = work.gates.iter().flat_map(|gate| &gate.bounds.secrets);
        let mut wanted: BTreeMap<&str, &Option<Place>> = BTreeMap::new();
        for one in plan.build.secrets.iter().chain(setup).chain(gates) {
            wanted.entry(&one.source).or_insert(&one.place);
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
            values.insert(name.to_owned(), read(plan, name, place.as_ref())?);
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

    /// By the ids that RUN names.
    pub(super) fn of_build(&self, plan: &Plan) -> BTreeMap<String, Secret> {
        let uses = plan.build.secrets.iter();
        uses.filter_map(|one| Some((one.target.clone(), self.values.get(&one.source)?.clone()))).collect()
    }
}

/// The secrets of the plan that can be read here and now: what nothing that is written down may hold.
pub fn known_secrets(plan: &Plan) -> Vec<Secret> {
    plan.secrets.keys().filter_map(|name| read(plan, name, None).ok()).collect()
}

fn read(plan: &Plan, name: &str, place: Option<&Place>) -> Result<Secret, RunError> {
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
        // The planner has refused it.
        None => return Err(wrong(format!("there is no secret `{name}`"), None)),
    };
    if content.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong(format!("secret `{name}` is larger than 500 KiB"), None));
    }
    Ok(Secret::new(content))
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
