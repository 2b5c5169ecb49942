//! Start, watch and stop a process in a root filesystem: namespaces, cgroups, mounts, network.
//!
//! Knows nothing of images or pipelines. Synchronous. The one way to run a process is [`Container::start`]; `main` calls
//! [`run_if_reexecuted`] before any thread exists, [`enter`] before containers are started, and [`leave`] at its end.
//!
//! Three processes make a container: the engine (this library in the caller's process), a single-threaded *helper*
//! (`helper`), and the container's first process (`helper::inside`). They talk through `protocol`. Helpers are forked by the
//! *zygote* (`zygote`), which is our own program started again.
#![allow(unsafe_code, reason = "system calls without a safe wrapper; each block says why it is sound")]

mod bundle;
mod caps;
mod cgroup;
mod checks;
mod child;
mod container;
mod devices;
mod emulation;
mod enter;
mod error;
mod files;
mod freeze;
mod helper;
mod overlay;
mod ports;
mod protocol;
mod rlimits;
mod seccomp;
mod signals;
mod spec;
mod sys;
mod sysctls;
mod zygote;

pub use caps::UnknownCapability;
pub use checks::{HostCheck, host_checks};
pub use child::die_with_parent;
pub use container::{Container, Exec, sweep_container};
pub use emulation::{Emulation, emulated_architectures, emulation, is_dynamic};
pub use enter::{Privilege, enter};
pub use error::{EnterError, MountError, StartError, WaitError};
pub use files::FileChange;
pub use helper::run_if_reexecuted;
pub use overlay::{Overlay, overlay_works};
pub use spec::{
    ContainerSpec, Device, Exit, FileContent, Limits, Mount, MountKind, Network, PrivateNetwork, ProcessSpec, Rootfs,
    Stdio, Ulimit,
};
pub use sys::new_network_namespace;
pub use zygote::leave;
