//! `seatrial images`.

use std::time::SystemTime;

use oci::Platform;
use serde_json::{Value, json};
use store::NamedImage;

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

/// Flags of `seatrial images`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Only images whose name contains this
    name: Option<String>,
    /// Also images without a name
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Full ids and digests
    #[arg(long)]
    no_trunc: bool,
    /// Add the column of manifest digests
    #[arg(long)]
    digests: bool,
    /// `json`, or a template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long)]
    format: Option<String>,
}

/// Lists images, one line per name.
pub(crate) fn run(args: &ImagesArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let images = named::all(store)?;
    for (id, names) in store.lost_images()? {
        let names: Vec<String> = names.iter().map(oci::Reference::familiar).collect();
        terminal::warning(&format!(
            "image {} ({}) has lost a layer and is not listed; build, pull or load it again",
            id.short(),
            names.join(", ")
        ));
    }
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, args)).collect();

    if args.quiet {
        let mut ids: Vec<&str> = rows.iter().filter_map(|row| row["ID"].as_str()).collect();
        ids.dedup();
        ids.iter().for_each(|id| terminal::result_line(id));
        return Ok(Exit::Passed);
    }
    if format == Format::Table {
        terminal::result(&as_table(&rows, args.digests));
        return Ok(Exit::Passed);
    }
    for row in &rows {
        if let Some(line) = format.line(row)? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

fn rows(image: &NamedImage, args: &ImagesArgs) -> Vec<Value> {
    let id = if args.no_trunc { image.image.id.to_string() } else { image.image.id.short().to_owned() };
    let digest = image.manifest_digest.as_ref().map(ToString::to_string);
    let age = SystemTime::now().duration_since(image.created).unwrap_or_default();
    let row = |repository: &str, tag: &str| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": id,
            "Digest": digest,
            "CreatedSince": text::ago(age),
            "CreatedAt": image.image.config.created,
            "Size": text::bytes(image.image.size_bytes),
            "SizeBytes": image.image.size_bytes,
            "Layers": image.image.layers.len(),
            "Platform": image.image.config.platform().to_string(),
        })
    };
    let wanted = |name: &str| args.name.as_deref().is_none_or(|part| name.contains(part));
    let mut rows: Vec<Value> = image
        .references
        .iter()
        .filter(|reference| wanted(&reference.familiar()))
        .map(|reference| {
            let familiar = reference.familiar();
            let tag = reference.tag().unwrap_or("<none>");
            let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar);
            row(repository, tag)
        })
        .collect();
    if image.references.is_empty() && args.all && args.name.is_none() {
        rows.push(row("<none>", "<none>"));
    }
    rows
}

fn as_table(rows: &[Value], digests: bool) -> String {
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    if digests {
        columns.push(("DIGEST", "Digest"));
    }
    columns.push(("IMAGE ID", "ID"));
    // Only told where it tells something.
    let host = Platform::host().to_string();
    if rows.iter().any(|row| row["Platform"] != host) {
        columns.push(("PLATFORM", "Platform"));
    }
    columns.extend([("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|(_, key)| row[*key].as_str().unwrap_or("<none>").to_owned()).collect())
        .collect();
    table::render(&headings, &cells)
}
