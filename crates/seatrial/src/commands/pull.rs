//! `seatrial pull`.

use anyhow::Context as _;
use evidence::NotAdmitted;
use oci::{Platform, Reference};

use super::{environment, named, transfer::Transfers, trust};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    failure::Failure,
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

/// Pulls images and names them here, where the pipeline file that stands here trusts them.
pub(crate) fn run(args: &PullArgs, context: &Context) -> anyhow::Result<Exit> {
    let trust = trust::nearest(&context.settings.cwd, &environment())?;
    let store = context.store()?;
    let client = context.client(&args.engine.insecure_registry);
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let views = Views::open(if args.quiet { Progress::None } else { args.progress }, context.settings.ci, None);
    let mut lines = Vec::new();
    let mut failed = Ok(Exit::Passed);
    for name in &args.images {
        let reference = named::with_default_tag(name);
        let stage = format!("pull {}", reference.familiar());
        let progress = Transfers::begin(views.sink(), &stage);
        let scope = store.open_scope().context("cannot open a scope in the store")?;
        let pulled = context.block_on_cancellable(async {
            let judged = trust.admit(&client, &reference, &platform, &[]).await;
            let judged = judged.map_err(|error| not_admitted(&reference, error))?;
            // What was judged, whatever the name means by now.
            let wanted = judged.as_ref().unwrap_or(&reference);
            Ok(client.pull(wanted, &platform, store, &scope, &progress).await?)
        });
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
        progress.end(pulled.as_ref().ok().map(|image| {
            let layers = text::count(image.layers.len(), "layer");
            format!("{}; {layers}, {} unpacked", progress.words(), text::bytes(image.size_bytes))
        }));
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

/// Exit 1 for what is missing; a registry that fails is told as when it fails at a pull.
fn not_admitted(reference: &Reference, error: NotAdmitted) -> anyhow::Error {
    match error {
        NotAdmitted::Registry(error) => error.into(),
        NotAdmitted::Missing(what) => {
            let failure = Failure::refused(format!("{} is not trusted: {what}", reference.familiar()));
            failure.hint("`trust` of the pipeline file here asks for it: see `seatrial evidence`").into()
        }
    }
}
