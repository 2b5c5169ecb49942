//! `seatrial build`: docker's flags with docker's meaning.

mod call;
mod flags;
mod output;

use std::time::Instant;

use anyhow::Context as _;
use engine::{BuildRequest, Built};
use engine_embedded::Embedded;
use events::{Event, RunId, Verdict};
use oci::{Digest, Reference};
use serde_json::json;
use store::{Image, SealedManifest, Store};

use super::{
    named,
    record::RunRecord,
    transfer::{self, Transfers},
};
use crate::{
    cli::Progress,
    context::Context,
    exit::Exit,
    failure::{self, Failure},
    terminal::{self, Palette, model::Model, summary, table::Format, text, views::Views},
};

pub(crate) use flags::BuildArgs;
use output::Output;

/// A finished build.
struct Finished {
    image: Image,
    /// Made only when something asks for it: compressing layers is most of the work of a build that pushes nothing.
    sealed: Option<SealedManifest>,
    built: Built,
}

impl Finished {
    fn digest(&self) -> Option<Digest> {
        self.sealed.as_ref().map(|sealed| sealed.digest.clone())
    }
}

/// Builds, names, writes and pushes an image as the flags say.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Exit> {
    args.refuse_what_is_missing()?;
    let format = Format::parse(args.format.as_deref())?;
    let request = args.request(context)?;
    if let Some(call) = args.call()? {
        return call::run(call, &request, args.format.as_deref());
    }
    let names: Vec<Reference> = args.tag.iter().map(named::with_default_tag).collect();
    let outputs = Output::all(args, context)?;

    let store = context.store()?;
    let engine = context.engine(&args.engine)?;
    let client = context.client(&args.engine.insecure_registry);
    let run = store.new_run().context("cannot record a run in the store")?;
    let title = names.first().map_or_else(|| directory_name(context), Reference::familiar);
    let views = Views::open(args.progress(), context.settings.ci, Some(&run.path));
    views.sink().emit(Event::RunStarted {
        run: RunId(run.number),
        name: title.clone(),
        commit: None,
        branch: None,
        stages: vec![request.stage.clone()],
    });

    let started = Instant::now();
    views.sink().emit(Event::StageStarted { stage: request.stage.clone() });
    context.watch_signals();
    let needs_manifest = args.metadata_file.is_some() || format.reads("Digest") || outputs.contains(&Output::Push);
    let finished = build(&engine, &request, &views, needs_manifest);
    let finished = match finished {
        Ok(finished) => {
            let delivered =
                deliver(store, &finished, &names, &outputs, context, &views, |reference, image, progress| {
                    context.block_on_cancellable(transfer::push(&client, store, reference, image, progress))
                });
            delivered.map(|pushed| (finished, pushed))
        }
        Err(error) => Err(error),
    };
    let verdict = match &finished {
        Ok(_) => Verdict::Passed,
        Err(BuildFailed::Build(engine::BuildError::Cancelled)) => Verdict::Skipped,
        Err(_) => Verdict::Failed,
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    views.sink().emit(Event::StageFinished {
        stage: "build".into(),
        verdict,
        duration_ms,
        summary: match &finished {
            Ok((finished, _)) => {
                format!("{}, {}", text::bytes(finished.image.size_bytes), steps_words(&finished.built))
            }
            Err(BuildFailed::Build(engine::BuildError::Step(step))) => summary::exit_words(&step.exit),
            Err(_) => String::new(),
        },
    });
    views.sink().emit(Event::RunFinished { verdict, duration_ms });
    views.finish();

    let mut record = RunRecord::new("build", &title, verdict, duration_ms);
    let (finished, pushed) = match finished {
        Ok(finished) => finished,
        Err(error) => {
            if let BuildFailed::Build(engine::BuildError::Step(step)) = &error {
                record.kept.extend(step.kept.clone().map(|root| ("build".to_owned(), root)));
            }
            record.cancelled = verdict == Verdict::Skipped;
            record.write(&run);
            if record.cancelled && views.shows_summary() {
                let took = format!("cancelled after {}", text::millis(duration_ms));
                let palette = Palette::stderr();
                terminal::message_line(&format!("{} {}", palette.bad("✗"), palette.strong(&took)));
            }
            return Err(error.into_failure(run.number));
        }
    };
    record.image = Some(finished.image.id.to_string());
    record.write(&run);

    write_files(args, context, &finished, &names)?;
    if views.shows_summary() && views.progress != Progress::Quiet {
        terminal::message(&closing(&finished, &names, &pushed, duration_ms, &views.model()));
    }
    show_result(args, &format, &finished, &names, &views)?;
    Ok(Exit::Passed)
}

/// Why a build delivered nothing.
enum BuildFailed {
    Build(engine::BuildError),
    Other(anyhow::Error),
}

impl BuildFailed {
    fn into_failure(self, run: u64) -> anyhow::Error {
        match self {
            BuildFailed::Build(error) => failure::build(error, run).into(),
            BuildFailed::Other(error) => error,
        }
    }
}

fn build(
    engine: &Embedded,
    request: &BuildRequest,
    views: &Views,
    needs_manifest: bool,
) -> Result<Finished, BuildFailed> {
    let fail = |error: engine::EngineError| BuildFailed::Build(error.into());
    let built = engine.build_blocking(request, views.sink()).map_err(BuildFailed::Build)?;
    if !needs_manifest {
        let image = engine.image_blocking(&built).map_err(fail)?;
        return Ok(Finished { image, sealed: None, built });
    }
    let (image, sealed) = engine.seal_blocking(&built).map_err(fail)?;
    views.sink().emit(Event::ImageSealed { digest: sealed.digest.clone(), size_bytes: sealed.size_bytes });
    Ok(Finished { image, sealed: Some(sealed), built })
}

/// Names first: whoever pushes or saves finds the image by them.
fn deliver(
    store: &Store,
    finished: &Finished,
    names: &[Reference],
    outputs: &[Output],
    context: &Context,
    views: &Views,
    push: impl Fn(&Reference, &Image, &Transfers<'_>) -> anyhow::Result<transfer::Pushed>,
) -> Result<Vec<String>, BuildFailed> {
    let other = |error: anyhow::Error| BuildFailed::Other(error);
    for name in names {
        // One that is right already is not written again.
        let is_named = store.resolve(name).ok().flatten().is_some_and(|known| known.id == finished.image.id);
        if !is_named {
            let tagged = store.tag_relaxed(name, &finished.image.id).with_context(|| format!("cannot tag {name}"));
            tagged.map_err(other)?;
        }
        views.sink().emit(Event::TagWritten { reference: name.familiar(), digest: finished.digest() });
    }
    let mut pushed = Vec::new();
    for output in outputs {
        if context.cancel.is_cancelled() {
            return Err(BuildFailed::Build(engine::BuildError::Cancelled));
        }
        let written = output.write(store, &finished.image, names, |reference| {
            let progress = Transfers::new(views.sink(), "build");
            let done = push(reference, &finished.image, &progress)?;
            pushed.push(format!("{}@{}", reference.repository(), done.digest));
            Ok(())
        });
        written.map_err(other)?;
    }
    Ok(pushed)
}

/// `--iidfile` and `--metadata-file`.
fn write_files(args: &BuildArgs, context: &Context, finished: &Finished, names: &[Reference]) -> anyhow::Result<()> {
    if let Some(path) = &args.iidfile {
        fs_err::write(context.settings.cwd.join(path), finished.image.id.to_string())?;
    }
    if let (Some(path), Some(sealed)) = (&args.metadata_file, &finished.sealed) {
        let list: Vec<String> = names.iter().map(ToString::to_string).collect();
        let metadata = json!({
            "containerimage.digest": sealed.digest,
            "containerimage.config.digest": finished.image.id,
            "containerimage.descriptor": {
                "mediaType": sealed.manifest.media_type,
                "digest": sealed.digest,
                "size": sealed.bytes.len(),
                "platform": finished.image.config.platform(),
            },
            "image.name": list.join(","),
        });
        fs_err::write(context.settings.cwd.join(path), serde_json::to_string_pretty(&metadata)? + "\n")?;
    }
    Ok(())
}

fn show_result(
    args: &BuildArgs,
    format: &Format,
    finished: &Finished,
    names: &[Reference],
    views: &Views,
) -> anyhow::Result<()> {
    let value = json!({
        "Id": finished.image.id,
        "Digest": finished.digest(),
        "Tags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Size": finished.image.size_bytes,
        "Layers": finished.image.layers.len(),
        "Steps": finished.built.steps,
        "StepsCached": finished.built.steps_cached,
    });
    if let Some(line) = format.line(&value)? {
        terminal::result_line(&line);
    } else if args.quiet || views.progress == Progress::Quiet {
        terminal::result_line(&finished.image.id.to_string());
    }
    Ok(())
}

fn closing(finished: &Finished, names: &[Reference], pushed: &[String], duration_ms: u64, model: &Model) -> String {
    let palette = Palette::stderr();
    let image = &finished.image;
    let mut out = format!(
        "{} {}  {}…  {}, {}\n",
        palette.good("✓"),
        palette.strong(&format!("built in {}", text::millis(duration_ms))),
        &image.id.to_string()[..15],
        text::bytes(image.size_bytes),
        text::count(image.layers.len(), "layer"),
    );
    let steps = steps_words(&finished.built);
    let saved = finished.built.saved;
    let saved = if saved.as_secs() >= 1 { format!(" (saved {})", text::duration(saved)) } else { String::new() };
    let mut parts = vec![format!("{steps}{saved}")];
    if !names.is_empty() {
        parts.push(format!("tagged {}", names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ")));
    }
    if !pushed.is_empty() {
        parts.push(format!("pushed {}", pushed.join(", ")));
    }
    out.push_str(&format!("  {}\n", parts.join(" · ")));
    let miss = summary::miss_line(model);
    if !miss.is_empty() {
        out.push_str(&format!("  {miss}\n"));
    }
    let slow: Vec<String> = model
        .slowest
        .iter()
        .filter(|step| step.duration_ms >= 1000)
        .take(2)
        .map(|step| {
            let place = step.place.as_ref().map(|place| format!("{}:{} ", place.file, place.line)).unwrap_or_default();
            format!("{place}{} {}", text::fit(&step.text, 40), text::millis(step.duration_ms))
        })
        .collect();
    if !slow.is_empty() {
        out.push_str(&format!("  slowest: {}\n", slow.join(", ")));
    }
    out
}

/// `9 of 11 steps cached`.
fn steps_words(built: &Built) -> String {
    format!("{} of {} cached", built.steps_cached, text::count(built.steps, "step"))
}

fn directory_name(context: &Context) -> String {
    context.settings.cwd.file_name().map_or_else(|| "build".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A missing Dockerfile, with what helps.
pub(super) fn no_dockerfile(directory: &std::path::Path) -> Failure {
    Failure::usage(format!("there is no Dockerfile (nor Containerfile) in {}", directory.display()))
        .hint("name one with `-f FILE`, or the directory that has one: `seatrial build DIRECTORY`")
}
