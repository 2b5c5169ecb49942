//! What a stage's steps were in its former build, so that a miss can name what differs.
//!
//! A [`Chain`] knows the steps of one stage as they are now, and reads those of the former build when the first step
//! misses; at the end of the build they take the former's place. Instructions are paired by their text, so that one that
//! is put in between does not make all behind it look changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use events::{Cause, Change, Place};
use oci::Digest;
use serde::{Deserialize, Serialize};
use store::{CacheRecord, Store};

use crate::{
    copy,
    step::{EARLIER, Key, RECIPE_PART},
    work::locked,
};

/// Memo namespace of former builds.
const FORMER: &str = "former-builds";
/// Memo namespace of the last key of each stage's last build: tells that a build without a miss was another one.
const ENDS: &str = "former-ends";
/// Longer values are cut: they are kept for people.
const VALUE_CHARS_MAX: usize = 400;

/// What a chain of steps begins on.
pub(crate) enum Below {
    /// Nothing, or something that is never another one.
    Fixed,
    /// An image that FROM names.
    Image {
        /// As it is named.
        reference: String,
        id: Digest,
    },
    /// Another stage, as FROM names it.
    Stage(String, Arc<Chain>),
    /// The image that was built.
    Built,
}

/// The steps of one stage, now and in its former build.
pub(crate) struct Chain {
    name: String,
    below: Below,
    /// Key of the file system that it begins on.
    begin: Digest,
    /// Texts of all instructions.
    texts: Vec<String>,
    former: OnceLock<Option<Former>>,
    now: Mutex<Now>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain({} instructions)", self.texts.len())
    }
}

#[derive(Default)]
struct Now {
    steps: BTreeMap<usize, Past>,
    /// Steps that come are all there.
    is_whole: bool,
    is_changed: bool,
}

/// A step of this build.
struct Past {
    key: Digest,
    parts: Vec<(String, String)>,
    step: u64,
    place: Option<Place>,
}

/// The former build with the pairing of its instructions.
struct Former {
    record: Record,
    /// For each instruction of now, the former one's number.
    pairs: Vec<Option<usize>>,
}

/// What is kept of a build of a stage.
#[derive(Serialize, Deserialize)]
struct Record {
    begin: Digest,
    /// Name and id of the base.
    base: Option<(String, Digest)>,
    texts: Vec<String>,
    steps: BTreeMap<usize, (Digest, Vec<(String, String)>)>,
}

impl Chain {
    /// `name` stands for the stage; `texts` are all its instructions.
    pub(crate) fn new(name: &Digest, below: Below, begin: Digest, texts: Vec<String>) -> Self {
        let (former, now) = (OnceLock::new(), Mutex::default());
        Self { name: name.hex().to_owned(), below, begin, texts, former, now }
    }

    /// The former result of an instruction, if it is still there.
    pub(crate) fn result(&self, store: &Store, number: usize) -> Option<CacheRecord> {
        let (key, _) = self.former(store)?.step(number)?;
        store.cache_get(key)
    }

    /// Notes a step of this build.
    pub(crate) fn note(&self, number: usize, step: u64, place: Option<Place>, key: Digest, parts: Key, is_made: bool) {
        let mut now = locked(&self.now);
        now.is_changed |= is_made;
        now.steps.insert(number, Past { key, parts: parts.parts, step, place });
    }

    /// All steps are there.
    pub(crate) fn finish(&self) {
        locked(&self.now).is_whole = true;
    }

    /// The first part of a key that differs from the former build's.
    pub(crate) fn cause(&self, store: &Store, number: usize, key: &Key) -> Cause {
        let Some(former) = self.former(store) else { return Cause::NeverBuilt };
        let Some((old_key, old)) = former.step(number) else {
            // An instruction that failed in the former build is known by its text only.
            let was_there = former.pairs.get(number).is_some_and(Option::is_some);
            return if was_there { Cause::NeverBuilt } else { Cause::NewInstruction };
        };
        if *old_key == key.digest() {
            return Cause::Gone;
        }
        let before: BTreeMap<&str, &str> = old.iter().map(|(what, value)| (what.as_str(), value.as_str())).collect();
        for (what, value) in &key.parts {
            match before.get(what.as_str()) {
                Some(old) if old == value => {}
                _ if what == RECIPE_PART => return Cause::Version,
                _ if what == EARLIER => return self.origin(store, number).unwrap_or_else(|| self.other_base(former)),
                old if what == "instruction" || what == "script" => {
                    return self.instruction(former, number, old.copied().unwrap_or_default(), value);
                }
                Some(old) => return difference(store, what, Some(old), Some(value)),
                None => return difference(store, what, None, Some(value)),
            }
        }
        let gone = old.iter().find(|(what, _)| !key.parts.iter().any(|(now, _)| now == what));
        gone.map_or(Cause::Gone, |(what, value)| difference(store, what, Some(value), None))
    }

    fn former(&self, store: &Store) -> Option<&Former> {
        let read = || {
            let bytes = store.memo_get(FORMER, &self.name)?;
            let record: Record = serde_json::from_slice(&bytes).ok()?;
            let pairs = pair(&record.texts, &self.texts);
            Some(Former { record, pairs })
        };
        self.former.get_or_init(read).as_ref()
    }

    fn instruction(&self, former: &Former, number: usize, old: &str, new: &str) -> Cause {
        let texts = (|| {
            let old = former.record.texts.get((*former.pairs.get(number)?)?)?;
            let new = self.texts.get(number)?;
            (old != new).then(|| (old.clone(), new.clone()))
        })();
        // The text is the same, what it means is not: a variable in it, or the shell.
        let (old, new) = texts.unwrap_or_else(|| (old.replace('\0', " "), new.replace('\0', " ")));
        Cause::Instruction { old: cut(&old), new: cut(&new) }
    }

    /// What made the file system below an instruction another one: the first thing of the whole chain that differs.
    fn origin(&self, store: &Store, until: usize) -> Option<Cause> {
        let former = self.former(store)?;
        if former.record.begin != self.begin {
            let deeper = match &self.below {
                Below::Stage(_, below) if former.record.base.is_none() => below.origin(store, usize::MAX),
                _ => None,
            };
            return Some(deeper.unwrap_or_else(|| self.other_base(former)));
        }
        let now = locked(&self.now);
        for (number, past) in now.steps.range(..until) {
            if former.step(*number).is_none_or(|(key, _)| *key != past.key) {
                let text = self.texts.get(*number).map(|text| cut(text)).unwrap_or_default();
                return Some(Cause::EarlierStep {
                    step: Some(past.step),
                    text,
                    place: past.place.clone(),
                    is_gone: false,
                });
            }
        }
        let before = former.pairs.get(until).copied().flatten().unwrap_or(usize::MAX);
        let mut earlier = former.record.steps.range(..before).map(|(at, _)| at);
        let gone = earlier.find(|at| !former.pairs.contains(&Some(**at)))?;
        let text = former.record.texts.get(*gone).map(|text| cut(text)).unwrap_or_default();
        Some(Cause::EarlierStep { step: None, text, place: None, is_gone: true })
    }

    fn other_base(&self, former: &Former) -> Cause {
        let old = former.record.base.as_ref();
        match &self.below {
            Below::Image { reference, id } => Cause::Base {
                reference: reference.clone(),
                old_reference: old.map(|(name, _)| name.clone()).filter(|name| name != reference),
                old: old.map(|(_, id)| id.clone()),
                new: Some(id.clone()),
            },
            Below::Built => Cause::BuiltImage,
            Below::Stage(..) | Below::Fixed => {
                let reference = if let Below::Stage(name, _) = &self.below { name.clone() } else { "scratch".into() };
                let (old_reference, old) = old.cloned().unzip();
                Cause::Base { reference, old_reference, old, new: None }
            }
        }
    }

    /// Remembers this build as the former one of the next. That it cannot be done costs an explanation, nothing more.
    pub(crate) fn save(&self, store: &Store) {
        let mut now = locked(&self.now);
        let end = now.steps.values().next_back().map_or(&self.begin, |past| &past.key).clone();
        if !now.is_changed {
            // All was there; most of the time because this very build was the former one.
            if store.memo_get(ENDS, &self.name).is_some_and(|known| known == end.hex().as_bytes()) {
                return;
            }
        }
        let mut steps = BTreeMap::new();
        if !now.is_whole
            && let Some(former) = self.former(store)
        {
            // A failed build did not come so far: what it did not reach was what it was.
            let last = now.steps.keys().next_back().copied();
            let rest = (0..self.texts.len()).filter(|number| last.is_none_or(|last| *number > last));
            steps.extend(rest.filter_map(|number| Some((number, former.step(number)?.clone()))));
        }
        steps.extend(std::mem::take(&mut now.steps).into_iter().map(|(number, past)| (number, (past.key, past.parts))));
        let base = match &self.below {
            Below::Image { reference, id } => Some((reference.clone(), id.clone())),
            Below::Fixed | Below::Stage(..) | Below::Built => None,
        };
        let record = Record { begin: self.begin.clone(), base, texts: self.texts.clone(), steps };
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        if store.memo_put(FORMER, &self.name, &bytes).is_ok() {
            let _ = store.memo_put(ENDS, &self.name, end.hex().as_bytes());
        }
    }
}

impl Former {
    /// Key and parts of what the instruction was.
    fn step(&self, number: usize) -> Option<&(Digest, Vec<(String, String)>)> {
        self.record.steps.get(&(*self.pairs.get(number)?)?)
    }
}

/// One part of a key in words.
fn difference(store: &Store, what: &str, old: Option<&str>, new: Option<&str>) -> Cause {
    if what == "files"
        && let (Some(old), Some(new)) = (old, new)
    {
        return copy::files_difference(store, old, new, None);
    }
    let (kind, name) = ["variable", "build argument", "inline file", "mount"]
        .iter()
        .find_map(|kind| Some((*kind, what.strip_prefix(kind)?.strip_prefix(' ')?)))
        .unwrap_or((what, ""));
    if kind == "mount"
        && let (Some(old), Some(new)) = (old, new)
        && let (Some(old), Some(new)) = (old.strip_prefix("bind "), new.strip_prefix("bind "))
    {
        return copy::files_difference(store, old, new, Some(name));
    }
    let change = match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ => Change::Changed,
    };
    let is_secret = matches!(kind, "variable" | "build argument") && dockerfile::lint::is_secret_name(name);
    let value = |value: Option<&str>| value.filter(|_| !is_secret).map(cut);
    Cause::Value { what: kind.into(), name: name.into(), old: value(old), new: value(new), is_secret, change }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// For each of `now` its place in `former`: the longest common subsequence, and between its members one for one.
fn pair(former: &[String], now: &[String]) -> Vec<Option<usize>> {
    if former == now {
        return (0..now.len()).map(Some).collect();
    }
    let mut common = vec![vec![0_usize; now.len() + 1]; former.len() + 1];
    for (i, old) in former.iter().enumerate().rev() {
        for (j, new) in now.iter().enumerate().rev() {
            common[i][j] = if old == new { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let mut pairs = vec![None; now.len()];
    // Where the stretch between two members of the subsequence began.
    let (mut from_i, mut from_j) = (0, 0);
    let (mut i, mut j) = (0, 0);
    let mut close = |from_i: usize, i: usize, from_j: usize, j: usize| {
        // Instructions that only changed keep their number; where one is new or gone, which it was cannot be told.
        let kind = |text: &String| text.split_whitespace().next().map(str::to_ascii_uppercase);
        let mut old = from_i..i;
        for new in from_j..j {
            if let Some(at) = old.clone().find(|at| kind(&former[*at]) == kind(&now[new])) {
                pairs[new] = Some(at);
                old = at + 1..i;
            }
        }
    };
    let mut same = Vec::new();
    while i < former.len() && j < now.len() {
        if former[i] == now[j] {
            close(from_i, i, from_j, j);
            same.push((j, i));
            (i, j) = (i + 1, j + 1);
            (from_i, from_j) = (i, j);
        } else if common[i + 1][j] >= common[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    close(from_i, former.len(), from_j, now.len());
    for (new, old) in same {
        pairs[new] = Some(old);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::pair;

    #[test]
    fn instructions_are_paired_by_text_and_kind() {
        let check = |former: &str, now: &str, expected: &[Option<usize>]| {
            let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(pair(&split(former), &split(now)), expected, "{former} and {now}");
        };
        check("RUN a,RUN b", "RUN a,RUN b", &[Some(0), Some(1)]);
        check("RUN a,RUN b", "RUN a,RUN x,RUN b", &[Some(0), None, Some(1)]);
        check("RUN a,RUN x,RUN b", "RUN a,RUN b", &[Some(0), Some(2)]);
        check("RUN a,RUN b,RUN c", "RUN a,RUN B,RUN c", &[Some(0), Some(1), Some(2)]);
        check("RUN a,COPY b,RUN c", "RUN a,RUN B,RUN c", &[Some(0), None, Some(2)]);
        check("RUN a", "COPY a,RUN b,RUN c", &[None, Some(0), None]);
    }
}
