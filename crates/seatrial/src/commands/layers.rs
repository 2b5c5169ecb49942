//! `seatrial layers`: what each step added.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::named;
use crate::{
    context::Context,
    exit::Exit,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Flags of `seatrial layers`.
#[derive(Debug, clap::Args)]
pub(crate) struct LayersArgs {
    /// Name or id
    image: String,
    /// Whole instructions
    #[arg(long)]
    no_trunc: bool,
    /// `json`, or a template such as `{{.DiffId}}`
    #[arg(long)]
    format: Option<String>,
}

/// Columns of an instruction in the table.
const INSTRUCTION_COLUMNS: usize = 80;

/// Lists the history, oldest first, with the layer that each step made.
pub(crate) fn run(args: &LayersArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let (_, image) = named::find(store, &args.image)?;

    let mut layers = image.layers.iter().zip(&image.config.rootfs.diff_ids);
    let mut rows = Vec::new();
    let mut total_bytes = 0;
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        rows.push(row(store, step.created_by.as_deref().unwrap_or_default(), layer)?);
    }
    // Images without a complete history still show every layer.
    for layer in layers {
        rows.push(row(store, "", Some(layer))?);
    }
    for row in &rows {
        total_bytes += row["SizeBytes"].as_u64().unwrap_or(0);
    }

    if format == Format::Table {
        let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, args.no_trunc)).collect();
        terminal::result(&table::render(&["LAYER", "SIZE", "MADE BY"], &cells));
        terminal::message_line(&format!(
            "{} in {}",
            text::bytes(total_bytes),
            text::count(image.layers.len(), "layer")
        ));
        return Ok(Exit::Passed);
    }
    for row in &rows {
        if let Some(line) = format.line(row)? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

fn row(
    store: &store::Store,
    made_by: &str,
    layer: Option<(&store::SnapshotId, &oci::DiffId)>,
) -> anyhow::Result<Value> {
    let size_bytes = match layer {
        Some((snapshot, _)) => {
            store.snapshot(snapshot).context("cannot read a layer's record")?.and_then(|meta| meta.tar_bytes)
        }
        None => None,
    };
    Ok(json!({
        "DiffId": layer.map(|(_, diff_id)| diff_id.to_string()),
        "SizeBytes": size_bytes,
        "CreatedBy": made_by,
    }))
}

fn cells(row: &Value, whole: bool) -> Vec<String> {
    let diff_id = row["DiffId"].as_str().map_or("-", |id| id.strip_prefix("sha256:").map_or(id, |hex| &hex[..12]));
    let size = match (&row["DiffId"], row["SizeBytes"].as_u64()) {
        (Value::Null, _) => "-".to_owned(),
        (_, Some(bytes)) => text::bytes(bytes),
        (_, None) => "?".to_owned(),
    };
    let made_by = text::one_line(row["CreatedBy"].as_str().unwrap_or_default());
    let made_by = if whole { made_by } else { text::fit(&made_by, INSTRUCTION_COLUMNS) };
    vec![diff_id.to_owned(), size, made_by]
}
