//! What a run found out, as data; the binary turns it into the summary, the `✗` blocks and the exit code.

use std::{path::PathBuf, time::Duration};

use engine::{Built, Exit, FailedStep};
use events::{Coverage, GateImage, Place, Problem, RunId, TestCounts, Verdict};
use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::Source;

/// How a run ended. A red gate is an outcome, not an error; an error means that we could not find out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run.
    pub run: RunId,
    /// Name of what was built, for people.
    pub name: String,
    /// The entry of `images` that this is the outcome of.
    pub entry: Option<String>,
    /// With several images, the outcome of each; this one is then that of the whole, whose gates are those of the top level.
    pub images: Vec<Outcome>,
    /// What Git said.
    pub source: Source,
    /// Passed or failed; `Skipped` when nothing was asked but the build, or an image that it needs did not pass.
    pub verdict: Verdict,
    /// Why an image of several was not tried.
    pub skipped: Option<String>,
    /// The image; `None` when the build failed.
    pub image: Option<TriedImage>,
    /// The command of `before` that stopped it.
    pub before_failure: Option<FailedStep>,
    /// The instruction that stopped the build.
    pub build_failure: Option<FailedStep>,
    /// The command that stopped the setup of the gates.
    pub setup_failure: Option<FailedStep>,
    /// Gates in the order of the file.
    pub gates: Vec<GateOutcome>,
    /// The health check; `None` when it was not asked for.
    pub health: Option<HealthOutcome>,
    /// Services that became ready, in that order.
    pub services: Vec<services::ServiceOutcome>,
    /// Limits of the image that do not hold, as sentences.
    pub broken_limits: Vec<String>,
    /// References that name the image in the local store now.
    pub tagged: Vec<String>,
    /// Tags that the rules give this image for the registry, whether or not they were pushed.
    pub publish_tags: Vec<String>,
    /// References that were written to a registry.
    pub published: Vec<Published>,
    /// What was attached to the published image, and by whom: `7 statements signed by SHA256:…`.
    pub evidence: Option<String>,
    /// Files that were published, or would be with `--dry-run`.
    pub files: Vec<PublishedFile>,
    /// The command that stopped `publish.files`.
    pub files_failure: Option<GateFailure>,
    /// Why nothing was published, such as `branch is not master`; `None` when it was, or when the verdict is no.
    pub not_published: Option<String>,
    /// Publishing was asked for and this image may never be published, wherever the source stands.
    pub publish_refused: bool,
    /// Tags that rules named and that were not used.
    pub skipped_tags: Vec<SkippedTag>,
    /// Tags of a registry that were to move to this image and stayed.
    pub kept_tags: Vec<KeptTag>,
    /// What publishing would do to each tag, where only that was asked.
    pub foreseen: Vec<Foreseen>,
    /// The Git tag that the published commit has now.
    pub git_tag: Option<String>,
    /// Sum of all reports.
    pub tests: Option<TestCounts>,
    /// The same of covered lines.
    pub coverage: Option<Coverage>,
    /// The same of findings.
    pub findings: Option<u64>,
    /// The slowest parts, slowest first, three at most: gates, and steps of the build.
    pub slowest: Vec<(String, Duration)>,
    /// Time of each stage that ran, in the order in which they began.
    pub stages: Vec<(String, Duration)>,
    /// From the start to the end.
    pub duration: Duration,
}

impl Outcome {
    /// The outcomes of all images, then that of the whole; of a single image its own.
    pub fn parts(&self) -> impl Iterator<Item = &Outcome> {
        self.images.iter().chain([self])
    }

    /// The stage of this name; see [`crate::Plan::stage`].
    pub fn stage(&self, name: &str) -> String {
        match &self.entry {
            Some(entry) => format!("{entry}/{name}"),
            None => name.to_owned(),
        }
    }
}

/// The image that was tried.
#[derive(Clone, Debug)]
pub struct TriedImage {
    /// What the engine built; gates ran on exactly this.
    pub built: Built,
    /// Config digest: docker's image id. `None` when it was not sealed (the verdict was no).
    pub id: Option<Digest>,
    /// Manifest digest: what is pushed.
    pub digest: Option<Digest>,
    /// Bytes of all layers, uncompressed, if known.
    pub size_bytes: Option<u64>,
    /// Bytes of all layers, compressed, if sealed.
    pub compressed_bytes: Option<u64>,
}

/// How a gate ended.
#[derive(Clone, Debug)]
pub struct GateOutcome {
    /// Its name.
    pub gate: String,
    /// Passed, failed, or skipped because something it needs failed.
    pub verdict: Verdict,
    /// A failure does not make the run fail.
    pub allow_failure: bool,
    /// What the verdict depends on beside the image, by name: the definition, mounted files, services.
    pub configuration: Vec<(String, Digest)>,
    /// The earlier run that found it out: nothing that the verdict depends on has changed since.
    pub known_from: Option<RunId>,
    /// Attempts that failed before the one that counts.
    pub former: Vec<FormerAttempt>,
    /// The image that it ran in, where that is not the built one.
    pub image: Option<GateImage>,
    /// Counted from its reports.
    pub tests: Option<TestCounts>,
    /// Lines covered by its tests.
    pub coverage: Option<Coverage>,
    /// Findings of linters and scanners.
    pub findings: Option<u64>,
    /// Failing tests and findings, the first thousand.
    pub problems: Vec<Problem>,
    /// Where its reports were collected.
    pub reports: Option<PathBuf>,
    /// How long it took.
    pub duration: Duration,
    /// The part of it in which its own commands ran, all attempts together: not the wait for services.
    pub busy: Duration,
    /// How it failed.
    pub failure: Option<GateFailure>,
    /// Why it was skipped.
    pub skipped: Option<String>,
}

impl GateOutcome {
    /// Whether this stands in the way of publishing.
    pub fn blocks(&self) -> bool {
        self.verdict != Verdict::Passed && !self.allow_failure
    }

    /// It passed, and not at the first attempt.
    pub fn is_flaky(&self) -> bool {
        self.verdict == Verdict::Passed && !self.former.is_empty()
    }

    /// Attempts that were made.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.former.len() + 1).unwrap_or(u32::MAX)
    }

    /// What its reports count, in words: `24 tests`, `87.3 % lines covered`, `2 findings`.
    pub fn counts(&self) -> Vec<String> {
        counts(self.tests, self.coverage, self.findings)
    }
}

/// What reports count, in words: `24 tests, 1 failed`, `87.3 % lines covered`, `2 findings`.
pub fn counts(tests: Option<TestCounts>, coverage: Option<Coverage>, findings: Option<u64>) -> Vec<String> {
    let count = |number: u64, noun: &str| if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") };
    let tests = tests.map(|tests| {
        let mut words = count(tests.passed + tests.failed + tests.skipped, "test");
        for (number, what) in [(tests.failed, "failed"), (tests.skipped, "skipped")] {
            if number > 0 {
                words = format!("{words}, {number} {what}");
            }
        }
        words
    });
    let coverage = coverage.map(|coverage| format!("{:.1} % lines covered", coverage.percent()));
    let findings = findings.map(|number| count(number, "finding"));
    [tests, coverage, findings].into_iter().flatten().collect()
}

/// An attempt of a gate that failed and was followed by another one.
#[derive(Clone, Debug)]
pub struct FormerAttempt {
    /// How it failed, in words.
    pub reason: String,
    /// How long it took.
    pub duration: Duration,
    /// Its log.
    pub log: Option<PathBuf>,
    /// Its reports.
    pub reports: Option<PathBuf>,
}

/// A gate's command that said no.
#[derive(Clone, Debug)]
pub struct GateFailure {
    /// The gate's name (`health` for the health check).
    pub gate: String,
    /// The command that failed, as the user wrote it.
    pub command: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// How it ended.
    pub exit: Exit,
    /// In words: `exited 1`, `was stopped after 30s (timeout)`, `hit the memory limit`.
    pub reason: String,
    /// Its last lines of output.
    pub tail: Vec<String>,
    /// Lines before the tail.
    pub earlier_lines: u64,
    /// How long the gate ran until then.
    pub duration: Duration,
    /// The whole log.
    pub log: PathBuf,
    /// Root that `shell` can start from (an id that the engine knows).
    pub kept: Option<String>,
    /// How to go on, when something is known beyond the usual.
    pub hint: Option<String>,
}

/// How the health check ended.
#[derive(Clone, Debug)]
pub struct HealthOutcome {
    /// Passed, failed, or skipped because it was switched off.
    pub verdict: Verdict,
    /// One line: `healthy at attempt 2 of 10 after 1.3s`, `still running after 1s`.
    pub summary: String,
    /// Attempts made.
    pub attempts: u32,
    /// How often it was healthy and then unhealthy again, while gates ran beside it.
    pub flaps: u32,
    /// From start to healthy, or to giving up.
    pub duration: Duration,
    /// How it failed.
    pub failure: Option<GateFailure>,
}

/// A name in a registry that now means the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// `repository:tag`.
    pub reference: String,
    /// Manifest digest.
    pub digest: Digest,
}

/// A file beside the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFile {
    /// Its name.
    pub name: String,
    /// The index or artefact: `pypi:https://…`.
    pub to: String,
    /// Its digest.
    pub digest: Digest,
    /// What became of it.
    pub fate: FileFate,
}

impl PublishedFile {
    /// `app-1.0.whl at pypi:https://…`.
    pub fn words(&self) -> String {
        format!("{} at {}", self.name, self.to)
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFate {
    /// It was sent.
    Sent,
    /// It was there, with the same content.
    WasThere,
    /// It would be sent: only that was asked.
    Absent,
}

impl FileFate {
    /// The event's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sent => "send",
            Self::WasThere => "none",
            Self::Absent => "create",
        }
    }
}

/// A tag that was not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedTag {
    /// As the file has it.
    pub template: String,
    /// Why, in words: `HEAD has no tag`, `branch is not master`.
    pub reason: String,
}

/// A tag of a registry that was to move and stayed where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTag {
    /// `repository:tag`.
    pub reference: String,
    /// Why, in words: `it names 1.3.0, which is higher`.
    pub reason: String,
}

/// What publishing would do to a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// `repository:tag`.
    pub reference: String,
    /// What would become of it.
    pub fate: TagFate,
}

/// What would become of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFate {
    /// It would be made.
    New,
    /// It would move from what it names now: a version where the image tells one, else a digest.
    Moves(String),
    /// It names this image.
    IsThere,
    /// It would stay, for this reason.
    Stays(String),
}
