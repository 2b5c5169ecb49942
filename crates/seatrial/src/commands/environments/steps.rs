//! The history of an environment: its records, each of which names what was there before.
//!
//! A tag that was moved by other means, or whose mover was killed before it could record the move, breaks that chain. So the
//! records of all images that have a tag are looked at: they tell of such a move, and how it goes on behind it.

use std::collections::BTreeSet;

use evidence::{
    NamedKey, PublicKey,
    promotion::{PROMOTION, Promotion, Record, records},
};
use oci::{Digest, Reference};
use pipeline::EnvironmentPlan;
use serde_json::{Value, json};

use super::{desk::Desk, names};
use crate::terminal::text;

/// Steps that a history is followed back at most.
pub(super) const STEPS_MAX: usize = 1000;

/// One entry of a history.
pub(super) enum Entry {
    /// An image came, and that was recorded.
    Step(Box<Step>),
    /// The tag named this image, and nothing tells how it came.
    Unrecorded(Digest),
}

/// A record of an image.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) digest: Digest,
    pub(super) promotion: Promotion,
    record: Record,
}

/// Which records count as those of an environment. Who may push can write any: under the same name about another tag, and
/// about this one without a key.
pub(super) struct Counting<'a> {
    pub(super) environment: &'a EnvironmentPlan,
    /// One of these has to have signed; where there is none, nobody has to.
    pub(super) keys: Vec<PublicKey>,
}

/// The history of an environment, newest first, from what its tag names now: at most `limit` entries. `all` are the records that
/// count of the images that have a tag.
pub(super) async fn entries(
    desk: &Desk,
    counting: &Counting<'_>,
    repository: &Reference,
    current: &Digest,
    all: &[Step],
    limit: usize,
) -> anyhow::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = Some(current.clone());
    let mut seen = BTreeSet::new();
    let mut before: Option<String> = None;
    let last = newest(all.iter()).map(|last| &last.promotion.time);
    while let Some(digest) = next.take().filter(|_| entries.len() < limit) {
        // An image may come several times: the entry before this one, not a later one.
        let mut of_image: Vec<Step> = all.iter().filter(|step| step.digest == digest).cloned().collect();
        if of_image.is_empty() {
            of_image = self::of_image(desk, &repository.with_digest(digest.clone()), &digest).await?;
        }
        let fitting = of_image.into_iter().filter(|step| {
            let time = &step.promotion.time;
            counting.counts(step)
                && before.as_ref().is_none_or(|before| time <= before)
                && !seen.contains(&(digest.clone(), time.clone()))
        });
        // What came last is what the tag names; else the tag has moved once more, and nothing tells of it.
        let is_last = |step: &Step| !entries.is_empty() || last.is_none_or(|last| *last <= step.promotion.time);
        if let Some(step) = newest(fitting).filter(is_last) {
            seen.insert((digest, step.promotion.time.clone()));
            next = step.promotion.from.clone();
            before = Some(step.promotion.time.clone());
            entries.push(Entry::Step(Box::new(step)));
            continue;
        }
        entries.push(Entry::Unrecorded(digest));
        let earlier = all.iter().filter(|step| {
            before.as_ref().is_none_or(|before| step.promotion.time < *before)
                && !seen.contains(&(step.digest.clone(), step.promotion.time.clone()))
        });
        next = newest(earlier).map(|step| step.digest.clone());
    }
    Ok(entries)
}

/// The last of these.
pub(super) fn newest<S: std::borrow::Borrow<Step>>(steps: impl Iterator<Item = S>) -> Option<S> {
    steps.max_by(|one, other| one.borrow().promotion.time.cmp(&other.borrow().promotion.time))
}

/// All that is recorded of one image, whatever the environment.
pub(super) async fn of_image(desk: &Desk, image: &Reference, digest: &Digest) -> anyhow::Result<Vec<Step>> {
    Ok(of_records(digest, records(&desk.client, image, PROMOTION).await?).collect())
}

/// Records of an image as steps.
pub(super) fn of_records(digest: &Digest, records: Vec<Record>) -> impl Iterator<Item = Step> {
    let step = |record: Record| Some(Step { digest: digest.clone(), promotion: record.promotion()?, record });
    records.into_iter().filter_map(step)
}

/// The digest before this one that is not itself what a rollback left behind.
pub(super) fn former(entries: &[Entry], current: &Digest) -> Option<Digest> {
    let first = entries.first()?.step()?;
    if first.promotion.action != "rollback" {
        return first.promotion.from.clone().filter(|from| from != current);
    }
    // Where this image came in for the first time, and what was there then.
    let mut oldest = entries.iter().rev().filter_map(Entry::step);
    let first = oldest.find(|step| step.digest == *current && step.promotion.action == "promote")?;
    first.promotion.from.clone()
}

impl<'a> Counting<'a> {
    /// Whoever signed them, or nobody.
    pub(super) fn all(environment: &'a EnvironmentPlan) -> Self {
        Self { environment, keys: Vec::new() }
    }

    pub(super) fn counts(&self, step: &Step) -> bool {
        step.promotion.environment == self.environment.name
            && step.promotion.tag == self.environment.tag
            && (self.keys.is_empty() || step.record.signer(&step.digest, &self.keys).is_some())
    }
}

impl Entry {
    pub(super) fn step(&self) -> Option<&Step> {
        match self {
            Self::Step(step) => Some(step.as_ref()),
            Self::Unrecorded(_) => None,
        }
    }

    /// For programs.
    pub(super) fn value(&self, environment: &EnvironmentPlan, repository: &Reference, keys: &[NamedKey]) -> Value {
        match self {
            Self::Step(step) => step.value(repository, keys),
            Self::Unrecorded(digest) => json!({
                "Environment": environment.name, "Repository": repository.repository(), "Tag": environment.tag,
                "Digest": digest, "From": null, "Action": "unrecorded", "By": null, "Time": null, "ApprovedBy": [],
                "Record": "none",
            }),
        }
    }
}

impl Step {
    /// For programs. Who signed the record is told by the names of `keys`.
    pub(super) fn value(&self, repository: &Reference, keys: &[NamedKey]) -> Value {
        let public: Vec<PublicKey> = keys.iter().map(|named| named.key.clone()).collect();
        let record = match (self.record.is_unsigned(), self.record.signer(&self.digest, &public)) {
            (true, _) => "unsigned".to_owned(),
            (false, Some(key)) => format!("signed by {}", names(keys, key).unwrap_or_else(|| key.hint())),
            (false, None) => "signed by an unknown key".to_owned(),
        };
        let Promotion { environment, action, tag, from, by, time, approved_by } = &self.promotion;
        json!({
            "Environment": environment, "Repository": repository.repository(), "Tag": tag, "Digest": self.digest,
            "From": from, "Action": action, "By": by, "Time": time, "ApprovedBy": approved_by, "Record": record,
        })
    }
}

/// A row of the table for people.
pub(super) fn row(value: &Value) -> Vec<String> {
    let told = |field: &str| text::one_line(value[field].as_str().unwrap_or("-"));
    let digest = value["Digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
    let digest = digest.map(|digest| digest.short().to_owned()).unwrap_or_default();
    vec![told("Environment"), digest, to_the_second(&told("Time")), told("By"), told("Action"), told("Record")]
}

/// `2026-01-02T03:04:05.678901Z` for people.
pub(super) fn to_the_second(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}
