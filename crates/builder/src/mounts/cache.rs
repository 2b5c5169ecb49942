//! Cache mounts: directories of the store that outlive builds.

use std::{
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::PathBuf,
};

use engine::BuildError;
use rustix::fs::{FlockOperation, flock};
use store::Store;

use super::{Access, Sharing};
use crate::{
    copy::{self, Source},
    stage::At,
    step::digest_of,
    work::During as _,
};

/// Directory of cache mounts in the store.
const CACHE_DIRECTORY: &str = "cache-mounts";
/// Docker's default for a cache mount that others are using, if sharing is `private`: this many copies at most.
const PRIVATE_COPIES_MAX: usize = 256;

/// The directory of a cache mount, with its lock if it is not shared.
pub(super) fn open(
    at: &At<'_>,
    id: &str,
    sharing: Sharing,
    access: Option<Access>,
    source: Option<&(Source, String)>,
) -> Result<(PathBuf, Option<fs_err::File>), BuildError> {
    let attempt = || format!("cannot open the cache `{id}`");
    let work = at.work;
    let name = name_of(id, access, source);
    let base = base(work.host.store);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base).during(attempt)?;
    let mut lock = None;
    let mut chosen = base.join(&name);
    for number in 0..PRIVATE_COPIES_MAX {
        chosen = if number == 0 { base.join(&name) } else { base.join(format!("{name}.{number}")) };
        if sharing == Sharing::Shared {
            break;
        }
        let mut path = chosen.clone().into_os_string();
        path.push(".lock");
        let file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(PathBuf::from(path));
        let file = file.during(attempt)?;
        if lock_file(at, &file, sharing == Sharing::Locked).during(attempt)? {
            lock = Some(file);
            break;
        }
        work.check()?;
    }
    let name_of_chosen = chosen.file_name().expect("it has a name").to_string_lossy().into_owned();
    // The lease keeps prune off; it may have been there a moment ago.
    while !work.host.scope.lease_cache_mount(&name_of_chosen).during(attempt)? {
        work.check()?;
        // Filled beside its place and renamed, so that nobody sees it half made.
        let new = base.join(format!(".{name}.{}.{}", work.host.scope.id(), at.number));
        fs_err::create_dir(&new).during(attempt)?;
        if let Some((source, path)) = source {
            let resolved = resolve_source(at, source, path)?;
            copy::copy_contents(at, source, &resolved, &new)?;
        } else if chosen == base.join(&name) {
            work.host.shared.fill_mount(work.host.store, work.host.scope, &name, &new);
        }
        let access = access.unwrap_or(Access { mode: 0o755, uid: 0, gid: 0 });
        fs_err::set_permissions(&new, std::fs::Permissions::from_mode(access.mode)).during(attempt)?;
        if (access.uid, access.gid) != (0, 0) {
            std::os::unix::fs::chown(&new, Some(access.uid), Some(access.gid)).during(attempt)?;
        }
        match fs_err::rename(&new, &chosen) {
            Ok(()) => {}
            // Another build was quicker.
            Err(_) if chosen.exists() => fs_err::remove_dir_all(&new).during(attempt)?,
            Err(error) => return Err(error).during(attempt),
        }
    }
    Ok((chosen, lock))
}

/// Where the store keeps the cache mount of this name.
pub(crate) fn directory(store: &Store, name: &str) -> PathBuf {
    base(store).join(name)
}

fn base(store: &Store) -> PathBuf {
    store.root().join(CACHE_DIRECTORY)
}

/// One cache for each id; caches of the same id that begin differently are different ones, as in BuildKit.
pub(super) fn name_of(id: &str, access: Option<Access>, source: Option<&(Source, String)>) -> String {
    let mut parts = vec![id.to_owned()];
    parts.extend(access.map(|access| access.named("owner", "")));
    if let Some((source, path)) = source {
        parts.push(match source {
            Source::Layers(layers) => format!("{} {path}", layers.key),
            Source::Named(context) => format!("{} {path}", context.path().display()),
            Source::Context => path.clone(),
        });
    }
    let digest = match &parts[..] {
        [id] => oci::Digest::of(id.as_bytes()),
        parts => digest_of(parts.iter().map(String::as_bytes)),
    };
    digest.hex()[..32].to_owned()
}

/// Waits for the lock when asked to; looks for cancellation meanwhile.
fn lock_file(at: &At<'_>, file: &fs_err::File, wait: bool) -> std::io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if !wait || at.work.is_stopped() => return Ok(false),
            // flock has no timeout; this is short beside a build step.
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn resolve_source(at: &At<'_>, source: &Source, path: &str) -> Result<Vec<u8>, BuildError> {
    let attempt = || format!("cannot find `{path}`");
    Ok(source.open(at)?.resolve(path.as_bytes()).during(attempt)?.path)
}
