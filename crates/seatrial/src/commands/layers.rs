//! `seatrial layers`: what each step added.

use anyhow::Context as _;
use engine_embedded::{ImageBase, image_base};
use oci::DiffId;
use serde_json::{Value, json};
use store::{Image, SnapshotId, Store};

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
    /// Whole instructions and digests
    #[arg(long)]
    no_trunc: bool,
    /// Only instructions that made a layer
    #[arg(long)]
    no_empty: bool,
    /// `json`, or a template such as `{{.DiffId}}`
    #[arg(long)]
    format: Option<String>,
}

/// Columns of an instruction where there is no terminal.
const INSTRUCTION_COLUMNS: usize = 80;
/// Columns of an instruction at the least; a narrower terminal wraps by itself.
const INSTRUCTION_COLUMNS_MIN: usize = 30;
/// Lines of a long instruction; the rest is for `--no-trunc`.
const INSTRUCTION_LINES: usize = 3;
/// Digits of a digest that people compare.
const DIGEST_DIGITS: usize = 12;

/// One instruction and the layer that it made.
struct Step {
    diff_id: Option<DiffId>,
    size_bytes: Option<u64>,
    compressed: Option<oci::Descriptor>,
    created: Option<String>,
    /// As the image has it.
    created_by: String,
    /// Of the base image.
    is_base: bool,
}

/// Lists the history, oldest first, with the layer that each step made.
pub(crate) fn run(args: &LayersArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let (_, image) = named::find(store, &args.image)?;
    let base = image_base(store, &image.id);
    let mut steps = steps(store, &image, base.as_ref())?;
    if args.no_empty {
        steps.retain(|step| step.diff_id.is_some());
    }
    if format == Format::Table {
        let rows: Vec<Vec<String>> = steps.iter().flat_map(|step| rows(step, args.no_trunc)).collect();
        terminal::result(&table::render(&["LAYER", "SIZE", "COMPRESSED", "OF", "MADE BY"], &rows));
        terminal::message_line(&totals(&steps, &image, base.as_ref()));
        return Ok(Exit::Passed);
    }
    for step in &steps {
        if let Some(line) = format.line(&value(step, base.as_ref()))? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

fn steps(store: &Store, image: &Image, base: Option<&ImageBase>) -> anyhow::Result<Vec<Step>> {
    let base_layers = base.map_or(0, |base| base.layers);
    let base_steps = match base {
        Some(base) => store.image(&base.id).ok().flatten().map(|base| base.config.history.len()),
        None => None,
    };
    let mut layers = image.layers.iter().zip(&image.config.rootfs.diff_ids).enumerate();
    let mut steps = Vec::new();
    for (number, history) in image.config.history.iter().enumerate() {
        let layer = if history.empty_layer { None } else { layers.next() };
        // An instruction without a layer is the base's when its layers come after it, or its history has it.
        let is_base = match layer {
            Some((at, _)) => at < base_layers,
            None => base_steps.is_some_and(|steps| number < steps),
        };
        let created_by = history.created_by.clone().unwrap_or_default();
        let created = history.created.clone();
        steps.push(Step { created, created_by, is_base, ..step(store, layer.map(|(_, layer)| layer))? });
    }
    // Images without a complete history still show every layer.
    for (at, layer) in layers {
        steps.push(Step { is_base: at < base_layers, ..step(store, Some(layer))? });
    }
    Ok(steps)
}

fn step(store: &Store, layer: Option<(&SnapshotId, &DiffId)>) -> anyhow::Result<Step> {
    let mut step = Step {
        diff_id: layer.map(|(_, diff_id)| diff_id.clone()),
        size_bytes: None,
        compressed: None,
        created: None,
        created_by: String::new(),
        is_base: false,
    };
    if let Some((snapshot, diff_id)) = layer {
        let meta = store.snapshot(snapshot).context("cannot read a layer's record")?;
        step.size_bytes = meta.and_then(|meta| meta.tar_bytes);
        step.compressed = store.compressed_layer(diff_id);
    }
    Ok(step)
}

fn rows(step: &Step, whole: bool) -> Vec<Vec<String>> {
    let diff_id = step.diff_id.as_ref().map_or_else(
        || "-".to_owned(),
        |id| if whole { id.to_string() } else { id.0.hex()[..DIGEST_DIGITS].to_owned() },
    );
    let is_layer = step.diff_id.is_some();
    // Not compressed yet is no size at all; a layer without a size is one whose record a power loss took.
    let size = step.size_bytes.map_or_else(|| if is_layer { "?" } else { "-" }.to_owned(), text::bytes);
    let compressed = step.compressed.as_ref().map_or_else(|| "-".to_owned(), |blob| text::bytes(blob.size));
    let of = if step.is_base { "base" } else { "" };
    let made_by = text::one_line(&oci::readable_instruction(&step.created_by));
    let lines = if whole { vec![made_by] } else { text::wrap(&made_by, columns(), INSTRUCTION_LINES) };
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let head = vec![diff_id, size, compressed, of.to_owned(), first];
    let more = lines.map(|line| vec![String::new(), String::new(), String::new(), String::new(), format!("  {line}")]);
    std::iter::once(head).chain(more).collect()
}

/// Columns that are left for the instruction.
fn columns() -> usize {
    /// What the other columns take.
    const OTHERS: usize = 52;
    if !terminal::streams().stdout_is_terminal {
        return INSTRUCTION_COLUMNS;
    }
    text::terminal_size().1.saturating_sub(OTHERS).max(INSTRUCTION_COLUMNS_MIN)
}

/// `58.1 MB in 7 layers; 4 of them (51.2 MB) are of debian:12`.
fn totals(steps: &[Step], image: &Image, base: Option<&ImageBase>) -> String {
    let sum = |base_only: bool| {
        let counted = steps.iter().filter(|step| !base_only || step.is_base);
        text::bytes(counted.filter_map(|step| step.size_bytes).sum())
    };
    let all = format!("{} in {}", sum(false), text::count(image.layers.len(), "layer"));
    match base {
        Some(base) => format!("{all}; {} of them ({}) of the base {}", base.layers, sum(true), base.reference),
        None => all,
    }
}

fn value(step: &Step, base: Option<&ImageBase>) -> Value {
    json!({
        "DiffId": step.diff_id.as_ref().map(ToString::to_string),
        "SizeBytes": step.size_bytes,
        "Digest": step.compressed.as_ref().map(|blob| blob.digest.to_string()),
        "CompressedBytes": step.compressed.as_ref().map(|blob| blob.size),
        "Created": step.created,
        "CreatedBy": step.created_by,
        "Instruction": oci::readable_instruction(&step.created_by),
        "Base": base.filter(|_| step.is_base).map(|base| base.reference.clone()),
    })
}
