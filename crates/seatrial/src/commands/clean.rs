//! `seatrial clean`: what nothing needs any more. Images with a name keep their layers and their cache.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use store::PruneOptions;

use crate::{
    context::Context,
    exit::Exit,
    terminal::{self, table::Format, text},
};

/// Runs whose logs are kept by default.
const RUNS_KEPT: usize = 50;

/// Flags of `seatrial clean`.
#[derive(Debug, clap::Args)]
pub(crate) struct CleanArgs {
    /// Also the whole build cache, the logs of all runs, and what failed steps left
    #[arg(short, long)]
    all: bool,
    /// Only what was not used for this time, such as `7d`
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    older_than: Option<Duration>,
    /// Oldest cache first, until the store is not larger than this, such as `20GB`
    #[arg(long, value_name = "SIZE", value_parser = text::parse_bytes)]
    max_size: Option<u64>,
    /// Runs whose logs stay
    #[arg(long, value_name = "NUMBER")]
    keep_runs: Option<usize>,
    /// Only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// `json`, or a template such as `{{.bytes}}`
    #[arg(long)]
    format: Option<String>,
}

/// Removes what nothing needs.
pub(crate) fn run(args: &CleanArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let runs_kept = args.keep_runs.unwrap_or(if args.all { 0 } else { RUNS_KEPT });
    let options = PruneOptions {
        keep_cache: !args.all,
        unused_for: args.older_than,
        max_bytes: args.max_size,
        dry_run: args.dry_run,
        keep_runs: Some(runs_kept),
        drop_kept: args.all,
    };
    let report = store.prune(&options).context("cannot clean the store")?;
    let value = serde_json::to_value(&report)?;
    if let Some(line) = format.line(&value)? {
        terminal::result_line(&line);
        return Ok(Exit::Passed);
    }
    let counted = [
        (report.images, "image"),
        (report.snapshots, "snapshot"),
        (report.blobs, "blob"),
        (report.cache_records, "cache record"),
        (report.runs, "run"),
    ];
    let parts: Vec<String> =
        counted.iter().filter(|(number, _)| *number > 0).map(|(number, word)| text::count(*number, word)).collect();
    let verb = if args.dry_run { "would remove" } else { "removed" };
    terminal::message_line(&if parts.is_empty() {
        "there is nothing to remove".to_owned()
    } else {
        format!("{verb} {}: {}", parts.join(", "), text::bytes(report.bytes))
    });
    if !args.all && !args.dry_run {
        let usage = store.usage().context("cannot measure the store")?;
        let left = json!(usage);
        let bytes = left["blob_bytes"].as_u64().unwrap_or(0) + left["snapshot_bytes"].as_u64().unwrap_or(0);
        terminal::message_line(&format!(
            "{} stay in {}; `seatrial clean --all` also removes the build cache",
            text::bytes(bytes),
            context.settings.home.display()
        ));
    }
    Ok(Exit::Passed)
}
