//! A run's scope: its setup layers and containers, stopped and removed when it closes.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use engine::{BuildError, Container, ContainerSpec, EngineError, NetworkMode, Root, Scope, SetupRequest, Surroundings};
use events::{Event, EventSink, RunId};
use oci::Digest;
use runtime::{Limits, Mount, MountKind, ProcessSpec};
use store::{ActiveSnapshot, JournalEntry, SnapshotId};

use crate::{
    containers::{Around, Files, Handle, Rights, Running, Streams, inner_stdio},
    embedded::{Inner, blocking},
    failed,
    private::PrivateNetworks,
    saved, start_failed,
    volumes::Volumes,
};

/// What a container gets between SIGTERM and SIGKILL when its run is over: docker's own default.
const CLOSE_GRACE: Duration = Duration::from_secs(10);
const SIGTERM: i32 = 15;

/// Containers of one run.
pub(crate) struct EmbeddedScope {
    shared: Arc<Shared>,
}

/// What handles of its containers come back to.
pub(crate) struct Shared {
    engine: Arc<Inner>,
    scope: store::Scope,
    run: RunId,
    next: AtomicU64,
    running: Mutex<Vec<Arc<Running>>>,
    volumes: Volumes,
    networks: Arc<PrivateNetworks>,
}

impl EmbeddedScope {
    pub(crate) fn open(engine: Arc<Inner>, run: RunId) -> Result<Self, EngineError> {
        let scope = engine.options.store.open_scope().map_err(|error| failed("cannot open a scope", error))?;
        let (next, running, volumes) = (AtomicU64::new(1), Mutex::default(), Volumes::default());
        let is_root = matches!(engine.options.privilege, runtime::Privilege::Root { .. });
        let networks = Arc::new(PrivateNetworks::new(scope.clone(), is_root));
        Ok(Self { shared: Arc::new(Shared { engine, scope, run, next, running, volumes, networks }) })
    }
}

#[async_trait]
impl Scope for EmbeddedScope {
    async fn setup(&self, request: SetupRequest, events: &EventSink) -> Result<Root, BuildError> {
        let (shared, events) = (self.shared.clone(), events.clone());
        // Snapshots of setups are leased by the engine's scope, which outlives this one: another run may use them.
        blocking(move || {
            let stage = request.stage.clone();
            let private = shared.networks.later("setup");
            let outcome = shared.engine.with_host(&stage, &events, &shared.engine.options.trust, |host| {
                builder::setup(&request, &builder::Host { default_network: &private, ..*host }, &events)
            });
            if let Some(message) = shared.networks.take_warning() {
                events.emit(Event::Warning { message, place: None });
            }
            outcome
        })
        .await
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError> {
        let shared = self.shared.clone();
        let weak = Arc::downgrade(&shared);
        let running = blocking(move || shared.start(spec)).await?;
        Ok(Box::new(Handle(running, weak)))
    }

    async fn saved(&self, key: &Digest) -> Result<Option<Root>, EngineError> {
        let (shared, key) = (self.shared.clone(), key.clone());
        let get = move || saved::get(&shared.engine.options.store, &shared.scope, &key);
        blocking(get).await.map_err(|error| failed("cannot look for a saved file system", error))
    }

    async fn close(&mut self) -> Result<(), EngineError> {
        let shared = self.shared.clone();
        blocking(move || shared.close()).await
    }
}

impl Drop for EmbeddedScope {
    fn drop(&mut self) {
        // The error has nobody to go to; a later sweep removes what is left.
        let _ = self.shared.close();
    }
}

impl Shared {
    fn start(&self, spec: ContainerSpec) -> Result<Arc<Running>, EngineError> {
        let fail = |error: store::StoreError| failed(format!("cannot prepare container {}", spec.name), error);
        let top = builder::root_snapshot(&spec.root)
            .map_err(|error| failed(format!("cannot prepare container {}", spec.name), error))?;
        let active = self.engine.options.store.prepare(&self.scope, top.as_ref()).map_err(fail)?;
        let launched = self.launch(&spec, top.as_ref(), &active)?;
        self.add(launched, active, spec)
    }

    /// On the file system that an ended container left.
    pub(crate) fn start_again(&self, spec: ContainerSpec, ended: &Arc<Running>) -> Result<Arc<Running>, EngineError> {
        let name = &spec.name;
        let attempt = || format!("cannot start container {name} again");
        let top = builder::root_snapshot(&spec.root).map_err(|error| failed(attempt(), error))?;
        let active = ended.take_files().ok_or_else(|| failed(attempt(), "its files are gone"))?;
        match self.launch(&spec, top.as_ref(), &active) {
            Ok(launched) => {
                self.forget(ended);
                self.add(launched, active, spec)
            }
            Err(error) => {
                ended.put_files(active);
                Err(error)
            }
        }
    }

    /// It is closed by whoever forgets it.
    pub(crate) fn forget(&self, running: &Arc<Running>) {
        let mut all = self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, running));
    }

    fn add(
        &self,
        launched: Launched,
        active: ActiveSnapshot,
        spec: ContainerSpec,
    ) -> Result<Arc<Running>, EngineError> {
        let Launched { container, streams, dir, around } = launched;
        let rights = self.rights(&spec.surroundings);
        let files = Files { active, dir, store: self.engine.options.store.clone(), config: spec.root.config };
        let running = Arc::new(Running::new(container, streams, rights, files, around)?);
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(running.clone());
        Ok(running)
    }

    fn rights(&self, around: &Surroundings) -> Rights {
        Rights {
            // An ordinary user's containers never rise above the user.
            no_new_privileges: around.no_new_privileges
                || !matches!(self.engine.options.privilege, runtime::Privilege::Root { .. }),
            cap_add: around.cap_add.clone(),
            cap_drop: around.cap_drop.clone(),
        }
    }

    /// Starts the process on a file system that is there.
    fn launch(
        &self,
        spec: &ContainerSpec,
        top: Option<&SnapshotId>,
        active: &ActiveSnapshot,
    ) -> Result<Launched, EngineError> {
        let fail = |error: store::StoreError| failed(format!("cannot prepare container {}", spec.name), error);
        let store = &self.engine.options.store;
        let rootfs = builder::rootfs(active);
        let id = format!("st-{}-r{}-{}", self.scope.id(), self.run, self.next.fetch_add(1, Ordering::Relaxed));
        let dir = self.scope.dir().join(&id);
        self.scope.journal(&JournalEntry::Container(id.clone())).map_err(fail)?;
        let (stdio, streams) = inner_stdio(&spec.stdio)?;
        let around = &spec.surroundings;
        let Rights { no_new_privileges, cap_add, cap_drop } = self.rights(around);
        let volumes = around.volumes.iter().map(|volume| self.volumes.mount(store, &self.scope, top, volume));
        let volumes: Vec<Mount> = volumes.collect::<Result<_, _>>().map_err(fail)?;
        let bound = builder::bind_mounts(&spec.mounts);
        let joined = match spec.network {
            NetworkMode::Default => Some(self.networks.join(&spec.name, &spec.attachment)?),
            NetworkMode::None | NetworkMode::Host => None,
        };
        let (network, extra_hosts) = match &joined {
            Some(joined) => (joined.network(), joined.extra_hosts.clone()),
            None => (
                builder::network(spec.network, &runtime::Network::None),
                builder::extra_hosts(&spec.attachment.extra_hosts),
            ),
        };
        let container = runtime::Container::start(runtime::ContainerSpec {
            id,
            dir: dir.clone(),
            rootfs,
            readonly_rootfs: around.readonly_root,
            process: ProcessSpec {
                args: spec.args.clone(),
                env: spec.env.clone(),
                cwd: spec.cwd.clone(),
                user: spec.user.clone(),
                no_new_privileges,
                stdio,
                cap_add,
                cap_drop,
            },
            init: spec.init,
            hostname: around.hostname.clone().unwrap_or_else(|| spec.name.clone()),
            network,
            extra_hosts,
            mounts: volumes.into_iter().chain(bound).chain(mounts_in_memory(around)).collect(),
            devices: around.devices.iter().map(device).collect(),
            sysctls: around.sysctls.clone(),
            limits: Limits {
                memory_bytes: spec.limits.memory_bytes,
                cpus: spec.limits.cpus,
                pids: spec.limits.pids,
                nofile: None,
                ulimits: builder::ulimits(&around.ulimits),
            },
            foreign_runtime: self.engine.options.foreign_runtime.clone(),
            shm_size_bytes: around.shm_size_bytes,
            cgroup_parent: None,
            privileged: false,
        })
        .map_err(|error| start_failed(&spec.name, error))?;
        let mut around = Around::default();
        if let Some(joined) = joined {
            around.addresses = joined.membership.addresses();
            around.ports = joined.ports;
            around.warnings = joined.warnings;
            if joined.membership.leads_out() {
                around.warnings.extend(self.networks.take_warning());
            }
            around.membership = Mutex::new(Some(joined.membership));
        }
        Ok(Launched { container, streams, dir, around })
    }

    /// Stops everything side by side and removes it. The first failure is told; all are attempted.
    fn close(&self) -> Result<(), EngineError> {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut result = Ok(());
        std::thread::scope(|scope| {
            // They end with the last container in them; the kernel takes its time for it.
            scope.spawn(|| self.networks.close());
            let closing: Vec<_> =
                running.iter().map(|running| scope.spawn(|| running.close(SIGTERM, CLOSE_GRACE))).collect();
            for thread in closing {
                let closed = thread.join().unwrap_or_else(|_| Err(failed("cannot close a container", "it panicked")));
                if result.is_ok() {
                    result = closed;
                }
            }
        });
        result
    }
}

/// A started process with what it was given.
struct Launched {
    container: runtime::Container,
    streams: Streams,
    dir: PathBuf,
    around: Around,
}

fn device(device: &engine::Device) -> runtime::Device {
    let engine::Device { source, target, access } = device.clone();
    runtime::Device { source, target, access }
}

fn mounts_in_memory(around: &Surroundings) -> impl Iterator<Item = Mount> {
    let tmpfs = around.tmpfs.iter().map(|tmpfs| Mount {
        target: tmpfs.target.clone(),
        kind: MountKind::Tmpfs { size_bytes: tmpfs.size_bytes, mode: tmpfs.mode },
        readonly: false,
    });
    tmpfs.chain(builder::memory_files(&around.files))
}
