//! `seatrial evidence`: what is said of an image where it is, by whom, and whether it holds.

use std::path::PathBuf;

use anyhow::Context as _;
use evidence::{Collected, Flaw, Found, NamedKey, PublicKey, Statement, TestResult, predicate};
use oci::{Platform, Reference};
use serde_json::{Value, json};

use super::{named, verify};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
    },
};

/// Flags of `seatrial evidence`.
#[derive(Debug, clap::Args)]
pub(crate) struct EvidenceArgs {
    /// Name of the image in its registry
    image: Reference,
    /// Public key that is trusted; otherwise those of the pipeline file's `trust`
    #[arg(short, long, value_name = "FILE")]
    key: Vec<String>,
    /// Of an image for several platforms, only this one's
    #[arg(long)]
    platform: Option<Platform>,
    /// Write every piece as it is into this directory
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// `json` for a line each, or a template such as `{{.Kind}} {{.Key}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Lists the pieces, or writes them to files.
pub(crate) fn run(args: &EvidenceArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let image = named::with_default_tag(&args.image);
    let keys = match args.key.as_slice() {
        [] => verify::rule_of_file(&image, context)?.map(|policy| policy.keys).unwrap_or_default(),
        given => verify::keys(given, context)?,
    };
    let collected = verify::collect(&image, args.platform.as_ref(), &args.engine, context)?;
    if let Some(directory) = &args.output {
        return download(&collected, &context.settings.cwd.join(directory));
    }
    let public: Vec<PublicKey> = keys.iter().map(|named| named.key.clone()).collect();
    let mut rows = Vec::new();
    for found in &collected.found {
        let checked = found.check(&found.attached_to, &public).map(|trusted| trusted.key.clone());
        let value = value(found, &collected, &keys, checked.as_ref());
        if let Some(line) = format.line(&value)? {
            terminal::result_line(&line);
        }
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        rows.push(vec![text("Kind"), text("About"), text("Key"), text("Status")]);
    }
    if format == Format::Table {
        if rows.is_empty() {
            terminal::message_line(&format!("nothing is said of {} there", image.familiar()));
        } else {
            terminal::result(&table::render(&["KIND", "ABOUT", "KEY", "STATUS"], &rows));
        }
    }
    Ok(Exit::Passed)
}

fn value(found: &Found, collected: &Collected, keys: &[NamedKey], checked: Result<&PublicKey, &Flaw>) -> Value {
    let statement = found.statement().ok();
    let known = checked.ok().and_then(|key| keys.iter().find(|named| named.key == *key));
    let status = match checked {
        Ok(_) => "verified".to_owned(),
        Err(Flaw::NotTrusted) if keys.is_empty() => "not verified: no key is trusted".to_owned(),
        Err(flaw) => format!("not verified: {flaw}"),
    };
    let platform = collected.platforms.iter().find(|(digest, _)| *digest == found.attached_to);
    let about = match platform.and_then(|(_, platform)| platform.as_ref()) {
        Some(platform) => platform.to_string(),
        None => found.attached_to.short().to_owned(),
    };
    json!({
        "Kind": statement.map_or_else(|| "unknown".to_owned(), kind),
        "PredicateType": statement.map(|statement| statement.predicate_type.as_str()),
        "About": about,
        "Subject": found.attached_to,
        "Digest": found.digest,
        "Form": found.form.as_str(),
        "Key": known.map(|named| named.name.as_str()).or(found.key_id()),
        "Fingerprint": checked.ok().map(PublicKey::fingerprint),
        "Verified": checked.is_ok(),
        "Status": status,
        "Statement": statement,
    })
}

/// In words: `gate unit passed`, `provenance`, `sbom (SPDX)`.
fn kind(statement: &Statement) -> String {
    match statement.predicate_type.as_str() {
        predicate::SIGNATURE => "signature".into(),
        predicate::PROVENANCE => "provenance".into(),
        // As BuildKit still writes it unless it is told otherwise.
        predicate::PROVENANCE_0_2 => "provenance (SLSA 0.2)".into(),
        predicate::SUMMARY => "summary".into(),
        predicate::SPDX => "sbom (SPDX)".into(),
        predicate::CYCLONEDX => "sbom (CycloneDX)".into(),
        predicate::TEST_RESULT => {
            let (passed, failed) = (TestResult::passed_gates(statement), TestResult::failed_gates(statement));
            let (names, word) = if failed.is_empty() { (passed, "passed") } else { (failed, "failed") };
            format!("gate {} {word}", names.join(", "))
        }
        other => other.into(),
    }
}

fn download(collected: &Collected, directory: &std::path::Path) -> anyhow::Result<Exit> {
    if collected.found.is_empty() {
        return Err(Failure::refused("nothing is said of this image there").into());
    }
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for found in &collected.found {
        let path = directory.join(format!("{}.sigstore.json", found.digest.to_string().replace(':', "-")));
        std::fs::write(&path, &found.bytes).with_context(|| format!("cannot write {}", path.display()))?;
        terminal::result_line(&path.display().to_string());
    }
    Ok(Exit::Passed)
}
