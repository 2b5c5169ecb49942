//! Limits of a service, devices of the host, and where its log goes.

use std::collections::BTreeMap;

use serde::Serialize;

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
