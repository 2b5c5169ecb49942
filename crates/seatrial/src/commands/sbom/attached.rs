//! `seatrial sbom --attached`: the list of packages that somebody has put beside an image, as it is.

use evidence::{Flaw, Found, PublicKey, collect, predicate};
use oci::{Platform, Reference};
use serde_json::{Value, json};

use super::{Form, SbomArgs};
use crate::{
    commands::{named, verify},
    context::Context,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// The list as a document, or as lines.
pub(super) fn output(args: &SbomArgs, form: &Form, context: &Context) -> anyhow::Result<String> {
    let image: Reference =
        args.image.trim_start_matches("docker://").parse().map_err(|error: oci::InvalidReference| {
            Failure::usage(format!("`{}` is in no registry", args.image)).because(&error)
        })?;
    let image = named::with_default_tag(&image);
    // Whoever names a key wants its list and no other; those of `trust` come before others.
    let named = match args.key.as_slice() {
        [] => verify::rule_of_file(&image, context)?.map(|policy| policy.keys).unwrap_or_default(),
        given => verify::keys(given, context)?,
    };
    let keys: Vec<PublicKey> = named.into_iter().map(|named| named.key).collect();
    let client = context.client(&args.insecure_registry);
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let collected = context.block_on_cancellable(async { Ok(collect(&client, &image, Some(&platform)).await?) })?;
    let fits = |found: &&Found| kind(found).is_some_and(|kind| form.takes(kind));
    let is_trusted = |found: &Found| found.check(&found.attached_to, &keys).is_ok();
    let mut lists: Vec<&Found> = collected.found.iter().filter(fits).collect();
    // What a trusted key has signed comes before what somebody has, and that before what nobody has.
    lists.sort_by_key(|found| match found.check(&found.attached_to, &keys) {
        Ok(_) => 0,
        Err(Flaw::NotSigned) => 2,
        Err(_) => 1,
    });
    let Some(found) = lists.into_iter().next().filter(|found| args.key.is_empty() || is_trusted(found)) else {
        let by = if args.key.is_empty() { "" } else { " by this key" };
        return Err(Failure::refused(format!("no such list of packages is attached to {}{by}", image.familiar()))
            .hint("list what is in the image itself: the same command without `--attached`")
            .into());
    };
    match found.check(&found.attached_to, &keys) {
        Ok(_) => {}
        Err(Flaw::NotSigned) => terminal::warning("nobody has signed this list"),
        Err(_) if keys.is_empty() => {
            terminal::warning("whether to trust who has signed this list is not known: name a key (`--key FILE`)")
        }
        Err(_) => terminal::warning("no key that `trust` names has signed this list, or it was changed since"),
    }
    let list = &found.statement().map_err(|error| Failure::refused(error.to_string()))?.predicate;
    match form {
        Form::Lines(Format::Table) => {
            let rows = packages(list);
            terminal::message_line(&text::count(rows.len(), "package"));
            let cell = |package: &Value, key: &str| text::one_line(package[key].as_str().unwrap_or_default());
            let row = |row: &Value| vec![cell(row, "Name"), cell(row, "Version"), cell(row, "Purl")];
            let rows: Vec<_> = rows.iter().map(row).collect();
            Ok(table::render(&["NAME", "VERSION", "PURL"], &rows))
        }
        Form::Lines(format) => {
            let mut out = String::new();
            for package in packages(list) {
                out.extend(format.line(&package)?.map(|line| line + "\n"));
            }
            Ok(out)
        }
        Form::Spdx | Form::CycloneDx => Ok(serde_json::to_string_pretty(list)? + "\n"),
    }
}

/// Which kind of list a piece is.
fn kind(found: &Found) -> Option<&str> {
    let kind = found.statement().ok()?.predicate_type.as_str();
    [predicate::SPDX, predicate::CYCLONEDX].into_iter().find(|known| kind.starts_with(known))
}

impl Form {
    fn takes(&self, kind: &str) -> bool {
        match self {
            Form::Spdx => kind == predicate::SPDX,
            Form::CycloneDx => kind == predicate::CYCLONEDX,
            Form::Lines(_) => true,
        }
    }
}

/// The packages that a list of either kind names; of others' lists only what all of them tell.
fn packages(list: &Value) -> Vec<Value> {
    let of_spdx = list["packages"].as_array().into_iter().flatten().filter_map(|package| {
        let references = package["externalRefs"].as_array().into_iter().flatten();
        let purl = references
            .filter(|known| known["referenceType"] == "purl")
            .find_map(|known| known["referenceLocator"].as_str());
        Some(json!({ "Name": package["name"], "Version": package["versionInfo"], "Purl": purl? }))
    });
    let of_cyclonedx = list["components"].as_array().into_iter().flatten().filter_map(|component| {
        let purl = component["purl"].as_str()?;
        Some(json!({ "Name": component["name"], "Version": component["version"], "Purl": purl }))
    });
    // The image itself is a package there as well.
    let is_image = |package: &Value| {
        let purl = package["Purl"].as_str().unwrap_or_default();
        purl.starts_with("pkg:oci/") || purl.starts_with("pkg:docker/")
    };
    of_spdx.chain(of_cyclonedx).filter(|package| !is_image(package)).collect()
}
