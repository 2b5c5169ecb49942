//! Looks at a started container until it is healthy, or will not be; and on, for as long as others still work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::{Cancel, Container, EngineError, ExecSpec, Exit, OutputSink, Stdio};
use events::Event;
use tokio::time::Instant;

use super::check::{Check, WAIT_MAX};
use crate::RunContext;

/// The first look; most services are up within a second.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// A healthy container is looked at less often, so that gates have the processors.
const WATCH_GAP_MIN: Duration = Duration::from_secs(1);
/// Without a HEALTHCHECK: a container that survives this counts as started.
pub(super) const SETTLE: Duration = Duration::from_secs(1);
/// A probe's output is for people.
const PROBE_OUTPUT_BYTES_MAX: usize = 4096;

/// What the watching found out.
pub(super) enum Seen {
    Healthy(Healthy),
    Alive,
    Unhealthy {
        exit: Exit,
        reason: String,
        output: String,
    },
    Ended(Exit),
    /// It ended after it had been healthy.
    Died(Exit, Healthy),
    Cancelled,
}

/// It was healthy, and how that went on.
#[derive(Clone, Copy)]
pub(super) struct Healthy {
    /// From 1.
    pub(super) attempt: u32,
    /// From the start.
    pub(super) after: Duration,
    /// How often it was unhealthy again.
    pub(super) flaps: u32,
}

/// One answer of the check.
pub(super) enum Look {
    Answer(Exit, String),
    /// Nothing more is to be learned from probing.
    Over(Seen),
}

/// A container with its check.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) cx: RunContext<'a>,
    pub(super) container: &'a dyn Container,
    pub(super) check: &'a Check,
    pub(super) exec: &'a ExecSpec,
}

impl Watch<'_> {
    /// Without a HEALTHCHECK.
    pub(super) async fn start(self) -> Result<Seen, EngineError> {
        tokio::select! {
            biased;
            exit = self.container.wait() => exit.map(Seen::Ended),
            () = self.cx.cancel.cancelled() => Ok(Seen::Cancelled),
            () = tokio::time::sleep(SETTLE) => Ok(Seen::Alive),
        }
    }

    /// Probes with growing gaps until healthy, or until docker would have given up.
    pub(super) async fn until_healthy(self) -> Result<Seen, EngineError> {
        let check = self.check;
        let start = Instant::now();
        let deadline = start + check.patience();
        let mut gap = FIRST_GAP.min(check.interval);
        let mut probes: u32 = 0;
        let mut next = start + gap;
        loop {
            let (exit, output) = match self.look_at(next, check.timeout).await? {
                Look::Answer(exit, output) => (exit, output),
                Look::Over(seen) => return Ok(seen),
            };
            probes = probes.saturating_add(1);
            let attempt = check.attempt_at(start.elapsed());
            self.tell(attempt, &exit, &output);
            if is_healthy(&exit) {
                return Ok(Seen::Healthy(Healthy { attempt, after: start.elapsed(), flaps: 0 }));
            }
            if Instant::now() >= deadline && (probes >= check.attempts || start.elapsed() >= WAIT_MAX) {
                let reason = match exit.timed_out {
                    true => format!("not healthy in {} attempts: the last one took too long", check.attempts),
                    false => format!("not healthy in {} attempts", check.attempts),
                };
                return Ok(Seen::Unhealthy { exit, reason, output });
            }
            // Half as long again each time: at most a third of the time to healthy is waited too long.
            gap = (gap.saturating_mul(3) / 2).min(check.interval);
            let soon = Instant::now() + gap;
            // The last look is at the very end of the patience.
            next = if Instant::now() < deadline { soon.min(deadline) } else { soon };
        }
    }

    /// Goes on looking at a healthy container until `ended`. It is unhealthy again when docker would say so: after as many
    /// failures in a row as there are attempts.
    pub(super) async fn while_healthy(self, mut healthy: Healthy, ended: &Cancel) -> Result<Seen, EngineError> {
        let gap = self.check.interval.max(WATCH_GAP_MIN);
        let mut failures: u32 = 0;
        loop {
            let looked = tokio::select! {
                biased;
                () = ended.cancelled() => return Ok(Seen::Healthy(healthy)),
                looked = self.look_at(Instant::now() + gap, self.check.timeout) => looked?,
            };
            let (exit, output) = match looked {
                Look::Answer(exit, output) => (exit, output),
                // A job that has done its work is no failure.
                Look::Over(Seen::Ended(exit)) if exit == Exit::default() => return Ok(Seen::Healthy(healthy)),
                Look::Over(Seen::Ended(exit)) => return Ok(Seen::Died(exit, healthy)),
                Look::Over(seen) => return Ok(seen),
            };
            self.tell(healthy.attempt, &exit, &output);
            if is_healthy(&exit) {
                failures = 0;
                continue;
            }
            failures += 1;
            healthy.flaps += u32::from(failures == 1);
            if failures >= self.check.attempts {
                let reason = format!("unhealthy again after {failures} failures in a row");
                return Ok(Seen::Unhealthy { exit, reason, output });
            }
        }
    }

    /// One probe at the given moment.
    pub(super) async fn look_at(self, moment: Instant, timeout: Duration) -> Result<Look, EngineError> {
        let probe = async {
            tokio::time::sleep_until(moment).await;
            let output: Arc<Mutex<Vec<u8>>> = Arc::default();
            let stdio = Stdio::Sink(bounded(Arc::clone(&output)));
            let exit = self.container.exec(ExecSpec { stdio, timeout: Some(timeout), ..self.exec.clone() }).await;
            let bytes = output.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (exit, String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        let (exit, output) = tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => return Ok(Look::Over(Seen::Cancelled)),
            exit = self.container.wait() => return exit.map(|exit| Look::Over(Seen::Ended(exit))),
            probed = probe => probed,
        };
        match exit {
            Ok(exit) => Ok(Look::Answer(exit, output)),
            // The program of the probe is missing in the image: it never gets better.
            Err(error) if error.command_code.is_some() => {
                let exit = Exit { code: error.command_code.unwrap_or(127), ..Exit::default() };
                let reason = "the health check's program cannot be started".to_owned();
                Ok(Look::Over(Seen::Unhealthy { exit, reason, output: error.with_causes() }))
            }
            // The container may have ended under the probe: that tells more than the probe's error.
            Err(error) => match tokio::time::timeout(SETTLE, self.container.wait()).await {
                Ok(Ok(exit)) => Ok(Look::Over(Seen::Ended(exit))),
                _ => Err(error),
            },
        }
    }

    fn tell(self, attempt: u32, exit: &Exit, output: &str) {
        self.cx.events.emit(Event::HealthAttempt {
            attempt,
            attempts: self.check.attempts,
            exit_code: exit.code,
            output: output.to_owned(),
        });
    }
}

pub(super) fn is_healthy(exit: &Exit) -> bool {
    exit.code == 0 && !exit.timed_out
}

fn bounded(output: Arc<Mutex<Vec<u8>>>) -> OutputSink {
    Arc::new(move |bytes| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = PROBE_OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    })
}
