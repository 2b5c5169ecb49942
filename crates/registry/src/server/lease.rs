//! Who relies on which content now. Pushes hold what they rely on; garbage collection claims what it takes away; one never
//! meets the other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use oci::Digest;

/// The leases of a running server.
#[derive(Debug, Default)]
pub(super) struct Leases {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: HashMap<Digest, Use>,
    /// What was linked or referred to since the running collection began; `None` while none runs.
    since: Option<HashSet<Digest>>,
}

#[derive(Debug)]
enum Use {
    /// By so many requests.
    Held(usize),
    Claimed,
}

impl Leases {
    /// Holds all of these; waits while one of them is being taken away.
    pub(super) fn hold<'a>(&'a self, digests: impl IntoIterator<Item = &'a Digest>) -> Held<'a> {
        let mut wanted: Vec<Digest> = digests.into_iter().cloned().collect();
        wanted.sort();
        wanted.dedup();
        let mut state = self.lock();
        // All at once or none: nobody waits with a part of what is wanted in hand.
        while wanted.iter().any(|digest| matches!(state.used.get(digest), Some(Use::Claimed))) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        for digest in &wanted {
            match state.used.entry(digest.clone()).or_insert(Use::Held(0)) {
                Use::Held(count) => *count += 1,
                Use::Claimed => unreachable!("waited until nothing wanted is claimed"),
            }
        }
        Held { leases: self, digests: wanted }
    }

    /// Claims content to change what names it: waits for those who hold it, and lets nobody else in.
    pub(super) fn claim<'a>(&'a self, digest: &Digest) -> Claim<'a> {
        let mut state = self.lock();
        while state.used.contains_key(digest) {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.used.insert(digest.clone(), Use::Claimed);
        Claim { leases: self, digest: digest.clone() }
    }

    /// Claims content to take it away, unless somebody holds it, or linked or referred to it since the collection began.
    pub(super) fn claim_unused<'a>(&'a self, digest: &Digest) -> Option<Claim<'a>> {
        let mut state = self.lock();
        let is_news = state.since.as_ref().is_some_and(|since| since.contains(digest));
        if is_news || state.used.contains_key(digest) {
            return None;
        }
        state.used.insert(digest.clone(), Use::Claimed);
        Some(Claim { leases: self, digest: digest.clone() })
    }

    /// From now until the end, everything that is linked or referred to is noted.
    pub(super) fn begin_collection(&self) {
        self.lock().since = Some(HashSet::new());
    }

    /// The notes are dropped.
    pub(super) fn end_collection(&self) {
        self.lock().since = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Content that stays while this lives.
#[derive(Debug)]
pub(super) struct Held<'a> {
    leases: &'a Leases,
    digests: Vec<Digest>,
}

impl Held<'_> {
    /// All of it is linked or referred to now: a collection that runs must know.
    pub(super) fn note(&self) {
        if let Some(since) = &mut self.leases.lock().since {
            since.extend(self.digests.iter().cloned());
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.leases.lock();
        for digest in &self.digests {
            match state.used.get_mut(digest) {
                Some(Use::Held(count)) if *count > 1 => *count -= 1,
                _ => drop(state.used.remove(digest)),
            }
        }
        self.leases.freed.notify_all();
    }
}

/// Content that nobody else can rely on while this lives.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    leases: &'a Leases,
    digest: Digest,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.leases.lock().used.remove(&self.digest);
        self.leases.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_cannot_be_taken_away() {
        let (leases, digest) = (Leases::default(), Digest::of(b"x"));
        let (one, two) = (leases.hold([&digest]), leases.hold([&digest, &digest]));
        assert!(leases.claim_unused(&digest).is_none());
        drop(one);
        assert!(leases.claim_unused(&digest).is_none());
        drop(two);
        assert!(leases.claim_unused(&digest).is_some());
    }

    #[test]
    fn what_was_noted_since_a_collection_began_stays() {
        let (leases, digest) = (Leases::default(), Digest::of(b"x"));
        leases.hold([&digest]).note();
        leases.begin_collection();
        assert!(leases.claim_unused(&digest).is_some());
        leases.hold([&digest]).note();
        assert!(leases.claim_unused(&digest).is_none());
        leases.end_collection();
        assert!(leases.claim_unused(&digest).is_some());
    }

    #[test]
    fn whoever_wants_what_is_being_taken_waits_for_the_end() {
        let (leases, digest) = (Leases::default(), Digest::of(b"x"));
        let claim = leases.claim_unused(&digest).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(leases.hold([&digest])));
            drop(claim);
            waiting.join().unwrap();
        });
    }
}
