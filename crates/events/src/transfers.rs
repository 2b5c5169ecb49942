//! Bytes on the move, told at a rate that a person can follow, with how fast they are and what of them was there already.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{Event, EventSink};

/// Ten times a second for each item.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The rate is that of the last seconds, so that a stall shows.
const WINDOW: Duration = Duration::from_secs(3);
/// Less than this says nothing about a rate.
const WINDOW_MIN: Duration = Duration::from_millis(250);

/// Transfers of one stage: emits [`Event::Transfer`] and adds up.
pub struct Transfers {
    events: EventSink,
    stage: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    items: HashMap<String, Item>,
    moved: Moved,
    /// What was moved in all at these times.
    window: VecDeque<(Instant, u64)>,
}

#[derive(Default)]
struct Item {
    /// Counted so far: what was there, and what came.
    done_bytes: u64,
    told: Option<Instant>,
}

/// What a stage moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that went over the network, each once.
    pub bytes: u64,
    /// Bytes that were there already.
    pub present_bytes: u64,
    /// Items of which nothing had to be moved.
    pub present: usize,
}

impl Transfers {
    /// Of one stage.
    pub fn new(events: &EventSink, stage: &str) -> Self {
        Self { events: events.clone(), stage: stage.to_owned(), state: Mutex::default() }
    }

    /// So many bytes of an item are there already and are not moved.
    pub fn skip(&self, item: &str, bytes: u64, total_bytes: u64) {
        let mut state = self.state();
        let known = state.items.entry(item.to_owned()).or_default();
        let new_bytes = bytes.saturating_sub(known.done_bytes);
        known.done_bytes += new_bytes;
        state.moved.present_bytes += new_bytes;
        state.moved.present += usize::from(bytes >= total_bytes);
    }

    /// So much of an item is through.
    pub fn advance(&self, item: &str, done_bytes: u64, total_bytes: Option<u64>) {
        let now = Instant::now();
        let mut state = self.state();
        let known = state.items.entry(item.to_owned()).or_default();
        // What is sent again after a broken connection is no progress.
        let new_bytes = done_bytes.saturating_sub(known.done_bytes);
        known.done_bytes += new_bytes;
        let is_due = known.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        let is_done = total_bytes == Some(done_bytes);
        if is_due || is_done {
            known.told = Some(now);
        }
        state.moved.bytes += new_bytes;
        if !is_due && !is_done {
            return;
        }
        let rate = state.rate(now);
        drop(state);
        self.events.emit(Event::Transfer {
            stage: self.stage.clone(),
            item: item.to_owned(),
            done_bytes,
            total_bytes,
            rate,
        });
    }

    /// What was moved so far.
    pub fn moved(&self) -> Moved {
        self.state().moved
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Bytes a second in the last seconds.
    fn rate(&mut self, now: Instant) -> Option<u64> {
        self.window.push_back((now, self.moved.bytes));
        while self.window.len() > 2 && self.window.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.window.pop_front();
        }
        let (begun, before) = *self.window.front()?;
        let took = now.duration_since(begun);
        (took >= WINDOW_MIN).then(|| ((self.moved.bytes - before) as f64 / took.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_counts_once_and_what_was_there_is_told_apart() {
        let transfers = Transfers::new(&EventSink::silent(), "pull");
        transfers.advance("a", 100, Some(400));
        transfers.advance("a", 300, Some(400));
        // The connection broke, and a part came again.
        transfers.advance("a", 200, Some(400));
        transfers.advance("a", 400, Some(400));
        transfers.skip("b", 50, 80);
        transfers.advance("b", 50, Some(80));
        transfers.advance("b", 80, Some(80));
        transfers.skip("c", 10, 10);
        transfers.advance("c", 10, Some(10));
        assert_eq!(transfers.moved(), Moved { bytes: 430, present_bytes: 60, present: 1 });
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut state = State::default();
        let begun = Instant::now();
        let mut at = |seconds: f64, bytes| {
            state.moved.bytes = bytes;
            state.rate(begun + Duration::from_secs_f64(seconds))
        };
        assert_eq!(at(0.0, 0), None);
        assert_eq!(at(0.1, 1000), None);
        assert_eq!(at(1.0, 1000), Some(1000));
        assert_eq!(at(2.0, 4000), Some(2000));
        // A stall of five seconds.
        assert_eq!(at(7.0, 4000), Some(0));
    }
}
