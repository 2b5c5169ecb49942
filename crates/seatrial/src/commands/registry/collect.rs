//! `seatrial registry gc`: removes what nothing in a registry needs.

use ::registry::{CollectOptions, CollectReport, Removed};
use anyhow::Context as _;

use super::Place;
use crate::{
    context::Context,
    exit::Exit,
    terminal::{self, table::Format, text},
};

/// Flags of `seatrial registry gc`.
#[derive(Debug, clap::Args)]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// Only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// `json`, or a template such as `{{.bytes}}`
    #[arg(long)]
    format: Option<String>,
}

/// Collects; prints what went.
pub(super) fn run(args: &CollectArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let (directory, config) = args.place.existing(context)?;
    let options = config.options;
    let collection = CollectOptions { rules: options.rules, grace: options.collect_grace, is_dry_run: args.dry_run };
    let report = ::registry::collect(&directory, options.backend, &collection)
        .with_context(|| format!("cannot clean the registry in {}", directory.display()))?;
    if let Some(line) = format.line(&serde_json::to_value(&report)?)? {
        terminal::result_line(&line);
        return Ok(Exit::Passed);
    }
    for name in report.removed.iter().filter_map(name_of) {
        terminal::result_line(name);
    }
    terminal::message_line(&summary(&report));
    for repository in &report.untold {
        terminal::warning(&format!("tags were left alone: {}", text::one_line(repository)));
    }
    for repository in &report.unreadable {
        terminal::warning(&format!("repository `{repository}` was left alone: a manifest of it cannot be read"));
    }
    Ok(Exit::Passed)
}

/// Content has no name that says anything to a person.
fn name_of(removed: &Removed) -> Option<&str> {
    match removed {
        Removed::Tag(name) | Removed::Manifest(name) | Removed::Blob(name) => Some(name),
        Removed::Content(_) => None,
    }
}

fn summary(report: &CollectReport) -> String {
    let counted = [(report.tags, "tag"), (report.manifests, "manifest"), (report.blobs, "blob")];
    let mut parts: Vec<String> =
        counted.iter().filter(|(number, _)| *number > 0).map(|(number, word)| text::count(*number, word)).collect();
    if report.contents > 0 {
        parts.push(format!("{} of content", text::bytes(report.bytes)));
    }
    let verb = if report.is_dry_run { "would remove" } else { "removed" };
    if parts.is_empty() { "there is nothing to remove".into() } else { format!("{verb} {}", parts.join(", ")) }
}
