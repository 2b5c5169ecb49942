//! Start, watch and stop a process in a root filesystem: namespaces, cgroups, mounts, network.
//!
//! Knows nothing of images or pipelines. Synchronous. The one way to run a process is
//! [`Container::start`]; `main` calls [`run_if_reexecuted`] before any thread exists.

mod contract;
pub use contract::*;
