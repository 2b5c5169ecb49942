//! Making what the mounts of a RUN show.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use engine::BuildError;
use runtime::{FileContent, Mount, MountKind, Overlay};

use super::{Wanted, WantedKind, Wishes, cache};
use crate::{
    copy::{self, Source},
    run::Script,
    ssh::Socket,
    stage::At,
    tree::{self, Kind},
    work::During as _,
};

/// Mounts for the runtime, with what has to last as long as they do.
pub(crate) struct Ready {
    pub(crate) mounts: Vec<Mount>,
    /// Locks of caches.
    _locks: Vec<fs_err::File>,
    /// Key agents.
    _sockets: Vec<Socket>,
}

/// Makes what the mounts show. `scratch` may be made for it; the caller removes it.
pub(crate) fn prepare(
    at: &At<'_>,
    wishes: &Wishes,
    script: Option<&Script>,
    scratch: &Path,
) -> Result<Ready, BuildError> {
    let mut ready = Ready { mounts: Vec::new(), _locks: Vec::new(), _sockets: Vec::new() };
    let attempt = || "cannot prepare the mounts of a RUN".to_owned();
    if !wishes.mounts.is_empty() || script.is_some() {
        fs_err::create_dir(scratch).during(attempt)?;
    }
    for (number, want) in wishes.mounts.iter().enumerate() {
        let own = scratch.join(number.to_string());
        if let Some(kind) = make(at, want, &own, &mut ready)? {
            ready.mounts.push(Mount { target: want.target.clone(), kind, readonly: want.readonly });
        }
    }
    if let Some(script) = script {
        let file = scratch.join("script");
        fs_err::write(&file, &script.content).during(attempt)?;
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).during(attempt)?;
        ready.mounts.push(Mount { target: script.target.clone(), kind: MountKind::Bind(file), readonly: true });
    }
    Ok(ready)
}

/// `None`: nothing is given to be shown, which the Dockerfile allows.
fn make(at: &At<'_>, want: &Wanted, own: &Path, ready: &mut Ready) -> Result<Option<MountKind>, BuildError> {
    Ok(Some(match &want.kind {
        WantedKind::Tmpfs { size_bytes } => MountKind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777 },
        WantedKind::Cache { id, sharing, access, source } => {
            let (path, lock) = cache::open(at, id, *sharing, *access, source.as_ref())?;
            ready._locks.extend(lock);
            MountKind::Bind(path)
        }
        WantedKind::Bind { source, path, shown } => {
            shown.save(at.work.host.store);
            bind(at, source, path, own, want.readonly)?
        }
        WantedKind::Secret { content, access, .. } => {
            let Some(content) = content else { return Ok(None) };
            MountKind::File {
                content: FileContent(content.expose().to_vec()),
                mode: access.mode,
                uid: access.uid,
                gid: access.gid,
            }
        }
        WantedKind::Ssh { id, source, access } => {
            let Some(source) = source else { return Ok(None) };
            let scratch = at.work.host.scope.dir();
            let owner = (access.uid, access.gid);
            let served = at.work.agents.serve((id, source), scratch, own, access.mode, owner);
            let socket = served.during(|| format!("cannot give the key agent `{id}` to a RUN"))?;
            let path = socket.path().to_owned();
            ready._sockets.push(socket);
            MountKind::Bind(path)
        }
    }))
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
            at.work.host.ensure(&below.layers)?;
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
