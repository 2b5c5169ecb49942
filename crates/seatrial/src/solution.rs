//! Solutions: the services of a project, kept up by a process of their own that commands talk to.
//!
//! There is no daemon. The first `up` of a project starts its owner, which holds the containers, their network and the restart
//! policies, and ends with them. Commands find it by a socket in the store. When it was killed, the kernel has ended the
//! containers with it, and the next command sweeps the rest.

pub(crate) mod client;
pub(crate) mod logs;
pub(crate) mod owner;
pub(crate) mod place;
pub(crate) mod protocol;
pub(crate) mod source;
mod told;
