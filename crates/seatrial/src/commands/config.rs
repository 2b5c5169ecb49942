//! `seatrial config`: the resolved pipeline.

use std::path::PathBuf;

use super::run::prepare;
use crate::{context::Context, exit::Exit, terminal};

/// Flags of `seatrial config`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// This pipeline file instead of the nearest seatrial.yaml
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// `json` on one line instead of indented
    #[arg(long)]
    format: Option<String>,
}

/// Prints the plan.
pub(crate) fn run(args: &ConfigArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = terminal::table::Format::parse(args.format.as_deref())?;
    let prepared = prepare(context, args.file.as_ref(), None)?;
    let value = serde_json::to_value(&prepared.plan)?;
    let text = match format.line(&value)? {
        Some(line) => line,
        None => serde_json::to_string_pretty(&value)?,
    };
    terminal::result_line(&text);
    Ok(Exit::Passed)
}
