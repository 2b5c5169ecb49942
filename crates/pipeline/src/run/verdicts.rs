//! Verdicts of gates that are known already. A verdict is a value: the same image, definition, files and surroundings pass again.
//!
//! Only what passed at its first attempt is remembered. Gates whose result may depend on more than what the key holds are
//! always run: those with secrets, with the host's network, or with mounts that they write to.

use std::time::{Duration, SystemTime};

use engine::{ContainerSpec, Root};
use events::{Coverage, Problem, RunId, TestCounts};
use oci::Digest;
use serde::{Deserialize, Serialize};
use store::{MemoSubject, SnapshotId, Store};

use super::record::strip;
use crate::{GateOutcome, GatePlan, RunContext, RunError};

/// Where the store remembers passing verdicts of gates.
pub const NAMESPACE: &str = "gate-verdict";
/// Names the format and what goes into a key.
const VERSION: u32 = 1;
/// The world outside, which setup and gates may ask, changes; so does the time that tests see.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// In each of 256 parts of the store: some ten thousand verdicts in all.
const PER_PART_MAX: usize = 40;

/// A passing verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) run: RunId,
    /// Seconds since 1970.
    ended: u64,
    pub(super) tests: Option<TestCounts>,
    pub(super) coverage: Option<Coverage>,
    pub(super) findings: Option<u64>,
    pub(super) problems: Vec<Problem>,
}

/// What a verdict depends on beside the gate's own definition.
pub(super) struct Inputs<'a> {
    pub(super) gate: &'a GatePlan,
    /// The built image, also where the gate runs in another one: the verdict speaks of it.
    pub(super) built: &'a Root,
    /// What is started, before anything that differs from run to run was added.
    pub(super) spec: &'a ContainerSpec,
    /// Digests of whatever else the gate sees, such as services.
    pub(super) further: &'a [String],
}

/// What a verdict depends on.
pub(super) struct Looked {
    /// The key; `None` where the verdict cannot be known beforehand.
    pub(super) key: Option<Digest>,
    /// The parts that are not the image, by name.
    pub(super) configuration: Vec<(String, Digest)>,
}

/// Looks at all that a verdict depends on.
pub(super) async fn look(cx: RunContext<'_>, inputs: &Inputs<'_>) -> Result<Looked, RunError> {
    let Inputs { gate, built, spec, further } = inputs;
    let is_open = !gate.bounds.secrets.is_empty()
        || gate.bounds.network.as_deref() == Some("host")
        || spec.mounts.iter().any(|mount| !mount.readonly);
    let mut mounts = Vec::new();
    for mount in spec.mounts.iter().filter(|mount| mount.readonly) {
        let content = cx.engine.content(&mount.source).await.map_err(RunError::Engine)?;
        mounts.push((mount.target.as_str(), content));
    }
    let mut definition = serde_json::to_value(gate).unwrap_or_default();
    strip(&mut definition);
    if let serde_json::Value::Object(definition) = &mut definition {
        // What decides when it runs and what follows from its verdict, not the verdict. Of mounts the content counts.
        for key in ["needs", "allow_failure", "retries", "mounts"] {
            definition.remove(key);
        }
    }
    let hash = |value: &serde_json::Value| Digest::of(&serde_json::to_vec(value).unwrap_or_default());
    let mut configuration = vec![(format!("gate {}", gate.name), hash(&definition))];
    configuration.extend(mounts.iter().map(|(target, content)| (format!("mount {target}"), content.clone())));
    configuration.extend(further.iter().map(|service| {
        // A service is told as its name and what it is.
        let name = service.split_whitespace().next().unwrap_or_default();
        (format!("service {name}"), Digest::of(service.as_bytes()))
    }));
    if gate.rerun || is_open {
        return Ok(Looked { key: None, configuration });
    }
    let env: Vec<_> = spec.env.iter().filter(|(name, _)| is_relevant(name, gate)).collect();
    let key = serde_json::json!({
        "version": VERSION,
        "built": built.id,
        "root": spec.root.id,
        "definition": definition,
        "env": env,
        "cwd": spec.cwd,
        "user": spec.user,
        "mounts": mounts,
        "further": further,
    });
    Ok(Looked { key: Some(hash(&key)), configuration })
}

/// What tells commits and runs apart counts only where the gate's own words read it; otherwise no verdict would outlive a
/// commit.
fn is_relevant(name: &str, gate: &GatePlan) -> bool {
    if !name.starts_with("SEATRIAL_") {
        return true;
    }
    let commands = gate.commands.iter().map(|command| command.run.as_str());
    commands.chain(gate.entrypoint.iter().map(String::as_str)).any(|text| text.contains(name))
}

pub(super) fn recall(store: &Store, key: &Digest) -> Option<Known> {
    let known: Known = serde_json::from_slice(&store.memo_get(NAMESPACE, key.hex())?).ok()?;
    let age = now().checked_sub(known.ended)?;
    (age <= AGE_MAX.as_secs()).then_some(known)
}

/// Losing it costs running the gate again.
pub(super) fn remember(cx: RunContext<'_>, key: &Digest, built: &Root, outcome: &GateOutcome) {
    let known = Known {
        run: RunId(cx.run.number),
        ended: now(),
        tests: outcome.tests,
        coverage: outcome.coverage,
        findings: outcome.findings,
        problems: outcome.problems.clone(),
    };
    let value = serde_json::to_vec(&known).unwrap_or_default();
    // The key names it: once its files are gone, nobody asks for this verdict again.
    let about = SnapshotId::try_from(built.id.clone()).ok().map(MemoSubject::Snapshot);
    let _ = cx.store.memo_put_bounded(NAMESPACE, key.hex(), &value, PER_PART_MAX, about);
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
