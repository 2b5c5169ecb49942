//! `RUN --mount`: bind, cache and tmpfs.

use std::{
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use dockerfile::{Diagnostic, MountKind as Type, Run, RunMount};
use engine::BuildError;
use runtime::{Mount, MountKind, Overlay};
use rustix::fs::{FlockOperation, flock};

use crate::{
    copy::{self, Source},
    run::Script,
    stage::{At, State},
    step::Key,
    tree::{self, Kind},
    work::During as _,
};

/// Directory of cache mounts in the store.
const CACHE_DIRECTORY: &str = "cache-mounts";
/// Docker's default for a cache mount that others are using, if sharing is `private`: this many copies at most.
const PRIVATE_COPIES_MAX: usize = 256;

/// A mount with its options read.
pub(crate) struct Wanted {
    target: String,
    kind: WantedKind,
    readonly: bool,
}

enum WantedKind {
    Tmpfs { size_bytes: Option<u64> },
    Cache { id: String, sharing: Sharing, mode: u32, uid: u32, gid: u32, source: Option<(Source, String)> },
    Bind { source: Source, path: String, shown: copy::Shown },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Shared,
    Private,
    Locked,
}

impl Wanted {
    /// A cache's content is no part of the key, its place is.
    pub(crate) fn add_to(&self, key: &mut Key) {
        let name = format!("mount {}", self.target);
        match &self.kind {
            WantedKind::Tmpfs { .. } => key.add(name, "tmpfs"),
            WantedKind::Cache { id, .. } => key.add(name, format!("cache {id}")),
            WantedKind::Bind { shown, .. } => key.add(name, format!("bind {}", shown.digest)),
        }
    }
}

/// Reads the options of all mounts. Bind sources are hashed here, because they are part of the key.
pub(crate) fn plan(at: &At<'_>, state: &State, run: &Run) -> Result<Vec<Wanted>, BuildError> {
    let mut wanted = Vec::new();
    for mount in &run.mounts {
        wanted.extend(plan_one(at, state, mount)?);
    }
    Ok(wanted)
}

fn plan_one(at: &At<'_>, state: &State, mount: &RunMount) -> Result<Option<Wanted>, BuildError> {
    let wrong = |message: String| at.invalid(Diagnostic::error("ST116", message), Some(&mount.span));
    let option = |names: &[&str]| -> Result<Option<String>, BuildError> {
        let found = mount.options.iter().rev().find(|(key, _)| names.contains(&key.raw.as_str()));
        found.map(|(_, value)| value.as_ref().map_or(Ok(String::new()), |word| at.expand(state, word))).transpose()
    };
    let flag = |names: &[&str]| -> Result<Option<bool>, BuildError> {
        match option(names)?.as_deref() {
            None => Ok(None),
            Some("" | "true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(wrong(format!("`{other}` is neither `true` nor `false`"))),
        }
    };
    let number = |names: &[&str], default: u32, radix: u32| -> Result<u32, BuildError> {
        let Some(text) = option(names)? else { return Ok(default) };
        u32::from_str_radix(&text, radix).map_err(|_| wrong(format!("`{text}` is not a number")))
    };
    if matches!(mount.kind, Type::Secret | Type::Ssh) {
        let name = if mount.kind == Type::Ssh { "ssh" } else { "secret" };
        // Without `--secret` and `--ssh` none is given, which docker accepts unless it is required.
        return match flag(&["required"])? {
            Some(true) => {
                let message = format!("a required `--mount=type={name}` is not supported yet");
                Err(at.invalid(Diagnostic::error("ST127", message), Some(&mount.span)))
            }
            _ => Ok(None),
        };
    }
    let target = option(&["target", "dst", "destination"])?.unwrap_or_default();
    if target.is_empty() {
        return Err(wrong("the mount needs a `target`".into()));
    }
    let target = state.absolute(&target);
    let is_writable = flag(&["rw", "readwrite"])?;
    let is_readonly = flag(&["ro", "readonly"])?;
    let from = mount.options.iter().find(|(key, _)| key.raw == "from").and_then(|(_, value)| value.as_ref());
    let path = option(&["source", "src"])?.unwrap_or_default();
    let kind = match mount.kind {
        Type::Tmpfs => {
            let size_bytes = match option(&["size"])? {
                None => None,
                Some(text) => Some(size(&text).ok_or_else(|| wrong(format!("`{text}` is not a size")))?),
            };
            WantedKind::Tmpfs { size_bytes }
        }
        Type::Cache => {
            let sharing = match option(&["sharing"])?.as_deref() {
                None | Some("shared") => Sharing::Shared,
                Some("private") => Sharing::Private,
                Some("locked") => Sharing::Locked,
                Some(other) => {
                    return Err(wrong(format!("`{other}` is no sharing; known are `shared`, `private`, `locked`")));
                }
            };
            let source = match from {
                Some(word) => Some((copy::source(at, Some(word))?, path)),
                None => None,
            };
            WantedKind::Cache {
                id: option(&["id"])?.unwrap_or_else(|| target.clone()),
                sharing,
                mode: number(&["mode"], 0o755, 8)?,
                uid: number(&["uid"], 0, 10)?,
                gid: number(&["gid"], 0, 10)?,
                source,
            }
        }
        Type::Bind => {
            let source = copy::source(at, from)?;
            let shown = copy::shown(at, &source, &path, &mount.span)?;
            WantedKind::Bind { source, path, shown }
        }
        Type::Secret | Type::Ssh => unreachable!("handled above"),
    };
    let readonly = match mount.kind {
        Type::Bind => !is_writable.unwrap_or(false) && is_readonly.unwrap_or(true),
        _ => is_readonly.unwrap_or(false),
    };
    Ok(Some(Wanted { target, kind, readonly }))
}

/// `64m`, `1g`, or bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Mounts for the runtime, and the locks of caches, which are held until this is dropped.
pub(crate) struct Ready {
    pub(crate) mounts: Vec<Mount>,
    _locks: Vec<fs_err::File>,
}

/// Makes what the mounts show. `scratch` may be made for it; the caller removes it.
pub(crate) fn prepare(
    at: &At<'_>,
    wanted: &[Wanted],
    script: Option<&Script>,
    scratch: &Path,
) -> Result<Ready, BuildError> {
    let mut ready = Ready { mounts: Vec::new(), _locks: Vec::new() };
    let attempt = || "cannot prepare the mounts of a RUN".to_owned();
    if !wanted.is_empty() || script.is_some() {
        fs_err::create_dir(scratch).during(attempt)?;
    }
    for (number, want) in wanted.iter().enumerate() {
        let own = scratch.join(number.to_string());
        let kind = match &want.kind {
            WantedKind::Tmpfs { size_bytes } => MountKind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777 },
            WantedKind::Cache { .. } => {
                let (path, lock) = cache(at, want)?;
                ready._locks.extend(lock);
                MountKind::Bind(path)
            }
            WantedKind::Bind { source, path, shown } => {
                shown.save(at.work.host.store);
                bind(at, source, path, &own, want.readonly)?
            }
        };
        ready.mounts.push(Mount { target: want.target.clone(), kind, readonly: want.readonly });
    }
    if let Some(script) = script {
        let file = scratch.join("script");
        fs_err::write(&file, &script.content).during(attempt)?;
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).during(attempt)?;
        ready.mounts.push(Mount { target: script.target.clone(), kind: MountKind::Bind(file), readonly: true });
    }
    Ok(ready)
}

/// What a bind shows. Writing into it never reaches the source: docker throws such changes away too.
fn bind(at: &At<'_>, source: &Source, path: &str, own: &Path, readonly: bool) -> Result<MountKind, BuildError> {
    let attempt = || format!("cannot show `{path}` to a RUN");
    match source {
        Source::Context | Source::Named(_) => {
            let context = source.context(at.work.context);
            let resolved = context.resolve(path.as_bytes()).during(attempt)?;
            let is_plain = readonly && !context.hides_below(&resolved.path).during(attempt)?;
            if is_plain {
                let below = std::ffi::OsStr::new(std::str::from_utf8(&resolved.path).unwrap_or(path));
                return Ok(MountKind::Bind(context.path().join(below)));
            }
            // A part of the context is hidden, or is going to be written: show a copy.
            fs_err::create_dir(own).during(attempt)?;
            let name = copy::copy_out(at, source, &resolved.path, own)?;
            Ok(MountKind::Bind(own.join(name)))
        }
        Source::Layers(below) => {
            let Some(top) = below.top() else {
                fs_err::create_dir(own).during(attempt)?;
                return Ok(MountKind::Bind(own.to_owned()));
            };
            let lowers = at.work.host.store.lowers(top).during(attempt)?;
            let view = copy::open_view(&lowers).during(attempt)?;
            let root = std::os::fd::AsFd::as_fd(&view);
            let resolved = tree::resolve(path.as_bytes(), |path| tree::lookup(root, path)).during(attempt)?;
            let subpath = String::from_utf8(resolved.path).map_err(std::io::Error::other).during(attempt)?;
            if !resolved.node.as_ref().is_some_and(|node| matches!(node.kind, Kind::Dir | Kind::File)) {
                let error = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err::<MountKind, _>(error).during(attempt);
            }
            let mut overlay = Overlay { lowers, upper: None, work: None };
            if !readonly {
                let (upper, work) = (own.join("upper"), own.join("work"));
                fs_err::create_dir_all(&upper).during(attempt)?;
                fs_err::create_dir_all(&work).during(attempt)?;
                overlay = Overlay { upper: Some(upper), work: Some(work), ..overlay };
            }
            Ok(MountKind::Overlay { overlay, subpath })
        }
    }
}

/// The directory of a cache mount, with its lock if it is not shared.
fn cache(at: &At<'_>, want: &Wanted) -> Result<(PathBuf, Option<fs_err::File>), BuildError> {
    let WantedKind::Cache { id, sharing, mode, uid, gid, source } = &want.kind else {
        unreachable!("called for caches only");
    };
    let attempt = || format!("cannot open the cache `{id}`");
    let work = at.work;
    let name = oci::Digest::of(id.as_bytes()).hex()[..32].to_owned();
    let base = work.host.store.root().join(CACHE_DIRECTORY);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base).during(attempt)?;
    let mut lock = None;
    let mut chosen = base.join(&name);
    for number in 0..PRIVATE_COPIES_MAX {
        chosen = if number == 0 { base.join(&name) } else { base.join(format!("{name}.{number}")) };
        if *sharing == Sharing::Shared {
            break;
        }
        let mut path = chosen.clone().into_os_string();
        path.push(".lock");
        let file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(PathBuf::from(path));
        let file = file.during(attempt)?;
        if lock_file(at, &file, *sharing == Sharing::Locked).during(attempt)? {
            lock = Some(file);
            break;
        }
        work.check()?;
    }
    if !chosen.exists() {
        // Filled beside its place and renamed, so that nobody sees it half made.
        let new = base.join(format!(".{name}.{}.{}", work.host.scope.id(), at.number));
        fs_err::create_dir(&new).during(attempt)?;
        if let Some((source, path)) = source {
            let resolved = resolve_source(at, source, path)?;
            copy::copy_contents(at, source, &resolved, &new)?;
        }
        fs_err::set_permissions(&new, std::fs::Permissions::from_mode(*mode)).during(attempt)?;
        if (*uid, *gid) != (0, 0) {
            std::os::unix::fs::chown(&new, Some(*uid), Some(*gid)).during(attempt)?;
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
