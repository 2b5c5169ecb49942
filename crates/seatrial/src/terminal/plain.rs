//! The view without a terminal: lines that stay, a stage's output as one block at its end, folds for CI systems.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use events::{Event, Record, Subscriber, Verdict};

use super::{
    Palette, message,
    model::{Model, State},
    text, with_place,
};
use crate::settings::Ci;

/// After this long without a word, a line says what is still running.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What a probe of the health check said is shown in so many columns.
const PROBE_COLUMNS: usize = 160;
/// How often the view looks whether there is something to say without an event.
const TICK: Duration = Duration::from_millis(250);
/// A stage that has run alone for this long is shown as it goes; quicker ones come as a block.
const ALONE: Duration = Duration::from_millis(700);
/// A long pull or push says how far it is this often.
const TRANSFER_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a stage's output held back until its end; the whole log is on disk.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// Writes a run as lines to stderr. Call [`PlainView::finish`] before anything else is said about the run.
pub(crate) struct PlainView {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<Lines>,
    stopping: AtomicBool,
    tick: (Mutex<()>, Condvar),
}

struct Lines {
    model: Model,
    ci: Option<Ci>,
    palette: Palette,
    /// The token that switches GitHub's workflow commands off and on; containers cannot guess it.
    token: String,
    /// Output held back, by stage.
    held: HashMap<String, Held>,
    /// The stage whose output is shown as it comes, because it runs alone.
    live: Option<String>,
    /// The only stage that runs, and since when.
    alone: Option<(String, Instant)>,
    /// Workflow commands are switched off at this point of the stream.
    commands_off: bool,
    /// When each stage last told of bytes on the move.
    transfers_told: HashMap<String, Instant>,
    last_word: Instant,
    started: Instant,
}

#[derive(Default)]
struct Held {
    lines: Vec<String>,
    bytes: usize,
    dropped: u64,
}

impl PlainView {
    /// Starts the view; `ci` decides how blocks fold.
    pub(crate) fn start(ci: Option<Ci>) -> Self {
        let lines = Lines::new(ci, Palette::stderr(), random_token());
        let shared = Arc::new(Shared {
            state: Mutex::new(lines),
            stopping: AtomicBool::new(false),
            tick: (Mutex::new(()), Condvar::new()),
        });
        let thread = std::thread::Builder::new().name("view".into()).spawn({
            let shared = shared.clone();
            move || shared.watch_for_silence()
        });
        Self { shared, thread: Mutex::new(thread.ok()) }
    }

    /// Ends the view: what is still held back is shown.
    pub(crate) fn finish(&self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.tick.1.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        let mut out = String::new();
        let mut state = self.shared.state();
        let unfinished: Vec<String> = state.held.keys().cloned().collect();
        for stage in unfinished {
            state.block(&stage, None, &mut out);
        }
        state.commands_on(&mut out);
        message(&out);
    }
}

impl Drop for PlainView {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Subscriber for PlainView {
    fn event(&self, record: &Record) {
        let mut state = self.shared.state();
        let out = state.event(record);
        if !out.is_empty() {
            state.last_word = Instant::now();
            message(&out);
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_for_silence(&self) {
        let mut guard = self.tick.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            guard = self.tick.1.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let mut state = self.state();
            let mut out = String::new();
            state.go_live(&mut out);
            if !out.is_empty() {
                state.last_word = Instant::now();
                message(&out);
            }
            if state.last_word.elapsed() >= SILENCE_MAX {
                state.last_word = Instant::now();
                message(&state.slow());
            }
        }
    }
}

impl Lines {
    fn new(ci: Option<Ci>, palette: Palette, token: String) -> Self {
        Self {
            model: Model::default(),
            ci,
            palette,
            token,
            held: HashMap::new(),
            live: None,
            alone: None,
            commands_off: false,
            transfers_told: HashMap::new(),
            last_word: Instant::now(),
            started: Instant::now(),
        }
    }

    /// What there is to say about one event.
    fn event(&mut self, record: &Record) -> String {
        self.model.apply(record);
        let mut out = String::new();
        match &record.event {
            Event::RunStarted { run, .. } => {
                let title = self.own(&format!("run {run}: {}\n", self.model.title()));
                out.push_str(&title);
            }
            Event::StageStarted { stage } => self.choose_live(stage),
            Event::StepStarted { stage, text, place, .. } => {
                self.choose_live(stage);
                self.step(stage, "", text, place.as_ref(), &mut out);
            }
            Event::StepCached { stage, text, place, .. } => {
                self.choose_live(stage);
                self.step(stage, "cached ", text, place.as_ref(), &mut out);
            }
            // What a service says after it was ready is in its log; its line has been said.
            Event::StepLog { stage, .. } if self.model.is_done(stage) => {}
            Event::StepLog { stage, line, .. } => {
                let line = format!("    {}", text::clean_line(line));
                self.output(stage, line, &mut out);
            }
            Event::StepMissed { stage, cause, .. } if cause.is_telling() => {
                let line = format!("    not cached: {}", text::one_line(&cause.summary()));
                self.output(stage, line, &mut out);
            }
            Event::StepFinished { stage, exit_code, .. } if *exit_code != 0 => {
                self.output(stage, format!("  exited {exit_code}"), &mut out);
            }
            Event::GateRetried { gate, attempt, attempts, reason, .. } => {
                self.output(gate, format!("  attempt {attempt} of {attempts} {reason}; once more"), &mut out);
            }
            Event::HealthAttempt { attempt, attempts, exit_code, output } => {
                let words = if *exit_code == 0 { "healthy".to_owned() } else { format!("exited {exit_code}") };
                // Of a long complaint the last line says most.
                let mut said = output.lines().rev().filter(|line| !line.trim().is_empty());
                let last = text::fit(&text::one_line(said.next().unwrap_or_default()), PROBE_COLUMNS);
                let more = if said.next().is_some() { "… " } else { "" };
                let line = format!("  attempt {attempt} of {attempts}: {words} {more}{last}");
                let stage =
                    record.image.as_ref().map_or_else(|| "health".to_owned(), |image| format!("{image}/health"));
                self.output(&stage, line.trim_end().to_owned(), &mut out);
            }
            Event::Transfer { stage, .. } => self.transfer(stage, &mut out),
            Event::StageFinished { stage, verdict, .. } => self.block(stage, Some(*verdict), &mut out),
            Event::TagWritten { reference, .. } => {
                let line = self.own(&format!("  tagged {reference}\n"));
                self.commands_on(&mut out);
                out.push_str(&line);
            }
            Event::TagKept { reference, reason } => {
                let line = self.own(&format!("  {reference} stays: {}\n", text::one_line(reason)));
                self.commands_on(&mut out);
                out.push_str(&line);
            }
            Event::Warning { message, place } => {
                self.commands_on(&mut out);
                let text = self.own(&text::one_line(&with_place(message, place.as_ref())));
                out.push_str(&format!("{} {text}\n", self.palette.warn("warning:")));
            }
            _ => {}
        }
        out
    }

    /// A stage that runs while nothing else does may be shown live until something else starts.
    fn choose_live(&mut self, stage: &str) {
        let is_alone = self.model.active().all(|active| active.id == stage);
        match &self.alone {
            Some((alone, _)) if is_alone && alone == stage => {}
            _ if is_alone => self.alone = Some((stage.to_owned(), Instant::now())),
            _ => (self.alone, self.live) = (None, None),
        }
    }

    /// Shows what was held back of a stage that has run alone for a while; from then on it is live.
    fn go_live(&mut self, out: &mut String) {
        let Some((stage, since)) = &self.alone else { return };
        if self.live.is_some() || since.elapsed() < ALONE {
            return;
        }
        let stage = stage.clone();
        out.push_str(&self.own(&format!("{} {stage}\n", self.palette.strong("RUN          "))));
        if let Some(held) = self.held.remove(&stage) {
            self.commands_off(out);
            for line in &held.lines {
                out.push_str(&self.foreign(line));
                out.push('\n');
            }
        }
        self.live = Some(stage);
    }

    fn step(&mut self, stage: &str, mark: &str, text: &str, place: Option<&events::Place>, out: &mut String) {
        let place = place.map(|place| format!("{}:{} ", place.file, place.line)).unwrap_or_default();
        let line = format!("  {mark}{place}{}", text::one_line(text));
        self.output(stage, line, out);
    }

    /// A line about bytes on the move, now and then.
    fn transfer(&mut self, stage: &str, out: &mut String) {
        self.choose_live(stage);
        let told = self.transfers_told.entry(stage.to_owned()).or_insert_with(Instant::now);
        if told.elapsed() < TRANSFER_EVERY {
            return;
        }
        *told = Instant::now();
        let doing = self.model.find_stage(stage).map(super::model::Stage::doing).unwrap_or_default();
        if !doing.is_empty() {
            self.output(stage, format!("  {doing}"), out);
        }
    }

    /// A line of a stage: said now if the stage runs alone, held back otherwise.
    fn output(&mut self, stage: &str, line: String, out: &mut String) {
        self.go_live(out);
        if self.live.as_deref() == Some(stage) {
            self.commands_off(out);
            out.push_str(&self.foreign(&line));
            out.push('\n');
            return;
        }
        let held = self.held.entry(stage.to_owned()).or_default();
        held.bytes += line.len() + 1;
        held.lines.push(line);
        // The end of an output tells more than its beginning.
        while held.bytes > BLOCK_BYTES_MAX {
            let half = held.lines.len().div_ceil(2);
            held.dropped += half as u64;
            held.bytes -= held.lines.drain(..half).map(|line| line.len() + 1).sum::<usize>();
        }
    }

    /// The block of a stage: its line, then its output, folded if it passed.
    fn block(&mut self, stage: &str, verdict: Option<Verdict>, out: &mut String) {
        let held = self.held.remove(stage).unwrap_or_default();
        if self.live.as_deref() == Some(stage) {
            self.live = None;
        }
        if self.alone.as_ref().is_some_and(|(alone, _)| alone == stage) {
            self.alone = None;
        }
        self.commands_on(out);
        let title = self.title(stage, verdict);
        let folds = verdict == Some(Verdict::Passed) && !held.lines.is_empty();
        let section = format!("seatrial_{}", stage.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        match self.ci {
            Some(Ci::GitHub) if folds => out.push_str(&format!("::group::{title}\n")),
            Some(Ci::GitLab) if folds => {
                out.push_str(&format!(
                    "\x1b[0Ksection_start:{}:{section}[collapsed=true]\r\x1b[0K{title}\n",
                    unix_time()
                ));
            }
            _ => out.push_str(&format!("{title}\n")),
        }
        if !held.lines.is_empty() {
            self.commands_off(out);
            if held.dropped > 0 {
                out.push_str(&format!("    [{} earlier lines are in the log]\n", held.dropped));
            }
            for line in &held.lines {
                out.push_str(&self.foreign(line));
                out.push('\n');
            }
            self.commands_on(out);
        }
        match self.ci {
            Some(Ci::GitHub) if folds => out.push_str("::endgroup::\n"),
            Some(Ci::GitLab) if folds => {
                out.push_str(&format!("\x1b[0Ksection_end:{}:{section}\r\x1b[0K\n", unix_time()));
            }
            _ => {}
        }
    }

    /// `PASS [ 3.0s] style  2 commands`.
    fn title(&self, stage: &str, verdict: Option<Verdict>) -> String {
        let (duration, summary) = match self.model.find_stage(stage).map(|stage| (&stage.state, stage.started_ms)) {
            Some((State::Done { duration_ms, summary, .. }, _)) => (text::millis(*duration_ms), summary.as_str()),
            Some((_, started_ms)) => (text::millis(self.model.now_ms.saturating_sub(started_ms)), ""),
            None => (text::millis(0), ""),
        };
        let word = match verdict {
            Some(Verdict::Passed) => self.palette.good("PASS"),
            Some(Verdict::Failed) => self.palette.bad("FAIL"),
            Some(Verdict::Skipped) => self.palette.faint("SKIP"),
            None => self.palette.warn("STOP"),
        };
        let stage = text::one_line(stage);
        self.own(format!("{word} [{duration:>6}] {stage}  {summary}").trim_end())
    }

    fn slow(&mut self) -> String {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut out = String::new();
        self.commands_on(&mut out);
        for stage in self.model.active() {
            let elapsed = text::millis(now_ms.saturating_sub(stage.started_ms));
            let line = format!("{} [{elapsed:>6}] {}  {}", self.palette.warn("SLOW"), stage.id, stage.doing());
            out.push_str(&self.own(line.trim_end()));
            out.push('\n');
        }
        out
    }

    /// From here on, the CI system reads no commands: what follows was written by a container.
    fn commands_off(&mut self, out: &mut String) {
        if self.ci == Some(Ci::GitHub) && !self.commands_off {
            out.push_str(&format!("::stop-commands::{}\n", self.token));
            self.commands_off = true;
        }
    }

    fn commands_on(&mut self, out: &mut String) {
        if self.commands_off {
            out.push_str(&format!("::{}::\n", self.token));
            self.commands_off = false;
        }
    }

    /// A container's line. Azure and TeamCity read `##vso[` and `##teamcity[` anywhere.
    fn foreign(&self, line: &str) -> String {
        if self.ci.is_some() { line.replace("##", "# #") } else { line.to_owned() }
    }

    /// A line of ours with names from outside in it: GitHub reads `##[command]` anywhere in a line.
    fn own(&self, line: &str) -> String {
        self.foreign(line)
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Not to be guessed by a container: the standard library keys its hashers from the system's random source.
fn random_token() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut token = String::from("seatrial-");
    for _ in 0..2 {
        let state = std::collections::hash_map::RandomState::new();
        token.push_str(&format!("{:016x}", state.build_hasher().finish()));
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::RunId;
    use expect_test::{Expect, expect};

    fn check(ci: Option<Ci>, expected: &Expect) {
        let log = |stage: &str, line: &str| Event::StepLog { stage: stage.into(), step: 3, line: line.into() };
        let started = |stage: &str| Event::StageStarted { stage: stage.into() };
        let step = |stage: &str, text: &str| Event::StepStarted {
            stage: stage.into(),
            step: 1,
            text: text.into(),
            place: None,
        };
        let finished = |stage: &str, verdict, summary: &str| Event::StageFinished {
            stage: stage.into(),
            verdict,
            duration_ms: 3_000,
            summary: summary.into(),
        };
        let mut lines = Lines::new(ci, Palette::new(false), "TOKEN".into());
        let mut out = String::new();
        for event in [
            Event::RunStarted {
                run: RunId(42),
                name: "numbers".into(),
                commit: None,
                branch: Some("x##[error]y".into()),
                stages: vec![],
            },
            started("build"),
            step("build", "RUN make"),
            log("build", "::error::made\x1b[2J"),
            finished("build", Verdict::Passed, "1 step"),
            started("style"),
            started("unit"),
            log("unit", "not ok"),
            log("style", "::set-output name=x::y"),
            finished("style", Verdict::Passed, "2 commands"),
            finished("unit", Verdict::Failed, "exited 1"),
        ] {
            out.push_str(&lines.event(&Record { v: 1, at_ms: 0, image: None, event }));
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn output_comes_as_blocks() {
        check(
            None,
            &expect![[r#"
                run 42: numbers x##[error]y
                PASS [  3.0s] build  1 step
                  RUN make
                    ::error::made
                PASS [  3.0s] style  2 commands
                    ::set-output name=x::y
                FAIL [  3.0s] unit  exited 1
                    not ok
            "#]],
        );
    }

    #[test]
    fn containers_cannot_speak_to_github() {
        check(
            Some(Ci::GitHub),
            &expect![[r#"
            run 42: numbers x# #[error]y
            ::group::PASS [  3.0s] build  1 step
            ::stop-commands::TOKEN
              RUN make
                ::error::made
            ::TOKEN::
            ::endgroup::
            ::group::PASS [  3.0s] style  2 commands
            ::stop-commands::TOKEN
                ::set-output name=x::y
            ::TOKEN::
            ::endgroup::
            FAIL [  3.0s] unit  exited 1
            ::stop-commands::TOKEN
                not ok
            ::TOKEN::
        "#]],
        );
    }
}
