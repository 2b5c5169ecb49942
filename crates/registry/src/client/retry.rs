//! Failures, and when to try again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::sleep;

use super::ClientOptions;
use crate::ErrorKind;

/// Repetitions when not even a connection comes about: more would make a machine without network wait for nothing.
const CONNECT_RETRIES_MAX: u32 = 2;

/// A failed attempt: what it was, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) is_transient: bool,
    pub(super) is_connect: bool,
    pub(super) retry_after: Option<Duration>,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        // Wrong content may come from a proxy's bad copy or a cut connection: asking again is worth it.
        let is_transient = matches!(kind, ErrorKind::Unreachable(_) | ErrorKind::WrongContent { .. });
        Self { kind, is_transient, is_connect: false, retry_after: None }
    }
}

/// Counts the repetitions of one operation and waits between them.
pub(super) struct Retries {
    done: u32,
    connects: u32,
    max: u32,
    wait: Duration,
    wait_max: Duration,
}

impl Retries {
    pub(super) fn new(options: &ClientOptions) -> Self {
        let ClientOptions { retries, retry_wait, retry_wait_max, .. } = *options;
        Self { done: 0, connects: 0, max: retries, wait: retry_wait, wait_max: retry_wait_max }
    }

    /// Waits before the next attempt, or gives the failure back when there is to be none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), ErrorKind> {
        self.connects += u32::from(failure.is_connect);
        let is_over = self.done >= self.max || self.connects > CONNECT_RETRIES_MAX;
        if !failure.is_transient || is_over || failure.retry_after.is_some_and(|wait| wait > self.wait_max) {
            return Err(failure.kind);
        }
        let doubled = self.wait.saturating_mul(1 << self.done.min(16)).min(self.wait_max);
        // Half fixed, half random, so that many clients do not come back together.
        let jitter = RandomState::new().hash_one(self.done) % 1024;
        let wait = doubled / 2 + doubled.mul_f64(jitter as f64 / 2048.0);
        self.done += 1;
        sleep(failure.retry_after.map_or(wait, |asked| asked.max(wait))).await;
        Ok(())
    }

    /// Forgets past failures: there was progress since.
    pub(super) fn reset(&mut self) {
        self.done = 0;
        self.connects = 0;
    }
}
