//! File and source to a [`Plan`]: pure data that can be printed, compared and tested without a container.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use engine::BindMount;
use events::Place;
use oci::Reference;
use serde::Serialize;

use crate::{Source, TagRule, Values, When};

/// What will be done. Serialises to what `seatrial config` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Name of what is built, for people: the last part of the image's name.
    pub name: String,
    /// Repository of the image, without a tag.
    pub image: Reference,
    /// Whether [`Plan::image`] was given by the file; otherwise it is made from the directory's name.
    pub image_is_given: bool,
    /// The pipeline file, as the user would name it.
    pub file: Option<String>,
    /// What Git said.
    pub source: Source,
    /// Where the version comes from.
    pub version: Version,
    /// The build.
    pub build: BuildPlan,
    /// The gates.
    pub test: TestPlan,
    /// The health check.
    pub health: HealthPlan,
    /// Local tags; always the short commit and the branch.
    pub local_tags: Vec<TagRule>,
    /// Publishing; `None` when the file does not say so.
    pub publish: Option<PublishPlan>,
    /// What is kept for how long.
    pub keep: KeepPlan,
    /// Limits of the image.
    pub limits: LimitsPlan,
    /// What templates are filled in with.
    #[serde(skip)]
    pub values: Values,
}

/// Where the version comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// Known already.
    Known(String),
    /// There is none, and why.
    Absent(String),
    /// An ENV of the built image.
    ImageEnv(String),
    /// A label of the built image.
    ImageLabel(String),
}

/// The parts of an [`engine::BuildRequest`] that the file decides.
#[derive(Clone, Debug, Serialize)]
pub struct BuildPlan {
    /// Directory of the context, absolute.
    pub context: PathBuf,
    /// Name of the Dockerfile for messages.
    pub dockerfile: String,
    /// Its path; `None` for `dockerfile_inline`.
    pub dockerfile_path: Option<PathBuf>,
    /// Its text, when it is written in the pipeline file.
    pub dockerfile_inline: Option<String>,
    /// Stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Named contexts: a directory, `docker-image://…` or `oci-layout://…`.
    pub additional_contexts: BTreeMap<String, String>,
    /// Network of RUN: `default`, `none` or `host`.
    pub network: String,
    /// Platform; `None` is the host's.
    pub platform: Option<String>,
    /// Names for `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Ignore the cache.
    pub no_cache: bool,
    /// Ask the registry for base images.
    pub pull: bool,
}

/// The gates and what they have in common.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TestPlan {
    /// Setup commands, in order.
    pub setup: Vec<CommandPlan>,
    /// What setup commands find in their environment beside the image's own.
    pub setup_environment: BTreeMap<String, String>,
    /// Mounts that setup commands see.
    pub setup_mounts: Vec<MountPlan>,
    /// Directory and user of setup commands that do not say their own; `None`: as the image says.
    pub setup_workdir: Option<String>,
    /// In the order of the file.
    pub gates: Vec<GatePlan>,
}

/// One command of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandPlan {
    /// The command text, exactly as written; never interpolated.
    pub run: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// `user[:group]`; `None`: as the image says.
    pub user: Option<String>,
}

/// One gate.
#[derive(Clone, Debug, Serialize)]
pub struct GatePlan {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Commands, in order, in one shell; the first that fails ends the gate.
    pub commands: Vec<CommandPlan>,
    /// Program that the shell is started by; without commands, the whole command.
    pub entrypoint: Vec<String>,
    /// Working directory; `None`: as the image says.
    pub workdir: Option<String>,
    /// `user[:group]`; `None`: as the image says.
    pub user: Option<String>,
    /// Environment beside the image's own.
    pub environment: BTreeMap<String, String>,
    /// Host paths shown inside.
    pub mounts: Vec<MountPlan>,
    /// Reports by kind (`junit`), as file patterns below `$SEATRIAL_REPORTS`.
    pub reports: BTreeMap<String, Vec<String>>,
    /// Gates that must have passed before.
    pub needs: Vec<String>,
    /// A failure does not make the run fail.
    pub allow_failure: bool,
    /// The gate is stopped after this time.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub timeout: Option<Duration>,
}

/// A host path for the inside; a relative target is below the working directory, which the image may decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// Absolute host path, links resolved.
    pub source: PathBuf,
    /// Absolute, or relative to the working directory.
    pub target: String,
    /// Whether writing is refused.
    pub readonly: bool,
}

impl MountPlan {
    /// The mount with its target resolved against a working directory.
    pub fn bind(&self, workdir: &str) -> BindMount {
        let target = match self.target.strip_prefix('/') {
            Some(_) => self.target.clone(),
            None => format!("{}/{}", workdir.trim_end_matches('/'), self.target),
        };
        BindMount { source: self.source.clone(), target, readonly: self.readonly }
    }
}

/// The health check; `None` where the image's HEALTHCHECK or a default decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthPlan {
    /// `false` switches it off.
    pub enabled: bool,
    /// Command of the file's own instead of the image's: `["CMD", …]` or `["CMD-SHELL", "…"]`.
    pub command: Option<Vec<String>>,
    /// Longest time between two attempts.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub interval: Option<Duration>,
    /// Attempts until giving up.
    pub attempts: Option<u32>,
    /// Time for one attempt.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub timeout: Option<Duration>,
    /// Time in which failures do not count as attempts.
    #[serde(serialize_with = "crate::duration::serialize_option")]
    pub start_period: Option<Duration>,
    /// Where it stands.
    pub place: Option<Place>,
}

/// Publishing.
#[derive(Clone, Debug, Serialize)]
pub struct PublishPlan {
    /// Repositories, without tags.
    pub repositories: Vec<Reference>,
    /// One of these must hold; empty: always.
    pub when: Vec<When>,
    /// Tags.
    pub tags: Vec<TagRule>,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeepPlan {
    /// Root filesystems of failed steps.
    #[serde(serialize_with = "crate::duration::serialize")]
    pub failed: Duration,
    /// Number of runs with their logs.
    pub runs: usize,
}

/// Limits of the image; breaking one makes the verdict no.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsPlan {
    /// Number of layers.
    pub layers: Option<usize>,
    /// Bytes of all layers, uncompressed.
    pub size_bytes: Option<u64>,
}
