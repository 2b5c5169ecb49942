//! Commands on top of a root, each a cached step: what gates need and the image must not have.

use std::{os::fd::AsFd as _, path::Path};

use engine::{BindMount, BuildError, MemoryFile, NetworkMode, Root, RunSettings, SetupCommand, SetupRequest};
use events::EventSink;
use oci::Digest;
use runtime::{FileContent, Mount, MountKind, Network};
use rustix::fs::{CWD, Mode, OFlags, openat};
use store::Store;

use crate::{
    build::{root_id, root_snapshot},
    content::FileMemo,
    copy,
    former::{Below, Chain},
    process::{self, Job},
    shared::Shared,
    step::{Key, Layers, Made, StepInfo, Steps, chain, digest_of},
    tree::{self, Keep},
    work::{During as _, Host, Tally, check, locked},
};

/// Memo namespace of file digests of mounted paths.
const MEMO: &str = "mounted-files";

/// Runs the commands in order, each in a container on the result of the one before; what ran before is taken from the
/// cache. The key of a command is the root, the commands before it, its own text and surroundings, and the content of
/// the mounts.
///
/// # Errors
/// A command failed, it was cancelled, or the surroundings failed.
pub fn setup(request: &SetupRequest, host: &Host<'_>, events: &EventSink) -> Result<Root, BuildError> {
    let attempt = || format!("cannot set up on root {}", request.root.id);
    let mut layers = Layers { key: Digest::of(b"scratch"), layers: Vec::new() };
    if let Some(top) = root_snapshot(&request.root).during(attempt)? {
        host.scope.lease(&top).during(attempt)?;
        let below = chain(host.store, &top).during(attempt)?;
        layers.layers = below.ok_or_else(|| std::io::Error::other("a snapshot of it is gone")).during(attempt)?;
        layers.key = digest_of([b"root".as_slice(), top.to_string().as_bytes()]);
    }
    let mut mounts = Vec::new();
    for mount in &request.mounts {
        let (digest, listing) = content(host.store, &mount.source)
            .during(|| format!("cannot read the mounted path {}", mount.source.display()))?;
        mounts.push((mount, digest, listing));
    }
    let name = digest_of(request.mounts.iter().map(|mount| mount.source.as_os_str().as_encoded_bytes()));
    let name = digest_of([name.hex().as_bytes(), request.stage.as_bytes()]);
    let texts = request.commands.iter().map(|command| command.text.clone()).collect();
    let steps_of_setup = Chain::new(&name, Below::Built, layers.key.clone(), texts);
    let tally = Tally::default();
    // Keys of setup steps name a snapshot of this store, so that nobody else could use them.
    let alone = Shared::default();
    let host = &Host { shared: &alone, ..*host };
    let steps = Steps { host, events, tally: &tally, chain: &steps_of_setup };
    let settings = RunSettings::default();
    let outcome: Result<(), BuildError> = request.commands.iter().enumerate().try_for_each(|(at, command)| {
        check(&request.cancel)?;
        let info = StepInfo {
            stage: request.stage.clone(),
            text: command.text.clone(),
            place: command.place.clone(),
            number: at,
        };
        let key = key_of(&layers, command, &mounts);
        let below = layers.clone();
        let cache_off = request.no_cache.then(|| "--no-cache".to_owned());
        steps.run(&mut layers, &info, key, cache_off, |running| {
            for (_, digest, listing) in &mounts {
                copy::save_listing(host.store, digest, listing);
            }
            let attempt = || format!("cannot run `{}`", command.text);
            let active = host.store.prepare(host.scope, below.top()).during(attempt)?;
            let active = process::run(host, running, active, job(request, command, &settings, host), &|| {
                request.cancel.is_cancelled()
            })?;
            Ok(Made::layer(active.commit().during(attempt)?))
        })?;
        Ok(())
    });
    if outcome.is_ok() {
        steps_of_setup.finish();
    }
    steps_of_setup.save(host.store);
    outcome?;
    Ok(Root { id: root_id(&layers), config: request.root.config.clone() })
}

fn key_of(layers: &Layers, command: &SetupCommand, mounts: &[(&BindMount, Digest, Vec<u8>)]) -> Key {
    let mut key = Key::new(&layers.key);
    key.add("instruction", command.args.join("\0"));
    for (name, value) in &command.env {
        key.add(format!("variable {name}"), value);
    }
    key.add("user", &command.user);
    key.add("working directory", &command.cwd);
    for file in &command.files {
        key.add(format!("mount {}", file.target), format!("secret {:o} {}:{}", file.mode, file.uid, file.gid));
    }
    for (mount, digest, _) in mounts {
        key.add(format!("mount {}", mount.target), format!("bind {digest}"));
        key.add(format!("access to mount {}", mount.target), if mount.readonly { "read-only" } else { "writable" });
    }
    key
}

fn job<'a>(
    request: &'a SetupRequest,
    command: &'a SetupCommand,
    settings: &'a RunSettings,
    host: &Host<'_>,
) -> Job<'a> {
    Job {
        text: &command.text,
        place: command.place.as_ref(),
        args: command.args.clone(),
        env: command.env.clone(),
        secret_env: Vec::new(),
        cwd: &command.cwd,
        user: &command.user,
        mounts: bind_mounts(&request.mounts).into_iter().chain(memory_files(&command.files)).collect(),
        network: network(request.network, host.default_network),
        privileged: false,
        settings,
        masks: request.masks.as_ref(),
        extra_hosts: &[],
        keep_failed: request.keep_failed,
    }
}

/// Names, modes and content of a file or directory, as digest and listing.
fn content(store: &Store, path: &Path) -> std::io::Result<(Digest, Vec<u8>)> {
    static MEMO_LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let path = fs_err::canonicalize(path)?;
    let (directory, name) = match (path.is_dir(), path.parent(), path.file_name()) {
        (false, Some(parent), Some(name)) => (parent, name.as_encoded_bytes().to_vec()),
        _ => (path.as_path(), Vec::new()),
    };
    let root = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = tree::scan(root.as_fd(), &name, &|_| Keep::Yes)?;
    let memo_key = Digest::of(path.as_os_str().as_encoded_bytes());
    // Gates of one run may ask for the same path at once.
    let guard = locked(&MEMO_LOCK);
    let mut memo = FileMemo::parse(&store.memo_get(MEMO, memo_key.hex()).unwrap_or_default());
    memo.fill(root.as_fd(), &name, &mut entries)?;
    if memo.is_changed {
        // A memo that cannot be written costs reading the files again.
        let _ = store.memo_put(MEMO, memo_key.hex(), &memo.to_bytes());
    }
    drop(guard);
    let mut listing = Vec::new();
    for entry in &entries {
        listing.extend(copy::line_of(entry, &entry.path, false));
        listing.push(b'\n');
    }
    Ok((Digest::of(&listing), listing))
}

/// Digest of names, modes and content of a file or directory. Unchanged files are not read again.
///
/// # Errors
/// It cannot be read.
pub fn content_digest(store: &Store, path: &Path) -> std::io::Result<Digest> {
    Ok(content(store, path)?.0)
}

/// Files in memory as the runtime mounts them.
pub fn memory_files(files: &[MemoryFile]) -> impl Iterator<Item = Mount> {
    files.iter().map(|file| Mount {
        target: file.target.clone(),
        kind: MountKind::File {
            content: FileContent(file.content.expose().to_vec()),
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
        },
        readonly: true,
    })
}

/// Host paths as the runtime mounts them.
pub fn bind_mounts(mounts: &[BindMount]) -> Vec<Mount> {
    let bind = |mount: &BindMount| Mount {
        target: mount.target.clone(),
        kind: MountKind::Bind(mount.source.clone()),
        readonly: mount.readonly,
    };
    mounts.iter().map(bind).collect()
}

/// A network mode as the runtime has it.
pub fn network(mode: NetworkMode, default: &Network) -> Network {
    match mode {
        NetworkMode::Default => default.clone(),
        NetworkMode::None => Network::None,
        NetworkMode::Host => Network::Host,
    }
}
