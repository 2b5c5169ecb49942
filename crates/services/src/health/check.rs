//! The check with its numbers filled in: from the file, else from the image, else docker's.

use std::time::Duration;

use compose::Healthcheck;
use engine::Root;

/// Docker's defaults (Dockerfile reference, HEALTHCHECK).
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const ATTEMPTS_DEFAULT: u32 = 3;
/// Whatever the file says, a container that needs longer is a hang.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// A health check with its numbers filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Arguments of the probe, and the text to show; `None` when there is no health check.
    pub command: Option<(Vec<String>, String)>,
    /// Longest time between two looks.
    pub interval: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// Time after the start in which failures do not count.
    pub start_period: Duration,
    /// Failures that mean unhealthy.
    pub attempts: u32,
}

impl Check {
    /// The image's HEALTHCHECK, with what the user's file says instead.
    pub fn of(root: &Root, given: &Healthcheck) -> Check {
        let config = &root.config.config;
        let image = config.healthcheck.clone().unwrap_or_default();
        let nanos = |value: u64| (value > 0).then(|| Duration::from_nanos(value));
        let test = given.test.as_ref().unwrap_or(&image.test);
        Check {
            command: if given.disabled { None } else { command(root, test) },
            interval: given
                .interval
                .or(nanos(image.interval))
                .unwrap_or(INTERVAL_DEFAULT)
                .max(Duration::from_millis(1)),
            timeout: given.timeout.or(nanos(image.timeout)).unwrap_or(TIMEOUT_DEFAULT),
            start_period: given.start_period.or(nanos(image.start_period)).unwrap_or_default(),
            attempts: given
                .retries
                .or(u32::try_from(image.retries).ok())
                .filter(|retries| *retries > 0)
                .unwrap_or(ATTEMPTS_DEFAULT),
        }
    }

    /// When to give up: as late as docker would, which probes at the end of each interval.
    pub fn patience(&self) -> Duration {
        (self.start_period + self.interval.saturating_mul(self.attempts)).min(WAIT_MAX)
    }

    /// The attempt that a moment belongs to. Probing early is ours and does not use up the user's attempts.
    pub fn attempt_at(&self, elapsed: Duration) -> u32 {
        let counted = elapsed.saturating_sub(self.start_period).as_nanos() / self.interval.as_nanos().max(1);
        u32::try_from(counted).unwrap_or(u32::MAX).saturating_add(1).min(self.attempts)
    }
}

/// Arguments and text of a command in the words of image configs; `None` for `NONE` and nothing.
pub(crate) fn command(root: &Root, test: &[String]) -> Option<(Vec<String>, String)> {
    match test.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some((rest.to_vec(), rest.join(" "))),
        Some((kind, [text, ..])) if kind == "CMD-SHELL" => {
            let shell: Vec<String> = match root.config.config.shell.as_slice() {
                [] => ["/bin/sh", "-c"].map(str::to_owned).into(),
                shell => shell.to_vec(),
            };
            Some((shell.into_iter().chain([text.clone()]).collect(), text.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_probes_do_not_use_up_attempts() {
        let check = Check {
            command: None,
            interval: Duration::from_secs(2),
            timeout: TIMEOUT_DEFAULT,
            start_period: Duration::from_secs(1),
            attempts: 10,
        };
        assert_eq!(check.patience(), Duration::from_secs(21));
        for (seconds, attempt) in [(0.1, 1), (0.9, 1), (2.9, 1), (3.1, 2), (19.5, 10), (21.0, 10), (99.0, 10)] {
            assert_eq!(check.attempt_at(Duration::from_secs_f64(seconds)), attempt, "{seconds}");
        }
    }
}
