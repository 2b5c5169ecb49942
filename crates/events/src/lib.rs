//! The record of a run: [`Event`]s as versioned JSON lines, and the ids and verdicts they speak of.
//!
//! Knows nothing of who listens. Whoever does work gets an [`EventSink`] and emits; the terminal, the JSON lines, the run
//! log and the JUnit file are subscribers of the same stream. Events are the only thing that flows up.

mod cause;
mod report;
mod transfers;

use std::sync::Arc;

pub use cause::{Cause, Change, FileChange, FileState};
use oci::Digest;
pub use report::{Coverage, Problem, ProblemKind, ProblemLevel, TestCounts};
use serde::{Deserialize, Serialize};
pub use transfers::{Moved, Transfers};

/// Version of the event format; raised when a field changes its meaning or goes away.
pub const FORMAT_VERSION: u32 = 1;

/// Number of a run on this machine, counted up in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It was not looked at (something it needs failed, or it was cancelled).
    Skipped,
}

/// Where something stands in a file of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as the user would name it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// An event with the time since the run's start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT_VERSION`].
    pub v: u32,
    /// Milliseconds since the run started, by a monotonic clock.
    pub at_ms: u64,
    /// The image that it is about, where a run has several: its name in the pipeline file.
    /// Events have an `image` of their own, so it is called otherwise.
    #[serde(default, rename = "image_name", skip_serializing_if = "Option::is_none")]
    pub image: Option<Arc<str>>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen in a run. Ids of stages (`build`, a gate's name, `health`, `publish`; with several images `api/build`) and steps
/// are unique in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum Event {
    /// A run begins.
    #[serde(rename = "run.started")]
    RunStarted {
        /// Its number.
        run: RunId,
        /// Name of what is built, for people.
        name: String,
        /// Commit, if the source is a Git repository.
        commit: Option<String>,
        /// Branch or tag.
        branch: Option<String>,
        /// All stages that will come, in order.
        stages: Vec<String>,
    },
    /// A stage of the run begins.
    #[serde(rename = "stage.started")]
    StageStarted {
        /// Its id.
        stage: String,
    },
    /// One instruction or command begins.
    #[serde(rename = "step.started")]
    StepStarted {
        /// Stage it belongs to.
        stage: String,
        /// Its id, unique in the run.
        step: u64,
        /// What the user wrote.
        text: String,
        /// Where.
        place: Option<Place>,
    },
    /// Output of a step, whole lines or a long line's part; bytes that are not UTF-8 are replaced.
    #[serde(rename = "step.log")]
    StepLog {
        /// Stage it belongs to.
        stage: String,
        /// The step.
        step: u64,
        /// The text, without its line end.
        line: String,
    },
    /// A step's result was there already.
    #[serde(rename = "step.cached")]
    StepCached {
        /// Stage it belongs to.
        stage: String,
        /// The step.
        step: u64,
        /// What the user wrote.
        text: String,
        /// Where.
        place: Option<Place>,
        /// What making it took when it was made, in milliseconds.
        saved_ms: u64,
    },
    /// A step's result was not in the cache, and why. Comes before its `step.finished`.
    #[serde(rename = "step.missed")]
    StepMissed {
        /// Stage it belongs to.
        stage: String,
        /// The step.
        step: u64,
        /// The first part of its key that differs.
        cause: Box<Cause>,
    },
    /// A step ended.
    #[serde(rename = "step.finished")]
    StepFinished {
        /// Stage it belongs to.
        stage: String,
        /// The step.
        step: u64,
        /// Exit code; 0 for steps that are no processes.
        exit_code: i32,
        /// How long it took.
        duration_ms: u64,
        /// Why it was not taken from the cache, in a few words for people; `step.missed` has the whole of it.
        reason: Option<String>,
    },
    /// Bytes moved, for progress; never stored.
    #[serde(rename = "transfer")]
    Transfer {
        /// Stage it belongs to.
        stage: String,
        /// What moves, such as a short digest.
        item: String,
        /// Bytes so far.
        done_bytes: u64,
        /// Bytes in all, if known.
        total_bytes: Option<u64>,
        /// Bytes a second that the whole stage moves, once that can be said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<u64>,
    },
    /// The image is built. Its digest may come later (`image.sealed`).
    #[serde(rename = "image.built")]
    ImageBuilt {
        /// Config digest: docker's image id. `None` while layers are still being sealed.
        id: Option<Digest>,
        /// Bytes of all layers, uncompressed.
        size_bytes: u64,
        /// Number of layers.
        layers: usize,
        /// Steps in all.
        steps: usize,
        /// Steps taken from the cache.
        steps_cached: usize,
        /// Time that the cache saved, in milliseconds.
        saved_ms: u64,
    },
    /// The image's manifest digest is known.
    #[serde(rename = "image.sealed")]
    ImageSealed {
        /// Manifest digest.
        digest: Digest,
        /// Bytes of all layers, compressed.
        size_bytes: u64,
    },
    /// A gate failed and is tried again, from a fresh copy.
    #[serde(rename = "gate.retried")]
    GateRetried {
        /// Its name.
        gate: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Attempts in all, at most.
        attempts: u32,
        /// How it failed, in words.
        reason: String,
        /// How long the attempt took.
        duration_ms: u64,
    },
    /// A gate has its verdict.
    #[serde(rename = "gate.finished")]
    GateFinished {
        /// Its name.
        gate: String,
        /// The verdict.
        verdict: Verdict,
        /// A recorded verdict of an earlier run.
        cached: bool,
        /// Whether a failure is allowed.
        allow_failure: bool,
        /// The run that found it out, where that is an earlier one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        /// Attempts that it took; a gate that passed after more than one is flaky.
        #[serde(default = "one")]
        attempts: u32,
        /// The image that it ran in, where that is not the built one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<GateImage>,
        /// Tests counted from its reports: passed, failed, skipped.
        tests: Option<TestCounts>,
        /// Lines covered by its tests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        coverage: Option<Coverage>,
        /// Findings of linters and scanners.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        findings: Option<u64>,
        /// The first failing tests and findings.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        problems: Vec<Problem>,
        /// How long it took.
        duration_ms: u64,
    },
    /// One probe of the health check.
    #[serde(rename = "health.attempt")]
    HealthAttempt {
        /// From 1.
        attempt: u32,
        /// Of how many.
        attempts: u32,
        /// Exit code of the probe.
        exit_code: i32,
        /// Its output, cut.
        output: String,
    },
    /// The health check has its verdict.
    #[serde(rename = "health.finished")]
    HealthFinished {
        /// The verdict.
        verdict: Verdict,
        /// Attempts that it took.
        attempt: u32,
        /// Time from start to healthy (or to giving up).
        duration_ms: u64,
        /// How often it was healthy and then unhealthy again.
        #[serde(default)]
        flaps: u32,
    },
    /// A service's container begins. Its output belongs to the stage of its name.
    #[serde(rename = "service.started")]
    ServiceStarted {
        /// Its name.
        service: String,
        /// Its image, as the user names it.
        reference: String,
        /// What that was resolved to: docker's image id, or a digest of content and config for one that was built here.
        image: Digest,
    },
    /// A service is ready for those who need it.
    #[serde(rename = "service.ready")]
    ServiceReady {
        /// Its name.
        service: String,
        /// How that showed: `healthy at attempt 2 of 30`, `port 5432 accepts`.
        how: String,
        /// It began from a snapshot.
        warm: bool,
        /// From its start to ready.
        duration_ms: u64,
    },
    /// A service ended while it was needed, or never became ready.
    #[serde(rename = "service.failed")]
    ServiceFailed {
        /// Its name.
        service: String,
        /// In words that follow the name: `exited 1 before it was ready`.
        reason: String,
        /// Its exit code, if it ended.
        exit_code: Option<i32>,
        /// From its start.
        duration_ms: u64,
    },
    /// A tag that a rule named and that was not used.
    #[serde(rename = "tag.skipped")]
    TagSkipped {
        /// The template.
        template: String,
        /// Why.
        reason: String,
    },
    /// A tag of a registry that was to move to the image and stayed where it is.
    #[serde(rename = "tag.kept")]
    TagKept {
        /// Full reference.
        reference: String,
        /// Why: `it names 1.3.0, which is higher`.
        reason: String,
    },
    /// What publishing would do to a tag, where only that was asked.
    #[serde(rename = "tag.foreseen")]
    TagForeseen {
        /// Full reference.
        reference: String,
        /// `create`, `move`, `keep`, or `none` where it names the image already.
        action: String,
        /// What it names now, or why it would stay.
        reason: Option<String>,
    },
    /// A tag now names the image.
    #[serde(rename = "tag.written")]
    TagWritten {
        /// Full reference.
        reference: String,
        /// Manifest digest; absent while no manifest is made of the image, as after a plain build.
        digest: Option<Digest>,
    },
    /// A file beside the image is published, or would be.
    #[serde(rename = "file.published")]
    FilePublished {
        /// Its name.
        file: String,
        /// The index or artefact: `pypi:https://…`.
        to: String,
        /// Its digest.
        digest: Digest,
        /// `send` where it was sent, `none` where it was there, `create` where only that was asked.
        action: String,
    },
    /// A stage ended.
    #[serde(rename = "stage.finished")]
    StageFinished {
        /// Its id.
        stage: String,
        /// How.
        verdict: Verdict,
        /// How long it took.
        duration_ms: u64,
        /// One line for people: `58.1 MB, 9 of 11 steps cached`.
        summary: String,
    },
    /// Something that the user should know.
    #[serde(rename = "warning")]
    Warning {
        /// The message.
        message: String,
        /// Where.
        place: Option<Place>,
    },
    /// The run ended.
    #[serde(rename = "run.finished")]
    RunFinished {
        /// How.
        verdict: Verdict,
        /// How long it took.
        duration_ms: u64,
    },
}

/// Another image than the built one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateImage {
    /// Its name, as the user wrote it.
    pub reference: String,
    /// What the name stood for: the digest of the config, docker's image id.
    pub id: Digest,
}

fn one() -> u32 {
    1
}

/// Hears events. Called from several threads; must be quick.
pub trait Subscriber: Send + Sync {
    /// Takes in one event.
    fn event(&self, record: &Record);
}

/// Where events go: cheap to clone, any number of subscribers.
#[derive(Clone)]
pub struct EventSink {
    start: std::time::Instant,
    subscribers: Arc<[Arc<dyn Subscriber>]>,
    image: Option<Arc<str>>,
    steps: Arc<std::sync::atomic::AtomicU64>,
}

impl EventSink {
    /// A sink for these subscribers; the run's clock starts now.
    pub fn new(subscribers: Vec<Arc<dyn Subscriber>>) -> Self {
        Self { start: std::time::Instant::now(), subscribers: subscribers.into(), image: None, steps: Arc::default() }
    }

    /// A sink that nobody hears.
    pub fn silent() -> Self {
        Self::new(Vec::new())
    }

    /// The same sink for what is about one of several images.
    pub fn of_image(&self, name: &str) -> Self {
        Self { image: Some(name.into()), ..self.clone() }
    }

    /// The same clock and the same step ids, heard by somebody who hands on what becomes of it.
    pub fn through(&self, subscriber: Arc<dyn Subscriber>) -> Self {
        Self { subscribers: [subscriber].into(), ..self.clone() }
    }

    /// Tells every subscriber.
    pub fn emit(&self, event: Event) {
        let at_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = Record { v: FORMAT_VERSION, at_ms, image: self.image.clone(), event };
        for subscriber in self.subscribers.iter() {
            subscriber.event(&record);
        }
    }

    /// A new step id, unique in this sink's run.
    pub fn next_step(&self) -> u64 {
        self.steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }

    /// Time since the run started.
    pub fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventSink({} subscribers)", self.subscribers.len())
    }
}
