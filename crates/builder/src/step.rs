//! Cached steps: the parts of a key, looking a step up, and why it was not found.

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use engine::BuildError;
use events::{Event, EventSink, Place};
use oci::{Digest, Hasher};
use store::{CacheRecord, SnapshotId, Store};

use crate::work::{During as _, Host, Tally, locked};

/// Raised when steps are made differently, so that older results are not taken for them.
const RECIPE: &str = "1";
/// Memo namespace of the latest key of each step, for naming what changed.
const LATEST: &str = "latest-steps";

/// What a step's result depends on, in the order in which differences are worth telling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key {
    parts: Vec<(String, String)>,
}

impl Key {
    /// A key on top of the file system that `parent` names.
    pub(crate) fn new(parent: &Digest) -> Self {
        let mut key = Self::default();
        key.add("recipe", RECIPE);
        key.add("earlier step", parent.to_string());
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
    /// Names the step within its Dockerfile, for comparing with its former self.
    pub(crate) label: String,
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

/// The latest keys of one Dockerfile's steps, read when a step misses and written once at the end.
pub(crate) struct Latest {
    name: String,
    keys: Mutex<Option<BTreeMap<String, String>>>,
    is_changed: Mutex<bool>,
}

impl Latest {
    pub(crate) fn new(name: &Digest) -> Self {
        Self { name: name.hex().to_owned(), keys: Mutex::default(), is_changed: Mutex::default() }
    }

    fn with<T>(&self, store: &Store, act: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> T {
        let mut keys = locked(&self.keys);
        act(keys.get_or_insert_with(|| {
            let bytes = store.memo_get(LATEST, &self.name);
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        }))
    }

    pub(crate) fn record(&self, store: &Store, label: &str) -> Option<CacheRecord> {
        let key = self.with(store, |keys| keys.get(label).cloned())?;
        store.cache_get(&key.parse().ok()?)
    }

    fn set(&self, store: &Store, label: &str, key: &Digest) {
        self.with(store, |keys| keys.insert(label.to_owned(), key.to_string()));
        *locked(&self.is_changed) = true;
    }

    /// Remembers them. That it cannot be done costs an explanation, nothing more.
    pub(crate) fn save(&self, store: &Store) {
        if *locked(&self.is_changed) {
            let bytes = self.with(store, |keys| serde_json::to_vec(keys).unwrap_or_default());
            let _ = store.memo_put(LATEST, &self.name, &bytes);
        }
    }
}

/// Where steps are looked up and counted.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) events: &'a EventSink,
    pub(crate) tally: &'a Tally,
    pub(crate) latest: &'a Latest,
}

impl Steps<'_> {
    /// Takes the step from the cache, or makes it and records it. `state` becomes the file system after it.
    pub(crate) fn run(
        &self,
        state: &mut Layers,
        info: &StepInfo,
        key: Key,
        use_cache: bool,
        make: impl FnOnce(&Running<'_>) -> Result<Made, BuildError>,
    ) -> Result<Outcome, BuildError> {
        let digest = key.digest();
        let step = self.events.next_step();
        let stage = || info.stage.clone();
        if use_cache && let Some((record, layers)) = self.find(&digest, state)? {
            self.tally.cached(record.made_ms);
            let (text, place) = (info.text.clone(), info.place.clone());
            self.events.emit(Event::StepCached { stage: stage(), step, text, place, saved_ms: record.made_ms });
            let outcome = if layers.len() > state.layers.len() { Outcome::Layer } else { Outcome::Nothing };
            *state = Layers { key: digest, layers };
            return Ok(outcome);
        }
        let former = self.latest.record(self.host.store, &info.label);
        self.tally.made();
        let (text, place) = (info.text.clone(), info.place.clone());
        self.events.emit(Event::StepStarted { stage: stage(), step, text, place });
        let start = Instant::now();
        let running = Running { stage: &info.stage, step, events: self.events, former: former.as_ref() };
        let made = make(&running);
        let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Only now: a COPY has just noted what it takes, which tells the file that changed.
        let reason = self.reason(former.as_ref(), &key, use_cache);
        let exit_code = match &made {
            Ok(_) => 0,
            Err(BuildError::Step(failed)) => failed.exit.code,
            Err(_) => 1,
        };
        self.events.emit(Event::StepFinished { stage: stage(), step, exit_code, duration_ms, reason });
        let made = made?;
        let is_layer = made.snapshot.is_some();
        state.layers.extend(made.snapshot);
        let record = CacheRecord {
            // A step that leaves nothing behind on an empty file system has no snapshot to name; it costs nothing either.
            snapshot: match state.top() {
                Some(top) => top.clone(),
                None => {
                    state.key = digest;
                    return Ok(Outcome::Nothing);
                }
            },
            parts: key.parts,
            made_ms: duration_ms,
            result: made.result,
        };
        self.host.store.cache_put(&digest, &record).during(|| format!("cannot record `{}`", info.text))?;
        self.latest.set(self.host.store, &info.label, &digest);
        state.key = digest;
        Ok(if is_layer { Outcome::Layer } else { Outcome::Nothing })
    }

    /// A record together with the chain of layers below its snapshot.
    fn find(&self, digest: &Digest, state: &Layers) -> Result<Option<(CacheRecord, Vec<SnapshotId>)>, BuildError> {
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

    fn reason(&self, former: Option<&CacheRecord>, key: &Key, use_cache: bool) -> Option<String> {
        if !use_cache {
            return Some("the cache is switched off for this step".into());
        }
        let former = former?;
        first_difference(self.host.store, &former.parts, &key.parts)
            .or_else(|| Some("its former result is no longer there".into()))
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

/// What changed between two keys of the same step, in words for people.
fn first_difference(store: &Store, former: &[(String, String)], now: &[(String, String)]) -> Option<String> {
    let before: BTreeMap<&str, &str> = former.iter().map(|(what, value)| (what.as_str(), value.as_str())).collect();
    let names: BTreeMap<&str, ()> = now.iter().map(|(what, _)| (what.as_str(), ())).collect();
    for (what, value) in now {
        match before.get(what.as_str()) {
            Some(old) if *old == value => {}
            _ if what == "earlier step" => return Some("an earlier step or the base changed".into()),
            _ if what == "recipe" => return Some("another version of the program made it".into()),
            Some(old) if what == "files" => return Some(crate::copy::files_difference(store, old, value)),
            Some(_) => return Some(format!("{what} changed")),
            None => return Some(format!("{what} is new")),
        }
    }
    former.iter().find(|(what, _)| !names.contains_key(what.as_str())).map(|(what, _)| format!("{what} is gone"))
}
