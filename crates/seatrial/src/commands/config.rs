//! `seatrial config`: the resolved pipeline.

use std::path::PathBuf;

use serde_json::Value;

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
    let mut value = serde_json::to_value(&prepared.plan)?;
    if !prepared.plan.images.is_empty() {
        tell_once(&mut value);
    }
    let text = match format.line(&value)? {
        Some(line) => line,
        None => serde_json::to_string_pretty(&value)?,
    };
    terminal::result_line(&text);
    Ok(Exit::Passed)
}

/// With several images the top level builds nothing itself, and what all share stands there only.
fn tell_once(plan: &mut Value) {
    const OF_IMAGES: [&str; 9] =
        ["image", "image_is_given", "version", "before", "build", "health", "local_tags", "publish", "limits"];
    const OF_ALL: [&str; 5] = ["file", "source", "secrets", "services", "keep"];
    let remove = |value: &mut Value, keys: &[&str]| {
        if let Value::Object(map) = value {
            map.retain(|key, _| !keys.contains(&key.as_str()));
        }
    };
    for image in plan["images"].as_array_mut().into_iter().flatten() {
        remove(image, &OF_ALL);
    }
    remove(plan, &OF_IMAGES);
}
