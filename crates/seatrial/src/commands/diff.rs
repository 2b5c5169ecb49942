//! `seatrial diff`: what two images have in common, and what not: commits, packages, config, bytes.

mod commits;
mod config;
mod files;
mod layers;
mod packages;
mod side;

use anyhow::Context as _;
use oci::Platform;
use serde_json::json;
use store::{FileDifference, Stop, Store};

use self::{
    commits::Commits,
    config::Field,
    files::Totals,
    layers::Layers,
    packages::Packages,
    side::{Finder, Side},
};
use crate::{
    cli::{EngineArgs, FormatArgs, Progress},
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text},
};

/// Lines of one kind, such as packages, that fit into a first look; `--all` shows the rest.
const LINES_MAX: usize = 20;

/// Flags of `seatrial diff`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Times of files, the history and the time of creation do not count. Of an image in a registry only manifest, \
    config and what is said beside it are fetched; its packages are those of its SBOM. --packages and --files fetch layers. \
    With --files, --json writes a line for each file, then one for all.\n\n\
    Examples:\n  \
    seatrial diff app:1 app:2                          what changed from one version to the next\n  \
    seatrial diff registry.example/app:live app:2      what would change where `live` runs\n  \
    seatrial diff --files 41 last                      file by file, between the images of two runs\n  \
    seatrial diff --exit-code app:1 app.tar            whether they are alike, also with an archive"
)]
pub(crate) struct DiffArgs {
    /// Name, id or digest of an image here, number of a run (or `last`), an archive, or a name with its registry
    old: String,
    /// What it is compared with; `docker://NAME` is always the registry's
    new: String,
    /// List every file that differs
    #[arg(long)]
    files: bool,
    /// Read the packages of images without an SBOM from their layers
    #[arg(long)]
    packages: bool,
    /// Show all commits, fields and packages
    #[arg(short, long)]
    all: bool,
    /// Exit 1 if they differ, as `git diff` does
    #[arg(long)]
    exit_code: bool,
    /// Of an image of several platforms in a registry, the one for this platform instead of this machine's
    #[arg(long)]
    platform: Option<Platform>,
    /// How fetching shows its progress
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What is found out without looking into files.
struct Comparison {
    commits: Commits,
    config: Vec<Field>,
    layers: Layers,
    packages: Packages,
}

/// Compares two images.
pub(crate) fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = args.format.parse()?;
    let store = context.store()?;
    let scope = store.open_scope().context("cannot open a scope in the store")?;
    context.watch_signals();
    let finder = Finder { args, store, scope: &scope, context };
    let (mut old, mut new) = (finder.side(&args.old)?, finder.side(&args.new)?);
    if args.files || args.packages {
        finder.fetch_layers(&mut old)?;
        finder.fetch_layers(&mut new)?;
    }

    let found = Comparison {
        commits: Commits::of(&old, &new, store, &context.settings.cwd),
        config: config::differences(&old.config, &new.config),
        layers: Layers::of(store, &old, &new, context)?,
        packages: cancellable(Packages::of(&old, &new, store, context), context)?,
    };
    let is_table = format == Format::Table;
    if is_table {
        terminal::result(&head(&old, &new, &found, args.all));
    }
    let totals = cancellable(compare_files(args, &old, &new, &format, store, context), context)?;
    let is_same = found.config.is_empty() && totals.as_ref().map_or(found.layers.are_same(), Totals::is_empty);
    if is_table {
        terminal::result(&tail(args, totals.as_ref(), is_same));
    } else if let Some(line) = format.line(&json!({
        "Old": value_of(&old),
        "New": value_of(&new),
        "Same": is_same,
        "Commits": found.commits.value(),
        "Config": found.config.iter().map(Field::value).collect::<Vec<_>>(),
        "Layers": found.layers.value(),
        "Packages": found.packages.value(),
        "Files": totals.as_ref().map(Totals::value),
    }))? {
        terminal::result_line(&line);
    }
    Ok(if args.exit_code && !is_same { Exit::Refused } else { Exit::Passed })
}

/// Whatever stopped work failed with, after a signal it is only that.
fn cancellable<T>(result: anyhow::Result<T>, context: &Context) -> anyhow::Result<T> {
    if context.cancel.is_cancelled() { Err(Failure::cancelled().into()) } else { result }
}

/// File by file, where the store has both images; the list is written as it goes.
fn compare_files(
    args: &DiffArgs,
    old: &Side,
    new: &Side,
    format: &Format,
    store: &Store,
    context: &Context,
) -> anyhow::Result<Option<Totals>> {
    let (Some(old), Some(new)) = (&old.image, &new.image) else { return Ok(None) };
    if args.files && *format == Format::Table {
        terminal::result_line("files");
    }
    let mut totals = Totals::default();
    let mut unwritable = None;
    let mut each = |difference: FileDifference| {
        totals.add(&difference);
        let line = match (format, args.files) {
            (_, false) => Ok(None),
            (Format::Table, true) => Ok(Some(files::line(&difference))),
            (format, true) => format.line(&files::value(&difference)),
        };
        match line {
            Ok(line) => line.iter().for_each(|line| terminal::result_line(line)),
            // A template that names no field of a file; told once, at the end.
            Err(failure) => unwritable = unwritable.take().or(Some(failure)),
        }
        Ok(())
    };
    let cancel = context.cancel.clone();
    let is_stopped = move || cancel.is_cancelled();
    let with_digests = args.files || *format != Format::Table;
    let compared = store.compare(old, new, with_digests, Stop::when(&is_stopped), &mut each);
    compared.context("cannot compare the images")?;
    match unwritable {
        Some(failure) => Err(failure.into()),
        None => Ok(Some(totals)),
    }
}

fn value_of(side: &Side) -> serde_json::Value {
    let digest = side.remote.as_ref().and_then(|remote| remote.place.digest());
    json!({"Name": side.name, "Id": side.id, "Digest": digest})
}

fn head(old: &Side, new: &Side, found: &Comparison, all: bool) -> String {
    let (old, new) = (text::one_line(&old.name), text::one_line(&new.name));
    let mut out = format!("{old} → {new}\n");
    let short = (short(&old), short(&new));
    let names = if short.0 == short.1 { (old.as_str(), new.as_str()) } else { (short.0.as_str(), short.1.as_str()) };
    out.push_str(&format!("commits\n{}", found.commits.lines(names, all)));
    out.push_str(&format!("packages\n{}", found.packages.lines(all)));
    if !found.config.is_empty() {
        out.push_str(&format!("config\n{}", config::lines(&found.config, all)));
    }
    out.push_str(&format!("layers\n{}", found.layers.lines(names)));
    out
}

/// A name as the lines below the first one have it: without registry and path, a digest with its first digits.
fn short(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once('@').map(|(name, digest)| (name, digest.parse::<oci::Digest>())) {
        Some((name, Ok(digest))) => format!("{name}@{}", digest.short()),
        _ => last.to_owned(),
    }
}

fn tail(args: &DiffArgs, totals: Option<&Totals>, is_same: bool) -> String {
    let more = format!("seatrial diff --files {} {}", args.old, args.new);
    let Some(totals) = totals else {
        return if is_same {
            "the same layers, and nothing of the config differs\n".into()
        } else {
            format!("files\n  not compared: `{more}` fetches the layers\n")
        };
    };
    if is_same {
        "no file and nothing of the config differs\n".into()
    } else if totals.is_empty() {
        "no file differs\n".into()
    } else if args.files {
        format!("in all: {}\n", totals.words())
    } else {
        format!("files\n  {}\n  each of them: {more}\n", totals.words())
    }
}

/// Lines of one kind, as many as fit into a first look.
fn limited(lines: Vec<String>, all: bool) -> String {
    let shown = if all || lines.len() <= LINES_MAX { lines.len() } else { LINES_MAX };
    let mut out: String = lines[..shown].iter().map(|line| format!("{line}\n")).collect();
    if shown < lines.len() {
        out.push_str(&format!("  … and {} more: `--all`\n", lines.len() - shown));
    }
    out
}
