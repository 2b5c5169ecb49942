//! `seatrial pull`.

use anyhow::Context as _;
use events::{Event, Verdict};
use oci::{Platform, Reference};

use super::{named, transfer::Transfers};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    terminal::{self, text, views::Views},
};

/// Flags of `seatrial pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// Names of images in their registry
    #[arg(required = true)]
    images: Vec<Reference>,
    /// For this platform instead of this machine's
    #[arg(long)]
    platform: Option<Platform>,
    /// Only the id
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Pulls images and names them here.
pub(crate) fn run(args: &PullArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    let client = context.client(&args.engine.insecure_registry);
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let views = Views::open(if args.quiet { Progress::None } else { args.progress }, context.settings.ci, None);
    let mut lines = Vec::new();
    let mut failed = Ok(Exit::Passed);
    for name in &args.images {
        let reference = named::with_default_tag(name);
        let stage = format!("pull {}", reference.familiar());
        let started = std::time::Instant::now();
        views.sink().emit(Event::StageStarted { stage: stage.clone() });
        let progress = Transfers::new(views.sink(), &stage);
        let scope = store.open_scope().context("cannot open a scope in the store")?;
        let pulled = context
            .block_on_cancellable(async { Ok(client.pull(&reference, &platform, store, &scope, &progress).await?) });
        let pulled = pulled.and_then(|image| {
            if reference.digest().is_none() {
                // One that was asked for by its platform does not take the name from this machine's.
                let tagged = match &args.platform {
                    Some(_) => store.tag_beside(&reference, &image),
                    None => store.tag(&reference, &image.id),
                };
                tagged.with_context(|| format!("cannot tag {reference}"))?;
            }
            Ok(image)
        });
        let (verdict, summary) = match &pulled {
            Ok(image) => (
                Verdict::Passed,
                format!("{}, {}", text::bytes(image.size_bytes), text::count(image.layers.len(), "layer")),
            ),
            Err(_) => (Verdict::Failed, String::new()),
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        views.sink().emit(Event::StageFinished { stage, verdict, duration_ms, summary });
        match pulled {
            Ok(image) if args.quiet => lines.push(image.id.to_string()),
            Ok(_) => lines.push(reference.to_string()),
            Err(error) => {
                failed = Err(error);
                break;
            }
        }
    }
    views.finish();
    // What was pulled is told also when a later image failed.
    if views.progress != Progress::Json {
        lines.iter().for_each(|line| terminal::result_line(line));
    }
    failed
}
