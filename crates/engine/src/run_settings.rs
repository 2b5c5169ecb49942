//! What RUN instructions may see and use beyond the image: secrets, agents, rights and bounds.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

/// As an address of `--add-host`: this machine, as containers reach it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// Settings of all RUN instructions of a build. The default gives nothing and bounds nothing.
#[derive(Clone, Debug, Default)]
pub struct RunSettings {
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`, by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// `--allow`.
    pub allow: Allow,
    /// `--shm-size`: bytes of `/dev/shm`; 64 MiB without.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`: an absolute path in each hierarchy, or one below this process's own group.
    pub cgroup_parent: Option<String>,
    /// `--memory`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `--cpu-quota` by `--cpu-period`: processors' worth of time.
    pub cpus: Option<f64>,
}

impl RunSettings {
    /// Whether anything is bounded, so that what could not be is worth telling.
    pub fn has_bounds(&self) -> bool {
        !self.ulimits.is_empty() || self.cgroup_parent.is_some() || self.memory_bytes.is_some() || self.cpus.is_some()
    }
}

/// A secret's content. It is told to nobody: `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes the content, of any bytes.
    pub fn new(content: Vec<u8>) -> Self {
        Self(content.into())
    }

    /// The content.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Where `RUN --mount=type=ssh` reaches keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// The socket of a running agent.
    Agent(PathBuf),
    /// Files of private keys, which an agent of the build's own is given.
    Keys(Vec<PathBuf>),
}

/// Entitlements (BuildKit, `util/entitlements`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `network.host`: a RUN may ask for the host's network.
    pub network_host: bool,
    /// `security.insecure`: a RUN may ask for all capabilities.
    pub security_insecure: bool,
}

/// A resource limit of processes (setrlimit(2)), by docker's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, `core`, ….
    pub name: String,
    /// In the limit's own unit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}
