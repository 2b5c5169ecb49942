//! What a run looks like so far: the state that every view draws from.

use std::collections::VecDeque;

use events::{Event, Place, Record, RunId, Verdict};

use crate::terminal::text;

/// Lines kept per stage for views and for repeating the end of a failure.
pub(crate) const TAIL_LINES_MAX: usize = 40;
/// The slowest steps that are remembered.
const SLOWEST_MAX: usize = 8;

/// A run as told by its events.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Number of the run.
    pub(crate) run: Option<RunId>,
    /// What is built.
    pub(crate) name: String,
    /// Short commit.
    pub(crate) commit: Option<String>,
    /// Branch or tag.
    pub(crate) branch: Option<String>,
    /// Stages in order.
    pub(crate) stages: Vec<Stage>,
    /// Layers of the image, and what the cache saved.
    pub(crate) image: Option<ImageFacts>,
    /// The longest steps, longest first.
    pub(crate) slowest: Vec<SlowStep>,
    /// The first step that was not in the cache for a reason worth telling: where or what it is, and why.
    pub(crate) miss: Option<(String, String)>,
    /// How it ended, and after how many milliseconds.
    pub(crate) finished: Option<(Verdict, u64)>,
    /// The latest time heard of, in milliseconds since the start.
    pub(crate) now_ms: u64,
}

/// `image.built`.
#[derive(Clone, Debug)]
pub(crate) struct ImageFacts {
    pub(crate) layers: usize,
    pub(crate) saved_ms: u64,
}

/// A step that took long.
#[derive(Clone, Debug)]
pub(crate) struct SlowStep {
    pub(crate) stage: String,
    pub(crate) text: String,
    pub(crate) place: Option<Place>,
    pub(crate) duration_ms: u64,
}

/// One stage of a run.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) started_ms: u64,
    /// Steps that run now.
    pub(crate) steps: Vec<Step>,
    /// The last lines, cleaned.
    pub(crate) tail: VecDeque<String>,
    /// Lines in all.
    pub(crate) lines: u64,
    /// Bytes on the move: what, so far, in all.
    pub(crate) transfers: Vec<(String, u64, Option<u64>)>,
    /// How fast they move, in bytes a second.
    pub(crate) rate: Option<u64>,
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Pending,
    Active,
    Done { verdict: Verdict, duration_ms: u64, summary: String },
}

/// A step that runs.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) id: u64,
    pub(crate) text: String,
    pub(crate) place: Option<Place>,
}

impl Step {
    /// `Dockerfile:12`, or its text.
    fn words(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}", text::one_line(&place.file), place.line),
            None => format!("`{}`", text::fit(&self.text, 30)),
        }
    }
}

impl Model {
    /// Takes in one event.
    pub(crate) fn apply(&mut self, record: &Record) {
        self.now_ms = self.now_ms.max(record.at_ms);
        let at_ms = record.at_ms;
        match &record.event {
            Event::RunStarted { run, name, commit, branch, stages } => {
                self.run = Some(*run);
                self.name = text::one_line(name);
                self.commit = commit.as_deref().map(|commit| text::one_line(commit).chars().take(7).collect());
                self.branch = branch.as_deref().map(text::one_line);
                for stage in stages {
                    self.stage(stage);
                }
            }
            Event::StageStarted { stage } => {
                let stage = self.stage(stage);
                stage.state = State::Active;
                stage.started_ms = at_ms;
            }
            Event::StepStarted { stage, step, text, place } => {
                let text = text::one_line(text);
                let step = Step { id: *step, text, place: place.clone() };
                let stage = self.stage(stage);
                stage.activate(at_ms);
                stage.steps.push(step);
            }
            Event::StepLog { stage, line, .. } => {
                let stage = self.stage(stage);
                stage.lines += 1;
                if stage.tail.len() == TAIL_LINES_MAX {
                    stage.tail.pop_front();
                }
                stage.tail.push_back(text::clean_line(line));
            }
            Event::StepCached { stage, .. } => self.stage(stage).activate(at_ms),
            Event::StepFinished { stage, step, duration_ms, .. } => self.step_finished(stage, *step, *duration_ms),
            Event::Transfer { stage, item, done_bytes, total_bytes, rate } => {
                let stage = self.stage(stage);
                stage.rate = *rate;
                stage.transfers.retain(|(other, ..)| other != item);
                if *total_bytes != Some(*done_bytes) {
                    stage.transfers.push((text::one_line(item), *done_bytes, *total_bytes));
                }
            }
            // Of several images the outcome tells.
            Event::ImageBuilt { layers, saved_ms, .. } if record.image.is_none() => {
                self.image = Some(ImageFacts { layers: *layers, saved_ms: *saved_ms });
            }
            Event::StageFinished { stage, verdict, duration_ms, summary } => {
                let (verdict, duration_ms, summary) = (*verdict, *duration_ms, text::one_line(summary));
                let stage = self.stage(stage);
                stage.state = State::Done { verdict, duration_ms, summary };
                stage.steps.clear();
                stage.transfers.clear();
            }
            Event::RunFinished { verdict, duration_ms } => self.finished = Some((*verdict, *duration_ms)),
            // The outcome of a run has these; views need them only as they come.
            Event::StepMissed { stage, step, cause } => {
                if self.miss.is_none() && cause.is_telling() {
                    let steps = self.find_stage(stage).map(|stage| stage.steps.as_slice()).unwrap_or_default();
                    let what = steps.iter().find(|known| known.id == *step).map(Step::words);
                    self.miss = what.map(|what| (what, text::one_line(&cause.summary())));
                }
            }
            Event::ImageBuilt { .. }
            | Event::ImageSealed { .. }
            | Event::GateRetried { .. }
            | Event::GateFinished { .. }
            | Event::HealthAttempt { .. }
            | Event::HealthFinished { .. }
            | Event::ServiceStarted { .. }
            | Event::ServiceReady { .. }
            | Event::ServiceFailed { .. }
            | Event::TagSkipped { .. }
            | Event::TagWritten { .. }
            | Event::TagKept { .. }
            | Event::TagForeseen { .. }
            | Event::FilePublished { .. }
            | Event::Warning { .. } => {}
        }
    }

    fn step_finished(&mut self, stage: &str, id: u64, duration_ms: u64) {
        let stage = self.stage(stage);
        let Some(position) = stage.steps.iter().position(|step| step.id == id) else { return };
        let step = stage.steps.remove(position);
        let slow = SlowStep { stage: stage.id.clone(), text: step.text, place: step.place, duration_ms };
        let rank = self.slowest.partition_point(|other| other.duration_ms >= duration_ms);
        self.slowest.insert(rank, slow);
        self.slowest.truncate(SLOWEST_MAX);
    }

    /// The stage of this id; a stage that nobody announced comes last.
    fn stage(&mut self, id: &str) -> &mut Stage {
        let position = self.stages.iter().position(|stage| stage.id == id).unwrap_or_else(|| {
            self.stages.push(Stage::new(id));
            self.stages.len() - 1
        });
        &mut self.stages[position]
    }

    /// The stage of this id, if anything was heard of it.
    pub(crate) fn find_stage(&self, id: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.id == id)
    }

    /// Whether a stage has ended.
    pub(crate) fn is_done(&self, id: &str) -> bool {
        self.find_stage(id).is_some_and(|stage| matches!(stage.state, State::Done { .. }))
    }

    /// Stages that run now.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(|stage| stage.state == State::Active)
    }

    /// `numbers-api 3f2a91c feature/even`.
    pub(crate) fn title(&self) -> String {
        let parts = [Some(self.name.as_str()), self.commit.as_deref(), self.branch.as_deref()];
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Stage {
    fn new(id: &str) -> Self {
        Self {
            id: text::one_line(id),
            state: State::Pending,
            started_ms: 0,
            steps: Vec::new(),
            tail: VecDeque::new(),
            lines: 0,
            transfers: Vec::new(),
            rate: None,
        }
    }

    fn activate(&mut self, at_ms: u64) {
        if self.state == State::Pending {
            self.state = State::Active;
            self.started_ms = at_ms;
        }
    }

    /// What it does now, in the user's words.
    pub(crate) fn doing(&self) -> String {
        if let Some((item, done, total)) = self.transfers.last() {
            let moved: u64 = self.transfers.iter().map(|(_, done, _)| done).sum();
            let all: Option<u64> = self.transfers.iter().map(|(.., total)| *total).sum();
            let words = match (self.transfers.len(), total, all) {
                (1, Some(total), _) => format!("{item} {} of {}", text::bytes(*done), text::bytes(*total)),
                (1, None, _) => format!("{item} {}", text::bytes(*done)),
                (number, _, Some(all)) => {
                    format!("{number} blobs, {} of {}", text::bytes(moved), text::bytes(all))
                }
                (number, ..) => format!("{number} blobs, {}", text::bytes(moved)),
            };
            let rate = self.rate.map(|rate| format!(", {}", text::rate(rate))).unwrap_or_default();
            return words + &rate;
        }
        match self.steps.as_slice() {
            [] => String::new(),
            [step] => step.text.clone(),
            [.., step] => format!("{} (and {} more)", step.text, self.steps.len() - 1),
        }
    }
}
