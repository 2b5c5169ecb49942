//! Compose files as values: services, networks, volumes, every value resolved and every mistake with its place.
//!
//! Knows nothing of running: no engine, no network, no container. A [`Project`] is what files describe; its
//! [`Service`]s say all that a starter of containers needs. Reading YAML with places ([`yaml`], [`read`]) is shared with the
//! pipeline file.

pub mod codes;
pub mod duration;
mod project;
pub mod read;
mod schema;
mod service;
pub mod yaml;

pub use project::{FileContent, FileSource, Network, Project, Subnet, Volume};
pub use read::At;
pub use service::*;

/// Keeps what nobody wrote out of printed values.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
