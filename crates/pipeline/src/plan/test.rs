//! The gates of a plan, as values.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use engine::BindMount;
use events::Place;
use oci::Reference;
use serde::Serialize;

use super::UsesPlan;

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
    /// Secrets that a setup command is shown; a gate's are in its bounds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUsePlan>,
}

/// One gate.
#[derive(Clone, Debug, Serialize)]
pub struct GatePlan {
    /// Its name: of a matrix with the values, `unit (3.11)`.
    pub name: String,
    /// The name in the file, where a matrix made several gates of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Values of the matrix, which are in the environment too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, String>,
    /// Another image than the built one.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePlan>,
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
    /// Further attempts after a failure.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// An earlier passing verdict is never used.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rerun: bool,
    /// Bounds and surroundings.
    #[serde(flatten)]
    pub bounds: BoundsPlan,
    /// Services.
    #[serde(flatten)]
    pub uses: UsesPlan,
}

/// The image that a gate runs in. Its setup and that of the built image have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImagePlan {
    /// Its name, with a tag or digest.
    pub reference: Reference,
    /// The image of the run that it is, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_run: Option<String>,
    /// Where it is named.
    pub place: Option<Place>,
}

/// What a gate may have of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BoundsPlan {
    /// Most memory, in bytes.
    #[serde(rename = "mem_limit", skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Most processor time, in processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Most processes and threads.
    #[serde(rename = "pids_limit", skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Bytes of `/dev/shm`.
    #[serde(rename = "shm_size", skip_serializing_if = "Option::is_none")]
    pub shm_size_bytes: Option<u64>,
    /// Empty file systems in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<TmpfsPlan>,
    /// Resource limits of each process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<UlimitPlan>,
    /// `none` or `host`; `None` is the engine's choice of a network with outgoing connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Secrets that are shown as files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUsePlan>,
}

/// An empty file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TmpfsPlan {
    /// Absolute path inside.
    pub target: String,
    /// Most bytes; `None`: half of the memory.
    #[serde(rename = "size", skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Permission bits; `None`: 0o1777.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// A resource limit of each process (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UlimitPlan {
    /// `nofile`, `nproc`, ….
    pub name: String,
    /// In the limit's own unit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}

/// Where a secret's content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlan {
    /// An environment variable.
    Environment(String),
    /// A file: its path, which may not lead out of the repository.
    File(PathBuf),
    /// What a command on this machine says.
    Command(String),
}

/// A secret that is shown to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretUsePlan {
    /// Name in [`crate::Plan::secrets`].
    pub source: String,
    /// Absolute path inside; for the build, the id.
    pub target: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where it is named.
    pub place: Option<Place>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
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
        let target = match self.target.as_str() {
            "" => workdir.to_owned(),
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("{}/{relative}", workdir.trim_end_matches('/')),
        };
        BindMount { source: self.source.clone(), target, readonly: self.readonly }
    }
}
