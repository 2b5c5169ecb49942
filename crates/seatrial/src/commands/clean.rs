//! `seatrial clean`: what nothing needs any more. Images with a name keep their layers and their cache.

use std::time::Duration;

use anyhow::Context as _;
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
    /// Also the whole build cache, verdicts of gates, the logs of all runs, and what failed steps left
    #[arg(short, long)]
    all: bool,
    /// Only what was not used for this time, such as `7d`
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration)]
    older_than: Option<Duration>,
    /// Only the cache: images without a name and runs stay
    #[arg(long)]
    cache: bool,
    /// Least recently used first, until the store is not larger than this, such as `20GB`; buildx' words are
    /// `--max-used-space` and `--keep-storage`
    #[arg(long, value_name = "SIZE", value_parser = text::parse_bytes, aliases = ["max-used-space", "keep-storage", "reserved-space"])]
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
        keep_runs: (!args.cache).then_some(runs_kept),
        keep_images: args.cache,
        drop_kept: args.all,
    };
    let report = store.prune(&options).context("cannot clean the store")?;
    if args.all && !args.dry_run {
        store.memo_clear(pipeline::GATE_VERDICTS).context("cannot forget verdicts of gates")?;
    }
    let value = serde_json::to_value(&report)?;
    if let Some(line) = format.line(&value)? {
        terminal::result_line(&line);
        return Ok(Exit::Passed);
    }
    let counted = [
        (report.images, "image", None),
        (report.snapshots, "snapshot", Some(report.snapshot_bytes)),
        (report.blobs, "blob", Some(report.blob_bytes)),
        (report.cache_mounts, "cache mount", Some(report.cache_mount_bytes)),
        (report.cache_records, "cache record", None),
        (report.runs, "run", Some(report.run_bytes)),
        (report.memos, "remembered value", None),
    ];
    let words = |(number, word, bytes): &(usize, &str, Option<u64>)| {
        let size = bytes.map(|bytes| format!(" ({})", text::bytes(bytes))).unwrap_or_default();
        text::count(*number, word) + &size
    };
    let parts: Vec<String> = counted.iter().filter(|(number, ..)| *number > 0).map(words).collect();
    let verb = if args.dry_run { "would remove" } else { "removed" };
    terminal::message_line(&if parts.is_empty() {
        "there is nothing to remove".to_owned()
    } else {
        format!("{verb} {}: {}", parts.join(", "), text::bytes(report.bytes))
    });
    if !args.all && !args.dry_run {
        let usage = store.usage().context("cannot measure the store")?;
        terminal::message_line(&format!(
            "{} stay in {} ({} of snapshots, {} of blobs, {} of cache mounts); `seatrial clean --all` also removes the \
             build cache",
            text::bytes(usage.snapshot_bytes + usage.blob_bytes + usage.cache_mount_bytes),
            context.settings.home.display(),
            text::bytes(usage.snapshot_bytes),
            text::bytes(usage.blob_bytes),
            text::bytes(usage.cache_mount_bytes),
        ));
    }
    Ok(Exit::Passed)
}
