//! A service: what its containers are started from and how, every value resolved.
//!
//! Source of the keys: the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md).
//! [`Service::ready`], [`Service::snapshot`], [`Service::verify`], [`Service::seed`] and [`Service::from`] are Seatrial's own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use events::Place;
use oci::{Platform, Reference};
use serde::Serialize;

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
    /// `security_opt`, as written.
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
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

/// `build`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Build {
    /// Directory of the context, absolute; or a Git repository or URL, as written.
    pub context: String,
    /// Path of the Dockerfile, relative to the context or absolute; `None`: `Dockerfile`, else `Containerfile`.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile: Option<String>,
    /// The Dockerfile itself.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile_inline: Option<String>,
    /// Stage to build; `None`: the last one.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Build arguments; those without a value and without one in the environment are left out.
    #[serde(skip_serializing_if = "is_default")]
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Named contexts: absolute directories, `service:NAME`, or URLs as written.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_contexts: BTreeMap<String, String>,
    /// Network of RUN: `default`, `none`, `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// Names for `/etc/hosts` during RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// `no_cache`.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache: bool,
    /// `pull`: ask the registry for newer bases.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: bool,
    /// Further names of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<Reference>,
    /// Platforms to build for.
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<Platform>,
    /// Secrets for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileGrant>,
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

/// An entry of `volumes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mount {
    /// Where it stands.
    pub place: Option<Place>,
    /// What is shown.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, absolute.
    Bind {
        /// The path.
        path: PathBuf,
        /// Whether a missing directory is made first.
        create: bool,
    },
    /// A volume of [`Project::volumes`](crate::Project::volumes), by its key there.
    Volume {
        /// The key.
        name: String,
        /// Directory in the volume; `None`: its root.
        subpath: Option<String>,
        /// Whether a fresh volume stays empty rather than getting the image's files at the target.
        nocopy: bool,
    },
    /// A fresh volume of this container alone.
    Anonymous,
    /// The files of an image, read-only.
    Image {
        /// The image.
        image: Reference,
        /// Directory in the image; `None`: its root.
        subpath: Option<String>,
    },
}

/// A filesystem in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Size in bytes; `None`: the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: Option<u64>,
    /// Permission bits; `None`: 1777.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<u32>,
    /// Further mount options, as written (`uid=1000`, `noexec`).
    #[serde(skip_serializing_if = "is_default")]
    pub options: Vec<String>,
}

/// An entry of `configs` or `secrets`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FileGrant {
    /// Key in [`Project::configs`](crate::Project::configs) or [`Project::secrets`](crate::Project::secrets).
    pub source: String,
    /// Absolute path in the container: `/<source>`, or `/run/secrets/<source>` for secrets; in `build.secrets`, the id.
    pub target: String,
    /// Owner; `None`: the container's user.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: Option<u32>,
    /// Group; `None`: the container's user's.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: Option<u32>,
    /// Permission bits; `None`: 0444.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<u32>,
}

/// An entry of `depends_on`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dependency {
    /// The other service.
    pub service: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// What is awaited.
    pub condition: Condition,
    /// `false`: the service may be absent or fail.
    pub required: bool,
    /// Restart this service when the other was restarted on request.
    pub restart: bool,
}

/// What is awaited of a dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is started, and ready as [`Service::ready`] or its ports say.
    #[default]
    ServiceStarted,
    /// Its health check passes.
    ServiceHealthy,
    /// It ended with 0.
    ServiceCompletedSuccessfully,
}

/// `healthcheck`: what differs from the image's HEALTHCHECK.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `disable: true` or `test: NONE`: there is none, whatever the image says.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// As in an image config: `["CMD", …]` or `["CMD-SHELL", "…"]`; `None`: the image's.
    #[serde(skip_serializing_if = "is_default")]
    pub test: Option<Vec<String>>,
    /// Time between two attempts.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub interval: Option<Duration>,
    /// Time for one attempt.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    /// Failures in a row that mean unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
    /// Time after the start in which failures do not count.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub start_period: Option<Duration>,
    /// Time between attempts in the start period.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub start_interval: Option<Duration>,
}

/// `ready`: when a service counts as started. Every condition that is given has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Lines of the log.
    #[serde(skip_serializing_if = "is_default")]
    pub log: Option<ReadyLog>,
    /// An answer over HTTP.
    #[serde(skip_serializing_if = "is_default")]
    pub http: Option<ReadyHttp>,
    /// A TCP port that accepts.
    #[serde(skip_serializing_if = "is_default")]
    pub port: Option<u16>,
    /// A command in the container that ends with 0: `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(skip_serializing_if = "is_default")]
    pub command: Option<Vec<String>>,
    /// Longest time to wait; `None`: a default.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub timeout: Option<Duration>,
    /// Longest time between two attempts; `None`: a default.
    #[serde(serialize_with = "duration::serialize_option", skip_serializing_if = "is_default")]
    pub interval: Option<Duration>,
}

/// `ready.log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyLog {
    /// Regular expression (syntax of the crate `regex`) that is looked for in each line; it was checked to be valid.
    pub pattern: String,
    /// Number of lines that match.
    pub times: u32,
}

/// `ready.http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadyHttp {
    /// Port in the container; `None`: the first exposed one.
    pub port: Option<u16>,
    /// Path with query, beginning with `/`.
    pub path: String,
    /// Status that is expected: a number, or a class such as `2xx`. `None`: 200 to 399.
    pub status: Option<HttpStatus>,
    /// Regular expression (syntax of the crate `regex`) that is looked for in the body; it was checked to be valid.
    pub body: Option<String>,
}

/// Expected HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpStatus {
    /// Exactly this one.
    Exactly(u16),
    /// All with this first digit.
    Class(u8),
}

impl HttpStatus {
    /// Whether a status is expected.
    pub fn matches(self, status: u16) -> bool {
        match self {
            HttpStatus::Exactly(expected) => status == expected,
            HttpStatus::Class(class) => status / 100 == u16::from(class),
        }
    }
}

/// `tcp` or `udp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the container that other services may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ExposedPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A port of the container that is reached from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedPort {
    /// Where it stands.
    pub place: Option<Place>,
    /// Address on the host; `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host: HostPort,
    /// Port in the container.
    pub target: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// `name`.
    #[serde(skip_serializing_if = "is_default")]
    pub name: Option<String>,
    /// `app_protocol`.
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: Option<String>,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPort {
    /// Any free one.
    Any,
    /// This one.
    Port(u16),
    /// Any free one of these, both included.
    Range(u16, u16),
}

/// `network_mode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// The engine's default network.
    Bridge,
    /// The network of another service's container.
    Service(String),
    /// The network of a container that is not part of the project.
    Container(String),
}

/// An entry of `networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Key in [`Project::networks`](crate::Project::networks).
    pub network: String,
    /// Further names of the service there.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Fixed address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4: Option<Ipv4Addr>,
    /// Fixed address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: Option<Ipv6Addr>,
    /// The network with the highest one is connected first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i64,
    /// The network with the highest one gives the default route.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
}

/// An entry of `links`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The other service.
    pub service: String,
    /// Name under which it is reached; without one, the service's.
    pub alias: String,
}

/// The address of an `extra_hosts` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAddress {
    /// An address.
    Address(IpAddr),
    /// `host-gateway`: the host, as the container reaches it.
    HostGateway,
}

/// Names of resource limits (setrlimit(2), without `RLIMIT_`).
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// An entry of `ulimits`; `None` is unlimited (`-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// What applies.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
}

/// An entry of `devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Device node of the host, or the name of a CDI device.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// `logging`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// `driver`.
    pub driver: Option<String>,
    /// `options`.
    pub options: BTreeMap<String, String>,
}

/// An entry of `develop.watch`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchRule {
    /// Where it stands.
    pub place: Option<Place>,
    /// File or directory on the host, absolute.
    pub path: PathBuf,
    /// What is done about a change.
    pub action: WatchAction,
    /// Patterns as in `.dockerignore`, relative to `path`.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore: Vec<String>,
    /// Only what matches one of these; empty: everything.
    #[serde(skip_serializing_if = "is_default")]
    pub include: Vec<String>,
    /// Whether files are synchronised once at the start.
    #[serde(skip_serializing_if = "is_default")]
    pub initial_sync: bool,
}

/// What is done about a change; `target` is the absolute path in the container that `path` is copied to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchAction {
    /// The image is built again and the container replaced.
    Rebuild,
    /// The container is restarted.
    Restart,
    /// Files are copied into the container.
    Sync {
        /// Path in the container.
        target: String,
    },
    /// As `Sync`, then the container is restarted.
    SyncRestart {
        /// Path in the container.
        target: String,
    },
    /// As `Sync`, then a command runs in the container.
    SyncExec {
        /// Path in the container.
        target: String,
        /// The command.
        exec: Box<Hook>,
    },
}
