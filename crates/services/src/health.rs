//! Awaiting a health check: docker's rules of when to give up, with looks that begin at once.

mod check;
mod watch;

pub use check::Check;
pub use watch::{Attempt, Healthy, Look, SETTLE, Seen, Watch, is_healthy};

pub(crate) use check::command;
pub(crate) use watch::probe;
