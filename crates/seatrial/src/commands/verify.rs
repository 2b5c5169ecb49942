//! `seatrial verify`: whether an image has what a policy asks for.

use std::{path::PathBuf, time::SystemTime};

use evidence::{Collected, NamedKey, Policy, PolicyFile, Report, Requirement, Sought};
use oci::{Platform, Reference};
use serde_json::json;

use super::{
    environment, named,
    trust::{self, policy_failure},
};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, Palette, table::Format, text},
};

/// Flags of `seatrial verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Name of the image in its registry
    image: Reference,
    /// Public key that has to have signed the image; one of several is enough
    #[arg(short, long, value_name = "FILE", conflicts_with = "policy")]
    key: Vec<String>,
    /// With `--key`: what has to be there [default: signature]
    #[arg(long, value_name = "KIND", value_delimiter = ',', requires = "key")]
    require: Vec<Requirement>,
    /// What has to be there and who has to have signed it: see docs/evidence.md [default: the pipeline file's `trust`]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Read all layers as well: that each is there and has its digest (the same as requiring `content`)
    #[arg(long)]
    content: bool,
    /// Of an image for several platforms, only this one's
    #[arg(long)]
    platform: Option<Platform>,
    /// `json`, or a template such as `{{.Verified}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Judges the image; exit 1 with what is missing.
pub(crate) fn run(args: &VerifyArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let image = named::with_default_tag(&args.image);
    let mut policy = policy(args, &image, context)?;
    if args.content && !policy.require.contains(&Requirement::Content) {
        policy.require.push(Requirement::Content);
    }
    let client = context.client(&args.engine.insecure_registry);
    let platform = args.platform.as_ref();
    let collected =
        context.block_on_cancellable(async { Ok(evidence::collect_for(&client, &image, platform, &policy).await?) })?;
    let report = policy.judge(Sought { collected: &collected, now: SystemTime::now() });
    match format.line(&value(&image, &collected, &report))? {
        Some(line) => terminal::result_line(&line),
        None => report.checks.iter().for_each(|check| {
            let palette = Palette::stderr();
            let mark = if check.passed { palette.good("✓") } else { palette.bad("✗") };
            terminal::message_line(&format!(" {mark} {}: {}", check.what, text::one_line(&check.detail)));
        }),
    }
    let whole = format!("{}@{}", image.repository(), collected.root);
    if report.passed() {
        if format == Format::Table {
            terminal::result_line(&whole);
        }
        return Ok(Exit::Passed);
    }
    let missing: Vec<String> = report.missing().map(|check| check.detail.clone()).collect();
    Err(Failure::refused(format!("{whole} is not verified: {}", missing.join("; "))).into())
}

fn value(image: &Reference, collected: &Collected, report: &Report) -> serde_json::Value {
    let checks = report
        .checks
        .iter()
        .map(|check| json!({ "Requirement": check.what, "Passed": check.passed, "Detail": check.detail }));
    json!({
        "Image": image.familiar(),
        "Digest": collected.root,
        "Verified": report.passed(),
        "Checks": checks.collect::<Vec<_>>(),
    })
}

fn policy(args: &VerifyArgs, image: &Reference, context: &Context) -> anyhow::Result<Policy> {
    let cwd = &context.settings.cwd;
    if let Some(path) = &args.policy {
        let path = cwd.join(path);
        let text = evidence::read_text(&path)
            .map_err(|error| Failure::usage(format!("cannot read the policy {}", path.display())).because(&error))?;
        let file: PolicyFile = serde_saphyr::from_str(&text)
            .map_err(|error| Failure::usage(format!("{} is no policy", path.display())).because(&error))?;
        let base = path.parent().unwrap_or(cwd).to_owned();
        return Ok(file.policy(&|name| evidence::read_text(&base.join(name))).map_err(policy_failure)?);
    }
    if !args.key.is_empty() {
        let require = if args.require.is_empty() { vec![Requirement::Signature] } else { args.require.clone() };
        return Ok(Policy { keys: keys(&args.key, context)?, require, ..Policy::default() });
    }
    if let Some(policy) = rule_of_file(image, context)?.filter(|policy| !policy.keys.is_empty()) {
        let require = if policy.require.is_empty() { vec![Requirement::Signature] } else { policy.require };
        return Ok(Policy { require, ..policy });
    }
    Err(Failure::usage(format!("nothing says what {} needs", image.familiar()))
        .hint("name a key (`--key FILE`) or a policy (`--policy FILE`), or write `trust` into seatrial.yaml")
        .into())
}

/// What the pipeline file here asks of an image.
pub(super) fn rule_of_file(image: &Reference, context: &Context) -> Result<Option<Policy>, Failure> {
    let trust = trust::nearest(&context.settings.cwd, &environment())?;
    Ok(trust.rule_for(image).map(|rule| rule.policy.clone()))
}

/// Public keys of files.
pub(super) fn keys(given: &[String], context: &Context) -> Result<Vec<NamedKey>, Failure> {
    Ok(Policy::of(given, Vec::new(), &context.settings.cwd).map_err(policy_failure)?.keys)
}

/// Everything that the registry has beside the image.
pub(super) fn collect(
    image: &Reference,
    platform: Option<&Platform>,
    engine: &EngineArgs,
    context: &Context,
) -> anyhow::Result<Collected> {
    let client = context.client(&engine.insecure_registry);
    context.block_on_cancellable(async { Ok(evidence::collect(&client, image, platform).await?) })
}
