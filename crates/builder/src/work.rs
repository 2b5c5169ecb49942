//! What the stages of one build share: results of stages, cancellation, counts, and the way errors are made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use dockerfile::{Diagnostic, Dockerfile, Span};
use engine::{BuildError, BuildRequest, Cancel, EngineError, Masks, Material};
use events::{Event, EventSink, Place};
use oci::Digest;
use store::{Scope, Store};

use crate::{
    base::BaseSource, context::Context, fetch::Downloads, former::Chain, plan::Plan, remote::Remotes, shared::Shared,
    ssh::Agents, stage::State,
};

/// What a build works with; the same for all builds of a process.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Where snapshots, images and cache records live.
    pub store: &'a Store,
    /// Owns what is in the making, and leases what is relied upon.
    pub scope: &'a Scope,
    /// Where images come from that the store does not have.
    pub bases: &'a dyn BaseSource,
    /// Where files of the web come from.
    pub downloads: &'a dyn Downloads,
    /// Results of steps from elsewhere, and who hears what builds use.
    pub shared: &'a Shared,
    /// What this process may do.
    pub privilege: &'a runtime::Privilege,
    /// runc or crun instead of our own runtime.
    pub foreign_runtime: Option<&'a Path>,
    /// What [`engine::NetworkMode::Default`] means for RUN and setup commands.
    pub default_network: &'a runtime::Network,
}

impl Host<'_> {
    /// Makes the snapshots of these layers, where their content is still elsewhere.
    pub(crate) fn ensure(&self, layers: &[store::SnapshotId]) -> Result<(), BuildError> {
        self.shared.ensure(self.store, self.scope, layers).during(|| "cannot use a shared cache".to_owned())
    }
}

/// One build.
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) request: &'a BuildRequest,
    pub(crate) file: &'a Dockerfile,
    pub(crate) plan: &'a Plan,
    pub(crate) events: &'a EventSink,
    pub(crate) context: &'a Context,
    pub(crate) epoch: SystemTime,
    pub(crate) tally: Tally,
    pub(crate) bases: Mutex<BTreeMap<String, Digest>>,
    /// What came from elsewhere, by [`Material::key`].
    pub(crate) materials: Mutex<BTreeMap<String, Material>>,
    /// What was fetched from elsewhere, and directories with names of their own.
    pub(crate) remotes: Remotes,
    /// Build arguments that some ARG declared.
    pub(crate) declared_args: Mutex<BTreeSet<String>>,
    /// The steps of all stages.
    chains: Mutex<Vec<Arc<Chain>>>,
    /// What output must not show.
    pub(crate) masks: Option<Arc<Masks>>,
    /// Key agents that the build started.
    pub(crate) agents: Agents,
    slots: Vec<Slot>,
    has_failed: AtomicBool,
    error: Mutex<Option<BuildError>>,
}

/// Steps so far.
#[derive(Default)]
pub(crate) struct Tally {
    steps: AtomicU64,
    cached: AtomicU64,
    saved_ms: AtomicU64,
}

impl Tally {
    pub(crate) fn made(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cached(&self, saved_ms: u64) {
        self.made();
        self.cached.fetch_add(1, Ordering::Relaxed);
        self.saved_ms.fetch_add(saved_ms, Ordering::Relaxed);
    }

    /// Steps, steps from the cache, time saved.
    pub(crate) fn read(&self) -> (usize, usize, Duration) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (load(&self.steps) as usize, load(&self.cached) as usize, Duration::from_millis(load(&self.saved_ms)))
    }
}

#[derive(Default)]
struct Slot {
    state: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
enum Progress {
    #[default]
    Idle,
    Running,
    Done(Arc<State>),
    Failed,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        host: &'a Host<'a>,
        request: &'a BuildRequest,
        file: &'a Dockerfile,
        plan: &'a Plan,
        events: &'a EventSink,
        context: &'a Context,
        epoch: SystemTime,
    ) -> Self {
        let slots = file.stages.iter().map(|_| Slot::default()).collect();
        Self {
            host,
            request,
            file,
            plan,
            events,
            context,
            epoch,
            tally: Tally::default(),
            bases: Mutex::default(),
            materials: Mutex::default(),
            remotes: Remotes::default(),
            declared_args: Mutex::default(),
            chains: Mutex::default(),
            masks: Masks::new(request.run.secrets.values()).map(Arc::new),
            agents: Agents::default(),
            slots,
            has_failed: AtomicBool::new(false),
            error: Mutex::default(),
        }
    }

    /// Builds the target: each stage that it needs on a thread of its own, waiting for another stage only where it uses it.
    pub(crate) fn solve(&self) -> Result<Arc<State>, BuildError> {
        // The chain of bases below the target is built on this thread, one after another in any case.
        let mut own = vec![self.plan.target];
        while let crate::plan::Base::Stage(below) = self.plan.stages[own[own.len() - 1]].base {
            own.push(below);
        }
        let result = std::thread::scope(|scope| {
            for stage in self.plan.needed.iter().copied().filter(|stage| !own.contains(stage)) {
                let thread = std::thread::Builder::new().name(format!("stage {stage}"));
                let spawned = thread.spawn_scoped(scope, move || {
                    // The error is kept in `self`; the target's thread finds it there.
                    let _ = self.stage(stage);
                });
                if spawned.is_err() {
                    // No thread to be had: whoever needs the stage builds it on its own thread.
                    break;
                }
            }
            self.stage(self.plan.target)
        });
        match locked(&self.error).take() {
            Some(error) => Err(error),
            None => result,
        }
    }

    /// The result of a stage: built here, or awaited when another thread is at it.
    pub(crate) fn stage(&self, at: usize) -> Result<Arc<State>, BuildError> {
        // A long chain of bases is walked from below: its length must not become the depth of the stack.
        let mut chain = vec![at];
        while let crate::plan::Base::Stage(below) = self.plan.stages[chain[chain.len() - 1]].base {
            if matches!(*locked(&self.slots[below].state), Progress::Done(_)) {
                break;
            }
            chain.push(below);
        }
        while chain.len() > 1 {
            self.one_stage(chain.pop().expect("it is not empty"))?;
        }
        self.one_stage(at)
    }

    /// The same, when the stage's base is known.
    fn one_stage(&self, at: usize) -> Result<Arc<State>, BuildError> {
        let slot = &self.slots[at];
        let mut progress = locked(&slot.state);
        loop {
            match &*progress {
                Progress::Done(state) => return Ok(state.clone()),
                // The real error is in `self.error` already.
                Progress::Failed => return Err(BuildError::Cancelled),
                Progress::Idle => break,
                Progress::Running => {
                    progress = slot.changed.wait(progress).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
        *progress = Progress::Running;
        drop(progress);
        // Marks the stage as failed also when building it panics, so that nobody waits for good.
        let guard = FailOnDrop { work: self, slot, is_done: false };
        let result = crate::stage::build_stage(self, at);
        guard.finish(result)
    }

    /// Steps that are remembered for the next build's comparison.
    pub(crate) fn add_chain(&self, chain: &Arc<Chain>) {
        locked(&self.chains).push(chain.clone());
    }

    /// Remembers all steps. Only now, when none is compared with its former self any more.
    pub(crate) fn save_chains(&self) {
        locked(&self.chains).iter().for_each(|chain| chain.save(self.host.store));
    }

    /// Stops between steps once the user has cancelled or another stage has failed.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.is_stopped() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    /// Notes what came from elsewhere.
    pub(crate) fn took(&self, material: Material) {
        locked(&self.materials).insert(material.key(), material);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.request.cancel.is_cancelled() || self.has_failed.load(Ordering::Relaxed)
    }

    fn fail(&self, error: BuildError) {
        self.has_failed.store(true, Ordering::Relaxed);
        let mut kept = locked(&self.error);
        if kept.as_ref().is_none_or(|kept| matches!(kept, BuildError::Cancelled)) {
            *kept = Some(error);
        }
    }

    /// The Dockerfile is wrong at one place.
    pub(crate) fn invalid(&self, diagnostic: Diagnostic) -> BuildError {
        invalid(self.request, vec![diagnostic])
    }

    pub(crate) fn warn(&self, message: String, span: Option<&Span>) {
        self.events.emit(Event::Warning { message, place: span.map(|span| self.place(span)) });
    }

    /// Where a span of the Dockerfile begins.
    pub(crate) fn place(&self, span: &Span) -> Place {
        let (line, column) = dockerfile::line_column(&self.request.dockerfile.text, span.start);
        Place { file: self.request.dockerfile.name.clone(), line, column }
    }
}

struct FailOnDrop<'w, 'a> {
    work: &'w Work<'a>,
    slot: &'w Slot,
    is_done: bool,
}

impl FailOnDrop<'_, '_> {
    fn finish(mut self, result: Result<State, BuildError>) -> Result<Arc<State>, BuildError> {
        self.is_done = true;
        let (progress, result) = match result {
            Ok(state) => {
                let state = Arc::new(state);
                (Progress::Done(state.clone()), Ok(state))
            }
            Err(error) => {
                self.work.fail(error);
                (Progress::Failed, Err(BuildError::Cancelled))
            }
        };
        *locked(&self.slot.state) = progress;
        self.slot.changed.notify_all();
        result
    }
}

impl Drop for FailOnDrop<'_, '_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.work.has_failed.store(true, Ordering::Relaxed);
            *locked(&self.slot.state) = Progress::Failed;
            self.slot.changed.notify_all();
        }
    }
}

/// A lock whose holder panicked is taken over: the panic is reported where it happened.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The Dockerfile, or what it names, is wrong.
pub(crate) fn invalid(request: &BuildRequest, diagnostics: Vec<Diagnostic>) -> BuildError {
    BuildError::Invalid { source_file: Box::new(request.dockerfile.clone()), diagnostics, kept: None }
}

/// The surroundings failed.
pub(crate) fn engine_error(
    message: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> EngineError {
    EngineError { message: message.into(), hint: None, command_code: None, source: Some(source.into()) }
}

/// Turns a failure of the surroundings into a build error that says what was attempted.
pub(crate) trait During<T> {
    fn during(self, attempt: impl FnOnce() -> String) -> Result<T, BuildError>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> During<T> for Result<T, E> {
    fn during(self, attempt: impl FnOnce() -> String) -> Result<T, BuildError> {
        self.map_err(|error| {
            let hint = is_no_space(&error).then(|| "free some space, for example with `seatrial clean`".to_owned());
            BuildError::Engine(EngineError { hint, ..engine_error(attempt(), error) })
        })
    }
}

fn is_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<store::StoreError>() {
            return error.is_no_space();
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Stops that work outside a [`Work`] can ask about (setup commands).
pub(crate) fn check(cancel: &Cancel) -> Result<(), BuildError> {
    if cancel.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
}
