//! The commits between two images: each image tells its own, the repository at hand tells what lies between.

use std::path::Path;

use evidence::predicate;
use serde_json::{Value, json};
use store::Store;

use super::{limited, side::Side};
use crate::{commands::capsule::found::git, terminal::text};

/// Label or annotation with the commit (image-spec, "Pre-Defined Annotation Keys").
const REVISION: &str = "org.opencontainers.image.revision";
/// Commits that are asked of Git; nobody reads more.
const COMMITS_MAX: usize = 1000;
/// Digits of a commit that people compare.
const COMMIT_DIGITS: usize = 7;
/// Columns of a commit's title.
const TITLE_COLUMNS: usize = 100;

/// What is known of the way from one to the other.
pub(super) struct Commits {
    old: Option<String>,
    new: Option<String>,
    between: Between,
}

enum Between {
    /// One image or both do not tell their commit, or both tell the same.
    Nothing,
    /// Git is not there, or does not have both commits.
    Unknown,
    /// Those that only the second has, the newest first, and those that only the first has.
    Known { added: Vec<Commit>, removed: Vec<Commit> },
}

struct Commit {
    id: String,
    title: String,
}

impl Commits {
    pub(super) fn of(old: &Side, new: &Side, store: &Store, directory: &Path) -> Self {
        let (old, new) = (commit(old, store), commit(new, store));
        let between = match (&old, &new) {
            (Some(old), Some(new)) if !is_same(old, new) => between(directory, old, new),
            _ => Between::Nothing,
        };
        Self { old, new, between }
    }

    pub(super) fn lines(&self, (old, new): (&str, &str), all: bool) -> String {
        let short = |commit: &str| commit.chars().take(COMMIT_DIGITS).collect::<String>();
        let (from, to) = match (&self.old, &self.new) {
            (Some(from), Some(to)) => (from, to),
            (Some(only), None) => return format!("  {} → ?   ({new} does not tell its commit)\n", short(only)),
            (None, Some(only)) => return format!("  ? → {}   ({old} does not tell its commit)\n", short(only)),
            (None, None) => return "  neither tells its commit\n".into(),
        };
        if is_same(from, to) {
            return format!("  the same: {}\n", short(to));
        }
        let head = format!("  {} → {}", short(from), short(to));
        let (added, removed) = match &self.between {
            Between::Known { added, removed } => (added, removed),
            _ => return format!("{head}   (the repository here does not have both)\n"),
        };
        let mut counts = Vec::new();
        if !added.is_empty() || removed.is_empty() {
            counts.push(text::count(added.len(), "new commit"));
        }
        if !removed.is_empty() {
            counts.push(format!("{} not in {new} any more", text::count(removed.len(), "commit")));
        }
        let line = |mark: &str, commit: &Commit| {
            format!("  {mark} {} {}", short(&commit.id), text::fit(&text::one_line(&commit.title), TITLE_COLUMNS))
        };
        let lines = added.iter().map(|commit| line("+", commit)).chain(removed.iter().map(|commit| line("-", commit)));
        format!("{head}   {}\n{}", counts.join(", "), limited(lines.collect(), all))
    }

    pub(super) fn value(&self) -> Value {
        let list = |commits: &[Commit]| -> Vec<Value> {
            commits.iter().map(|commit| json!({"Id": commit.id, "Title": commit.title})).collect()
        };
        let (added, removed) = match &self.between {
            Between::Known { added, removed } => (Some(list(added)), Some(list(removed))),
            _ => (None, None),
        };
        json!({"Old": self.old, "New": self.new, "Added": added, "Removed": removed})
    }
}

/// Both may be shortened.
fn is_same(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// The commit that an image was made from: by its label, its annotation, what is said beside it, or the run that gave it.
fn commit(side: &Side, store: &Store) -> Option<String> {
    let label = side.config.config.labels.get(REVISION).cloned();
    let annotation = || match (&side.remote, &side.image) {
        (Some(remote), _) => remote.manifest.annotations.get(REVISION).cloned(),
        (None, Some(image)) => store.preferred_options(&image.id).annotations.get(REVISION).cloned(),
        (None, None) => None,
    };
    let said = || {
        let said = side.remote.as_ref().map(|remote| remote.said.as_slice()).unwrap_or_default();
        let by = |kind: &'static str| said.iter().filter(move |statement| statement.predicate_type == kind);
        let provenances =
            by(predicate::PROVENANCE).chain(by(predicate::PROVENANCE_0_2)).chain(by(predicate::TEST_RESULT));
        provenances.filter_map(|statement| statement.commit()).map(str::to_owned).find(|commit| is_commit(commit))
    };
    let told = label.filter(|commit| is_commit(commit)).or_else(|| annotation().filter(|commit| is_commit(commit)));
    told.or_else(said).or_else(|| side.commit_of_run.clone().filter(|commit| is_commit(commit)))
}

/// What comes from images goes to Git only when it can be nothing but a commit.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn between(directory: &Path, old: &str, new: &str) -> Between {
    let log = |from: &str, to: &str| -> Option<Vec<Commit>> {
        let (limit, range) = (format!("--max-count={COMMITS_MAX}"), format!("{from}..{to}"));
        let arguments = ["log", "--no-show-signature", "--no-color", "--format=%H %s", &limit, &range, "--"];
        let out = String::from_utf8_lossy(&git(directory, &arguments)?).into_owned();
        let commit = |line: &str| {
            let (id, title) = line.split_once(' ').unwrap_or((line, ""));
            Commit { id: id.to_owned(), title: title.to_owned() }
        };
        Some(out.lines().map(commit).collect())
    };
    match (log(old, new), log(new, old)) {
        (Some(added), Some(removed)) => Between::Known { added, removed },
        _ => Between::Unknown,
    }
}
