//! When a service is started and counts as ready: dependencies, health check, readiness.

use std::time::Duration;

use events::Place;
use serde::Serialize;

use crate::{duration, is_default};

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
    /// It is started, and ready as [`Service::ready`](super::Service::ready) or its ports say.
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
