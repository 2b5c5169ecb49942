//! Which subscribers hear a run: one view for people or programs, the run's own record, and the model for the summary.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use events::{EventSink, Record, Subscriber};

use super::{
    json::{JsonLines, RunLog},
    live::LiveView,
    model::Model,
    plain::PlainView,
    streams,
};
use crate::{cli::Progress, settings::Ci};

/// The subscribers of one run. [`Views::finish`] comes before the summary.
pub(crate) struct Views {
    sink: EventSink,
    keeper: Arc<Keeper>,
    live: Option<Arc<LiveView>>,
    plain: Option<Arc<PlainView>>,
    log: Option<Arc<RunLog>>,
    /// What was asked for, with `auto` decided.
    pub(crate) progress: Progress,
}

#[derive(Default)]
struct Keeper(Mutex<Model>);

impl Subscriber for Keeper {
    fn event(&self, record: &Record) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(record);
    }
}

impl Views {
    /// Opens the views; `run_directory` is where the run is recorded.
    pub(crate) fn open(progress: Progress, ci: Option<Ci>, run_directory: Option<&Path>) -> Self {
        let progress = decide(progress, ci);
        let keeper = Arc::new(Keeper::default());
        let live = (progress == Progress::Tty).then(|| Arc::new(LiveView::start()));
        let plain = (progress == Progress::Plain).then(|| Arc::new(PlainView::start(ci)));
        let log = run_directory.map(|directory| Arc::new(RunLog::open(directory)));

        let mut subscribers: Vec<Arc<dyn Subscriber>> = vec![keeper.clone()];
        subscribers.extend(live.clone().map(|view| view as Arc<dyn Subscriber>));
        subscribers.extend(plain.clone().map(|view| view as Arc<dyn Subscriber>));
        subscribers.extend(log.clone().map(|log| log as Arc<dyn Subscriber>));
        if progress == Progress::Json {
            subscribers.push(Arc::new(JsonLines));
        }
        Self { sink: EventSink::new(subscribers), keeper, live, plain, log, progress }
    }

    /// Where events go.
    pub(crate) fn sink(&self) -> &EventSink {
        &self.sink
    }

    /// Ends the view and writes out the record.
    pub(crate) fn finish(&self) {
        if let Some(live) = &self.live {
            live.finish();
        }
        if let Some(plain) = &self.plain {
            plain.finish();
        }
        if let Some(log) = &self.log {
            log.flush();
        }
    }

    /// What was heard so far.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.keeper.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether people read along.
    pub(crate) fn shows_summary(&self) -> bool {
        !matches!(self.progress, Progress::Json | Progress::None)
    }

    /// Whether the view is redrawn in place.
    pub(crate) fn is_terminal(&self) -> bool {
        self.progress == Progress::Tty
    }
}

/// `auto` is `BUILDKIT_PROGRESS` if that says something, else by the terminal.
fn decide(progress: Progress, ci: Option<Ci>) -> Progress {
    if progress != Progress::Auto {
        return progress;
    }
    match std::env::var("BUILDKIT_PROGRESS").as_deref() {
        Ok("plain") => Progress::Plain,
        Ok("tty") => Progress::Tty,
        Ok("quiet") => Progress::Quiet,
        Ok("none") => Progress::None,
        Ok("rawjson" | "json") => Progress::Json,
        _ if streams().stderr_is_terminal && ci.is_none() => Progress::Tty,
        _ => Progress::Plain,
    }
}
