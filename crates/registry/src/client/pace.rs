//! How many requests a host gets at the same time: fewer once it says that they are too many, more again while it is content.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Requests to one host that has not complained: what several pulls and pushes of one process ask for together.
const REQUESTS_MAX: usize = 64;

/// The pace of one host (additive increase, multiplicative decrease, as TCP has it).
pub(super) struct Pace {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    active: usize,
    limit: usize,
    /// Answers without a complaint since the limit last changed.
    content: usize,
    /// Nothing is asked before.
    closed_until: Option<Instant>,
    /// Complaints about requests of before say nothing new.
    slowed: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        let state = State { active: 0, limit: REQUESTS_MAX, content: 0, closed_until: None, slowed: None };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Pace {
    /// Waits until one more request may go out.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Heard from here on, so that nothing is missed between the look and the wait.
            changed.as_mut().enable();
            let closed_until = {
                let mut state = self.state();
                let now = Instant::now();
                match state.closed_until.filter(|until| *until > now) {
                    Some(until) => Some(until),
                    None if state.active < state.limit => {
                        state.active += 1;
                        return Slot { pace: Arc::clone(self), begun: now };
                    }
                    None => None,
                }
            };
            match closed_until {
                Some(until) => sleep_until(until).await,
                None => changed.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and the numbers are right at all times.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one request; it ends when this is dropped.
pub(super) struct Slot {
    pace: Arc<Pace>,
    begun: Instant,
}

impl Slot {
    /// The host answered without a complaint.
    pub(super) fn went_well(&self) {
        let mut state = self.pace.state();
        state.content += 1;
        if state.content >= state.limit && state.limit < REQUESTS_MAX {
            state.limit += 1;
            state.content = 0;
            drop(state);
            self.pace.changed.notify_waiters();
        }
    }

    /// The host said that these are too many requests, and perhaps for how long it wants none.
    pub(super) fn was_too_much(&self, pause: Option<Duration>) {
        let mut state = self.pace.state();
        let now = Instant::now();
        if state.slowed.is_none_or(|slowed| self.begun > slowed) {
            state.limit = (state.active.min(state.limit) / 2).max(1);
            (state.content, state.slowed) = (0, Some(now));
        }
        if let Some(pause) = pause {
            state.closed_until = state.closed_until.max(Some(now + pause));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pace.state().active -= 1;
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(pace: &Pace) -> usize {
        pace.state().limit
    }

    #[tokio::test(start_paused = true)]
    async fn a_complaint_halves_and_content_adds() {
        let pace = Arc::new(Pace::default());
        let mut slots = Vec::new();
        for _ in 0..32 {
            slots.push(pace.enter().await);
        }
        // One burst is one complaint.
        slots.iter().for_each(|slot| slot.was_too_much(None));
        assert_eq!(limit(&pace), 16);
        slots.clear();
        tokio::time::advance(Duration::from_millis(1)).await;
        let slot = pace.enter().await;
        slot.was_too_much(Some(Duration::from_secs(7)));
        assert_eq!(limit(&pace), 1);
        drop(slot);
        let begun = Instant::now();
        let slot = pace.enter().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
        // A second one waits for the first.
        let waiting = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move { drop(pace.enter().await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        slot.went_well();
        assert_eq!(limit(&pace), 2);
        waiting.await.unwrap();
        for _ in 0..10_000 {
            slot.went_well();
        }
        assert_eq!(limit(&pace), REQUESTS_MAX);
    }
}
