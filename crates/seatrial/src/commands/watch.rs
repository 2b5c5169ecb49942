//! `up --watch`: changes of files reach the services that watch them (Compose, `develop.watch`).

mod files;
mod sync;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use compose::{Project, Service, WatchAction, WatchRule};
use dockerfile::dockerignore::{DockerIgnore, PatternSet};

use super::solution::hear;
use crate::{
    context::Context,
    failure::Failure,
    solution::{
        client::{self, Answering},
        protocol::{Answer, Container, Move, Request, Up},
    },
    terminal,
};

/// What is watched for, of one service.
struct Watched<'p> {
    service: &'p Service,
    rule: &'p WatchRule,
    /// The rule's own patterns, relative to its path.
    ignored: PatternSet,
    included: PatternSet,
    /// The build context with its `.dockerignore`.
    context: Option<(PathBuf, DockerIgnore)>,
}

/// What services watch for.
pub(super) struct Watch<'p> {
    project: &'p Project,
    rules: Vec<Watched<'p>>,
}

impl<'p> Watch<'p> {
    /// The rules of these services (of all without names).
    pub(super) fn new(project: &'p Project, names: &[String]) -> Result<Self, Failure> {
        let wanted = |service: &&Service| names.is_empty() || names.contains(&service.name);
        let mut rules = Vec::new();
        for service in project.services.iter().filter(wanted) {
            for rule in &service.watch {
                rules.push(Watched::new(service, rule)?);
            }
        }
        if rules.is_empty() {
            return Err(Failure::usage("no service has something to watch")
                .hint("say what under `develop: {watch: [{path: ./src, action: sync, target: /app/src}]}`"));
        }
        Ok(Self { project, rules })
    }

    /// Follows changes until the command is cancelled.
    pub(super) fn follow(&self, up: &dyn Fn() -> Up, context: &Context) -> anyhow::Result<()> {
        let roots: BTreeSet<&Path> = self.rules.iter().map(|watched| watched.rule.path.as_path()).collect();
        let is_seen = |path: &Path| self.rules.iter().any(|watched| watched.leads_to(path));
        let mut changes = files::Changes::new(&roots, &is_seen)?;
        for watched in self.rules.iter().filter(|watched| watched.rule.initial_sync) {
            if let Some(target) = target_of(&watched.rule.action) {
                let all = files::below(&watched.rule.path, &|path| watched.concerns(path), &is_seen);
                self.sync(watched.service, &moves(&watched.rule.path, target, all), context)?;
            }
        }
        terminal::message_line("watch enabled: changes of files reach the services that watch them");
        let (waker, sleeper) = UnixStream::pair()?;
        std::thread::scope(|scope| {
            let cancel = context.cancel.clone();
            scope.spawn(move || {
                // Ends with the command, or with the watching below.
                if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
                    runtime.block_on(async {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            () = closed(&waker) => {}
                        }
                    });
                }
                let _ = waker.shutdown(std::net::Shutdown::Both);
            });
            let followed = loop {
                match changes.next(&sleeper) {
                    Ok(Some(changed)) => {
                        // A change that cannot be brought in leaves the services as they are; the next one may mend it.
                        if let Err(error) = self.bring_in(&changed, up, context) {
                            terminal::failure(&crate::failure::explain(error));
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let _ = sleeper.shutdown(std::net::Shutdown::Both);
            followed
        })
    }

    /// What the rules say about these paths.
    fn bring_in(&self, changed: &BTreeSet<PathBuf>, up: &dyn Fn() -> Up, context: &Context) -> anyhow::Result<()> {
        let mut todo: BTreeMap<&str, Todo<'_>> = BTreeMap::new();
        for watched in &self.rules {
            let paths: BTreeSet<PathBuf> = changed.iter().filter(|path| watched.concerns(path)).cloned().collect();
            if paths.is_empty() {
                continue;
            }
            let todo = todo.entry(&watched.service.name).or_insert_with(|| Todo::new(watched.service));
            todo.count += paths.len();
            if let Some(target) = target_of(&watched.rule.action) {
                todo.moves.extend(moves(&watched.rule.path, target, paths));
            }
            match &watched.rule.action {
                WatchAction::Rebuild => todo.rebuild = true,
                WatchAction::Restart | WatchAction::SyncRestart { .. } => todo.restart = true,
                WatchAction::SyncExec { exec, .. } => todo.exec.push(exec),
                WatchAction::Sync { .. } => {}
            }
        }
        for todo in todo.values() {
            self.act(todo, up, context)?;
        }
        Ok(())
    }

    fn act(&self, todo: &Todo<'_>, up: &dyn Fn() -> Up, context: &Context) -> anyhow::Result<()> {
        let service = todo.service;
        if todo.rebuild {
            terminal::message_line(&format!("Rebuilding service \"{}\" after changes were detected...", service.name));
            let request = Up { services: vec![service.name.clone()], with_dependencies: false, ..up() };
            hear(context, self.call(context)?, Request::Up(Box::new(request)), &[])?;
            // The new container has what was built, and nothing of what was synchronised before.
            return Ok(());
        }
        if !todo.moves.is_empty() {
            let count = terminal::text::count(todo.count, "change");
            terminal::message_line(&format!("Syncing service \"{}\" after {count}", service.name));
            self.sync(service, &todo.moves, context)?;
        }
        for exec in &todo.exec {
            for (name, number) in self.running(service, context)? {
                let code = sync::run(self.call(context)?, service, number, exec.command.clone(), exec.user.clone())?;
                if code != 0 {
                    terminal::warning(&format!("`{}` in {name} exited {code}", exec.command.join(" ")));
                }
            }
        }
        if todo.restart {
            hear(
                context,
                self.call(context)?,
                Request::Restart { services: vec![service.name.clone()], grace: None },
                &[],
            )?;
        }
        Ok(())
    }

    fn sync(&self, service: &Service, moves: &[Move], context: &Context) -> anyhow::Result<()> {
        sync::bring(&|| self.call(context), service, moves, context)
    }

    /// Names and numbers of a service's running containers.
    fn running(&self, service: &Service, context: &Context) -> anyhow::Result<Vec<(String, u32)>> {
        let listed = Answering::call(self.call(context)?, Request::List, &[])?.next()?;
        let Some(Answer::Containers(containers)) = listed else { return Ok(Vec::new()) };
        let is_running = |one: &Container| one.service == service.name && one.status.state == services::State::Running;
        Ok(containers.into_iter().filter(is_running).map(|one| (one.name, one.number)).collect())
    }

    fn call(&self, context: &Context) -> anyhow::Result<UnixStream> {
        let found = client::find(context, &self.project.name)?;
        found.ok_or_else(|| Failure::surroundings("the project has ended").into())
    }
}

/// What changes mean for a service.
struct Todo<'p> {
    service: &'p Service,
    count: usize,
    moves: Vec<Move>,
    rebuild: bool,
    restart: bool,
    exec: Vec<&'p compose::Hook>,
}

impl<'p> Todo<'p> {
    fn new(service: &'p Service) -> Self {
        Self { service, count: 0, moves: Vec::new(), rebuild: false, restart: false, exec: Vec::new() }
    }
}

impl<'p> Watched<'p> {
    fn new(service: &'p Service, rule: &'p WatchRule) -> Result<Self, Failure> {
        let set = |patterns: &[String]| {
            PatternSet::new(patterns).map_err(|error| {
                let failure =
                    Failure::usage(format!("a pattern of `develop.watch` of service {} is wrong", service.name));
                Failure { place: rule.place.clone().map(Box::new), ..failure.because(&error) }
            })
        };
        let context = service.build.as_ref().map(|build| PathBuf::from(&build.context));
        let context = context.filter(|context| context.is_absolute()).and_then(|context| {
            let text = std::fs::read_to_string(context.join(".dockerignore")).unwrap_or_default();
            // One that is wrong is told by the build.
            Some((context, DockerIgnore::parse(&text).ok()?))
        });
        Ok(Self { service, rule, ignored: set(&rule.ignore)?, included: set(&rule.include)?, context })
    }

    /// Whether a change of this path matters.
    fn concerns(&self, path: &Path) -> bool {
        let Ok(inner) = path.strip_prefix(&self.rule.path) else { return false };
        let inner = inner.as_os_str().as_encoded_bytes();
        let is_included = self.included.is_empty() || self.included.is_excluded(inner);
        is_included && !self.ignored.is_excluded(inner) && !self.is_left_out(path) && !is_fleeting(path)
    }

    /// Whether something that matters may be below a directory.
    fn leads_to(&self, directory: &Path) -> bool {
        let Ok(inner) = directory.strip_prefix(&self.rule.path) else {
            return self.rule.path.starts_with(directory);
        };
        if inner.as_os_str().is_empty() {
            return true;
        }
        let inner = inner.as_os_str().as_encoded_bytes();
        let may_hold = |set: &PatternSet| !set.is_excluded(inner) || set.may_contain_included(inner);
        may_hold(&self.ignored)
            && !is_fleeting(directory)
            && match &self.context {
                Some((context, ignore)) => match directory.strip_prefix(context) {
                    Ok(inner) => {
                        let inner = inner.as_os_str().as_encoded_bytes();
                        !ignore.is_excluded(inner, true) || ignore.may_contain_included(inner)
                    }
                    Err(_) => true,
                },
                None => true,
            }
    }

    /// By the build context's own `.dockerignore`.
    fn is_left_out(&self, path: &Path) -> bool {
        let Some((context, ignore)) = &self.context else { return false };
        let Ok(inner) = path.strip_prefix(context) else { return false };
        ignore.is_excluded(inner.as_os_str().as_encoded_bytes(), false)
    }
}

/// What editors and Git leave beside files, as docker compose ignores it.
fn is_fleeting(path: &Path) -> bool {
    let in_git = path.components().any(|part| part.as_os_str() == ".git");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_swap = name.starts_with('.') && [".swp", ".swx", ".swo"].iter().any(|end| name.ends_with(end));
    in_git
        || is_swap
        || name.ends_with('~')
        || name.starts_with(".#")
        || name == "4913"
        || name.starts_with(".goutputstream-")
}

fn target_of(action: &WatchAction) -> Option<&str> {
    match action {
        WatchAction::Sync { target } | WatchAction::SyncRestart { target } | WatchAction::SyncExec { target, .. } => {
            Some(target)
        }
        WatchAction::Rebuild | WatchAction::Restart => None,
    }
}

/// Where each path goes in the container.
fn moves(root: &Path, target: &str, paths: BTreeSet<PathBuf>) -> Vec<Move> {
    let place = |from: PathBuf| {
        let inner = from.strip_prefix(root).ok()?.to_owned();
        let target = Path::new(target);
        let to = if inner.as_os_str().is_empty() { target.to_owned() } else { target.join(inner) };
        let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes();
        Some(Move { from: bytes(from), to: bytes(to) })
    };
    paths.into_iter().filter_map(place).collect()
}

async fn closed(stream: &UnixStream) {
    let Ok(stream) = stream.try_clone().and_then(|stream| {
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }) else {
        return std::future::pending().await;
    };
    // Nothing is ever written: it becomes readable by its end.
    let _ = stream.readable().await;
}
