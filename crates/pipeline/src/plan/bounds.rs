//! Bounds of gates, and secrets with those who use them.

use std::{collections::BTreeMap, path::Path};

use dockerfile::nearest;

use super::{BoundsPlan, Planner, SecretPlan, SecretUsePlan, TmpfsPlan, UlimitPlan};
use crate::{
    codes,
    file::{At, Bounds, SecretSource, SecretUse},
};

/// Where secrets are shown (Compose, `secrets`).
const SECRETS_TARGET: &str = "/run/secrets";
/// Compose's: whoever the gate runs as can read its secrets.
const SECRET_MODE: u32 = 0o444;

/// The file's secrets by name. Nothing is read yet.
pub(super) fn secrets(planner: &mut Planner<'_>, given: &[(At<String>, SecretSource)]) -> BTreeMap<String, SecretPlan> {
    let mut secrets = BTreeMap::new();
    for (name, source) in given {
        let plan = match (&source.environment, &source.file) {
            (Some(variable), _) => planner.fill(variable).map(SecretPlan::Environment),
            (None, Some(file)) => planner.fill(file).and_then(|text| {
                if is_within(&text) {
                    return Some(SecretPlan::File(planner.base.join(text)));
                }
                let message = format!("`{text}` is not a path below the pipeline file");
                planner.error(codes::LEAVES_REPOSITORY, message, &file.span).help =
                    Some("give what lies elsewhere by `environment`".into());
                None
            }),
            (None, None) => source.command.as_ref().map(|command| SecretPlan::Command(command.value.clone())),
        };
        secrets.extend(plan.map(|plan| (name.value.clone(), plan)));
    }
    secrets
}

/// Links are looked at when the secret is read.
fn is_within(text: &str) -> bool {
    let path = Path::new(text);
    !text.is_empty()
        && path.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
}

/// Secrets as files of a container.
pub(super) fn secret_files(planner: &mut Planner<'_>, given: &[SecretUse]) -> Vec<SecretUsePlan> {
    let mut uses = secret_uses(planner, given);
    for one in &mut uses {
        if !one.target.starts_with('/') {
            one.target = format!("{SECRETS_TARGET}/{}", one.target);
        }
    }
    uses
}

/// Secrets by the names under which they are used.
pub(super) fn secret_uses(planner: &mut Planner<'_>, given: &[SecretUse]) -> Vec<SecretUsePlan> {
    let mut uses: Vec<SecretUsePlan> = Vec::new();
    for one in given {
        let Some(name) = planner.fill(&one.source) else { continue };
        if !planner.secrets.contains_key(&name) {
            let near = nearest(&name, planner.secrets.keys().map(String::as_str)).map(str::to_owned);
            let diagnostic =
                planner.error(codes::INVALID_VALUE, format!("there is no secret `{name}`"), &one.source.span);
            diagnostic.label = near.map(|near| format!("did you mean `{near}`?"));
            diagnostic.help = Some(format!("define it: `secrets: {{{name}: {{environment: VARIABLE}}}}`"));
            continue;
        }
        let target = one.target.clone().unwrap_or_else(|| name.clone());
        if uses.iter().any(|other| other.target == target) {
            planner.error(codes::INVALID_VALUE, format!("two secrets are shown as `{target}`"), &one.source.span);
        }
        uses.push(SecretUsePlan {
            source: name,
            target,
            mode: one.mode.unwrap_or(SECRET_MODE),
            uid: one.uid.unwrap_or(0),
            gid: one.gid.unwrap_or(0),
            place: planner.place(&one.source.span),
        });
    }
    uses
}

/// A gate's bounds, each else the one of `test`. Lists of the gate replace those of `test`.
pub(super) fn bounds(planner: &mut Planner<'_>, gate: &Bounds, test: &Bounds) -> BoundsPlan {
    let tmpfs = if gate.tmpfs.is_empty() { &test.tmpfs } else { &gate.tmpfs };
    let ulimits = if gate.ulimits.is_empty() { &test.ulimits } else { &gate.ulimits };
    let secrets = if gate.secrets.is_empty() { &test.secrets } else { &gate.secrets };
    let network = gate.network.as_ref().or(test.network.as_ref()).map(|network| network.value.clone());
    BoundsPlan {
        memory_bytes: gate.mem_limit.or(test.mem_limit),
        cpus: gate.cpus.or(test.cpus),
        pids: gate.pids_limit.or(test.pids_limit),
        shm_size_bytes: gate.shm_size.or(test.shm_size),
        tmpfs: tmpfs
            .iter()
            .map(|tmpfs| TmpfsPlan { target: tmpfs.target.value.clone(), size_bytes: tmpfs.size, mode: tmpfs.mode })
            .collect(),
        ulimits: ulimits
            .iter()
            .map(|limit| UlimitPlan { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        network: network.filter(|network| network != "default"),
        secrets: secret_files(planner, secrets),
    }
}
