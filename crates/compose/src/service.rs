//! A service: what its containers are started from and how, every value resolved.
//!
//! Source of the keys: the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md).
//! [`Service::ready`], [`Service::snapshot`], [`Service::verify`], [`Service::seed`] and [`Service::from`] are Seatrial's own.

mod build;
mod mounts;
mod networks;
mod ready;
mod resources;
mod watch;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use events::Place;
use oci::{Platform, Reference};
use serde::Serialize;

pub use build::*;
pub use mounts::*;
pub use networks::*;
pub use ready::*;
pub use resources::*;
pub use watch::*;

use crate::{duration, is_default};

/// A service. Paths on the host are absolute, sizes are bytes, references to variables are replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Service {
    /// Its name, which is also its host name for other services.
    pub name: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// `image`: what containers start from, or the name of what `build` makes.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<Reference>,
    /// `from` (ours): the image of this name that the same run builds.
    #[serde(skip_serializing_if = "is_default")]
    pub from: Option<String>,
    /// `build`.
    #[serde(skip_serializing_if = "is_default")]
    pub build: Option<Build>,
    /// `pull_policy`.
    #[serde(skip_serializing_if = "is_default")]
    pub pull_policy: Option<PullPolicy>,
    /// `platform`; `None` is the host's.
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<Platform>,
    /// `verify` (ours): evidence that the image must have.
    #[serde(skip_serializing_if = "is_default")]
    pub verify: Vec<Evidence>,

    /// `command`: instead of the image's CMD; an empty list is no command at all.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Option<Vec<String>>,
    /// `entrypoint`: instead of the image's ENTRYPOINT; its CMD is then not used either. An empty list is no entrypoint.
    #[serde(skip_serializing_if = "is_default")]
    pub entrypoint: Option<Vec<String>>,
    /// `env_file` and `environment`, which wins; added to the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, String>,
    /// `user`: `name[:group]` or numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// `group_add`: further groups, by name or number.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// `working_dir`.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// `init`: a small first process that reaps; `None`: the engine's choice.
    #[serde(skip_serializing_if = "is_default")]
    pub init: Option<bool>,
    /// `tty`.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// `stdin_open`.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// `stop_signal`, as written; `None`: the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: Option<String>,
    /// `stop_grace_period`: time between the signal and SIGKILL.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub stop_grace_period: Option<Duration>,
    /// `restart`.
    #[serde(skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// `pre_start`: steps that each run to their end in a container of their own before the service starts, with its mounts and
    /// networks; one that fails fails the service.
    #[serde(skip_serializing_if = "is_default")]
    pub pre_start: Vec<Hook>,

    /// `volumes`, and what `volumes_from` takes from others.
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// `tmpfs`.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: Vec<Tmpfs>,
    /// `shm_size`, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub shm_size_bytes: Option<u64>,
    /// `read_only`: the root filesystem cannot be written.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// `configs`: files whose content the project defines.
    #[serde(skip_serializing_if = "is_default")]
    pub configs: Vec<FileGrant>,
    /// `secrets`: as `configs`, on tmpfs and masked in logs.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileGrant>,
    /// `seed` (ours): files whose content belongs to the key of a warm snapshot, absolute.
    #[serde(skip_serializing_if = "is_default")]
    pub seed: Vec<PathBuf>,
    /// `snapshot: ready` (ours): keep the state of the ready service and start from it next time.
    #[serde(skip_serializing_if = "is_default")]
    pub snapshot: Option<Snapshot>,

    /// `depends_on`, and what `links`, `network_mode: service:…` and `volumes_from` imply; in the order of the file.
    #[serde(skip_serializing_if = "is_default")]
    pub depends_on: Vec<Dependency>,
    /// `healthcheck`; `None`: the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub healthcheck: Option<Healthcheck>,
    /// `ready` (ours): when the service counts as started.
    #[serde(skip_serializing_if = "is_default")]
    pub ready: Option<Ready>,

    /// `ports`, one entry for each port of a range.
    #[serde(skip_serializing_if = "is_default")]
    pub ports: Vec<PublishedPort>,
    /// `expose`, one entry for each port of a range.
    #[serde(skip_serializing_if = "is_default")]
    pub expose: Vec<ExposedPort>,
    /// `network_mode`; `None`: [`Service::networks`].
    #[serde(skip_serializing_if = "is_default")]
    pub network_mode: Option<NetworkMode>,
    /// `networks`; a service without any and without a mode is in `default`.
    #[serde(skip_serializing_if = "is_default")]
    pub networks: Vec<Attachment>,
    /// `links`.
    #[serde(skip_serializing_if = "is_default")]
    pub links: Vec<Link>,
    /// `hostname`.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    /// `domainname`.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// `extra_hosts`: name and address, in the order of the file.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// `dns`: name servers.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<IpAddr>,
    /// `dns_search`: search domains.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// `dns_opt`: resolver options.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_opt: Vec<String>,

    /// `mem_limit` or `deploy.resources.limits.memory`, in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_limit_bytes: Option<u64>,
    /// `cpus` or `deploy.resources.limits.cpus`: processors, such as 1.5.
    #[serde(skip_serializing_if = "is_default")]
    pub cpus: Option<f64>,
    /// `pids_limit` or `deploy.resources.limits.pids`: processes and threads.
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: Option<u64>,
    /// `ulimits` by name, such as `nofile`.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `cap_add`, without `CAP_`, in capital letters.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    /// `cap_drop`, without `CAP_`, in capital letters; `ALL` is all.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    /// `privileged`.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// `security_opt: [no-new-privileges]`: set-id programs gain nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// `sysctls`.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// `devices`.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,

    /// `container_name`.
    #[serde(skip_serializing_if = "is_default")]
    pub container_name: Option<String>,
    /// `labels` and `label_file`.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// `annotations`.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// `profiles`; empty: always part of the project.
    #[serde(skip_serializing_if = "is_default")]
    pub profiles: Vec<String>,
    /// `scale` or `deploy.replicas`; `None` is one.
    #[serde(skip_serializing_if = "is_default")]
    pub replicas: Option<u32>,
    /// `attach: false`: its log is not shown unless asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub quiet: bool,
    /// `logging`.
    #[serde(skip_serializing_if = "is_default")]
    pub logging: Option<Logging>,
    /// `develop.watch`, in the order of the file.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Vec<WatchRule>,
}

impl Service {
    /// Names under which the service is reached in a network, beside its own.
    pub fn aliases_in(&self, network: &str) -> &[String] {
        let here = self.networks.iter().find(|attachment| attachment.network == network);
        here.map(|attachment| attachment.aliases.as_slice()).unwrap_or_default()
    }
}

/// `pull_policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// The registry is always asked.
    Always,
    /// Never: the image has to be here.
    Never,
    /// Only when the image is not here (`missing`, `if_not_present`).
    Missing,
    /// The image is built, even if it is here.
    Build,
    /// Asked again when the last time is longer ago (`daily`, `weekly`, `every_<duration>`).
    Every(#[serde(serialize_with = "duration::serialize")] Duration),
}

/// `verify`: what must have been proven of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its gates passed.
    Gates,
    /// It is signed by a trusted key.
    Signature,
}

impl Evidence {
    /// As the file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gates => "gates",
            Self::Signature => "signature",
        }
    }
}

/// `snapshot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Snapshot {
    /// The state of the service once it was ready.
    Ready,
}

/// `restart`, or `deploy.restart_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Whenever it ends.
    Always,
    /// Whenever it fails; at most so many times.
    OnFailure {
        /// `None`: without a limit.
        attempts: Option<u32>,
    },
    /// Whenever it ends, unless it was stopped by hand.
    UnlessStopped,
}

/// A step of `pre_start`, or the command of a watch rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hook {
    /// Where it stands.
    pub place: Option<Place>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Another image than the service's.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<Reference>,
    /// `None`: the service's.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// `None`: the service's.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Added to the service's.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, String>,
    /// `privileged`.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
}
