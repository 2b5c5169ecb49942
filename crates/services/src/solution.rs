//! Services that somebody works with: brought up, changed, looked at, stopped, for as long as one process owns them.

mod over;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use compose::{MountSource, Project, Service};
use engine::{BoundPort, Cancel, Container, Engine, EngineError, ExecSpec, FileChange, Root, Scope};
use events::EventSink;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub(crate) use over::Over;

use crate::{
    AllowedDevices, Logs, Purpose, ServiceContext, ServiceError, Services,
    order::{levels, needed},
    up::{State, Status, Up},
};

/// The containers of a project, with their networks, for as long as they are wanted.
pub struct Solution {
    scope: Box<dyn Scope>,
    logs: Arc<dyn Logs>,
    /// As it last came up.
    project: Mutex<Arc<Project>>,
    ups: Mutex<Vec<Arc<Up>>>,
    /// Those that keep an eye on containers.
    tasks: Mutex<JoinSet<()>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

/// What is to come up.
pub struct UpRequest<'a> {
    /// Who fetches and builds images; the scope's own engine, perhaps with other rules for what images need.
    pub engine: &'a dyn Engine,
    /// Images that were built for it, by the names that `from` gives them.
    pub built: &'a BTreeMap<String, Root>,
    /// Services with their networks, volumes, configs and secrets.
    pub project: Project,
    /// Services that are wanted, with all that they need; empty: all.
    pub names: Vec<String>,
    /// Whether they come with what they need.
    pub with_dependencies: bool,
    /// When a container is made anew.
    pub recreate: Recreate,
    /// Remove containers of services that the project does not have any more.
    pub remove_orphans: bool,
    /// Ask registries for images even when their names are known.
    pub pull: bool,
    /// Build without the cache.
    pub no_cache: bool,
    /// Devices of the host that its owner lets services have.
    pub devices: AllowedDevices,
    /// The user's environment, for secrets that come from it.
    pub env: &'a BTreeMap<String, String>,
    /// Host paths of services lie in it.
    pub directory: &'a Path,
    /// Who hears of builds and downloads.
    pub events: &'a EventSink,
    /// Who hears what becomes of containers.
    pub tell: &'a (dyn Fn(Change) + Sync),
    /// Stops the work.
    pub cancel: &'a Cancel,
}

/// When a container that is there is made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recreate {
    /// When its definition or image has changed.
    #[default]
    Changed,
    /// In any case.
    Always,
    /// Never.
    Never,
}

/// Something that happens to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The container: `shop-web-1`.
    pub container: String,
    /// What happens.
    pub step: Step,
}

/// What happens to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It runs already, and as it should.
    Running,
    /// Its definition or image has changed: it is stopped and made anew.
    Recreate,
    /// It is about to be started.
    Starting,
    /// It was started.
    Started,
    /// It is ready, and how that showed.
    Ready(String),
    /// It did not become ready: why.
    Failed(String),
    /// It is asked to end.
    Stopping,
    /// It has ended.
    Stopped,
    /// It is gone with its files.
    Removed,
    /// Its service is not part of the project any more.
    Orphan,
}

/// A container, as lists show it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name: `shop-web-1`.
    pub name: String,
    /// Its service.
    pub service: String,
    /// From 1.
    pub number: u32,
    /// Its image, as the user names it.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it was made.
    pub created: SystemTime,
    /// How it is.
    pub status: Status,
    /// What of it is reached on the host.
    pub ports: Vec<BoundPort>,
    /// Its output is not shown unless asked for (`attach: false`).
    pub is_quiet: bool,
}

/// A running container of a service, and how a further process starts in it.
pub struct Inside {
    /// Its name.
    pub name: String,
    /// The container.
    pub container: Arc<dyn Container>,
    /// User, environment and directory of the service; no program.
    pub exec: ExecSpec,
}

impl Solution {
    /// Nothing is up yet.
    pub fn new(scope: Box<dyn Scope>, logs: Arc<dyn Logs>) -> Self {
        Self {
            scope,
            logs,
            project: Mutex::default(),
            ups: Mutex::default(),
            tasks: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Brings services up and waits until all are ready. What runs already and has not changed stays as it is; what does not
    /// come up stays as well, to be looked at. All are attempted.
    ///
    /// # Errors
    /// The first that somebody cannot do without.
    pub async fn up(&self, request: UpRequest<'_>) -> Result<(), ServiceError> {
        let _one = self.changing.lock().await;
        let (mut project, names) = (request.project.clone(), request.names.clone());
        let names = if names.is_empty() { all_names(&project) } else { names };
        for service in &mut project.services {
            // Volumes last here, so there is nothing that a snapshot could keep better.
            service.snapshot = None;
            if !request.with_dependencies && names.contains(&service.name) {
                service.depends_on.clear();
            }
        }
        let (project, whole) = (Arc::new(project), Arc::new(request.project.clone()));
        check_volumes(request.engine, &project).await?;
        let former = self.ups();
        self.orphans(&project, &former, &request).await?;
        let services = Services::over(
            ServiceContext {
                engine: request.engine,
                scope: &*self.scope,
                events: request.events,
                logs: &*self.logs,
                project: &project,
                env: request.env,
                directory: request.directory,
                built: request.built,
                pull: request.pull,
                no_cache: request.no_cache,
                cancel: request.cancel,
                purpose: Purpose::Solution,
                devices: &request.devices,
            },
            Over {
                former: &former,
                all: &self.ups,
                recreate: request.recreate,
                tell: request.tell,
                tasks: &self.tasks,
            },
        );
        let up = services.up(&names).await;
        {
            let mut ups = lock(&self.ups);
            ups.retain(|up| !up.is_removed());
            ups.iter().for_each(|up| up.watch_over(&self.tasks));
        }
        let failure = services.take_failure();
        drop(services);
        *lock(&self.project) = whole;
        up.map_err(|_| failure.unwrap_or(ServiceError::Cancelled))
    }

    /// Stops containers of these services (of all without names), each after those that need it, in this grace or in its own.
    ///
    /// # Errors
    /// The engine failed; all are attempted.
    pub async fn stop(
        &self,
        names: &[String],
        grace: Option<Duration>,
        tell: &(dyn Fn(Change) + Sync),
    ) -> Result<(), ServiceError> {
        let _one = self.changing.lock().await;
        self.downwards(names, async |up| {
            if !up.is_running() {
                return Ok(());
            }
            tell(change(up, Step::Stopping));
            up.stop_in(grace).await?;
            tell(change(up, Step::Stopped));
            Ok(())
        })
        .await
    }

    /// Starts stopped containers again, each after what it needs, and waits until they are ready.
    ///
    /// # Errors
    /// One cannot be started, or does not become ready.
    pub async fn start(
        &self,
        names: &[String],
        cancel: &Cancel,
        tell: &(dyn Fn(Change) + Sync),
    ) -> Result<(), ServiceError> {
        let _one = self.changing.lock().await;
        for level in self.levels(names) {
            let each = level.iter().map(|up| self.bring_back(up, cancel, tell));
            join_all(each).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Stops containers of these services, and those that are to follow them (`depends_on` with `restart: true`), and starts
    /// them again.
    ///
    /// # Errors
    /// As [`Solution::start`].
    pub async fn restart(
        &self,
        names: &[String],
        grace: Option<Duration>,
        cancel: &Cancel,
        tell: &(dyn Fn(Change) + Sync),
    ) -> Result<(), ServiceError> {
        let names = self.with_followers(names);
        self.stop(&names, grace, tell).await?;
        self.start(&names, cancel, tell).await
    }

    /// Stops containers of these services (of all without names), in this grace or in their own, and removes them with all that
    /// they wrote outside of volumes.
    ///
    /// # Errors
    /// The engine failed; all are attempted.
    pub async fn remove(
        &self,
        names: &[String],
        grace: Option<Duration>,
        tell: &(dyn Fn(Change) + Sync),
    ) -> Result<(), ServiceError> {
        let _one = self.changing.lock().await;
        let removed = self
            .downwards(names, async |up| {
                if up.is_running() {
                    tell(change(up, Step::Stopping));
                }
                up.remove(grace).await?;
                tell(change(up, Step::Removed));
                Ok(())
            })
            .await;
        lock(&self.ups).retain(|up| !up.is_removed());
        removed
    }

    /// Ends all processes at once, without their notice.
    pub async fn kill(&self) {
        // What is gone already needs no killing.
        join_all(self.ups().iter().map(|up| up.kill())).await;
    }

    /// Ends what is left at once.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn close(mut self) -> Result<(), EngineError> {
        lock(&self.tasks).abort_all();
        self.scope.close().await
    }

    /// All containers, in the order of their names.
    pub fn instances(&self) -> Vec<Instance> {
        let mut instances: Vec<Instance> = self.ups().iter().map(|up| instance(up)).collect();
        instances.sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
        instances
    }

    /// The project as it last came up.
    pub fn project(&self) -> Arc<Project> {
        Arc::clone(&lock(&self.project))
    }

    /// A running container of a service: the one of this number, else the first.
    pub fn inside(&self, service: &str, number: Option<u32>) -> Option<Inside> {
        let ups = self.ups();
        let mut running: Vec<&Arc<Up>> =
            ups.iter().filter(|up| up.service.name == service && up.is_running()).collect();
        running.sort_by_key(|up| up.number);
        let up = running.into_iter().find(|up| number.is_none_or(|number| up.number == number))?;
        Some(Inside { name: up.name.clone(), container: up.container(), exec: up.exec.clone() })
    }

    /// Changes files in all running containers of a service; each gets all of them.
    ///
    /// # Errors
    /// The first failure, with the container's name; the others are attempted.
    pub async fn change_files(&self, service: &str, changes: &[FileChange]) -> Result<(), EngineError> {
        let ups = self.ups();
        let running = ups.iter().filter(|up| up.service.name == service && up.status().state == State::Running);
        let each = running.map(|up| async move {
            let changed = up.container().change_files(changes.to_vec()).await;
            changed.map_err(|error| EngineError { message: format!("cannot change files in {}", up.name), ..error })
        });
        join_all(each).await.into_iter().collect()
    }

    /// Waits until no container of these services (of all without names) runs, nor is about to.
    pub async fn ended(&self, names: &[String]) {
        loop {
            let ups = self.ups();
            let running: Vec<&Arc<Up>> = ups
                .iter()
                .filter(|up| (names.is_empty() || names.contains(&up.service.name)) && up.is_running())
                .collect();
            if running.is_empty() {
                return;
            }
            join_all(running.iter().map(|up| up.exited())).await;
        }
    }

    /// Whether it has no containers.
    pub fn is_empty(&self) -> bool {
        lock(&self.ups).is_empty()
    }

    fn ups(&self) -> Vec<Arc<Up>> {
        lock(&self.ups).clone()
    }

    async fn bring_back(
        &self,
        up: &Arc<Up>,
        cancel: &Cancel,
        tell: &(dyn Fn(Change) + Sync),
    ) -> Result<(), ServiceError> {
        if !up.is_running() {
            tell(change(up, Step::Starting));
            up.start().await?;
            tell(change(up, Step::Started));
        }
        up.watch_over(&self.tasks);
        over::told_ready(up, cancel, tell).await.map(drop)
    }

    async fn orphans(
        &self,
        project: &Project,
        former: &[Arc<Up>],
        request: &UpRequest<'_>,
    ) -> Result<(), ServiceError> {
        let known: BTreeSet<&str> =
            project.services.iter().chain(&project.inactive).map(|service| service.name.as_str()).collect();
        for up in former.iter().filter(|up| !known.contains(up.service.name.as_str())) {
            if request.remove_orphans {
                (request.tell)(change(up, Step::Stopping));
                up.remove(None).await?;
                (request.tell)(change(up, Step::Removed));
            } else {
                (request.tell)(change(up, Step::Orphan));
            }
        }
        Ok(())
    }

    /// The named services, and those that are to be restarted with them.
    fn with_followers(&self, names: &[String]) -> Vec<String> {
        let project = self.project();
        let mut found: Vec<String> = names.to_vec();
        let mut at = 0;
        while at < found.len() {
            let follows = |service: &&Service| {
                let mut needs = service.depends_on.iter();
                needs.any(|dependency| dependency.restart && dependency.service == found[at])
            };
            let followers = project.services.iter().filter(follows).map(|service| service.name.clone());
            let new: Vec<String> = followers.filter(|name| !found.contains(name)).collect();
            found.extend(new);
            at += 1;
        }
        found
    }

    /// Containers of these services in groups of which each needs only what is in those before it.
    fn levels(&self, names: &[String]) -> Vec<Vec<Arc<Up>>> {
        let project = self.project();
        let all = all_names(&project);
        let order = needed(&project.services, &all).unwrap_or_else(|_| project.services.iter().collect());
        let ups = self.ups();
        let is_wanted = |up: &Arc<Up>| names.is_empty() || names.contains(&up.service.name);
        let of = |level: Vec<&Service>| -> Vec<Arc<Up>> {
            let here = |up: &&Arc<Up>| is_wanted(up) && level.iter().any(|service| service.name == up.service.name);
            ups.iter().filter(here).cloned().collect()
        };
        let mut groups: Vec<Vec<Arc<Up>>> = levels(&order).into_iter().map(of).collect();
        // Nothing is known any more of what orphans need.
        let is_orphan = |up: &&Arc<Up>| is_wanted(up) && !all.contains(&up.service.name);
        groups.push(ups.iter().filter(is_orphan).cloned().collect());
        groups
    }

    async fn downwards(
        &self,
        names: &[String],
        act: impl AsyncFn(&Arc<Up>) -> Result<(), EngineError>,
    ) -> Result<(), ServiceError> {
        let mut result = Ok(());
        for level in self.levels(names).into_iter().rev() {
            for done in join_all(level.iter().map(|up| act(up))).await {
                if let (Err(error), true) = (done, result.is_ok()) {
                    result = Err(ServiceError::Engine(error));
                }
            }
        }
        result
    }
}

/// What no file of the project makes has to be there.
async fn check_volumes(engine: &dyn Engine, project: &Project) -> Result<(), ServiceError> {
    for service in &project.services {
        for mount in &service.mounts {
            let MountSource::Volume { name, .. } = &mount.source else { continue };
            let Some(volume) = project.volumes.get(name).filter(|volume| volume.external) else { continue };
            if !engine.has_volume(&volume.name).await? {
                let message = format!("service {}: there is no external volume `{}`", service.name, volume.name);
                return Err(ServiceError::Invalid {
                    message,
                    place: volume.place.clone(),
                    hint: Some("a project makes it that has a volume of this `name` without `external`".into()),
                });
            }
        }
    }
    Ok(())
}

fn all_names(project: &Project) -> Vec<String> {
    project.services.iter().map(|service| service.name.clone()).collect()
}

fn change(up: &Up, step: Step) -> Change {
    Change { container: up.name.clone(), step }
}

fn instance(up: &Up) -> Instance {
    let is_running = up.is_running();
    Instance {
        name: up.name.clone(),
        service: up.service.name.clone(),
        number: up.number,
        image: match (&up.service.image, &up.service.from) {
            (Some(reference), _) => reference.familiar(),
            (None, Some(name)) => name.clone(),
            // As Compose names what it builds.
            (None, None) => up.name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_owned(),
        },
        command: up.spec.args.clone(),
        created: up.created,
        status: up.status(),
        ports: if is_running { up.container().ports() } else { Vec::new() },
        is_quiet: up.service.quiet,
    }
}

/// A panic elsewhere is told there; what is kept here is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
