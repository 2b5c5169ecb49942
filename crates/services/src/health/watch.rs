//! Looks at a started container until it is healthy, or will not be; and on, for as long as others still work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::{Cancel, Container, EngineError, ExecSpec, Exit, OutputSink, Stdio};
use tokio::time::Instant;

use super::check::{Check, WAIT_MAX};

/// The first look; most services are up within a second.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// A healthy container is looked at less often, so that gates have the processors.
const WATCH_GAP_MIN: Duration = Duration::from_secs(1);
/// Without a HEALTHCHECK: a container that survives this counts as started.
pub const SETTLE: Duration = Duration::from_secs(1);
/// A probe's output is for people.
const PROBE_OUTPUT_BYTES_MAX: usize = 4096;

/// What the watching found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The check said healthy.
    Healthy(Healthy),
    /// It survived the first moment.
    Alive,
    /// Docker would call it unhealthy.
    Unhealthy {
        /// How the last probe ended.
        exit: Exit,
        /// In words: `not healthy in 3 attempts`.
        reason: String,
        /// What the probe said.
        output: String,
    },
    /// The container ended.
    Ended(Exit),
    /// It ended after it had been healthy.
    Died(Exit, Healthy),
    /// It was cancelled.
    Cancelled,
}

/// It was healthy, and how that went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healthy {
    /// From 1.
    pub attempt: u32,
    /// From the start.
    pub after: Duration,
    /// How often it was unhealthy again.
    pub flaps: u32,
}

/// One answer of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// How the probe ended, and what it said.
    Answer(Exit, String),
    /// Nothing more is to be learned from probing.
    Over(Seen),
}

/// An answer of the check, as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// From 1; several looks may belong to one.
    pub attempt: u32,
    /// Of how many.
    pub attempts: u32,
    /// How the probe ended.
    pub exit: &'a Exit,
    /// What it said, cut.
    pub output: &'a str,
}

/// A container with its check.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// The container.
    pub container: &'a dyn Container,
    /// Its check.
    pub check: &'a Check,
    /// The probe's user, environment and directory. The program is the check's.
    pub exec: &'a ExecSpec,
    /// Stops the watching.
    pub cancel: &'a Cancel,
    /// Who hears of each look.
    pub told: &'a (dyn Fn(Attempt<'_>) + Sync),
}

impl Watch<'_> {
    /// Without a HEALTHCHECK.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn start(self) -> Result<Seen, EngineError> {
        tokio::select! {
            biased;
            exit = self.container.wait() => exit.map(Seen::Ended),
            () = self.cancel.cancelled() => Ok(Seen::Cancelled),
            () = tokio::time::sleep(SETTLE) => Ok(Seen::Alive),
        }
    }

    /// Probes with growing gaps until healthy, or until docker would have given up.
    ///
    /// # Errors
    /// The engine failed while the container still runs.
    pub async fn until_healthy(self) -> Result<Seen, EngineError> {
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
                    true => {
                        let longest = compose::duration::human(check.timeout);
                        format!("not healthy in {} attempts: the last one took longer than {longest}", check.attempts)
                    }
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
    ///
    /// # Errors
    /// The engine failed while the container still runs.
    pub async fn while_healthy(self, mut healthy: Healthy, ended: &Cancel) -> Result<Seen, EngineError> {
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
    ///
    /// # Errors
    /// The engine failed while the container still runs.
    pub async fn look_at(self, moment: Instant, timeout: Duration) -> Result<Look, EngineError> {
        let probe = async {
            tokio::time::sleep_until(moment).await;
            let args = self.check.command.as_ref().map(|(args, _)| args.clone()).unwrap_or_default();
            probe(self.container, ExecSpec { args, timeout: Some(timeout), ..self.exec.clone() }).await
        };
        let probed = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Ok(Look::Over(Seen::Cancelled)),
            exit = self.container.wait() => return exit.map(|exit| Look::Over(Seen::Ended(exit))),
            probed = probe => probed,
        };
        match probed {
            Ok((exit, output)) => Ok(Look::Answer(exit, output)),
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
        (self.told)(Attempt { attempt, attempts: self.check.attempts, exit, output });
    }
}

/// Whether a probe that ended so says healthy.
pub fn is_healthy(exit: &Exit) -> bool {
    exit.code == 0 && !exit.timed_out
}

/// Runs a probe to its end; its output, cut.
pub(crate) async fn probe(container: &dyn Container, spec: ExecSpec) -> Result<(Exit, String), EngineError> {
    let output: Arc<Mutex<Vec<u8>>> = Arc::default();
    let exit = container.exec(ExecSpec { stdio: Stdio::Sink(bounded(Arc::clone(&output))), ..spec }).await?;
    let bytes = output.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((exit, String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

fn bounded(output: Arc<Mutex<Vec<u8>>>) -> OutputSink {
    Arc::new(move |bytes| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = PROBE_OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    })
}
