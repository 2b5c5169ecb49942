//! The container of a gate: what is started, in which surroundings.

use std::sync::Arc;

use engine::{Attachment, ContainerSpec, Limits, NetworkMode, Root, Stdio, Surroundings, Tmpfs, Ulimit};

pub(in crate::run) use services::{container_name, environment, workdir};

use super::{super::log::StepText, Trial};
use crate::{CommandPlan, GatePlan, RunContext, TmpfsPlan, UlimitPlan, Values, Version};

/// Starts one command.
pub(in crate::run) const SHELL: [&str; 2] = ["/bin/sh", "-ec"];
/// Starts several commands in one shell. Before each, a line with the mark goes to the log's reader. The commands come as
/// arguments, so that the quotes of one cannot reach into the next, and are hidden from them by `set --`.
const SEVERAL: &str = r#"for seatrial_step do set --; printf '\036%s\n' MARK; eval "$seatrial_step"; done"#;
/// Where reports are written, inside.
pub(in crate::run) const REPORTS_TARGET: &str = "/run/seatrial/reports";
/// Docker's, as of `/tmp`.
const TMPFS_MODE: u32 = 0o1777;
pub(super) fn steps(gate: &GatePlan) -> Vec<StepText> {
    if gate.commands.is_empty() {
        return vec![StepText { text: gate.entrypoint.join(" "), place: gate.place.clone() }];
    }
    gate.commands.iter().map(|one| StepText { text: one.run.clone(), place: one.place.clone() }).collect()
}

/// What is started, without what each attempt has of its own: arguments, streams, the place for reports.
pub(super) fn spec(trial: &Trial<'_>, gate: &GatePlan, root: &Root) -> ContainerSpec {
    let (cwd, bounds) = (workdir(gate.workdir.as_deref(), root), &gate.bounds);
    ContainerSpec {
        name: container_name(&gate.name),
        root: root.clone(),
        args: Vec::new(),
        env: environment(root, &gate.environment, &seatrial_environment(trial.cx, trial.values)),
        mounts: gate.mounts.iter().map(|mount| mount.bind(&cwd)).collect(),
        cwd,
        user: gate.user.clone().unwrap_or_else(|| root.config.config.user.clone()),
        network: match bounds.network.as_deref() {
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            _ => NetworkMode::Default,
        },
        attachment: Attachment::default(),
        surroundings: Surroundings {
            tmpfs: bounds.tmpfs.iter().map(tmpfs).collect(),
            shm_size_bytes: bounds.shm_size_bytes,
            files: trial.secrets.files(&bounds.secrets),
            ulimits: bounds.ulimits.iter().map(ulimit).collect(),
            ..Surroundings::default()
        },
        limits: Limits { memory_bytes: bounds.memory_bytes, cpus: bounds.cpus, pids: bounds.pids },
        init: true,
        stdio: Stdio::Sink(Arc::new(|_| {})),
    }
}

fn tmpfs(tmpfs: &TmpfsPlan) -> Tmpfs {
    Tmpfs { target: tmpfs.target.clone(), size_bytes: tmpfs.size_bytes, mode: tmpfs.mode.unwrap_or(TMPFS_MODE) }
}

fn ulimit(limit: &UlimitPlan) -> Ulimit {
    Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }
}

/// What starts commands in one shell, behind an entrypoint.
pub(in crate::run) fn args(entrypoint: &[String], commands: &[CommandPlan], mark: Option<&str>) -> Vec<String> {
    let mut args = entrypoint.to_vec();
    match (commands, mark) {
        ([], _) => {}
        ([one], _) => args.extend(SHELL.iter().map(|word| (*word).to_owned()).chain([one.run.clone()])),
        (several, mark) => {
            args.extend(SHELL.iter().map(|word| (*word).to_owned()));
            args.push(SEVERAL.replace("MARK", mark.unwrap_or_default()));
            // The shell's `$0`.
            args.push(SHELL[0].to_owned());
            args.extend(several.iter().map(|command| command.run.clone()));
        }
    }
    args
}

/// 128 bits that a program cannot guess, from the hasher that the standard library seeds from the system.
pub(in crate::run) fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0u8), RandomState::new().hash_one(1u8))
}

/// What commands read instead of templates. A value that is absent is an unset variable.
pub(in crate::run) fn seatrial_environment(cx: RunContext<'_>, values: &Values) -> Vec<(String, String)> {
    let version = match &values.version {
        Version::Known(version) => Some(version.clone()),
        _ => None,
    };
    [
        ("CI", Some("true".to_owned())),
        ("SEATRIAL_GIT_SHA", values.git_sha.clone()),
        ("SEATRIAL_GIT_SHORT", values.git_short.clone()),
        ("SEATRIAL_GIT_BRANCH", values.git_branch.clone()),
        ("SEATRIAL_GIT_TAG", values.git_tag.clone()),
        ("SEATRIAL_VERSION", version),
        ("SEATRIAL_RUN_NUMBER", Some(cx.run.number.to_string())),
        ("SEATRIAL_REPORTS", Some(REPORTS_TARGET.to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
