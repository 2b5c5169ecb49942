//! Dockerfile and context to an image in the store.
//!
//! Knows nothing of gates, services or engines other than the words in which a build is asked for. Synchronous: stages
//! are solved side by side on threads of their own. Start at [`build`]; [`setup`] runs commands on top of a root in the
//! same cached steps.

mod attributes;
mod base;
mod build;
mod content;
mod context;
mod copy;
mod emulation;
mod fetch;
mod former;
mod git;
mod layout;
mod metadata;
mod mounts;
mod plan;
mod process;
mod remote;
mod rights;
mod run;
mod settle;
mod setup;
mod shared;
mod ssh;
mod stage;
mod step;
mod tree;
mod variables;
mod work;

pub use base::{AdmitError, BaseError, BaseSource, resolve};
pub use build::{build, image_root, root_snapshot};
pub use fetch::{
    Download, DownloadError, Downloaded, Downloads, FetchError, FetchedContext, Version, fetch_context,
    looks_like_archive, unpack_context,
};
pub use process::{extra_hosts, rootfs, ulimits};
pub use setup::{bind_mounts, content_digest, memory_files, network, setup};
pub use shared::{
    Document, DocumentLayer, DocumentMount, DocumentStep, ExportBlob, ExportRequest, Exported, InvalidDocument,
    PlaceError, Shared, SharedPlace,
};
pub use work::Host;
