//! `seatrial copy`: an image with everything that belongs to it, from registry to registry.

use std::time::Instant;

use events::{Event, Verdict};
use oci::{Platform, Reference};
use registry::{Copied, CopyOptions};
use serde_json::json;

use super::{named, transfer::Transfers};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    terminal::{self, table::Format, text, views::Views},
};

/// Flags of `seatrial copy`.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// What is copied, as it is called in its registry
    from: Reference,
    /// The new name; without a tag, the same tag
    to: Reference,
    /// Only the image for this platform, without the index around it
    #[arg(long)]
    platform: Option<Platform>,
    /// Leave behind what refers to the image: signatures, SBOMs, test results
    #[arg(long)]
    no_referrers: bool,
    /// Only the digest
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    /// `json`, or a template such as `{{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Copies; prints `NAME@DIGEST`.
pub(crate) fn run(args: &CopyArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let client = context.client(&args.engine.insecure_registry);
    let from = named::with_default_tag(&args.from);
    let to = target(&from, &args.to);
    let views = Views::open(if args.quiet { Progress::None } else { args.progress }, context.settings.ci, None);
    let stage = format!("copy {}", from.familiar());
    let started = Instant::now();
    views.sink().emit(Event::StageStarted { stage: stage.clone() });
    let progress = Transfers::new(views.sink(), &stage);
    let options =
        CopyOptions { platform: args.platform.clone(), referrers: !args.no_referrers, ..CopyOptions::default() };
    let copied = context.block_on_cancellable(async { Ok(client.copy(&from, &to, &options, &progress).await?) });
    let (verdict, summary) = match &copied {
        Ok(copied) => (Verdict::Passed, words(copied)),
        Err(_) => (Verdict::Failed, String::new()),
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    views.sink().emit(Event::StageFinished { stage, verdict, duration_ms, summary });
    views.finish();
    let copied = copied?;
    let digest = &copied.digest;
    let value = json!({
        "Name": to.familiar(),
        "Digest": digest,
        "Manifests": copied.manifests,
        "Referrers": copied.referrers,
        "BlobsSent": copied.sent,
        "BytesSent": copied.sent_bytes,
        "BlobsMounted": copied.mounted,
        "BlobsPresent": copied.present,
    });
    if let Some(line) = format.line(&value)? {
        terminal::result_line(&line);
    } else if args.quiet {
        terminal::result_line(&digest.to_string());
    } else if views.progress != Progress::Json {
        terminal::result_line(&format!("{}@{digest}", to.repository()));
    }
    Ok(Exit::Passed)
}

/// `TO` with a tag: its own, else that of `FROM`; a digest stays a digest.
fn target(from: &Reference, to: &Reference) -> Reference {
    match (to.tag().is_some() || to.digest().is_some(), from.digest(), from.tag()) {
        (true, _, _) => to.clone(),
        (false, Some(digest), _) => to.with_digest(digest.clone()),
        (false, None, Some(tag)) => to.with_tag(tag),
        (false, None, None) => named::with_default_tag(to),
    }
}

/// What was moved, in words.
fn words(copied: &Copied) -> String {
    let mut parts = Vec::new();
    if copied.manifests == 0 && copied.sent + copied.mounted == 0 {
        parts.push("everything was there".to_owned());
    } else {
        let referrers = match copied.referrers {
            0 => String::new(),
            count => format!(" ({} about it)", text::count(count, "referrer")),
        };
        parts.push(format!("{}{referrers}", text::count(copied.manifests, "manifest")));
        if copied.sent > 0 {
            parts.push(format!("{} sent ({})", text::count(copied.sent, "blob"), text::bytes(copied.sent_bytes)));
        }
        if copied.mounted > 0 {
            parts.push(format!("{} mounted", text::count(copied.mounted, "blob")));
        }
        if copied.present > 0 {
            parts.push(format!("{} there already", text::count(copied.present, "blob")));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_name_takes_the_old_tag() {
        let check = |from: &str, to: &str| target(&from.parse().unwrap(), &to.parse().unwrap()).to_string();
        assert_eq!(check("a.example/x:1", "b.example/y"), "b.example/y:1");
        assert_eq!(check("a.example/x:1", "b.example/y:2"), "b.example/y:2");
        let digest = oci::Digest::of(b"");
        assert_eq!(check(&format!("a.example/x@{digest}"), "b.example/y"), format!("b.example/y@{digest}"));
    }
}
