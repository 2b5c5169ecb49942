//! Proves that the check can fail and that the container ends when it is asked to (`health.prove`).

use std::time::Duration;

use engine::{EngineError, Exit};
use oci::signal;
use services::health::{Look, Seen, Watch, is_healthy};
use tokio::time::Instant;

/// A check that has not answered by then does not say healthy, whatever time it is given otherwise.
const FROZEN_ANSWER_MAX: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;

/// What the proof found out.
pub(super) enum Proof {
    /// It holds.
    Holds {
        /// From the signal to the end.
        ended_after: Duration,
    },
    /// It does not hold.
    Fails { exit: Exit, reason: String, hint: &'static str, output: String },
    /// Something else came in between.
    Over(Seen),
}

/// Freezes the container and expects the check to fail; lets it run and expects that it ends within `grace` of the signal.
pub(super) async fn prove(watch: Watch<'_>, signal: i32, grace: Duration) -> Result<Proof, EngineError> {
    watch.container.freeze(true).await?;
    let looked = watch.look_at(Instant::now(), watch.check.timeout.min(FROZEN_ANSWER_MAX)).await;
    watch.container.freeze(false).await?;
    match looked? {
        Look::Over(seen) => return Ok(Proof::Over(seen)),
        Look::Answer(exit, output) if is_healthy(&exit) => {
            return Ok(Proof::Fails {
                exit,
                reason: "the health check says healthy although the process is frozen".into(),
                hint: "check what only a working process can answer, such as an HTTP request with a time limit: an open \
                       port, a pid file or a process that exists prove nothing",
                output,
            });
        }
        Look::Answer(..) => {}
    }
    let asked = Instant::now();
    let exit = watch.container.stop(signal, grace).await?;
    if exit.signal == Some(SIGKILL) {
        let name = signal::name(signal);
        let reason = if exit.out_of_memory {
            format!("was out of memory after {name}")
        } else if asked.elapsed() < grace {
            format!("does not hear {name}")
        } else {
            format!("did not end within {} of {name}", crate::duration::human(grace))
        };
        return Ok(Proof::Fails {
            exit,
            reason,
            hint: "process 1 gets no signal that it does not handle: start the program itself (CMD as a list, or `exec` in \
                   the start script) and let it handle the signal",
            output: String::new(),
        });
    }
    Ok(Proof::Holds { ended_after: asked.elapsed() })
}
