//! `registry scrub`: reads everything again and names what is damaged.

use std::{path::Path, sync::Arc};

use ::registry::{Backend, ScrubReport};
use anyhow::Context as _;

use crate::{
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text},
};

/// Damaged content is an answer, not an error: exit code 1.
pub(super) fn run(
    directory: &Path,
    backend: Option<Arc<dyn Backend>>,
    is_quarantine: bool,
    format: Option<&str>,
) -> anyhow::Result<Exit> {
    let format = Format::parse(format)?;
    if !directory.is_dir() {
        return Err(Failure::usage(format!("there is no registry in {}", directory.display())).into());
    }
    let report = ::registry::scrub(directory, backend, is_quarantine)
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
