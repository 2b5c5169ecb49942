//! What every command is given: settings, store, engine, registry client, cancellation. Made when first asked for.

use std::{cell::OnceCell, path::Path, sync::Arc};

use anyhow::Context as _;
use engine::Cancel;
use engine_embedded::{CacheImport, Embedded, EmbeddedOptions};
use evidence::Trust;
use registry::{Client, ClientOptions, Credentials, HostFiles};
use runtime::{Network, Privilege};
use store::{Compression, Store, StoreOptions};

use crate::{
    cli::EngineArgs,
    exit::Exit,
    failure::Failure,
    settings::Settings,
    signals::{self, Stopped},
    terminal::{self, text},
};

/// Work that waits needs few threads: what computes goes to blocking threads.
const WORKER_THREADS: usize = 2;

/// With less room than this, a step's word that the disk is full is believed: a single layer can be as large.
const SHORT_OF_SPACE_BYTES: u64 = 1024 * 1024 * 1024;

/// The surroundings of one command.
pub(crate) struct Context {
    /// What the environment says.
    pub(crate) settings: Settings,
    /// Stops the command in grace.
    pub(crate) cancel: Cancel,
    privilege: Option<Privilege>,
    stopped: Stopped,
    store: OnceCell<Store>,
    runtime: OnceCell<tokio::runtime::Runtime>,
    watching: OnceCell<()>,
}

impl Context {
    /// A context; `privilege` is what `runtime::enter` gave, for commands that need the store.
    pub(crate) fn new(settings: Settings, privilege: Option<Privilege>) -> Self {
        Self {
            settings,
            cancel: Cancel::new(),
            privilege,
            stopped: Stopped::default(),
            store: OnceCell::new(),
            runtime: OnceCell::new(),
            watching: OnceCell::new(),
        }
    }

    /// What this process may do.
    pub(crate) fn privilege(&self) -> &Privilege {
        self.privilege.as_ref().expect("the command said that it needs the store, so main has entered")
    }

    /// The store, opened and swept of what killed commands left.
    pub(crate) fn store(&self) -> anyhow::Result<&Store> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let home = &self.settings.home;
        let privilege = self.privilege();
        make_home(home)?;
        let options = StoreOptions {
            copy_snapshots: matches!(privilege, Privilege::None { .. }) || !overlay_works(home, privilege),
            user_xattr: !matches!(privilege, Privilege::Root { .. }),
            ignore_chown_errors: matches!(privilege, Privilege::SingleId | Privilege::None { .. }),
        };
        let store = Store::open(home, options).with_context(|| format!("cannot open the store {}", home.display()))?;
        engine_embedded::sweep(&store)?;
        self.warn_once(&store, options.copy_snapshots);
        Ok(self.store.get_or_init(|| store))
    }

    /// The embedded engine on the store. It takes images of registries only where they have what `trust` asks of them.
    pub(crate) fn engine(&self, args: &EngineArgs, trust: Trust) -> anyhow::Result<Embedded> {
        self.engine_with_cache(args, Vec::new(), trust)
    }

    /// The same, taking steps from other places as well.
    pub(crate) fn engine_with_cache(
        &self,
        args: &EngineArgs,
        imports: Vec<CacheImport>,
        trust: Trust,
    ) -> anyhow::Result<Embedded> {
        // A bare name is looked for in PATH when it is needed.
        if let Some(runtime) = args.runtime.as_ref().filter(|runtime| runtime.is_absolute() && !runtime.is_file()) {
            return Err(Failure::usage(format!("there is no OCI runtime {}", runtime.display()))
                .hint("name runc or crun: `--runtime /usr/bin/crun`; without the flag the built-in one is used")
                .into());
        }
        let options = EmbeddedOptions {
            store: self.store()?.clone(),
            privilege: self.privilege().clone(),
            foreign_runtime: args.runtime.clone(),
            client: {
                let insecure_hosts = args.insecure_registry.clone();
                Arc::new(move || client(&insecure_hosts))
            },
            // Builds have to reach package mirrors, and private networks are not there yet.
            default_network: Network::Host,
            compression: Compression::Gzip,
            trust: Arc::new(trust),
        };
        Ok(Embedded::with_cache(options, imports))
    }

    /// Keeps the store below its limit, after a build. Tells what went; gives nothing when there was nothing to do.
    pub(crate) fn keep_limit(&self, args: &EngineArgs) -> Option<String> {
        let store = self.store().ok()?;
        let limit_bytes = args.cache_limit.unwrap_or_default().bytes(store.disk_size()?)?;
        if !store.may_exceed(limit_bytes) {
            return None;
        }
        match store.keep_limit(limit_bytes) {
            Ok(report) if report.bytes == 0 => None,
            Ok(report) => Some(format!(
                "the store was larger than {}: {} of the least recently used cache went",
                text::bytes(limit_bytes),
                text::bytes(report.bytes)
            )),
            // The next build tries again.
            Err(error) => {
                Some(format!("the store cannot be kept below its limit: {}", crate::failure::chain(&error).join(": ")))
            }
        }
    }

    /// A registry client with docker's logins.
    pub(crate) fn client(&self, insecure_hosts: &[String]) -> Client {
        client(insecure_hosts)
    }

    /// Watches for SIGINT, SIGTERM and SIGHUP from here on: the first cancels, the second kills.
    pub(crate) fn watch_signals(&self) {
        self.watching.get_or_init(|| signals::watch(self.cancel.clone(), self.stopped.clone()));
    }

    /// SIGHUP cancels no more: the caller listens to it.
    pub(crate) fn leave_hang_up(&self) {
        self.stopped.leave_hang_up();
    }

    /// Waits for a future; SIGINT, SIGTERM and SIGHUP cancel from here on. Work that looks at [`Context::cancel`] ends by itself.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> anyhow::Result<F::Output> {
        self.watch_signals();
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(WORKER_THREADS)
                    .enable_all()
                    .build()
                    .context("cannot start threads")?;
                self.runtime.get_or_init(|| runtime)
            }
        };
        Ok(runtime.block_on(future))
    }

    /// The same for work that does not look at the cancellation itself: it is dropped at its next point of waiting.
    pub(crate) fn block_on_cancellable<F, T>(&self, future: F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let cancel = self.cancel.clone();
        self.block_on(async move {
            tokio::select! {
                biased;
                output = future => output,
                () = cancel.cancelled() => Err(Failure::cancelled().into()),
            }
        })?
    }

    /// The exit code that the first signal asks for.
    pub(crate) fn stopped_by(&self) -> Option<Exit> {
        self.stopped.exit()
    }

    /// Whether a program that says so may well have met a full disk: what it wrote is gone by now.
    pub(crate) fn is_short_of_space(&self) -> bool {
        let free = |stat: rustix::fs::StatVfs| stat.f_bavail.saturating_mul(stat.f_frsize);
        rustix::fs::statvfs(&self.settings.home).is_ok_and(|stat| free(stat) < SHORT_OF_SPACE_BYTES)
    }

    /// How much room is left where the store is, in words.
    pub(crate) fn free_space(&self) -> String {
        let home = &self.settings.home;
        match rustix::fs::statvfs(home) {
            Ok(stat) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                format!("{} are free in the store {}", text::bytes(free), home.display())
            }
            Err(error) => format!("cannot ask for the free space of {}: {error}", home.display()),
        }
    }

    /// Things that work less well here, said once per store.
    fn warn_once(&self, store: &Store, copies: bool) {
        // The demo's own store comes second; the user's has told already.
        if self.settings.demo_registry.is_some() {
            return;
        }
        let once = |key: &str, message: &str| {
            if store.memo_get("notice", key).is_none() {
                terminal::warning(message);
                // When it cannot be remembered it is said again, which harms nobody.
                let _ = store.memo_put("notice", key, b"told");
            }
        };
        if *self.privilege() == Privilege::SingleId {
            once(
                "single-id",
                "this user has no subordinate ids: files get one owner only, and `USER`, `--chown` and package managers \
                 that change owners may fail; an administrator can give ids with `usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 $USER`",
            );
        }
        if let Privilege::None { reason } = self.privilege() {
            let message = format!("no container can be started here: {reason}; see `seatrial doctor`");
            return once("no-namespaces", &message);
        }
        if copies {
            once(
                "copies",
                "overlayfs does not work on the store's file system: every step copies its whole root; see `seatrial doctor`",
            );
        }
    }
}

fn make_home(home: &Path) -> Result<(), Failure> {
    if home.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(home).map_err(|error| {
        Failure::surroundings(format!("cannot make the store {}", home.display()))
            .because(&error)
            .hint("name a directory that you may write: `export SEATRIAL_HOME=/path/to/store`")
    })
}

/// Trying costs a mount, so a good answer is remembered until the next start of the machine.
fn overlay_works(home: &Path, privilege: &Privilege) -> bool {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let wanted = format!("{} {privilege:?}", boot.trim());
    let marker = home.join("overlay-works");
    if !boot.is_empty() && std::fs::read_to_string(&marker).is_ok_and(|has| has == wanted) {
        return true;
    }
    let works = runtime::overlay_works(home);
    if works {
        // Not remembered: tried again by the next command.
        let _ = std::fs::write(&marker, wanted);
    }
    works
}

/// A client with docker's logins; made late, because most commands never speak to a registry.
fn client(insecure_hosts: &[String]) -> Client {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(ClientOptions {
        credentials: Credentials::from_environment(|name| std::env::var_os(name)),
        insecure_hosts: insecure_hosts.to_vec(),
        hosts: HostFiles::from_environment(|name| std::env::var_os(name)),
        ..ClientOptions::default()
    })
}
