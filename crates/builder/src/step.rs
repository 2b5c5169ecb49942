//! Cached steps: the parts of a key, looking a step up, making it. Why it was not found is [`crate::former`]'s to tell.

use std::time::Instant;

use engine::BuildError;
use events::{Cause, Event, EventSink, Place};
use oci::{Digest, Hasher};
use store::{CacheRecord, SnapshotId, Store};

use crate::{
    former::Chain,
    work::{During as _, Host, Tally},
};

/// Raised when steps are made differently, so that older results are not taken for them.
const RECIPE: &str = "1";
/// The part of a key that holds [`RECIPE`].
pub(crate) const RECIPE_PART: &str = "recipe";
/// The part of a key that stands for the file system below.
pub(crate) const EARLIER: &str = "earlier step";

/// What a step's result depends on, in the order in which differences are worth telling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key {
    pub(crate) parts: Vec<(String, String)>,
}

impl Key {
    /// A key on top of the file system that `parent` names.
    pub(crate) fn new(parent: &Digest) -> Self {
        let mut key = Self::default();
        key.add(RECIPE_PART, RECIPE);
        key.add(EARLIER, parent.to_string());
        key
    }

    pub(crate) fn add(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.parts.push((what.into(), value.into()));
    }

    pub(crate) fn digest(&self) -> Digest {
        digest_of(self.parts.iter().flat_map(|(what, value)| [what.as_bytes(), value.as_bytes()]))
    }
}

/// Digest of a list of values; each is led by its length, so that no two lists look alike.
pub(crate) fn digest_of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = Hasher::new();
    for value in values {
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value);
    }
    hasher.finish()
}

/// How a step is shown and remembered.
#[derive(Clone, Debug)]
pub(crate) struct StepInfo {
    /// The stage id of events.
    pub(crate) stage: String,
    pub(crate) text: String,
    pub(crate) place: Option<Place>,
    /// Position in its chain, for comparing with its former self.
    pub(crate) number: usize,
}

/// A file system after a step.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    /// Digest that stands for the content: the key of the step that made it.
    pub(crate) key: Digest,
    /// Snapshots, bottom first.
    pub(crate) layers: Vec<SnapshotId>,
}

impl Layers {
    pub(crate) fn top(&self) -> Option<&SnapshotId> {
        self.layers.last()
    }
}

/// A step that is being made.
pub(crate) struct Running<'a> {
    pub(crate) stage: &'a str,
    pub(crate) step: u64,
    pub(crate) events: &'a EventSink,
    /// The key of this step's latest result, if it was made before.
    pub(crate) former: Option<&'a CacheRecord>,
}

impl Running<'_> {
    /// A line of output.
    pub(crate) fn log(&self, line: String) {
        self.events.emit(Event::StepLog { stage: self.stage.to_owned(), step: self.step, line });
    }

    pub(crate) fn warn(&self, message: String, place: Option<&Place>) {
        self.events.emit(Event::Warning { message, place: place.cloned() });
    }
}

/// What making a step gave: a new snapshot, or nothing when the file system stays as it is.
pub(crate) struct Made {
    pub(crate) snapshot: Option<SnapshotId>,
    /// Anything that a later build wants to know about it.
    pub(crate) result: Option<serde_json::Value>,
}

impl Made {
    pub(crate) fn layer(snapshot: SnapshotId) -> Self {
        Self { snapshot: Some(snapshot), result: None }
    }
}

/// Whether the step made a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Layer,
    Nothing,
}

/// Where steps are looked up and counted.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) events: &'a EventSink,
    pub(crate) tally: &'a Tally,
    pub(crate) chain: &'a Chain,
}

impl Steps<'_> {
    /// Takes the step from the cache, or makes it and records it. `state` becomes the file system after it. `cache_off` is
    /// the flag that forbids the cache.
    pub(crate) fn run(
        &self,
        state: &mut Layers,
        info: &StepInfo,
        key: Key,
        cache_off: Option<String>,
        make: impl FnOnce(&Running<'_>) -> Result<Made, BuildError>,
    ) -> Result<Outcome, BuildError> {
        let digest = key.digest();
        let step = self.events.next_step();
        let stage = || info.stage.clone();
        if cache_off.is_none()
            && let Some((record, layers)) = self.find(&digest, state)?
        {
            self.tally.cached(record.made_ms);
            let (text, place) = (info.text.clone(), info.place.clone());
            self.events.emit(Event::StepCached { stage: stage(), step, text, place, saved_ms: record.made_ms });
            self.chain.note(info.number, step, info.place.clone(), digest.clone(), key, false);
            let outcome = if layers.len() > state.layers.len() { Outcome::Layer } else { Outcome::Nothing };
            let layer = layers.last().filter(|_| outcome == Outcome::Layer);
            self.host.shared.note_step(&digest, layer, layers.last());
            *state = Layers { key: digest, layers };
            return Ok(outcome);
        }
        let former = self.chain.result(self.host.store, info.number);
        self.tally.made();
        let (text, place) = (info.text.clone(), info.place.clone());
        self.events.emit(Event::StepStarted { stage: stage(), step, text, place });
        let start = Instant::now();
        let running = Running { stage: &info.stage, step, events: self.events, former: former.as_ref() };
        self.host.ensure(&state.layers)?;
        let made = make(&running);
        let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Only now: a COPY has just noted what it takes, which tells the file that changed.
        let cause = match cache_off {
            Some(flag) => Cause::CacheOff { flag },
            None => self.chain.cause(self.host.store, info.number, &key),
        };
        let reason = Some(cause.summary());
        self.events.emit(Event::StepMissed { stage: stage(), step, cause: Box::new(cause) });
        let exit_code = match &made {
            Ok(_) => 0,
            Err(BuildError::Step(failed)) => failed.exit.code,
            Err(_) => 1,
        };
        self.events.emit(Event::StepFinished { stage: stage(), step, exit_code, duration_ms, reason });
        let made = made?;
        let is_layer = made.snapshot.is_some();
        state.layers.extend(made.snapshot);
        self.host.shared.note_step(&digest, state.top().filter(|_| is_layer), state.top());
        let record = CacheRecord {
            // A step that leaves nothing behind on an empty file system has no snapshot to name; it costs nothing either.
            snapshot: match state.top() {
                Some(top) => top.clone(),
                None => {
                    self.chain.note(info.number, step, info.place.clone(), digest.clone(), key, true);
                    state.key = digest;
                    return Ok(Outcome::Nothing);
                }
            },
            parts: key.parts.clone(),
            made_ms: duration_ms,
            result: made.result,
        };
        self.host.store.cache_put(&digest, &record).during(|| format!("cannot record `{}`", info.text))?;
        self.chain.note(info.number, step, info.place.clone(), digest.clone(), key, true);
        state.key = digest;
        Ok(if is_layer { Outcome::Layer } else { Outcome::Nothing })
    }

    /// A record together with the chain of layers below its snapshot: of the store, else of another place.
    fn find(&self, digest: &Digest, state: &Layers) -> Result<Option<(CacheRecord, Vec<SnapshotId>)>, BuildError> {
        if let Some(found) = self.find_here(digest, state)? {
            return Ok(Some(found));
        }
        Ok(self.host.shared.find(self.host.store, digest, state.top()).map(|(record, layer)| {
            let layers = state.layers.iter().cloned().chain(layer).collect();
            (record, layers)
        }))
    }

    fn find_here(&self, digest: &Digest, state: &Layers) -> Result<Option<(CacheRecord, Vec<SnapshotId>)>, BuildError> {
        let store = self.host.store;
        let Some(record) = store.cache_get(digest) else { return Ok(None) };
        let attempt = || "cannot read the cache".to_owned();
        if state.top() == Some(&record.snapshot) {
            return Ok(Some((record, state.layers.clone())));
        }
        // The lease comes before the look: from here on prune leaves the snapshot and all below it alone.
        if self.host.scope.lease(&record.snapshot).is_err() {
            return Ok(None);
        }
        let Some(meta) = store.snapshot(&record.snapshot).during(attempt)? else { return Ok(None) };
        if meta.parent.as_ref() == state.top() {
            let mut layers = state.layers.clone();
            layers.push(record.snapshot.clone());
            return Ok(Some((record, layers)));
        }
        // Made on another copy of the same parent: its own chain holds the same content.
        let Some(layers) = chain(store, &record.snapshot).during(attempt)? else { return Ok(None) };
        Ok(Some((record, layers)))
    }
}

/// Snapshots from the bottom up to `top`; `None` when one of them is gone.
pub(crate) fn chain(store: &Store, top: &SnapshotId) -> Result<Option<Vec<SnapshotId>>, store::StoreError> {
    let mut layers = Vec::new();
    let mut next = Some(top.clone());
    while let Some(id) = next {
        let Some(meta) = store.snapshot(&id)? else { return Ok(None) };
        next = meta.parent;
        layers.push(id);
    }
    layers.reverse();
    Ok(Some(layers))
}
