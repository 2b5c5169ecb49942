//! `seatrial schema`.

use crate::{context::Context, exit::Exit, terminal};

/// Flags of `seatrial schema`.
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {}

/// Prints the JSON Schema of the pipeline file.
pub(crate) fn run(_: &SchemaArgs, _: &Context) -> anyhow::Result<Exit> {
    let schema = serde_json::to_string_pretty(&pipeline::file::schema())?;
    terminal::result_line(&schema);
    Ok(Exit::Passed)
}
