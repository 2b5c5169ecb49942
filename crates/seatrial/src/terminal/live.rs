//! The live view: one line per stage, a few log lines per active stage, bounded height, redrawn in place.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use events::{Event, Record, Subscriber, Verdict};

use super::{
    Palette, draw,
    model::{Model, Stage, State, TAIL_LINES_MAX},
    settle, text, warning,
};

/// Quick enough to look alive, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(100);
/// Log lines shown per active stage.
const LOG_LINES_MAX: usize = 3;
/// The block never gets higher, however high the terminal is.
const HEIGHT_MAX: usize = 30;
/// Lines of finished stages that stay in the scrollback.
const SETTLED_LINES_MAX: usize = 200;
/// Columns of a stage's name.
const NAME_COLUMNS_MAX: usize = 40;

/// Draws a run in place on stderr. Call [`LiveView::finish`] before anything else is said about the run.
pub(crate) struct LiveView {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    model: Mutex<Model>,
    start: Instant,
    stopping: AtomicBool,
    tick: (Mutex<()>, Condvar),
}

impl LiveView {
    /// Starts drawing; the first picture comes after a tick, so that a run that is done at once draws nothing twice.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            model: Mutex::default(),
            start: Instant::now(),
            stopping: AtomicBool::new(false),
            tick: (Mutex::new(()), Condvar::new()),
        });
        let thread = std::thread::Builder::new().name("view".into()).spawn({
            let shared = shared.clone();
            move || shared.keep_drawing()
        });
        // Without a thread there is no animation, but the final picture still comes.
        Self { shared, thread: Mutex::new(thread.ok()) }
    }

    /// Stops drawing and leaves the stage lines in the scrollback.
    pub(crate) fn finish(&self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.tick.1.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        let (_, columns) = text::terminal_size();
        let model = self.shared.model();
        let lines = picture(&model, self.shared.now_ms(&model), SETTLED_LINES_MAX, columns, Palette::stderr(), true);
        settle(&lines, columns);
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Subscriber for LiveView {
    fn event(&self, record: &Record) {
        self.shared.model().apply(record);
        if let Event::Warning { message, place } = &record.event {
            warning(&super::with_place(message, place.as_ref()));
        }
    }
}

impl Shared {
    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self, model: &Model) -> u64 {
        model.finished.map_or_else(
            || model.now_ms.max(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)),
            |(_, duration_ms)| duration_ms,
        )
    }

    fn keep_drawing(&self) {
        let mut guard = self.tick.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            guard = self.tick.1.wait_timeout(guard, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let (rows, columns) = text::terminal_size();
            let lines = {
                let model = self.model();
                picture(
                    &model,
                    self.now_ms(&model),
                    rows.saturating_sub(2).clamp(1, HEIGHT_MAX),
                    columns,
                    Palette::stderr(),
                    false,
                )
            };
            draw(lines, columns);
        }
    }
}

/// The block as lines that fit `columns`, `height` at most. `last`: no logs, nothing that moves.
fn picture(model: &Model, now_ms: u64, height: usize, columns: usize, palette: Palette, last: bool) -> Vec<String> {
    // The last column stays free: some terminals wrap as soon as it is written.
    let columns = columns.saturating_sub(1).max(10);
    if model.stages.is_empty() && model.name.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    if !model.name.is_empty() {
        lines.push(palette.strong(&spread(&model.title(), &text::millis(now_ms), columns)));
    }
    let name_columns = model
        .stages
        .iter()
        .map(|stage| text::width(&stage.id))
        .max()
        .unwrap_or(0)
        .clamp(5, NAME_COLUMNS_MAX.min(columns / 3).max(5));
    let pending: Vec<&Stage> = model.stages.iter().filter(|stage| stage.state == State::Pending).collect();
    let shown: Vec<&Stage> = model.stages.iter().filter(|stage| stage.state != State::Pending).collect();

    let room = height.saturating_sub(lines.len() + usize::from(!pending.is_empty()));
    let (hidden, shown) = choose(shown, room);
    if hidden > 0 {
        lines.push(palette.faint(&format!("   {} finished", text::count(hidden, "stage"))));
    }
    let mut log_room = room.saturating_sub(shown.len() + usize::from(hidden > 0));
    let active = shown.iter().filter(|stage| stage.state == State::Active).count();
    for stage in shown {
        lines.push(stage_line(stage, now_ms, name_columns, columns, palette));
        if stage.state == State::Active && !last {
            let wanted = if active == 1 { 2 * LOG_LINES_MAX } else { LOG_LINES_MAX }.min(log_room).min(LOG_LINES_MAX);
            let skip = stage.tail.len().saturating_sub(wanted);
            for line in stage.tail.iter().skip(skip) {
                lines.push(palette.faint(&text::fit(&format!("   │ {line}"), columns)));
                log_room -= 1;
            }
        }
    }
    if !pending.is_empty() && !last {
        let names: Vec<String> = pending.iter().map(|stage| format!("· {}", stage.id)).collect();
        lines.push(palette.faint(&text::fit(&format!(" {}", names.join("  ")), columns)));
    }
    lines.truncate(height.max(1));
    lines
}

/// When there are more stages than room, those that passed give way first.
fn choose(stages: Vec<&Stage>, room: usize) -> (usize, Vec<&Stage>) {
    if stages.len() <= room {
        return (0, stages);
    }
    let mut excess = stages.len() + 1 - room.max(1);
    let mut hidden = 0;
    let kept = stages
        .into_iter()
        .filter(|stage| {
            let passed = matches!(stage.state, State::Done { verdict: Verdict::Passed | Verdict::Skipped, .. });
            let hide = passed && excess > 0;
            excess -= usize::from(hide);
            hidden += usize::from(hide);
            !hide
        })
        .collect();
    (hidden, kept)
}

fn stage_line(stage: &Stage, now_ms: u64, name_columns: usize, columns: usize, palette: Palette) -> String {
    let name = text::fit(&stage.id, name_columns);
    let pad = " ".repeat(name_columns.saturating_sub(text::width(&name)));
    match &stage.state {
        State::Pending => palette.faint(&format!(" · {name}")),
        State::Active => {
            let elapsed = text::millis(now_ms.saturating_sub(stage.started_ms));
            let line = spread(&format!(" ▸ {name}{pad}  {}", stage.doing()), &elapsed, columns);
            palette.hint(&line)
        }
        State::Done { verdict, duration_ms, summary } => {
            let line = spread(&format!("   {name}{pad}  {summary}"), &text::millis(*duration_ms), columns);
            // The mark replaces the second of the three leading blanks, so that its colour does not count as width.
            let rest = line.strip_prefix("   ").unwrap_or(&line);
            match verdict {
                Verdict::Passed => format!(" {} {rest}", palette.good("✓")),
                Verdict::Failed => format!(" {} {rest}", palette.bad("✗")),
                Verdict::Skipped => palette.faint(&format!(" - {rest}")),
            }
        }
    }
}

/// Left and right text on one line.
fn spread(left: &str, right: &str, columns: usize) -> String {
    // Wide terminals would tear the time from its line.
    let columns = columns.min(100);
    let left = text::fit(left, columns.saturating_sub(text::width(right) + 1));
    let gap = columns.saturating_sub(text::width(&left) + text::width(right)).max(1);
    format!("{left}{}{right}", " ".repeat(gap))
}

const _: () = assert!(LOG_LINES_MAX < TAIL_LINES_MAX, "the tail holds what the view shows");

#[cfg(test)]
mod tests {
    use super::*;
    use events::RunId;
    use expect_test::{Expect, expect};

    fn model(events: &[(u64, Event)]) -> Model {
        let mut model = Model::default();
        for (at_ms, event) in events {
            model.apply(&Record { v: 1, at_ms: *at_ms, image: None, event: event.clone() });
        }
        model
    }

    fn check(model: &Model, height: usize, columns: usize, expected: &Expect) {
        let lines = picture(model, 12_400, height, columns, Palette::new(false), false);
        assert!(lines.len() <= height);
        assert!(lines.iter().all(|line| text::width(line) < columns), "{lines:#?}");
        expected.assert_eq(&(lines.join("\n") + "\n"));
    }

    fn sample() -> Model {
        let stages = ["build", "style", "static", "unit", "health", "publish"].map(str::to_owned).to_vec();
        let log = |stage: &str, line: &str| Event::StepLog { stage: stage.into(), step: 3, line: line.into() };
        let started = |stage: &str, step, text: &str| Event::StepStarted {
            stage: stage.into(),
            step,
            text: text.into(),
            place: None,
        };
        model(&[
            (
                0,
                Event::RunStarted {
                    run: RunId(42),
                    name: "numbers-api".into(),
                    commit: Some("3f2a91c0".into()),
                    branch: Some("feature/even".into()),
                    stages,
                },
            ),
            (
                6_100,
                Event::StageFinished {
                    stage: "build".into(),
                    verdict: Verdict::Passed,
                    duration_ms: 6_100,
                    summary: "58.1 MB, 9 of 11 steps cached".into(),
                },
            ),
            (
                9_100,
                Event::StageFinished {
                    stage: "style".into(),
                    verdict: Verdict::Failed,
                    duration_ms: 3_000,
                    summary: "exited 1".into(),
                },
            ),
            (8_200, Event::StageStarted { stage: "static".into() }),
            (8_200, started("static", 2, "mypy thenumbers")),
            (8_200, Event::StageStarted { stage: "unit".into() }),
            (8_200, started("unit", 3, "pytest tests")),
            (8_300, log("unit", "one")),
            (8_300, log("unit", "two \x1b[31mred")),
            (8_300, log("unit", "three")),
            (8_300, log("unit", "tests/test_random.py ......")),
        ])
    }

    #[test]
    fn a_run_is_one_line_per_stage() {
        check(
            &sample(),
            20,
            60,
            &expect![[r#"
            numbers-api 3f2a91c feature/even                      12.4s
             ✓ build    58.1 MB, 9 of 11 steps cached              6.1s
             ✗ style    exited 1                                   3.0s
             ▸ static   mypy thenumbers                            4.2s
             ▸ unit     pytest tests                               4.2s
               │ two red
               │ three
               │ tests/test_random.py ......
             · health  · publish
        "#]],
        );
    }

    #[test]
    fn a_low_and_narrow_terminal_keeps_what_matters() {
        check(
            &sample(),
            5,
            30,
            &expect![[r#"
                numbers-api 3f2a91c fe… 12.4s
                   1 stage finished
                 ✗ style    exited 1     3.0s
                 ▸ static   mypy thenum… 4.2s
                 ▸ unit     pytest tests 4.2s
            "#]],
        );
    }
}
