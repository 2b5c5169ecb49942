//! The story of a run: build, gates and health side by side with sealing and upload, verdict, tags, push.

use crate::{Outcome, Plan, RunContext, RunError, RunOptions};

/// Does what the plan says, as far as the options ask for it. Everything that was started has ended when this returns,
/// on every path.
///
/// # Errors
/// We could not find out: see [`RunError`]. A failing step, gate or health check is an [`Outcome`].
pub async fn run(cx: RunContext<'_>, plan: &Plan, options: &RunOptions) -> Result<Outcome, RunError> {
    let _ = (cx, plan, options);
    Err(RunError::Cancelled)
}
