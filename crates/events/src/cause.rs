//! Why a step was not taken from the cache: the first part of its key that differs from its former build's, in the
//! user's words.

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Place;

/// Why a step was made. The comparison is with the last build of the same stage of the same Dockerfile and context, for
/// the same platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// No former build of this stage is known.
    NeverBuilt,
    /// The former build had no such instruction.
    NewInstruction,
    /// A flag says so.
    CacheOff {
        /// The flag, such as `--no-cache`.
        flag: String,
    },
    /// Nothing differs, but the former result was removed.
    Gone,
    /// Another version of the program made it, in another way.
    Version,
    /// The base is another image.
    Base {
        /// What FROM names now.
        reference: String,
        /// What it named, if that was something else.
        old_reference: Option<String>,
        /// Id of the image that it was.
        old: Option<Digest>,
        /// Id of the image that it is.
        new: Option<Digest>,
    },
    /// The image that setup commands run on is another one.
    BuiltImage,
    /// A step before it is another one: the first of the chain that differs.
    EarlierStep {
        /// Its number in this run, if it was part of it.
        step: Option<u64>,
        /// What the user wrote.
        text: String,
        /// Where.
        place: Option<Place>,
        /// The former build had it, this one has not.
        is_gone: bool,
    },
    /// The instruction says something else.
    Instruction {
        /// What it said.
        old: String,
        /// What it says.
        new: String,
    },
    /// A value that the step sees is another one.
    Value {
        /// What it is: `variable`, `build argument`, `user`, `mount`, …
        what: String,
        /// Its name; empty where `what` says all.
        name: String,
        /// What it was; absent when it is new, or when its name says that it is secret.
        old: Option<String>,
        /// What it is; absent when it is gone, or when its name says that it is secret.
        new: Option<String>,
        /// The values are not told.
        is_secret: bool,
        /// How it changed.
        change: Change,
    },
    /// Files are other ones.
    Files {
        /// Where a mount shows them; `None` for what a COPY takes.
        mount: Option<String>,
        /// Some of them: changed ones first.
        files: Vec<FileChange>,
        /// All changed files.
        changed: u64,
        /// All added files.
        added: u64,
        /// All removed files.
        removed: u64,
    },
}

/// How something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is another one.
    Changed,
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Its path in the context (or stage, or image); bytes that are not UTF-8 are replaced.
    pub path: String,
    /// How.
    pub change: Change,
    /// What it was.
    pub old: Option<FileState>,
    /// What it is.
    pub new: Option<FileState>,
}

/// What of a file counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// `-`, `d`, `l`, `c`, `b`, `p`, as `ls` shows it.
    pub kind: char,
    /// Permission bits, octal.
    pub mode: String,
    /// `user:group` as numbers, where owners count.
    pub owner: Option<String>,
    /// SHA-256 of a file's content (and of its extended attributes, if any).
    pub digest: Option<Digest>,
    /// Size of a file in bytes.
    pub size_bytes: Option<u64>,
    /// Where a symbolic link points.
    pub link: Option<String>,
}

impl FileChange {
    /// What about it changed, in words.
    pub fn what(&self) -> &'static str {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return "the file" };
        match () {
            () if old.kind != new.kind => "the kind of file",
            () if old.digest != new.digest => "the content",
            () if old.link != new.link => "the target of the link",
            () if old.mode != new.mode => "the mode",
            () if old.owner != new.owner => "the owner",
            () => "the file",
        }
    }
}

/// A summary is one short line; longer values are for `explain`.
const VALUE_CHARS_MAX: usize = 24;

impl Cause {
    /// Whether it tells more than that a step is new or follows from another one: worth saying unasked.
    pub fn is_telling(&self) -> bool {
        !matches!(self, Cause::NeverBuilt | Cause::NewInstruction | Cause::EarlierStep { .. } | Cause::CacheOff { .. })
    }

    /// The cause in a few words, as the progress shows it.
    pub fn summary(&self) -> String {
        match self {
            Cause::NeverBuilt => "not built before".into(),
            Cause::NewInstruction => "the instruction is new".into(),
            Cause::CacheOff { flag } => format!("the cache is off ({flag})"),
            Cause::Gone => "its former result was removed".into(),
            Cause::Version => "another version of seatrial made the former result".into(),
            Cause::Base { reference, old_reference: Some(old), .. } => format!("base image was {old}, is {reference}"),
            Cause::Base { reference, .. } => format!("base image {reference} changed"),
            Cause::BuiltImage => "the image changed".into(),
            Cause::EarlierStep { place: Some(place), is_gone: false, .. } => {
                format!("{}:{} changed", place.file, place.line)
            }
            Cause::EarlierStep { text, is_gone: false, .. } => format!("`{}` changed", short(text)),
            Cause::EarlierStep { text, .. } => format!("`{}` is gone", short(text)),
            Cause::Instruction { .. } => "the instruction changed".into(),
            Cause::Value { what, name, old, new, change, .. } => {
                let name = if name.is_empty() { what.clone() } else { format!("{what} {name}") };
                match (change, old, new) {
                    (Change::Added, ..) => format!("{name} is new"),
                    (Change::Removed, ..) => format!("{name} is gone"),
                    (Change::Changed, Some(old), Some(new)) if is_short(old) && is_short(new) => {
                        format!("{name} was `{old}`, is `{new}`")
                    }
                    (Change::Changed, ..) => format!("{name} changed"),
                }
            }
            Cause::Files { mount, files, changed, added, removed } => {
                let place = mount.as_ref().map(|mount| format!("mount {mount}: ")).unwrap_or_default();
                let Some(first) = files.first() else { return format!("{place}files changed") };
                let more = match changed + added + removed - 1 {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let verb = match (first.change, first.what()) {
                    (Change::Added, _) => "is new".to_owned(),
                    (Change::Removed, _) => "is gone".to_owned(),
                    (Change::Changed, what @ ("the mode" | "the owner")) => format!("changed ({})", &what[4..]),
                    (Change::Changed, _) => "changed".to_owned(),
                };
                format!("{place}{} {verb}{more}", first.path)
            }
        }
    }
}

fn is_short(value: &str) -> bool {
    value.chars().count() <= VALUE_CHARS_MAX && !value.contains('\n')
}

/// The first words of an instruction.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= CHARS_MAX && line == text {
        return line.to_owned();
    }
    line.chars().take(CHARS_MAX).collect::<String>().trim_end().to_owned() + "…"
}
