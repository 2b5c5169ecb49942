//! `seatrial push`.

use oci::Reference;
use store::{Image, Store};

use super::{
    named, run,
    transfer::{self, Transfers},
};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, views::Views},
};

/// Flags of `seatrial push`.
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Names of images, as they are called in the registry
    #[arg(required = true)]
    images: Vec<Reference>,
    /// Only the digest
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Where a repository's pipeline has gates, its own image is pushed only once it has passed them.
fn refuse_unjudged(name: &Reference, images: &[Image], store: &Store, context: &Context) -> Result<(), Failure> {
    if pipeline::find_file(&context.settings.cwd).is_none() {
        return Ok(());
    }
    let plan = run::prepare(context, None, None)?.plan;
    let published = plan.publish.iter().flat_map(|publish| &publish.repositories);
    let is_ours = published.chain([&plan.image]).any(|own| own.repository() == name.repository());
    if !is_ours || plan.test.gates.is_empty() || images.iter().all(|image| pipeline::has_passed(store, &image.id)) {
        return Ok(());
    }
    Err(Failure::refused(format!("{} has not passed the gates of the pipeline file here", name.familiar()))
        .hint("test and publish it with `seatrial run --publish`"))
}

/// Pushes images; prints `NAME@DIGEST` for each.
pub(crate) fn run(args: &PushArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    let client = context.client(&args.engine.insecure_registry);
    let mut images = Vec::new();
    for name in &args.images {
        let (reference, found) = named::find_all(store, &name.to_string())?;
        let reference = reference.filter(|reference| reference.tag().is_some()).ok_or_else(|| {
            Failure::usage(format!("`{name}` is no name with a tag"))
                .hint(format!("name it first: `seatrial tag {name} REGISTRY/NAME:TAG`"))
        })?;
        refuse_unjudged(&reference, &found, store, context)?;
        images.push((reference, found));
    }

    let views = Views::open(if args.quiet { Progress::None } else { args.progress }, context.settings.ci, None);
    let mut lines = Vec::new();
    let mut failed = Ok(Exit::Passed);
    for (reference, images) in &images {
        let stage = format!("push {}", reference.familiar());
        let progress = Transfers::begin(views.sink(), &stage);
        let pushed = context.block_on_cancellable(transfer::push(&client, store, reference, images, &progress));
        progress.end(pushed.as_ref().ok().map(|_| progress.words()));
        match pushed {
            Ok(pushed) if args.quiet => lines.push(pushed.digest.to_string()),
            Ok(pushed) => lines.push(format!("{}@{}", reference.repository(), pushed.digest)),
            Err(error) => {
                failed = Err(error);
                break;
            }
        }
    }
    views.finish();
    // What was pushed is told also when a later image failed.
    if views.progress != Progress::Json {
        lines.iter().for_each(|line| terminal::result_line(line));
    }
    failed
}
