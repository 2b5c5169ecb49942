//! `seatrial diff`: what two images have in common, and what not.

mod config;
mod files;
mod layers;
mod packages;

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;
use store::{FileDifference, Image, LoadSource, Scope, Stop, Store};

use self::{config::Field, files::Totals, layers::Layers, packages::Packages};
use super::{
    logs::{find_run, is_run},
    named,
    record::RunRecord,
};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text},
};

/// Flags of `seatrial diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Times of files, the history and the time of creation do not count.\n\nExamples:\n  \
    seatrial diff app:1 app:2                what changed from one version to the next\n  \
    seatrial diff --files 41 last            file by file, between the images of two runs\n  \
    seatrial diff --exit-code app:1 app.tar  whether they are alike, also with an archive")]
pub(crate) struct DiffArgs {
    /// Name or id of an image, number of a run (or `last`), or an archive
    old: String,
    /// What it is compared with
    new: String,
    /// List every file that differs
    #[arg(long)]
    files: bool,
    /// Exit 1 if they differ, as `git diff` does
    #[arg(long)]
    exit_code: bool,
    /// `json`: with --files a line for each file, then one for all
    #[arg(long)]
    format: Option<String>,
}

/// One of the two.
struct Side {
    name: String,
    image: Image,
}

/// Compares two images.
pub(crate) fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let scope = store.open_scope().context("cannot open a scope in the store")?;
    let old = side(&args.old, store, &scope, context)?;
    let new = side(&args.new, store, &scope, context)?;
    context.watch_signals();

    let config = config::differences(&old.image, &new.image);
    let layers = Layers::of(store, &old.image, &new.image, context)?;
    let is_table = format == Format::Table;
    if is_table {
        terminal::result(&head(&old, &new, &config, &layers));
        if args.files {
            terminal::result_line("files");
        }
    }

    let mut totals = Totals::default();
    let mut packages = Packages::default();
    let mut unwritable = None;
    let mut each = |difference: FileDifference| {
        totals.add(&difference);
        packages.notice(&difference);
        let line = match (&format, args.files) {
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
    let compared = store.compare(&old.image, &new.image, args.files || !is_table, Stop::when(&is_stopped), &mut each);
    if context.cancel.is_cancelled() {
        return Err(Failure::cancelled().into());
    }
    compared.context("cannot compare the images")?;
    if let Some(failure) = unwritable {
        return Err(failure.into());
    }
    let packages = packages.differences(store, &old.image, &new.image)?;

    let is_same = config.is_empty() && totals.is_empty();
    if is_table {
        terminal::result(&tail(args, &packages, &totals, is_same));
    } else if let Some(line) = format.line(&json!({
        "Old": {"Name": old.name, "Id": old.image.id},
        "New": {"Name": new.name, "Id": new.image.id},
        "Same": is_same,
        "Config": config.iter().map(Field::value).collect::<Vec<_>>(),
        "Layers": layers.value(),
        "Packages": packages.iter().map(packages::Difference::value).collect::<Vec<_>>(),
        "Files": totals.value(),
    }))? {
        terminal::result_line(&line);
    }
    Ok(if args.exit_code && !is_same { Exit::Refused } else { Exit::Passed })
}

/// The image that is meant: of the store, of a run, or of an archive, which is read into the store without a name.
fn side(wanted: &str, store: &Store, scope: &Scope, context: &Context) -> anyhow::Result<Side> {
    let name = wanted.to_owned();
    let missing = match named::find(store, wanted) {
        Ok((_, image)) => return Ok(Side { name, image }),
        Err(error) => error,
    };
    if is_run(wanted) {
        let run = find_run(store, wanted)?;
        let image = RunRecord::read(&run).and_then(|record| record.image);
        let Some(id) = image else {
            return Err(Failure::refused(format!("run {} left no image", run.number)).into());
        };
        let (_, image) = named::find(store, &id)?;
        return Ok(Side { name: format!("run {}", run.number), image });
    }
    let path: PathBuf = context.settings.cwd.join(wanted);
    if !path.exists() {
        return Err(missing);
    }
    let loaded = store
        .load(scope, LoadSource::Path(&path), None)
        .with_context(|| format!("cannot read {} as an image", path.display()))?;
    match <[_; 1]>::try_from(loaded) {
        Ok([(_, image)]) => Ok(Side { name, image }),
        Err(several) => Err(Failure::usage(format!("{wanted} holds {}", text::count(several.len(), "image")))
            .hint(format!("load it, and name the images: `seatrial load {wanted}`"))
            .into()),
    }
}

fn head(old: &Side, new: &Side, config: &[Field], layers: &Layers) -> String {
    let mut out = format!("{} → {}\n", text::one_line(&old.name), text::one_line(&new.name));
    if !config.is_empty() {
        out.push_str("config\n");
        out.push_str(&config::lines(config));
    }
    out.push_str("layers\n");
    out.push_str(&layers.lines(&text::one_line(&old.name), &text::one_line(&new.name)));
    out
}

fn tail(args: &DiffArgs, packages: &[packages::Difference], totals: &Totals, is_same: bool) -> String {
    let mut out = String::new();
    if !packages.is_empty() {
        out.push_str("packages\n");
        out.push_str(&packages::lines(packages));
    }
    if is_same {
        out.push_str("no file and nothing of the config differs\n");
    } else if totals.is_empty() {
        out.push_str("no file differs\n");
    } else {
        out.push_str(&format!("{}{}\n", if args.files { "in all: " } else { "files\n  " }, totals.words()));
        if !args.files {
            out.push_str(&format!("  each of them: seatrial diff --files {} {}\n", args.old, args.new));
        }
    }
    out
}
