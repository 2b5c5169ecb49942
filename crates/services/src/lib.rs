//! Service containers: order, readiness, links, snapshots.
//!
//! Knows nothing of gates and pipelines, nor of which engine starts containers. [`Services`] starts what is asked for with
//! all that it needs, awaits it, and stops it again; [`links`](fn@links) tells a container of others as docker's links do.
//! [`health`] awaits a HEALTHCHECK, also that of an image under test.

mod error;
pub mod health;
mod http;
mod image;
mod links;
mod log;
mod order;
mod ready;
mod set;
mod snapshot;
mod spec;
mod start;

pub use error::{ServiceError, ServiceFailure};
pub use links::{LinkTarget, links};
pub use log::{LogEnd, Logs, ServiceLog};
pub use order::{Unordered, needed};
pub use set::{NotUp, ServiceContext, ServiceOutcome, Services, Told};
pub use spec::{container_name, environment, workdir};
