//! Failures, and when to try again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::ClientOptions;
use crate::ErrorKind;

/// Repetitions when not even a connection comes about: more would make a machine without network wait for nothing.
const CONNECT_RETRIES_MAX: u32 = 2;

/// Repetitions after "too many requests": others get through meanwhile, so that this is waiting rather than failing.
const LIMITED_RETRIES_MAX: u32 = 40;
/// Longest time of such waiting for one request.
const LIMITED_WAIT_MAX: Duration = Duration::from_secs(300);

/// A failed attempt: what it was, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) is_transient: bool,
    pub(super) is_connect: bool,
    pub(super) retry_after: Option<Duration>,
    /// The host wants fewer requests: 429, or 503 with a time to come back at.
    pub(super) is_limited: bool,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        // Wrong content may come from a proxy's bad copy or a cut connection: asking again is worth it.
        let is_transient = matches!(kind, ErrorKind::Unreachable(_) | ErrorKind::WrongContent { .. });
        Self { kind, is_transient, is_connect: false, retry_after: None, is_limited: false }
    }
}

/// Counts the repetitions of one operation and waits between them.
pub(super) struct Retries {
    done: u32,
    connects: u32,
    limited: u32,
    limited_since: Option<Instant>,
    max: u32,
    wait: Duration,
    wait_max: Duration,
}

impl Retries {
    pub(super) fn new(options: &ClientOptions) -> Self {
        let ClientOptions { retries, retry_wait, retry_wait_max, .. } = *options;
        let (wait, wait_max) = (retry_wait, retry_wait_max);
        Self { done: 0, connects: 0, limited: 0, limited_since: None, max: retries, wait, wait_max }
    }

    /// Waits before the next attempt, or gives the failure back when there is to be none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), ErrorKind> {
        let is_over = if failure.is_limited {
            let since = self.limited_since.get_or_insert_with(Instant::now);
            self.max == 0 || self.limited >= LIMITED_RETRIES_MAX || since.elapsed() > LIMITED_WAIT_MAX
        } else {
            self.connects += u32::from(failure.is_connect);
            self.done >= self.max || self.connects > CONNECT_RETRIES_MAX
        };
        if !failure.is_transient || is_over || failure.retry_after.is_some_and(|wait| wait > self.wait_max) {
            return Err(failure.kind);
        }
        let count = if failure.is_limited { &mut self.limited } else { &mut self.done };
        // They stay short, because the host gets fewer requests anyhow and says itself when it wants none.
        let doublings = if failure.is_limited { (*count).min(6) } else { (*count).min(16) };
        let doubled = self.wait.saturating_mul(1 << doublings).min(self.wait_max);
        // Half fixed, half random, so that many clients do not come back together.
        let jitter = RandomState::new().hash_one(*count) % 1024;
        let wait = doubled / 2 + doubled.mul_f64(jitter as f64 / 2048.0);
        *count += 1;
        sleep(failure.retry_after.map_or(wait, |asked| asked.max(wait))).await;
        Ok(())
    }

    /// Forgets past failures: there was progress since.
    pub(super) fn reset(&mut self) {
        (self.done, self.connects) = (0, 0);
        (self.limited, self.limited_since) = (0, None);
    }
}
