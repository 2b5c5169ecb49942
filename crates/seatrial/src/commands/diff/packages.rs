//! Packages of all kinds that were added, removed, or have another version: from what the files say, or from the SBOM beside an
//! image in its registry.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use evidence::{
    predicate,
    sbom::{Listed, compare_versions, inventory, read_document},
};
use serde_json::{Value, json};
use store::{Stop, Store};

use super::{limited, side::Side};
use crate::{
    context::Context,
    terminal::{self, table, text},
};

/// What is known of the packages of both.
pub(super) enum Packages {
    /// These differ.
    Known(Vec<Difference>),
    /// This image tells nothing without its layers.
    Unknown(String),
}

/// A package that differs.
pub(super) struct Difference {
    kind: String,
    name: String,
    old: Option<String>,
    new: Option<String>,
}

type Versions<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>;

impl Packages {
    /// Compares. What has the same layers has the same packages.
    pub(super) fn of(old: &Side, new: &Side, store: &Store, context: &Context) -> anyhow::Result<Self> {
        if old.config.rootfs.diff_ids == new.config.rootfs.diff_ids {
            return Ok(Self::Known(Vec::new()));
        }
        if let Some(unknown) = [old, new].into_iter().find(|side| side.image.is_none() && sbom(side).is_none()) {
            return Ok(Self::Unknown(unknown.name.clone()));
        }
        Ok(Self::Known(differences(&listed(old, store, context)?, &listed(new, store, context)?)))
    }

    pub(super) fn lines(&self, all: bool) -> String {
        let differences = match self {
            Self::Known(differences) => differences,
            Self::Unknown(name) => {
                return format!(
                    "  not compared: there is no SBOM beside {}; `--packages` fetches the layers\n",
                    text::one_line(name)
                );
            }
        };
        if differences.is_empty() {
            return "  the same\n".into();
        }
        let rows: Vec<Vec<String>> = differences.iter().map(Difference::row).collect();
        let lines = table::columns(&rows).lines().map(str::to_owned).collect();
        format!("  {}\n{}", summary(differences), limited(lines, all))
    }

    pub(super) fn value(&self) -> Option<Vec<Value>> {
        match self {
            Self::Known(differences) => Some(differences.iter().map(Difference::value).collect()),
            Self::Unknown(_) => None,
        }
    }
}

fn sbom(side: &Side) -> Option<BTreeSet<Listed>> {
    let said = &side.remote.as_ref()?.said;
    let documents =
        said.iter().filter(|said| [predicate::SPDX, predicate::CYCLONEDX].contains(&said.predicate_type.as_str()));
    documents.filter_map(|statement| read_document(&statement.predicate)).next()
}

/// The packages of an image: by its SBOM where there is one, else by its files, where those are here.
fn listed(side: &Side, store: &Store, context: &Context) -> anyhow::Result<BTreeSet<Listed>> {
    if let Some(found) = sbom(side) {
        return Ok(found);
    }
    let Some(image) = &side.image else { return Ok(BTreeSet::new()) };
    let cancel = context.cancel.clone();
    let is_stopped = move || cancel.is_cancelled();
    let found = inventory(store, image, Stop::when(&is_stopped))?;
    for warning in &found.warnings {
        let (path, message) = (text::one_line(&warning.path), text::one_line(&warning.message));
        terminal::warning(&format!("{path} of {} was not read: {message}", text::one_line(&side.name)));
    }
    Ok(found.listed())
}

fn differences(old: &BTreeSet<Listed>, new: &BTreeSet<Listed>) -> Vec<Difference> {
    let (old, new) = (versions(old), versions(new));
    let names: BTreeSet<&(&str, &str)> = old.keys().chain(new.keys()).collect();
    let none = BTreeSet::new();
    let mut found = Vec::new();
    for key in names {
        let (before, now) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
        // A package may be there in several versions: those that both have do not differ.
        let join = |one: &BTreeSet<&str>, other: &BTreeSet<&str>| {
            let only: Vec<&str> = one.difference(other).copied().collect();
            (!only.is_empty()).then(|| only.join(", "))
        };
        let (old, new) = (join(before, now), join(now, before));
        if old.is_some() || new.is_some() {
            found.push(Difference { kind: key.0.to_owned(), name: key.1.to_owned(), old, new });
        }
    }
    found
}

fn versions(list: &BTreeSet<Listed>) -> Versions<'_> {
    let mut versions = Versions::new();
    for package in list {
        versions.entry((package.kind.as_str(), package.name.as_str())).or_default().insert(&package.version);
    }
    versions
}

/// `2 upgraded, 1 new, 1 gone`.
fn summary(differences: &[Difference]) -> String {
    let words = ["upgraded", "downgraded", "changed", "new", "gone"];
    let count = |word: &&str| {
        let number = differences.iter().filter(|difference| difference.change() == *word).count();
        (number > 0).then(|| format!("{number} {word}"))
    };
    words.iter().filter_map(count).collect::<Vec<_>>().join(", ")
}

impl Difference {
    fn change(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "new",
            (_, None) => "gone",
            (Some(old), Some(new)) => match compare_versions(&self.kind, old, new) {
                Some(Ordering::Less) => "upgraded",
                Some(Ordering::Greater) => "downgraded",
                _ => "changed",
            },
        }
    }

    fn row(&self) -> Vec<String> {
        let change = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{} → {}", version(old), version(new)),
            (None, Some(new)) => format!("new: {}", version(new)),
            (Some(old), None) => format!("gone, was {}", version(old)),
            (None, None) => String::new(),
        };
        // The usual way needs no word.
        let mark = if self.change() == "downgraded" { "downgraded" } else { "" };
        vec![text::one_line(&self.kind), text::one_line(&self.name), change, mark.to_owned()]
    }

    fn value(&self) -> Value {
        json!({"Kind": self.kind, "Name": self.name, "Old": self.old, "New": self.new, "Change": self.change()})
    }
}

fn version(text: &str) -> String {
    if text.is_empty() { "?".to_owned() } else { text::one_line(text) }
}
