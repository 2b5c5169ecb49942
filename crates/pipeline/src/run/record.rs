//! What a run leaves for later commands: how to enter a gate's container again, and verdicts by image.

use std::path::PathBuf;

use engine::{BindMount, ContainerSpec, Tmpfs};
use oci::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};
use store::{MemoSubject, RunDir, Store};

use super::{Run, elsewhere, gate::REPORTS_TARGET, publish::Sealed};
use crate::{Plan, RunContext, RunError};

/// How a gate's container was started, so that `shell` can start another one like it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageRecord {
    /// The gate.
    pub stage: String,
    /// [`engine::Root::id`].
    pub root: String,
    /// [`engine::Root::config`].
    pub config: ImageConfig,
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`.
    pub user: String,
    /// Mounts: host path, path inside, read-only. Without the one for reports, which is gone ([`StageRecord::tmpfs`]).
    pub mounts: Vec<(PathBuf, String, bool)>,
}

impl StageRecord {
    pub(super) fn of(stage: &str, spec: &ContainerSpec) -> StageRecord {
        StageRecord {
            stage: stage.into(),
            root: spec.root.id.clone(),
            config: spec.root.config.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            mounts: spec
                .mounts
                .iter()
                .filter(|mount| mount.readonly || !mount.target.starts_with("/run/seatrial/"))
                .map(|mount| (mount.source.clone(), mount.target.clone(), mount.readonly))
                .collect(),
        }
    }

    /// Where it wrote reports: empty again, and in memory.
    pub fn tmpfs(&self) -> Vec<Tmpfs> {
        let writes_reports = self.env.iter().any(|(_, value)| value == REPORTS_TARGET);
        let reports = Tmpfs { target: REPORTS_TARGET.into(), size_bytes: None, mode: 0o1777 };
        writes_reports.then_some(reports).into_iter().collect()
    }

    /// The mounts as an engine takes them.
    pub fn bind_mounts(&self) -> Vec<BindMount> {
        let bind = |(source, target, readonly): &(PathBuf, String, bool)| BindMount {
            source: source.clone(),
            target: target.clone(),
            readonly: *readonly,
        };
        self.mounts.iter().map(bind).collect()
    }
}

/// The record of a gate of an earlier run; `None` when there is none (any more).
pub fn stage_record(run: &RunDir, stage: &str) -> Option<StageRecord> {
    let text = fs_err::read(path(run, stage)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn path(run: &RunDir, stage: &str) -> PathBuf {
    run.path.join("stage").join(format!("{}.json", super::words::file_name(stage)))
}

/// Losing it costs a convenience, not the run.
pub(super) fn write(cx: RunContext<'_>, record: &StageRecord) {
    let path = path(cx.run, &record.stage);
    let written = path
        .parent()
        .map_or(Ok(()), fs_err::create_dir_all)
        .and_then(|()| fs_err::write(&path, serde_json::to_vec(record).unwrap_or_default()));
    if let Err(error) = written {
        cx.events.emit(events::Event::Warning { message: error.to_string(), place: None });
    }
}

const NAMESPACE: &str = "verdict";

/// A passing verdict of the whole pipeline.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    commit: Option<String>,
    /// Digest of the gates' and the health check's definition.
    definition: Digest,
    run: u64,
}

pub(super) fn remember_passed(run: Run<'_>, plan: &Plan, sealed: &Sealed) -> Result<(), RunError> {
    let cx = run.cx;
    // What passed was not the commit; nobody may publish it later as that.
    if plan.source.is_dirty {
        return Ok(());
    }
    let passed = Passed { commit: plan.source.sha.clone(), definition: definition(run, plan), run: cx.run.number };
    let value = serde_json::to_vec(&passed).map_err(|error| RunError::local("remember the verdict", error))?;
    cx.store
        .memo_put_about(
            NAMESPACE,
            &sealed.image.id.to_string(),
            &value,
            Some(MemoSubject::Image(sealed.image.id.clone())),
        )
        .map_err(|error| RunError::local("remember the verdict", error))
}

/// `publish` alone: an earlier run has to have passed with this very image, commit and definition, here or where a trusted
/// key has signed its verdicts.
pub(super) async fn require_passed(run: Run<'_>, plan: &Plan, sealed: &Sealed) -> Result<(), RunError> {
    match passed_here(run, plan, sealed) {
        Err(_) if !plan.source.is_dirty && elsewhere::has_passed(run, plan, sealed).await? => Ok(()),
        here => here,
    }
}

fn passed_here(run: Run<'_>, plan: &Plan, sealed: &Sealed) -> Result<(), RunError> {
    let refuse = |message: &str| {
        Err(RunError::Refused {
            message: message.into(),
            hint: "test and publish it with `seatrial run --publish`".into(),
        })
    };
    if plan.source.is_dirty {
        return refuse("the working tree has changes, so what passed is not what would be published");
    }
    match recall(run.cx.store, &sealed.image.id) {
        None => refuse("this image has not passed its gates yet"),
        Some(passed) if passed.commit != plan.source.sha => {
            refuse("the image passed for another commit, not for this one")
        }
        Some(passed) if passed.definition != definition(run, plan) => {
            refuse("the gates have changed since the image passed")
        }
        Some(_) => Ok(()),
    }
}

/// Whether an image has passed the pipeline in a run of this machine.
pub fn has_passed(store: &Store, image: &Digest) -> bool {
    recall(store, image).is_some()
}

fn recall(store: &Store, id: &Digest) -> Option<Passed> {
    serde_json::from_slice(&store.memo_get(NAMESPACE, &id.to_string())?).ok()
}

/// Places and run numbers do not belong to it: a comment above a gate changes nothing.
pub(super) fn definition(run: Run<'_>, plan: &Plan) -> Digest {
    let mut value = serde_json::json!({"test": plan.test, "health": plan.health});
    if plan.entry.is_some() {
        // It passed together with the others.
        value["whole"] = serde_json::json!(run.whole.test);
    }
    strip(&mut value);
    Digest::of(&serde_json::to_vec(&value).unwrap_or_default())
}

/// The health check's part of it.
pub(super) fn health_definition(plan: &Plan) -> Digest {
    let mut value = serde_json::json!(plan.health);
    strip(&mut value);
    Digest::of(&serde_json::to_vec(&value).unwrap_or_default())
}

pub(super) fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.remove("place");
            map.values_mut().for_each(strip);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
