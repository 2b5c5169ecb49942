//! What is kept of a run beside its events and logs: `meta.json`, for `logs`, `shell` and the next summary.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use engine::KeptRoot;
use events::{GateImage, RunId, Verdict};
use pipeline::GateOutcome;
use serde::{Deserialize, Serialize};
use store::RunDir;

/// Name in a run's directory.
const FILE: &str = "meta.json";

/// A run in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RunRecord {
    /// `run`, `build`, `test` …
    pub(super) command: String,
    /// What was built.
    pub(super) name: String,
    /// Short commit.
    #[serde(default)]
    pub(super) commit: Option<String>,
    /// Branch or tag.
    #[serde(default)]
    pub(super) branch: Option<String>,
    /// Seconds since 1970 at the end.
    pub(super) ended: u64,
    pub(super) duration_ms: u64,
    pub(super) verdict: Verdict,
    /// A signal ended it before there was a verdict.
    #[serde(default)]
    pub(super) cancelled: bool,
    /// Image id.
    #[serde(default)]
    pub(super) image: Option<String>,
    /// Image ids by name, of a run with several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) images: BTreeMap<String, String>,
    /// Bytes of the image, uncompressed.
    #[serde(default)]
    pub(super) size_bytes: Option<u64>,
    /// Gates with their verdicts.
    #[serde(default)]
    pub(super) gates: BTreeMap<String, GateRecord>,
    /// Services that were used, with what their images were resolved to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) services: BTreeMap<String, String>,
    /// Root filesystems of what failed, by stage.
    #[serde(default)]
    pub(super) kept: BTreeMap<String, KeptRoot>,
}

/// A gate in short.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GateRecord {
    pub(super) verdict: Verdict,
    /// Attempts that were made.
    pub(super) attempts: u32,
    /// The earlier run that found the verdict out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) known_from: Option<RunId>,
    /// The image that it ran in, where that is not the built one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<GateImage>,
}

impl GateRecord {
    pub(super) fn of(gate: &GateOutcome) -> Self {
        let (known_from, image) = (gate.known_from, gate.image.clone());
        Self { verdict: gate.verdict, attempts: gate.attempts(), known_from, image }
    }
}

impl RunRecord {
    /// A run that ended now.
    pub(super) fn new(command: &str, name: &str, verdict: Verdict, duration_ms: u64) -> Self {
        Self {
            command: command.to_owned(),
            name: name.to_owned(),
            commit: None,
            branch: None,
            ended: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            duration_ms,
            verdict,
            cancelled: false,
            image: None,
            images: BTreeMap::new(),
            size_bytes: None,
            gates: BTreeMap::new(),
            services: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Writes the record. A run is not spoiled by a record that cannot be written.
    pub(super) fn write(&self, run: &RunDir) {
        let text = serde_json::to_vec(self).expect("records have string keys and always serialise");
        let temporary = run.path.join(".meta.json");
        if std::fs::write(&temporary, text).is_ok() {
            let _ = std::fs::rename(&temporary, run.path.join(FILE));
        }
    }

    /// The record of a run; `None` while it runs, or when it was killed.
    pub(super) fn read(run: &RunDir) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(run.path.join(FILE)).ok()?).ok()
    }

    /// Time since its end.
    pub(super) fn age(&self) -> Duration {
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(self.ended);
        SystemTime::now().duration_since(ended).unwrap_or_default()
    }
}

/// What is kept of a run that was to build images for services, and did not.
pub(crate) fn record_of_up(run: &RunDir, name: &str, verdict: Verdict, duration: Duration) {
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    RunRecord::new("up", name, verdict, duration_ms).write(run);
}
