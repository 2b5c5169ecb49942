//! Package caches that stay in the layers of the built image.

use super::Findings;
use super::shell::calls;
use crate::stages::Stages;
use crate::{Command, Instruction, InstructionKind, MountKind, Run};

/// A package manager that keeps what it has downloaded.
struct Manager {
    programs: &'static [&'static str],
    /// What makes them download.
    actions: &'static [&'static str],
    /// What stays.
    leaves: &'static str,
    /// Words of a RUN that cleans up, or keeps nothing in the first place.
    cleans: &'static [&'static str],
    /// Parts of the target of a cache mount that takes it.
    kept_at: &'static [&'static str],
    /// A variable that turns the cache off.
    turned_off_by: Option<&'static str>,
    help: &'static str,
}

const MANAGERS: [Manager; 8] = [
    Manager {
        programs: &["apt", "apt-get"],
        actions: &["update"],
        leaves: "apt's package list",
        cleans: &["/var/lib/apt/lists"],
        kept_at: &["/var/lib/apt"],
        turned_off_by: None,
        help: "end the command with `&& rm -rf /var/lib/apt/lists/*`",
    },
    Manager {
        programs: &["pip", "pip3"],
        actions: &["install", "download", "wheel"],
        leaves: "pip's cache",
        cleans: &["--no-cache-dir", "PIP_NO_CACHE_DIR", "pip cache purge", "/.cache"],
        kept_at: &["/.cache"],
        turned_off_by: Some("PIP_NO_CACHE_DIR"),
        help: "add `--no-cache-dir`, or `--mount=type=cache,target=/root/.cache/pip`",
    },
    Manager {
        programs: &["apk"],
        actions: &["add", "update"],
        leaves: "apk's package index",
        cleans: &["--no-cache", "/var/cache/apk"],
        kept_at: &["/var/cache/apk", "/etc/apk/cache"],
        turned_off_by: None,
        help: "use `apk add --no-cache`",
    },
    Manager {
        programs: &["dnf", "microdnf", "yum"],
        actions: &["install", "update", "upgrade"],
        leaves: "the package cache",
        cleans: &["clean all", "/var/cache/"],
        kept_at: &["/var/cache"],
        turned_off_by: None,
        help: "end the command with `&& dnf clean all`",
    },
    Manager {
        programs: &["zypper"],
        actions: &["install", "in", "update", "up", "refresh"],
        leaves: "zypper's cache",
        cleans: &["zypper clean", "zypper cc", "/var/cache/zypp"],
        kept_at: &["/var/cache"],
        turned_off_by: None,
        help: "end the command with `&& zypper clean --all`",
    },
    Manager {
        programs: &["npm"],
        actions: &["install", "ci", "i"],
        leaves: "npm's cache",
        cleans: &["npm cache clean", "/.npm", "npm_config_cache"],
        kept_at: &["/.npm"],
        turned_off_by: Some("npm_config_cache"),
        help: "end the command with `&& npm cache clean --force`, or add `--mount=type=cache,target=/root/.npm`",
    },
    Manager {
        programs: &["yarn"],
        actions: &["install", "add"],
        leaves: "yarn's cache",
        cleans: &["yarn cache clean", "YARN_CACHE_FOLDER"],
        kept_at: &["/.cache", "yarn"],
        turned_off_by: Some("YARN_CACHE_FOLDER"),
        help: "end the command with `&& yarn cache clean`, or add `--mount=type=cache,target=/usr/local/share/.cache/yarn`",
    },
    Manager {
        programs: &["conda", "mamba"],
        actions: &["install", "create", "update", "env create", "env update"],
        leaves: "conda's package cache",
        cleans: &["clean -a", "clean --all"],
        kept_at: &["/pkgs"],
        turned_off_by: None,
        help: "end the command with `&& conda clean --all --yes`",
    },
];

pub(super) fn check(stages: &Stages<'_>, findings: &mut Findings) {
    let mut variables: Vec<&str> = Vec::new();
    for instruction in stages.built() {
        match &instruction.kind {
            InstructionKind::Env(pairs) => variables.extend(pairs.iter().map(|(name, _)| name.raw.as_str())),
            InstructionKind::Run(run) => run_of(run, instruction, &variables, findings),
            _ => {}
        }
    }
}

fn run_of(run: &Run, instruction: &Instruction, variables: &[&str], findings: &mut Findings) {
    let Command::Shell(text) = &run.command else { return };
    let mounted: Vec<&str> = run
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs))
        .flat_map(|mount| &mount.options)
        .filter(|(key, _)| ["target", "dst", "destination"].contains(&key.raw.as_str()))
        .filter_map(|(_, value)| value.as_ref().map(|value| value.raw.as_str()))
        .collect();
    let is_called = |manager: &&Manager| calls(text).any(|call| call.is(manager.programs, manager.actions));
    for manager in MANAGERS.iter().filter(is_called) {
        let is_clean = manager.cleans.iter().any(|words| text.contains(words))
            || manager.kept_at.iter().any(|part| mounted.iter().any(|target| target.contains(part)))
            || manager.turned_off_by.is_some_and(|name| variables.contains(&name));
        if !is_clean {
            let message = format!("{} stays in the layer", manager.leaves);
            findings.add("PackageCacheInLayer", &instruction.span, message).help = Some(manager.help.to_owned());
        }
    }
}
