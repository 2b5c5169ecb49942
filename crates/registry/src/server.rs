//! The embedded server: the distribution specification 1.1 over a directory or an object store.
//!
//! A request's way: [`routes`] finds out what it is about, [`access`] whether it may be, [`blobs`], [`manifests`] and [`listing`] answer it, [`storage`]
//! and [`tags`] keep what it brings through a [`Backend`]. [`collect`] removes what nobody needs, beside all that.

mod access;
mod answer;
mod backend;
mod background;
mod blobs;
mod cache;
mod collect;
mod content;
mod control;
mod directory;
mod history;
mod hooks;
mod lease;
mod listener;
mod listing;
mod manifests;
mod metrics;
mod notices;
mod page;
mod routes;
mod rules;
mod scrub;
mod storage;
mod tags;
mod tls;
mod uploads;
mod upstream;
mod usage;
mod watched;

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};

use access::Gate;
use hooks::Hooks;
use listener::{Front, Peer};
use metrics::Metrics;
use storage::Storage;
use tls::Certificates;
use uploads::Uploads;
use upstream::Upstreams;

pub use access::{
    AccessOptions, AccessRule, Action, AuditOptions, ChallengeKind, InvalidRate, Limits, Rate, UsersError,
};
pub use backend::{Backend, ReadAt, Record, Stat, Taking};
pub use collect::{CollectOptions, CollectReport, Removed};
pub use control::{collect, scrub};
pub use history::GitHistory;
pub use hooks::{
    Delivery, HookAnswer, HookEvent, HookSecret, HookState, HookUrl, InvalidHookUrl, Webhook, redeliver, webhooks,
};
pub use notices::Notices;
pub use rules::{InvalidPattern, Pattern, RepositoryRules, Retention, Rules};
pub use scrub::{Corrupt, ScrubReport};
pub use tls::{TlsError, TlsFiles};
pub use upstream::{InvalidUpstream, Upstream, UpstreamAddress};

/// Where a server listens unless told otherwise: on this machine only, at the port that registries have by custom.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
/// After a shutdown was asked for, open requests get this long.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Collections closer together would do nothing else.
const COLLECT_EVERY_MIN: Duration = Duration::from_secs(1);
/// How often abandoned uploads are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// How a server behaves. `..ServerOptions::default()` fills in the rest.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Largest manifest taken, in bytes.
    pub manifest_bytes_max: u64,
    /// Longest silence of a client that sends a body.
    pub idle_timeout: Duration,
    /// Uploads that nobody went on with for so long are removed.
    pub upload_life: Duration,
    /// Rules for tags, retention and room.
    pub rules: Rules,
    /// How often what nobody needs is removed; `None`: only when asked to.
    pub collect_every: Option<Duration>,
    /// What was pushed, mounted or asked for within this time is never removed.
    pub collect_grace: Duration,
    /// Where records and content are kept instead of in the server's directory.
    pub backend: Option<Arc<dyn Backend>>,
    /// A store of local builds whose blobs every repository has, without their being sent. For one's own machine: whoever
    /// may read any repository can read them by digest.
    pub store: Option<store::Store>,
    /// Registries whose images are handed out and kept.
    pub upstreams: Vec<Upstream>,
    /// Who may use it; `None`: everybody who can reach it, for everything.
    pub access: Option<AccessOptions>,
    /// How often somebody may ask.
    pub limits: Limits,
    /// Where it is written down who did what.
    pub audit: Option<AuditOptions>,
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Plain HTTP also on addresses that others can reach. Whoever is on the way then reads passwords and content.
    pub is_plain_allowed: bool,
    /// Proxies in front of it, whose word about the client's address and scheme (`X-Forwarded-For`, `-Proto`) is taken.
    pub trusted_proxies: Vec<IpAddr>,
    /// Who is told of what the operator should know.
    pub notices: Notices,
    /// Who is told what happens.
    pub webhooks: Vec<Webhook>,
    /// Pages for people at `/`.
    pub has_pages: bool,
    /// Counters for Prometheus at `/metrics`.
    pub has_metrics: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            manifest_bytes_max: crate::client::MANIFEST_BYTES_MAX,
            idle_timeout: Duration::from_secs(60),
            upload_life: Duration::from_secs(24 * 3600),
            rules: Rules::default(),
            collect_every: Some(Duration::from_secs(6 * 3600)),
            collect_grace: Duration::from_secs(24 * 3600),
            backend: None,
            store: None,
            upstreams: Vec::new(),
            access: None,
            limits: Limits::default(),
            audit: None,
            tls: None,
            is_plain_allowed: false,
            trusted_proxies: Vec::new(),
            notices: Notices::default(),
            webhooks: Vec::new(),
            has_pages: true,
            has_metrics: true,
        }
    }
}

/// The server could not be started or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The directory cannot be used.
    #[error("registry storage cannot be used")]
    Storage(#[source] io::Error),
    /// Another server holds the directory.
    #[error("another registry is running on {}", .0.display())]
    Busy(PathBuf),
    /// The server that is running on the directory did not do what it was asked for.
    #[error("the registry that is running on {} did not answer as expected", .directory.display())]
    Control {
        /// Its directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Passwords and content would be sent in the clear where others can read them.
    #[error("{0} can be reached from outside, and nothing would be encrypted")]
    Plain(SocketAddr),
    /// Rules that keep repositories apart, and a store that every repository has.
    #[error(
        "blobs of this machine's builds are in every repository, so whoever may read one repository could read all of \
         them by their digests, while the rules keep repositories apart"
    )]
    StoreLeaks,
    /// The users cannot be read.
    #[error(transparent)]
    Users(UsersError),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(TlsError),
    /// The audit log cannot be written.
    #[error("the audit log {} cannot be written", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Serving ended with an error.
    #[error("registry server failed")]
    Serve(#[source] io::Error),
}

/// A bound server that is not serving yet. Connections wait in the kernel's queue until [`Server::serve`] runs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    storage: Storage,
    uploads: Uploads,
    upstreams: Upstreams,
    hooks: Hooks,
    metrics: Metrics,
    gate: Gate,
    options: ServerOptions,
}

impl Server {
    /// Opens the directory (made when missing, held by this process alone) and listens. An address other than a loopback
    /// one needs certificates, or the word that plain HTTP will do; without `access` it opens the registry to everybody there.
    pub async fn bind(
        address: SocketAddr,
        directory: impl Into<PathBuf>,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        if options.tls.is_none() && !options.is_plain_allowed && !address.ip().to_canonical().is_loopback() {
            return Err(ServerError::Plain(address));
        }
        let directory = directory.into();
        let local = directory.clone();
        let life = options.upload_life;
        let (backend, source) = (options.backend.clone(), options.store.clone());
        let (upstreams, hooks) = (options.upstreams.clone(), options.webhooks.clone());
        let notices = options.notices.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let storage = Storage::open(&directory, backend, source)?.ok_or(ServerError::Busy(directory))?;
            storage.sweep_uploads(life).map_err(ServerError::Storage)?;
            let upstreams = Upstreams::open(upstreams, storage.local(), notices).map_err(ServerError::Storage)?;
            let hooks = Hooks::open(&hooks, storage.local()).map_err(ServerError::Storage)?;
            Ok::<_, ServerError>((storage, upstreams, hooks))
        });
        let (storage, upstreams, hooks) =
            opened.await.map_err(|error| ServerError::Storage(io::Error::other(error)))??;
        let listen = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let certificates = options.tls.clone().map(|files| Certificates::open(files, options.notices.clone()));
        let certificates = certificates.transpose().map_err(ServerError::Tls)?.map(Arc::new);
        let gate = Gate::open(&options, &local, address)?;
        let (uploads, metrics) = (Uploads::default(), Metrics::new());
        let shared = Arc::new(Shared { storage, uploads, upstreams, hooks, metrics, gate, options });
        Ok(Self { listener, address, certificates, shared })
    }

    /// The address that is listened on, with the port that port 0 became.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// By this the audit log's file can be begun anew while the server runs.
    pub fn reopener(&self) -> impl AsyncFn() + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        async move || shared.gate.reopen().await
    }

    /// Serves until `shutdown` is ready; then lets open requests end, for a short while.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let app = Router::new().fallback(routes::handle).with_state(Arc::clone(&self.shared));
        let app = app.into_make_service_with_connect_info::<Peer>();
        let front = Front::new(self.listener, self.address, self.certificates);
        let (ending, ended) = oneshot::channel();
        let serving = axum::serve(front, app).with_graceful_shutdown(async move {
            shutdown.await;
            let _ = ending.send(());
        });
        let grace = async move {
            let _ = ended.await;
            sleep(SHUTDOWN_GRACE).await;
        };
        let outcome = tokio::select! {
            outcome = serving.into_future() => outcome.map_err(ServerError::Serve),
            () = grace => Ok(()),
            () = sweep_forever(&self.shared) => Ok(()),
            () = collect_forever(&self.shared) => Ok(()),
            () = control::serve(&self.shared) => Ok(()),
            () = self.shared.hooks.deliver(&self.shared.metrics, &self.shared.options.notices) => Ok(()),
        };
        self.shared.upstreams.end().await;
        self.shared.gate.flush().await;
        outcome
    }
}

async fn sweep_forever(shared: &Arc<Shared>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let shared = Arc::clone(shared);
        // What cannot be removed now is tried again at the next tick.
        let _ = tokio::task::spawn_blocking(move || {
            shared.uploads.forget_idle(shared.options.upload_life);
            shared.storage.sweep_uploads(shared.options.upload_life)
        })
        .await;
    }
}

/// Never returns.
async fn collect_forever(shared: &Arc<Shared>) {
    let Some(every) = shared.options.collect_every else { return std::future::pending().await };
    let mut ticks = interval(every.max(COLLECT_EVERY_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let shared = Arc::clone(shared);
        // What failed is tried again at the next tick.
        let _ = tokio::task::spawn_blocking(move || shared.collect(false)).await;
    }
}

impl Shared {
    fn collect(&self, is_dry_run: bool) -> io::Result<CollectReport> {
        let options =
            CollectOptions { rules: self.options.rules.clone(), grace: self.options.collect_grace, is_dry_run };
        let report = self.storage.collect(&options)?;
        self.metrics.collected(&report);
        Ok(report)
    }
}
