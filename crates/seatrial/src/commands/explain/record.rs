//! The steps of a build as its run recorded them.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
};

use anyhow::Context as _;
use events::{Cause, Event, Place, Record, RunId};
use store::{RunDir, Store};

use crate::{commands::record::RunRecord, failure::Failure, terminal::text};

/// Longer lines are logs, or no record of ours.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What the lines of logs begin with, which are most of a record and need no reading.
const LOG_MARK: &str = "\"event\":\"step.log\"";
/// A mark stands within the first bytes of a line.
const MARK_WITHIN_BYTES: usize = 160;

/// The steps of one run.
pub(super) struct BuildRecord {
    pub(super) run: u64,
    /// Gates are no steps of a build; setup commands are.
    pub(super) steps: Vec<StepRecord>,
    /// Settings may come from a pipeline file.
    pub(super) has_pipeline_file: bool,
    short: Option<RunRecord>,
}

/// One step.
#[derive(Clone)]
pub(super) struct StepRecord {
    pub(super) stage: String,
    pub(super) number: u64,
    pub(super) text: String,
    pub(super) place: Option<Place>,
    pub(super) is_cached: bool,
    pub(super) saved_ms: Option<u64>,
    pub(super) duration_ms: Option<u64>,
    pub(super) exit_code: Option<i32>,
    pub(super) cause: Option<Cause>,
}

impl StepRecord {
    /// `Dockerfile:12`.
    pub(super) fn line(&self) -> Option<String> {
        self.place.as_ref().map(|place| format!("{}:{}", text::one_line(&place.file), place.line))
    }

    /// What the table says of the cache.
    pub(super) fn reason(&self) -> String {
        match &self.cause {
            _ if self.is_cached => "cached".into(),
            Some(cause) => cause.summary(),
            None if self.duration_ms.is_none() => "did not end".into(),
            None => "made".into(),
        }
    }
}

/// The latest run that built the image of this id.
pub(super) fn run_of_image(store: &Store, id: &str) -> anyhow::Result<Option<RunDir>> {
    let runs = store.runs().context("cannot list runs")?;
    let is_its = |run: &RunDir| {
        RunRecord::read(run)
            .is_some_and(|record| record.image.iter().chain(record.images.values()).any(|known| known == id))
    };
    Ok(runs.into_iter().rev().find(is_its))
}

impl BuildRecord {
    /// Reads the events of a run, a line at a time.
    pub(super) fn read(run: &RunDir) -> anyhow::Result<Self> {
        let path = run.path.join("events.jsonl");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::refused(format!("run {} left no record of its steps", run.number))
                    .hint("see the list of runs with `seatrial logs`")
                    .into());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let short = RunRecord::read(run);
        let has_pipeline_file = short.as_ref().is_some_and(|short| short.command != "build");
        let mut record = Self { run: run.number, steps: Vec::new(), has_pipeline_file, short };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {}", path.display()))? == 0 {
                break;
            }
            let begin = String::from_utf8_lossy(&line[..line.len().min(MARK_WITHIN_BYTES)]);
            if begin.contains(LOG_MARK) {
                continue;
            }
            // The last line of a killed run may be torn; newer events than we know are none of ours.
            if let Ok(Record { event, .. }) = serde_json::from_slice(&line) {
                record.apply(event);
            }
        }
        record.steps.sort_by_key(|step| (is_setup(&step.stage), step.line_number(), step.number));
        Ok(record)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::RunStarted { run: RunId(run), .. } => self.run = run,
            Event::StepStarted { stage, step, text, place } if is_of_build(&stage) => {
                self.steps.push(StepRecord::new(stage, step, text, place));
            }
            Event::StepCached { stage, step, text, place, saved_ms } if is_of_build(&stage) => {
                let step = StepRecord::new(stage, step, text, place);
                self.steps.push(StepRecord { is_cached: true, saved_ms: Some(saved_ms), ..step });
            }
            Event::StepMissed { step, cause, .. } => self.change(step, |known| known.cause = Some(*cause)),
            Event::StepFinished { step, exit_code, duration_ms, .. } => self.change(step, |known| {
                known.exit_code = Some(exit_code);
                known.duration_ms = Some(duration_ms);
            }),
            _ => {}
        }
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut StepRecord)) {
        if let Some(step) = self.steps.iter_mut().rev().find(|step| step.number == number) {
            change(step);
        }
    }

    /// `run 41: build of numbers-api, passed 3 minutes ago, 9 of 11 steps cached`.
    pub(super) fn title(&self) -> String {
        let cached = self.steps.iter().filter(|step| step.is_cached).count();
        let steps = format!("{cached} of {} cached", text::count(self.steps.len(), "step"));
        match &self.short {
            Some(short) => format!(
                "run {}: {} of {}, {}, {steps}",
                self.run,
                short.command,
                text::one_line(&short.name),
                text::ago(short.age()),
            ),
            None => format!("run {}: not ended, {steps}", self.run),
        }
    }

    /// The step that is meant: by number, by line, or by a part of its text.
    pub(super) fn find(&self, wanted: &str) -> anyhow::Result<&StepRecord> {
        let by_number =
            wanted.parse().ok().and_then(|number: u64| self.steps.iter().find(|step| step.number == number));
        if let Some(step) = by_number {
            return Ok(step);
        }
        let lower = wanted.to_lowercase();
        let is_at_line = |step: &&StepRecord| step.is_at_line(wanted);
        let mut found: Vec<&StepRecord> = self.steps.iter().filter(is_at_line).collect();
        if found.is_empty() {
            let has_text = |step: &&StepRecord| step.text.to_lowercase().contains(&lower);
            found = self.steps.iter().filter(has_text).collect();
        }
        match found.as_slice() {
            [step] => Ok(step),
            [] => Err(self.no_step(wanted).into()),
            several => {
                let mut failure = Failure::usage(format!(
                    "`{wanted}` is in {} of run {}",
                    text::count(several.len(), "step"),
                    self.run
                ));
                for step in several.iter().take(STEPS_HINTED_MAX) {
                    let text = text::fit(&text::one_line(&step.text), 50);
                    failure = failure.hint(format!("`seatrial explain {} {}` for `{text}`", self.run, step.number));
                }
                Err(failure.into())
            }
        }
    }

    fn no_step(&self, wanted: &str) -> Failure {
        let failure = Failure::usage(format!("run {} has no step `{wanted}`", self.run));
        let lines: Vec<String> = self.steps.iter().filter_map(StepRecord::line).collect();
        match dockerfile::nearest(wanted, lines.iter().map(String::as_str)) {
            Some(near) => failure.hint(format!("did you mean `seatrial explain {} {near}`?", self.run)),
            None => failure.hint(format!(
                "steps are named by number, line (`Dockerfile:12`) or text: see `seatrial explain {}`",
                self.run
            )),
        }
    }
}

/// As many steps are offered where one has to be chosen.
const STEPS_HINTED_MAX: usize = 5;

impl StepRecord {
    fn new(stage: String, number: u64, text: String, place: Option<Place>) -> Self {
        Self {
            stage,
            number,
            text,
            place,
            is_cached: false,
            saved_ms: None,
            duration_ms: None,
            exit_code: None,
            cause: None,
        }
    }

    fn line_number(&self) -> usize {
        self.place.as_ref().map_or(usize::MAX, |place| place.line)
    }

    /// `Dockerfile:12`, also with a directory before it, or a column behind; `:12` in whatever file.
    fn is_at_line(&self, wanted: &str) -> bool {
        let Some(place) = &self.place else { return false };
        let mut parts = wanted.rsplitn(3, ':');
        let (last, second, first) = (parts.next(), parts.next(), parts.next());
        let is_file = |file: &str| {
            file.is_empty()
                || place.file == file
                || place.file.ends_with(&format!("/{file}"))
                || file.ends_with(&format!("/{}", place.file))
        };
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
        match (first, second, last) {
            (Some(file), line, column) if number(line) == Some(place.line) && number(column).is_some() => is_file(file),
            (None, Some(file), line) if number(line) == Some(place.line) => is_file(file),
            _ => false,
        }
    }
}

fn is_of_build(stage: &str) -> bool {
    let name = pipeline::name_in_image(stage);
    name == "build" || name.starts_with("build ") || is_setup(stage)
}

fn is_setup(stage: &str) -> bool {
    pipeline::name_in_image(stage) == "setup"
}
