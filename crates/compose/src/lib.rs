//! Compose files as values: services, networks, volumes, every value resolved and every mistake with its place.
//!
//! Knows nothing of running: no engine, no network, no container. A [`Project`] is what files describe; its
//! [`Service`]s say all that a starter of containers needs. Reading YAML with places ([`yaml`], [`read`]) is shared with the
//! pipeline file.

mod assemble;
mod bytes;
pub mod codes;
pub mod dotenv;
pub mod duration;
mod files;
mod load;
mod merge;
mod parse;
mod project;
pub mod read;
mod replicas;
mod request;
pub mod schema;
mod service;
mod source;
pub mod template;
mod words;
pub mod yaml;

pub use files::{ReadError, find_files};
pub use project::{FileContent, FileSource, Network, Project, Subnet, Volume};
pub use read::At;
pub use replicas::Replicated;
pub use request::{LoadError, LoadRequest, Loaded, SECTION_KEYS, Sections, SectionsRead};
pub use service::*;
pub use source::{Finding, SourceText};

/// Keeps what nobody wrote out of printed values.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
