//! Service containers: order, readiness, links, snapshots.
//!
//! Knows nothing of gates and pipelines, nor of which engine starts containers. [`Services`] starts what is asked for with
//! all that it needs, awaits it, and stops it again; a [`Solution`] keeps them for somebody who works with them; [`links`](fn@links) tells a container of others as docker's links do.
//! [`health`] awaits a HEALTHCHECK, also that of an image under test.

mod error;
mod hash;
pub mod health;
mod http;
mod image;
mod links;
mod log;
mod order;
mod ready;
mod restart;
mod set;
mod snapshot;
mod solution;
mod spec;
mod start;
mod up;

pub use error::{ServiceError, ServiceFailure};
pub use links::{LinkTarget, links};
pub use log::{LogEnd, Logs, ServiceLog};
pub use order::{Unordered, needed};
pub use set::{AllowedDevices, NotUp, Purpose, ServiceContext, ServiceOutcome, Services, Told};
pub use solution::{Change, Inside, Instance, Recreate, Solution, Step, UpRequest};
pub use spec::{check, container_name, environment, workdir};
pub use up::{Health, State, Status};
