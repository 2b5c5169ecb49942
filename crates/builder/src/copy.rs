//! COPY and ADD: what is taken (selection and its digest, part of the key), then putting it there.

mod archive;
mod fetched;
mod listing;
mod mode;
mod over;
mod owner;
mod parents;
mod problem;
mod request;
mod source;
mod sparse;
mod target;
mod write;

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use dockerfile::{CopyLike, Diagnostic, Span};
use engine::{BuildError, KeptRoot};
use oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, openat};
use store::{ActiveSnapshot, CacheRecord, Store};

use crate::{
    context::Context,
    metadata,
    settle::{self, settle},
    stage::{At, State},
    step::{Key, Made, Outcome, digest_of},
    tree::{self, Kind},
    work::During as _,
};
use fetched::Fetched;
use listing::Listing;
use request::Request;
use source::{Match, Tree};
use target::Owner;
use write::{Changes, Former, Transfer};

pub(crate) use archive::{Format, detect as detect_archive, unpack as unpack_archive};
pub(crate) use listing::{difference as files_difference, line_of, save_text as save_listing};
pub(crate) use problem::write_failure;
pub(crate) use source::{Source, open_view, source};
pub(crate) use target::{Target, timestamps};

/// Memo namespace: digest of what a selection takes from a file system that is known by its key.
const SELECTION_MEMO: &str = "copy-selections";
/// Mode of files given inline, as docker makes them.
const HEREDOC_MODE: u32 = 0o644;

pub(crate) fn copy(at: &At<'_>, state: &mut State, copy: &CopyLike, is_add: bool) -> Result<Outcome, BuildError> {
    let request = Request::read(at, state, copy, is_add)?;
    let from = source(at, copy.from.as_ref())?;
    make(at, state, &request, &from)
}

/// Makes the contents of a named directory the root.
pub(crate) fn whole_root(at: &At<'_>, state: &mut State, context: Arc<Context>) -> Result<Outcome, BuildError> {
    let request = Request { text: "root".into(), ..Request::of_path("/", &at.span) };
    make(at, state, &request, &Source::Named(context))
}

fn make(at: &At<'_>, state: &mut State, request: &Request, from: &Source) -> Result<Outcome, BuildError> {
    let files = take(at, request, from)?;
    let remotes = fetched::resolve(at, request)?;

    let mut key = Key::new(&state.layers.key);
    key.add("instruction", &request.text);
    for (name, text) in &request.heredocs {
        key.add(format!("inline file {name}"), Digest::of(text.as_bytes()).to_string());
    }
    key.add("files", files.digest.to_string());
    for remote in &remotes {
        remote.add_to(&mut key);
    }
    let config = &state.config.config;
    let inside =
        Inside { env: metadata::environment(state), cwd: config.working_dir.clone(), user: config.user.clone() };
    at.step(state, key, |layers, running| {
        let attempt = || format!("cannot make `{}`", at.instruction.text);
        // A selection that is known by its digest alone is looked up now.
        let selection = match files.selection {
            Some(selection) => selection,
            None => select(at, request, from)?,
        };
        listing::save(at.work.host.store, &files.digest, &selection.listing, &selection.matches);
        if let Some(over) = over::open(at, request, &selection, layers, running.former)?
            && put(at, request, &selection, &remotes, &over.active, Before::Over(&over))?
        {
            return Ok(Made::layer(over.active.commit().during(attempt)?));
        }
        let active = at.work.host.store.prepare(at.work.host.scope, layers.top()).during(attempt)?;
        match put(at, request, &selection, &remotes, &active, Before::Former(running.former)) {
            Ok(_) => Ok(Made::layer(active.commit().during(attempt)?)),
            Err(error) => Err(keep_root(at, error, active, inside)),
        }
    })
}

/// Environment, working directory and user where an instruction stands.
struct Inside {
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
}

/// A mistake that shows only beside the files that are there: they are kept, for `shell`.
fn keep_root(at: &At<'_>, error: BuildError, active: ActiveSnapshot, inside: Inside) -> BuildError {
    let time = at.work.request.keep_failed;
    match error {
        BuildError::Invalid { source_file, diagnostics, .. } if !time.is_zero() => {
            // Its own loss must not hide the mistake.
            let id = active.keep(SystemTime::now() + time).ok();
            let Inside { env, cwd, user } = inside;
            let kept = id.map(|id| Box::new(KeptRoot { root: id.to_string(), env, cwd, user }));
            BuildError::Invalid { source_file, diagnostics, kept }
        }
        error => error,
    }
}

/// Files that the sources name, with their listing.
struct Selection<'a> {
    tree: Option<Tree<'a>>,
    matches: Vec<Match>,
    listing: Listing,
}

/// The digest of a selection, and the selection itself if it had to be looked up.
struct Taken<'a> {
    digest: Digest,
    selection: Option<Selection<'a>>,
}

/// Digest of what the sources take. From a stage or an image that is known, nothing is opened.
fn take<'a>(at: &At<'a>, request: &Request, from: &'a Source) -> Result<Taken<'a>, BuildError>
where
{
    let store = at.work.host.store;
    let memo_key = match from {
        Source::Layers(layers) => {
            let mut values = vec![layers.key.hex().as_bytes(), request.text.as_bytes()];
            values.extend(request.patterns.iter().map(|(pattern, _)| pattern.as_bytes()));
            let exclude = format!("{:?}", request.exclude);
            values.push(exclude.as_bytes());
            Some(digest_of(values))
        }
        Source::Context | Source::Named(_) => None,
    };
    let shared = at.work.host.shared;
    if let Some(key) = &memo_key
        && let Some(digest) = remembered(store, key).or_else(|| shared.selection(key))
    {
        shared.note_selection(key, &digest);
        return Ok(Taken { digest, selection: None });
    }
    let selection = select(at, request, from)?;
    let digest = Digest::of(&selection.listing.text);
    if let Some(key) = &memo_key {
        shared.note_selection(key, &digest);
        // A memo that cannot be written costs looking again.
        let _ = store.memo_put(SELECTION_MEMO, key.hex(), digest.to_string().as_bytes());
    }
    Ok(Taken { digest, selection: Some(selection) })
}

fn remembered(store: &Store, key: &Digest) -> Option<Digest> {
    String::from_utf8(store.memo_get(SELECTION_MEMO, key.hex())?).ok()?.parse().ok()
}

fn select<'a>(at: &At<'a>, request: &Request, from: &'a Source) -> Result<Selection<'a>, BuildError> {
    if request.patterns.is_empty() {
        return Ok(Selection { tree: None, matches: Vec::new(), listing: Listing::default() });
    }
    if matches!(from, Source::Context) && !at.work.context.exists() {
        let (pattern, span) = &request.patterns[0];
        let message = format!("`{pattern}` cannot be copied: this build has no context");
        return Err(at.invalid(Diagnostic::error("ST104", message), Some(span)));
    }
    let tree = from.open(at)?;
    let mut matches = Vec::new();
    for (pattern, span) in &request.patterns {
        let found = source::select(at.work.host.store, &tree, pattern.as_bytes(), &request.exclude, request.parents)
            .map_err(|why| problem::no_match(at, from, pattern, span, why))?;
        if found.is_empty() && request.exclude.is_empty() {
            at.work.warn(format!("`{pattern}` names no file"), Some(&at.place_of(Some(span))));
        }
        problem::check_kinds(at, &tree, &found, span)?;
        matches.extend(found);
    }
    let listing = listing::listing(&matches, tree.has_owners() && request.chown.is_none());
    Ok(Selection { tree: Some(tree), matches, listing })
}

/// What an earlier build left.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// Below the snapshot in the making: only what differs is written.
    Over(&'a over::Over),
    /// Beside it: unchanged files are linked.
    Former(Option<&'a CacheRecord>),
}

/// Writes the selection into the snapshot in the making; false when it cannot be written over what is below.
fn put(
    at: &At<'_>,
    request: &Request,
    selection: &Selection<'_>,
    remotes: &[Fetched<'_>],
    active: &ActiveSnapshot,
    before: Before<'_>,
) -> Result<bool, BuildError> {
    let attempt = || format!("cannot make `{}`", at.instruction.text);
    let target = Target::open(active).during(attempt)?;
    let chown = owner_of(at, request, &target)?;
    if request.link {
        let dest = request.dest.as_bytes();
        let is_dir = request.is_dir || selection.matches.iter().any(Match::is_dir);
        let way = if is_dir { dest } else { tree::parent(dest) };
        target.replace_links(way).map_err(|error| problem::write_failure(at, error))?;
    }
    check_room(at, request, selection, &target)?;
    let former = match before {
        Before::Over(_) => None,
        Before::Former(former) => former_result(at.work.host.store, request, selection, former),
    };
    let is_stopped = || at.work.is_stopped();
    let fetched = remotes.iter().map(|remote| remote.open(at, request)).collect::<Result<Vec<_>, _>>()?;
    // The files of an image have owners; those of a directory of this machine are given theirs.
    let transfer = |source, has_owners: bool, former| Transfer {
        target: &target,
        source,
        changes: Changes {
            owner: if has_owners { chown } else { Some(chown.unwrap_or((0, 0))) },
            mode: request.mode.as_ref(),
            newest: Some(settle::time(at.work.epoch)),
        },
        former,
        has_owners: has_owners && chown.is_none(),
        is_context: !has_owners,
        is_stopped: &is_stopped,
    };
    let written = (|| {
        if let Some(tree) = &selection.tree {
            let transfer = transfer(tree.root()?, tree.has_owners(), former.as_ref());
            if let Before::Over(over) = before {
                let Some((to, rest)) = over.rest(request, selection, &target, &transfer.changes)? else {
                    return Ok(false);
                };
                transfer.contents(&rest, &to)?;
                return Ok(true);
            }
            over::note(request, selection, &transfer, active)?;
            for matched in &selection.matches {
                put_one(at, request, &transfer, matched, request.unpacks, active, chown)?;
            }
        }
        for (tree, matched) in &fetched {
            let transfer = transfer(tree.root()?, tree.has_owners(), None);
            put_one(at, request, &transfer, matched, request.unpacks_fetched, active, chown)?;
        }
        for (name, text) in &request.heredocs {
            put_inline(request, &target, name, text, chown)?;
        }
        Ok(true)
    })();
    if !written.map_err(|error| problem::write_failure(at, error))? {
        return Ok(false);
    }
    settle_copy(at, request, active, &target).during(attempt)?;
    Ok(true)
}

/// Several files need a directory to go to: one that is written with a slash, or that exists.
fn check_room(at: &At<'_>, request: &Request, selection: &Selection<'_>, target: &Target) -> Result<(), BuildError> {
    let count = selection.matches.len();
    if request.is_dir || request.parents || count < 2 || selection.matches.iter().all(Match::is_dir) {
        return Ok(());
    }
    let resolved =
        target.resolve(&request.dest.as_bytes()[1..]).during(|| format!("cannot look at {}", request.dest))?;
    if resolved.node.is_some_and(|node| node.kind == Kind::Dir) {
        return Ok(());
    }
    let (pattern, span) = &request.patterns[0];
    let message = format!("`{pattern}` names {count} files, and `{}` is no directory", request.dest);
    let help = format!("write the destination as `{}/`", request.dest);
    Err(at.invalid(Diagnostic::error("ST108", message).with_help(help), Some(span)))
}

/// Files got their times as they were written; what is left are directories on the way, and what archives held.
fn settle_copy(at: &At<'_>, request: &Request, active: &ActiveSnapshot, target: &Target) -> io::Result<()> {
    let work = at.work;
    if request.unpacks || request.unpacks_fetched || request.parents || !request.heredocs.is_empty() {
        return settle(work.host.store, active, work.epoch);
    }
    let resolved = target.resolve(&request.dest.as_bytes()[1..])?;
    settle::settle_way(&target.upper, &resolved.path, work.epoch)
}

fn owner_of(at: &At<'_>, request: &Request, target: &Target) -> Result<Option<Owner>, BuildError> {
    let Some((text, span)) = &request.chown else { return Ok(None) };
    let root: Option<BorrowedFd<'_>> = match &target.view {
        _ if owner::is_numeric(text) => None,
        Some(view) => Some(view.as_fd()),
        None => Some(target.upper.as_fd()),
    };
    match owner::parse_owner(text, root) {
        Ok(owner) => Ok(Some(owner)),
        Err(message) => Err(at.invalid(Diagnostic::error("ST124", message), Some(span))),
    }
}

/// The former result of the same instruction, for linking what is unchanged. Only one source: then each file has one place.
fn former_result(
    store: &Store,
    request: &Request,
    selection: &Selection<'_>,
    former: Option<&CacheRecord>,
) -> Option<Former> {
    let former = former?;
    let part = |name: &str| former.parts.iter().find(|(what, _)| what == name).map(|(_, value)| value.as_str());
    // Copies of whole roots are written in place by later commands; links to them would change with them.
    if selection.matches.len() != 1 || store.options().copy_snapshots || part("instruction") != Some(&request.text) {
        return None;
    }
    let lines = listing::load(store, part("files")?)?;
    let lines: HashSet<Vec<u8>> = lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let meta = store.snapshot(&former.snapshot).ok()??;
    let parts = store.layer_fs(&former.snapshot, &meta);
    let parts = parts.iter().map(|part| openat(CWD, part, flags, Mode::empty()).ok()).collect::<Option<_>>()?;
    Some(Former { parts, lines })
}

/// Puts one match where docker would.
fn put_one(
    at: &At<'_>,
    request: &Request,
    transfer: &Transfer<'_>,
    matched: &Match,
    unpacks: bool,
    active: &ActiveSnapshot,
    chown: Option<Owner>,
) -> io::Result<()> {
    let target = transfer.target;
    let mut dest = request.dest.as_bytes()[1..].to_vec();
    let is_dir = request.is_dir || request.parents;
    if request.parents {
        let name: &[u8] = if matched.is_dir() { &matched.name } else { b"" };
        dest = tree::join(&tree::join(&dest, &matched.parents), name);
    }
    let resolved = target.resolve(&dest)?;
    let kind = resolved.node.as_ref().map(|node| node.kind);
    if matched.is_dir() {
        return match kind {
            None | Some(Kind::Dir) => transfer.contents(matched, &resolved.path),
            Some(_) => Err(not_a_directory(&resolved.path)),
        };
    }
    if unpacks && unpack(at, transfer, matched, &resolved.path, active, chown)? {
        return Ok(());
    }
    if is_dir || kind == Some(Kind::Dir) {
        if kind.is_some_and(|kind| kind != Kind::Dir) {
            return Err(not_a_directory(&resolved.path));
        }
        drop(target.ensure_dir(&resolved.path, chown)?);
        return transfer.file(matched, tree::join(&resolved.path, &matched.name));
    }
    drop(target.ensure_dir(tree::parent(&resolved.path), chown)?);
    transfer.file(matched, resolved.path)
}

fn not_a_directory(path: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, format!("`/{}` is not a directory", tree::show(path)))
}

/// Unpacks a local archive; false when the file is none.
fn unpack(
    at: &At<'_>,
    transfer: &Transfer<'_>,
    matched: &Match,
    to: &[u8],
    active: &ActiveSnapshot,
    chown: Option<Owner>,
) -> io::Result<bool> {
    if matched.entries[0].kind != Kind::File {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(tree::open_beneath(transfer.source, &matched.path, flags)?);
    let Some(format) = archive::detect(&mut file)? else { return Ok(false) };
    drop(transfer.target.ensure_dir(to, chown)?);
    // Through a real overlay mount: links within the archive may lead to anything below.
    let root = match active.lowers() {
        [] => transfer.target.upper.try_clone()?,
        lowers => {
            let overlay = runtime::Overlay {
                lowers: lowers.to_vec(),
                upper: Some(active.upper().to_owned()),
                work: Some(active.work().to_owned()),
            };
            overlay.open_view().map_err(io::Error::other)?
        }
    };
    archive::unpack(root.as_fd(), to, &mut file, format, chown, &|| at.work.is_stopped())?;
    Ok(true)
}

fn put_inline(request: &Request, target: &Target, name: &str, text: &str, chown: Option<Owner>) -> io::Result<()> {
    let resolved = target.resolve(&request.dest.as_bytes()[1..])?;
    let is_dir = request.is_dir || resolved.node.is_some_and(|node| node.kind == Kind::Dir);
    let path = if is_dir { tree::join(&resolved.path, name.as_bytes()) } else { resolved.path };
    let directory = target.ensure_dir(tree::parent(&path), chown)?;
    let mode = request.mode.as_ref().map_or(HEREDOC_MODE, |mode| mode.apply(HEREDOC_MODE, false));
    write::inline(&directory, tree::base_name(&path), &path, text.as_bytes(), chown.unwrap_or((0, 0)), mode)
}

/// What a bind mount shows.
pub(crate) struct Shown {
    pub(crate) digest: Digest,
    selected: Option<(Listing, Vec<Match>)>,
}

impl Shown {
    /// Keeps the listing, for naming what changed in the next build.
    pub(crate) fn save(&self, store: &Store) {
        if let Some((listing, matches)) = &self.selected {
            listing::save(store, &self.digest, listing, matches);
        }
    }
}

/// Digest and listing of what a bind mount shows.
pub(crate) fn shown(at: &At<'_>, from: &Source, path: &str, span: &Span) -> Result<Shown, BuildError> {
    let taken = take(at, &Request { text: "mount".into(), ..Request::of_path(path, span) }, from)?;
    Ok(Shown {
        digest: taken.digest,
        selected: taken.selection.map(|selection| (selection.listing, selection.matches)),
    })
}

/// Copies a file or directory of a context to `to/<name>`; gives the name. For mounts that must not show the original.
pub(crate) fn copy_out(at: &At<'_>, from: &Source, path: &[u8], to: &Path) -> Result<String, BuildError> {
    const NAME: &str = "copy";
    let place = to.join(NAME);
    let (tree, mut matched) = whole(at, from, path)?;
    if matched.is_dir() {
        fs_err::create_dir(&place).during(|| "cannot make a copy for a mount".into())?;
        write_out(at, &tree, &matched, &place, b"")?;
    } else {
        matched.name = NAME.into();
        write_out(at, &tree, &matched, to, NAME.as_bytes())?;
    }
    Ok(NAME.into())
}

/// Copies the contents of a directory into the directory `to`.
pub(crate) fn copy_contents(at: &At<'_>, from: &Source, path: &[u8], to: &Path) -> Result<(), BuildError> {
    let (tree, matched) = whole(at, from, path)?;
    write_out(at, &tree, &matched, to, b"")
}

fn whole<'a>(at: &At<'a>, from: &'a Source, path: &[u8]) -> Result<(Tree<'a>, Match), BuildError> {
    let tree = from.open(at)?;
    let entries = source::scan(&tree, path).during(|| format!("cannot read `{}`", tree::show(path)))?;
    Ok((tree, Match { path: path.to_vec(), name: Vec::new(), parents: Vec::new(), entries }))
}

fn write_out(at: &At<'_>, tree: &Tree<'_>, matched: &Match, to: &Path, name: &[u8]) -> Result<(), BuildError> {
    let attempt = || "cannot make a copy for a mount".to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper: OwnedFd = openat(CWD, to, flags, Mode::empty()).map_err(io::Error::from).during(attempt)?;
    let target = Target { upper, view: None };
    let changes = Changes { owner: (!tree.has_owners()).then_some((0, 0)), mode: None, newest: None };
    let is_stopped = || at.work.is_stopped();
    let transfer = Transfer {
        target: &target,
        source: tree.root().during(attempt)?,
        changes,
        former: None,
        has_owners: tree.has_owners(),
        is_context: !tree.has_owners(),
        is_stopped: &is_stopped,
    };
    let result =
        if matched.is_dir() { transfer.contents(matched, name) } else { transfer.file(matched, name.to_vec()) };
    result.during(attempt)
}
