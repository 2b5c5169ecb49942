//! `seatrial sbom`: which packages an image holds.

mod attached;

use std::{collections::BTreeMap, path::PathBuf, time::UNIX_EPOCH};

use anyhow::Context as _;
use evidence::sbom::{About, Inventory, Package, inventory};
use oci::{Platform, Reference};
use serde_json::{Value, json};
use store::{Image, Stop, Store};

use super::{
    obtain::{Wanted, obtain},
    save::write_file,
};
use crate::{
    cli::Progress,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Flags of `seatrial sbom`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Found are packages of dpkg, apk and rpm, of Python, npm and Maven, and the modules of Go and \
    (auditable) Rust programs. Nothing in the image is run.\n\nExamples:\n  \
    seatrial sbom app:1                                  a table\n  \
    seatrial sbom app:1 --format spdx-json -o app.json   an SPDX 2.3 document\n  \
    seatrial sbom debian:12 --format '{{.Purl}}'         a line for each package")]
pub(crate) struct SbomArgs {
    /// Name or id; what is not here is looked for as an archive, an OCI layout (`oci:DIR[:NAME]`), or in its registry
    image: String,
    /// `table`, `spdx-json`, `cyclonedx-json`, `json` (a line for each package) or a template such as `{{.Purl}}` [default:
    /// table; with --output spdx-json, or cyclonedx-json for `….cdx.json`]
    #[arg(long)]
    format: Option<String>,
    /// File instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of an image of several platforms, the one for this platform instead of this machine's
    #[arg(long)]
    platform: Option<Platform>,
    /// The list that is attached to the image in its registry, also by others, instead of looking into the image
    #[arg(long)]
    attached: bool,
    /// With --attached: public key that has to have signed the list [default: first those by keys of the pipeline file's `trust`]
    #[arg(short, long, value_name = "FILE", requires = "attached")]
    key: Vec<String>,
    /// How a pull shows its progress
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    /// Registry that may be reached without TLS, or with an unknown certificate; loopback always may
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_registry: Vec<String>,
}

/// What is written.
enum Form {
    Spdx,
    CycloneDx,
    Lines(Format),
}

/// Writes the packages of an image.
pub(crate) fn run(args: &SbomArgs, context: &Context) -> anyhow::Result<Exit> {
    let form = form(args)?;
    if args.attached {
        return show(&attached::output(args, &form, context)?, args, context);
    }
    let store = context.store()?;
    let scope = store.open_scope().context("cannot open a scope in the store")?;
    let wanted = Wanted {
        name: &args.image,
        platform: args.platform.as_ref(),
        progress: args.progress,
        insecure_registries: &args.insecure_registry,
    };
    let (reference, image) = obtain(&wanted, store, &scope, context)?;

    context.watch_signals();
    let cancel = context.cancel.clone();
    let is_stopped = move || cancel.is_cancelled();
    let stop = Stop::when(&is_stopped);
    let found = inventory(store, &image, stop);
    if context.cancel.is_cancelled() {
        return Err(Failure::cancelled().into());
    }
    let found = found?;
    for warning in &found.warnings {
        let (path, message) = (text::one_line(&warning.path), text::one_line(&warning.message));
        terminal::warning(&format!("{path} was not read: {message}"));
    }

    let out = match &form {
        Form::Lines(Format::Table) => {
            terminal::message_line(&summary(&found));
            table(&found)
        }
        Form::Lines(format) => lines(&found, format)?,
        Form::Spdx => document(&found, &form, reference.as_ref(), &image, store, context, stop)?,
        Form::CycloneDx => document(&found, &form, reference.as_ref(), &image, store, context, stop)?,
    };
    show(&out, args, context)
}

fn show(out: &str, args: &SbomArgs, context: &Context) -> anyhow::Result<Exit> {
    match &args.output {
        Some(file) => {
            let path = context.settings.cwd.join(file);
            write_file(&path, |to| Ok(to.write_all(out.as_bytes())?))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => terminal::result(out),
    }
    Ok(Exit::Passed)
}

fn form(args: &SbomArgs) -> Result<Form, Failure> {
    let file = args.output.as_ref().map(|file| file.to_string_lossy());
    Ok(match (args.format.as_deref(), file) {
        (None, Some(file)) if file.ends_with(".cdx.json") => Form::CycloneDx,
        (None, Some(_)) | (Some("spdx-json" | "spdx"), _) => Form::Spdx,
        (Some("cyclonedx-json" | "cyclonedx"), _) => Form::CycloneDx,
        (format, _) => Form::Lines(
            Format::parse(format)
                .map_err(|failure| failure.hint("or `--format spdx-json`, `--format cyclonedx-json`"))?,
        ),
    })
}

/// About the digest that a push gives the image, dated as the image is.
fn document(
    found: &Inventory,
    form: &Form,
    reference: Option<&Reference>,
    image: &Image,
    store: &Store,
    context: &Context,
    stop: Stop<'_>,
) -> anyhow::Result<String> {
    let sealed = store.manifest_or_stop(image, &store.preferred_options(&image.id), stop)?;
    let epoch = context.settings.source_date_epoch;
    let created_s = match epoch.and_then(|epoch| epoch.duration_since(UNIX_EPOCH).ok()) {
        Some(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        None => evidence::sbom::created_s(image),
    };
    let about = About { reference, digest: &sealed.digest, architecture: &image.config.architecture, created_s };
    let value = if matches!(form, Form::Spdx) { found.spdx(&about) } else { found.cyclonedx(&about) };
    Ok(serde_json::to_string_pretty(&value).context("cannot write the document")? + "\n")
}

fn table(found: &Inventory) -> String {
    let row = |package: &Package| {
        vec![
            text::one_line(&full_name(package)),
            text::one_line(&package.version),
            package.ecosystem.as_str().to_owned(),
            text::one_line(&package.licences.join(", ")),
        ]
    };
    table::render(&["NAME", "VERSION", "KIND", "LICENCE"], &found.packages.iter().map(row).collect::<Vec<_>>())
}

fn full_name(package: &Package) -> String {
    package.group.as_ref().map_or_else(|| package.name.clone(), |group| format!("{group}:{}", package.name))
}

/// `97 packages of Debian GNU/Linux 12: 88 deb, 9 python`.
fn summary(found: &Inventory) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for package in &found.packages {
        *kinds.entry(package.ecosystem.as_str()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    let mut out = text::count(found.packages.len(), "package");
    if let Some(os) = &found.os {
        out.push_str(&format!(" of {}", text::one_line(os.pretty_name.as_ref().unwrap_or(&os.name))));
    }
    if !kinds.is_empty() {
        out.push_str(&format!(": {}", kinds.join(", ")));
    }
    out
}

fn lines(found: &Inventory, format: &Format) -> Result<String, Failure> {
    let mut out = String::new();
    for package in &found.packages {
        if let Some(line) = format.line(&value(package))? {
            out.push_str(&line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn value(package: &Package) -> Value {
    json!({
        "Name": full_name(package),
        "Version": package.version,
        "Kind": package.ecosystem.as_str(),
        "Purl": package.purl,
        "Architecture": package.architecture,
        "Licences": package.licences,
        "Supplier": package.supplier,
        "Source": package.source.as_ref().map(|source| &source.name),
        "Layer": package.layer,
        "Paths": package.paths,
        "Owner": package.owner,
    })
}
