//! `registry scrub`: reads everything again and names what is damaged.

use ::registry::ScrubReport;
use anyhow::Context as _;

use super::Place;
use crate::{
    context::Context,
    exit::Exit,
    terminal::{self, table::Format, text},
};

/// Flags of `seatrial registry scrub`.
#[derive(Debug, clap::Args)]
pub(crate) struct ScrubArgs {
    #[command(flatten)]
    place: Place,
    /// Put damaged blobs aside, so that they can be pushed again
    #[arg(long)]
    quarantine: bool,
    /// `json`, or a template such as `{{.bytes}}`
    #[arg(long)]
    format: Option<String>,
}

/// Damaged content is an answer, not an error: exit code 1.
pub(super) fn run(args: &ScrubArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let (directory, config) = args.place.existing(context)?;
    let report = ::registry::scrub(&directory, config.options.backend, args.quarantine)
        .with_context(|| format!("cannot read the registry in {} again", directory.display()))?;
    let exit = if report.corrupt.is_empty() { Exit::Passed } else { Exit::Refused };
    if let Some(line) = format.line(&serde_json::to_value(&report)?)? {
        terminal::result_line(&line);
        return Ok(exit);
    }
    for corrupt in &report.corrupt {
        let place = if corrupt.is_quarantined { ", put aside" } else { "" };
        let names =
            if corrupt.repositories.is_empty() { "no repository".into() } else { corrupt.repositories.join(", ") };
        terminal::result_line(&format!("{} in {names}: {}{place}", corrupt.digest, text::one_line(&corrupt.reason)));
    }
    terminal::message_line(&summary(&report));
    Ok(exit)
}

fn summary(report: &ScrubReport) -> String {
    let read = format!("read {} of {}", text::bytes(report.bytes), text::count(report.checked, "blob"));
    match report.corrupt.len() {
        0 => format!("{read}: all are what they should be"),
        count => format!("{read}: {count} damaged"),
    }
}
