//! `volumes`, `tmpfs`, and the files of `configs` and `secrets`.

use dockerfile::Span;

use crate::{
    FileGrant, Mount, MountSource, Tmpfs, bytes, codes,
    parse::Cx,
    read::{Fields, Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const VOLUME: Keys = Keys {
    what: "a volume",
    known: &["type", "source", "target", "read_only", "bind", "volume", "tmpfs", "image", "consistency"],
    later: &[],
    foreign: &[
        ("src", "source"),
        ("dst", "target"),
        ("destination", "target"),
        ("readonly", "read_only"),
        ("ro", "read_only"),
    ],
};
pub(crate) const BIND: Keys = Keys {
    what: "`bind`",
    known: &["create_host_path"],
    later: &["propagation", "recursive", "selinux"],
    foreign: &[],
};
pub(crate) const VOLUME_OPTIONS: Keys =
    Keys { what: "`volume`", known: &["nocopy", "subpath"], later: &["labels"], foreign: &[] };
pub(crate) const TMPFS: Keys = Keys { what: "`tmpfs`", known: &["size", "mode"], later: &[], foreign: &[] };
pub(crate) const IMAGE: Keys = Keys { what: "`image`", known: &["subpath"], later: &[], foreign: &[] };
pub(crate) const GRANT: Keys = Keys {
    what: "this entry",
    known: &["source", "target", "uid", "gid", "mode"],
    later: &[],
    foreign: &[("src", "source"), ("path", "target"), ("file", "target"), ("name", "source")],
};

/// How every file system in memory is mounted.
const TMPFS_ALWAYS: [&str; 4] = ["rw", "exec", "nosuid", "nodev"];
const NOCOPY: &str = "`nocopy` has no effect here: a fresh volume gets the image's files at its place";

/// Mounts and file systems in memory; of two with one target the later one.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) tmpfs: Vec<Tmpfs>,
}

impl Mounts {
    fn make_room(&mut self, target: &str) {
        let target = target.trim_end_matches('/');
        self.mounts.retain(|own| own.target.trim_end_matches('/') != target);
        self.tmpfs.retain(|own| own.target.trim_end_matches('/') != target);
    }

    pub(crate) fn add(&mut self, mount: Mount) {
        self.make_room(&mount.target);
        self.mounts.push(mount);
    }

    pub(crate) fn add_tmpfs(&mut self, tmpfs: Tmpfs) {
        self.make_room(&tmpfs.target);
        self.tmpfs.push(tmpfs);
    }
}

pub(crate) fn volumes(cx: &mut Cx<'_>, node: &Node, mounts: &mut Mounts) {
    for item in cx.items(node, "a list of volumes") {
        match item.kind {
            Kind::Map(_) => long_volume(cx, item, mounts),
            _ => short_volume(cx, item).map(|mount| mounts.add(mount)),
        };
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short_volume(cx: &mut Cx<'_>, node: &Node) -> Option<Mount> {
    let text = cx.text(node)?;
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) || parts.len() > 3 {
        cx.invalid("expected `target`, `source:target` or `source:target:options`", node);
        return None;
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return None,
    };
    if !target.starts_with('/') {
        let message = format!("`{}` is not an absolute path", shorten(target));
        cx.invalid(message, node).label = match source {
            Some(_) if matches!(target, "ro" | "rw") => Some("the target is missing".into()),
            _ => None,
        };
        return None;
    }
    let (mut read_only, mut nocopy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => {
                nocopy = true;
                cx.no_effect(NOCOPY, &node.span);
            }
            // They matter to SELinux and to Docker Desktop, and to nested mounts that come later.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                cx.no_effect(format!("`{option}` has no effect here: mounts are private"), &node.span);
            }
            other => {
                let message = format!("`{}` is not an option; there are `ro`, `rw` and `nocopy`", shorten(other));
                cx.invalid(message, node);
                return None;
            }
        }
    }
    let source = match source {
        None => MountSource::Anonymous,
        // docker compose makes the directory, for the short form alone.
        Some(path) if is_path(path) => MountSource::Bind { path: cx.host_path(path, &node.span)?, create: true },
        Some(name) => MountSource::Volume { name: name.into(), subpath: None, nocopy },
    };
    Some(Mount { place: cx.place(&node.span), source, target: target.into(), read_only })
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

fn long_volume(cx: &mut Cx<'_>, node: &Node, mounts: &mut Mounts) -> Option<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum Type {
        Bind,
        Volume,
        Tmpfs,
        Image,
    }
    let fields = cx.fields(node, &VOLUME, "a volume, or a map with `type` and `target`")?;
    let types = [("bind", Type::Bind), ("volume", Type::Volume), ("tmpfs", Type::Tmpfs), ("image", Type::Image)];
    let kind = match fields.get("type") {
        Some(node) => cx.word(node, "a type of volume", &types)?,
        None => {
            cx.error(codes::MISSING_KEY, "a volume needs `type`", &node.span);
            return None;
        }
    };
    for (key, owner) in [("bind", Type::Bind), ("volume", Type::Volume), ("tmpfs", Type::Tmpfs), ("image", Type::Image)]
    {
        if let Some(options) = fields.get(key)
            && owner != kind
        {
            cx.error(codes::CONTRADICTION, format!("`{key}` has options of another type"), &options.span);
        }
    }
    let target = match fields.get("target") {
        Some(target) => cx.path_inside(target)?,
        None => {
            cx.error(codes::MISSING_KEY, "a volume needs `target`", &node.span);
            return None;
        }
    };
    let read_only = cx.flag_of(&fields, "read_only");
    let source = match kind {
        Type::Tmpfs => {
            let options = fields.get("tmpfs").and_then(|node| cx.fields(node, &TMPFS, "a map with `size` and `mode`"));
            let size_bytes = options.as_ref().and_then(|options| cx.size_of(options, "size"));
            let mode = options.as_ref().and_then(|options| options.get("mode")).and_then(|node| cx.mode(node));
            mounts.add_tmpfs(Tmpfs { target, size_bytes, mode, options: Vec::new() });
            return Some(());
        }
        Type::Bind => {
            let options = fields.get("bind").and_then(|node| cx.fields(node, &BIND, "a map with `create_host_path`"));
            let create = options.is_some_and(|options| cx.flag_of(&options, "create_host_path"));
            let source = required(cx, &fields, "source", &node.span)?;
            let text = cx.text(source)?;
            MountSource::Bind { path: cx.host_path(&text, &source.span)?, create }
        }
        Type::Volume => {
            let options = fields.get("volume").and_then(|node| cx.fields(node, &VOLUME_OPTIONS, "a map with `nocopy`"));
            let nocopy = options.as_ref().is_some_and(|options| cx.flag_of(options, "nocopy"));
            if let Some((span, _)) = options.as_ref().filter(|_| nocopy).and_then(|options| options.entry("nocopy")) {
                cx.no_effect(NOCOPY, span);
            }
            let subpath = options.as_ref().and_then(|options| cx.name_of(options, "subpath"));
            match cx.name_of(&fields, "source") {
                Some(name) => MountSource::Volume { name, subpath, nocopy },
                None => MountSource::Anonymous,
            }
        }
        Type::Image => {
            let options = fields.get("image").and_then(|node| cx.fields(node, &IMAGE, "a map with `subpath`"));
            let subpath = options.as_ref().and_then(|options| cx.name_of(options, "subpath"));
            let source = required(cx, &fields, "source", &node.span)?;
            MountSource::Image { image: cx.reference(source)?, subpath }
        }
    };
    mounts.add(Mount { place: cx.place(&node.span), read_only: read_only || kind == Type::Image, source, target });
    Some(())
}

fn required<'n>(cx: &mut Cx<'_>, fields: &Fields<'n>, key: &str, span: &Span) -> Option<&'n Node> {
    let node = fields.get(key);
    if node.is_none() {
        cx.error(codes::MISSING_KEY, format!("this type of volume needs `{key}`"), span);
    }
    node.map(|node| &**node)
}

/// `TARGET[:OPTIONS]`, as `docker run --tmpfs` takes it.
pub(crate) fn tmpfs(cx: &mut Cx<'_>, fields: &Fields<'_>, mounts: &mut Mounts) {
    for text in cx.texts_of(fields, "tmpfs") {
        let (target, options) = text.value.split_once(':').unwrap_or((&text.value, ""));
        if !target.starts_with('/') {
            let message = format!("`{}` is not an absolute path", shorten(target));
            cx.error(codes::INVALID_VALUE, message, &text.span);
            continue;
        }
        let mut tmpfs = Tmpfs { target: target.into(), ..Tmpfs::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let wrong = match option.split_once('=') {
                Some(("size", size)) => {
                    tmpfs.size_bytes = bytes::parse(size);
                    tmpfs.size_bytes.is_none()
                }
                Some(("mode", mode)) => {
                    tmpfs.mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
                    tmpfs.mode.is_none()
                }
                _ => {
                    if !TMPFS_ALWAYS.contains(&option) {
                        cx.no_effect(format!("`{}` has no effect here", shorten(option)), &text.span);
                    }
                    tmpfs.options.push(option.into());
                    false
                }
            };
            if wrong {
                cx.error(codes::INVALID_VALUE, format!("`{}` means nothing", shorten(option)), &text.span).label =
                    Some("write it like `/run:size=64m,mode=1777`".into());
            }
        }
        mounts.add_tmpfs(tmpfs);
    }
}

/// `configs` and `secrets` of a service: a name, or a map; of two with one target the later one.
pub(crate) fn grants(cx: &mut Cx<'_>, node: &Node, directory: &str) -> Vec<FileGrant> {
    let mut grants: Vec<FileGrant> = Vec::new();
    for item in cx.items(node, "a list of names") {
        if let Some(grant) = grant(cx, item, directory) {
            grants.retain(|own| own.target != grant.target);
            grants.push(grant);
        }
    }
    grants
}

fn grant(cx: &mut Cx<'_>, node: &Node, directory: &str) -> Option<FileGrant> {
    let inside = |name: &str| match name.starts_with('/') || directory.is_empty() {
        true => name.to_owned(),
        false => format!("{}/{name}", directory.trim_end_matches('/')),
    };
    if !matches!(node.kind, Kind::Map(_)) {
        let source = cx.text(node)?;
        return Some(FileGrant { target: inside(&source), source, ..FileGrant::default() });
    }
    let fields = cx.fields(node, &GRANT, "a name, or a map with `source`")?;
    let Some(source) = cx.name_of(&fields, "source") else {
        cx.error(codes::MISSING_KEY, "this entry needs `source`", &node.span);
        return None;
    };
    let id = |cx: &mut Cx<'_>, key: &str| cx.count_of(&fields, key, u32::MAX - 1);
    Some(FileGrant {
        target: inside(cx.name_of(&fields, "target").as_deref().unwrap_or(&source)),
        source,
        uid: id(cx, "uid"),
        gid: id(cx, "gid"),
        mode: fields.get("mode").and_then(|node| cx.mode(node)),
    })
}
