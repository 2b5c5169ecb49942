//! `seatrial build`: docker's flags with docker's meaning.

mod annotations;
mod call;
mod flags;
mod metadata;
mod output;
mod run_flags;
mod source;
mod warnings;

use std::time::Instant;

use anyhow::Context as _;
use engine::{BuildRequest, Built};
use engine_embedded::Embedded;
use events::{Event, RunId, Verdict};
use oci::{Digest, Reference};
use serde_json::json;
use store::{Image, ManifestOptions, SealedManifest, Stop, Store};

use super::{
    cache::Caches,
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
use output::{Delivery, Output};
use source::LazyEngine;

pub(crate) use output::{Fields, compression, level};

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

impl Finished {
    /// Seals the image once more with its own steps in the manifest, and gives the annotation that holds them.
    fn with_inline_cache(
        &mut self,
        engine: &Embedded,
        store: &Store,
        mut options: ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<(String, String), BuildFailed> {
        let other = |error: store::StoreError| BuildFailed::Other(error.into());
        let layers = (&options).into();
        let (name, value) = engine.inline_cache(&self.image.layers, self.image.epoch, layers, stop).map_err(other)?;
        options.annotations.insert(name.clone(), value.clone());
        self.sealed = Some(store.manifest_or_stop(&self.image, &options, stop).map_err(other)?);
        Ok((name, value))
    }
}

/// Builds, names, writes and pushes an image as the flags say.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Exit> {
    args.refuse_what_is_missing()?;
    let caches = Caches::read(&args.cache, context)?;
    let engine = LazyEngine::new(context, &args.engine, &caches.imports);
    if let Some(call) = args.call()? {
        return call::run(call, &args.request(context, &engine)?, context);
    }
    let format = Format::parse(args.format.as_deref())?;
    let request = args.request(context, &engine)?;
    let warnings = warnings::check(&request, context)?;
    let outputs = Output::all(args, context)?;
    let tags: Vec<Reference> = args.tag.iter().map(named::with_default_tag).collect();
    // What goes by its digest has no tag, and so no name here.
    let named = outputs.iter().flat_map(Output::names).filter(|name| name.tag().is_some());
    let mut names = tags.clone();
    names.extend(named.cloned());

    let store = context.store()?;
    let engine = engine.get()?.clone();
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
    let cancel = context.cancel.clone();
    let is_stopped = || cancel.is_cancelled();
    let stop = Stop::when(&is_stopped);
    let made = outputs.iter().find_map(|output| output.manifest(&request.platform));
    let is_read = args.metadata_file.is_some() || format.reads("Digest");
    let manifest = made.or_else(|| is_read.then(ManifestOptions::default));
    let warn = |message| views.sink().emit(Event::Warning { message, place: None });
    let finished = build(&engine, &request, &views, manifest.as_ref(), stop).and_then(|mut finished| {
        let inline = match (caches.inline, manifest) {
            (true, Some(options)) => Some(finished.with_inline_cache(&engine, store, options, stop)?),
            _ => None,
        };
        let progress = Transfers::new(views.sink(), "build");
        let delivery = Delivery {
            context,
            store,
            image: &finished.image,
            names: &tags,
            inline: inline.as_ref(),
            stop,
            warn: &warn,
            push: &|reference, sealed| {
                context.block_on_cancellable(transfer::push_sealed(&client, store, reference, sealed, &progress))
            },
        };
        let pushed = deliver(&finished, &names, &outputs, &delivery, &views)?;
        caches.write(&engine, &finished.image, stop, &warn).map_err(BuildFailed::Other)?;
        Ok((finished, pushed))
    });
    // Whatever failed while the user's wish to stop was known, failed by it.
    let finished = finished.map_err(|error| match error {
        BuildFailed::Other(_) if is_stopped() => BuildFailed::Build(engine::BuildError::Cancelled),
        BuildFailed::Build(engine::BuildError::Engine(_)) if is_stopped() => {
            BuildFailed::Build(engine::BuildError::Cancelled)
        }
        error => error,
    });
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
            if let BuildFailed::Build(engine::BuildError::Invalid { kept: Some(root), .. }) = &error {
                record.kept.insert("build".to_owned(), (**root).clone());
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

    metadata::write(args, context, &finished, &names, run.number)?;
    if views.shows_summary() && views.progress != Progress::Quiet {
        terminal::message(&closing(&finished, &names, &pushed, duration_ms, &views.model()));
        terminal::message(&warnings::closing(&warnings));
    }
    show_result(args, &format, &finished, &names, &views)?;
    if let Some(words) = context.keep_limit(&args.engine).filter(|_| views.shows_summary()) {
        terminal::message_line(&words);
    }
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
    manifest: Option<&ManifestOptions>,
    stop: Stop<'_>,
) -> Result<Finished, BuildFailed> {
    let fail = |error: engine::EngineError| BuildFailed::Build(error.into());
    let built = engine.build_blocking(request, views.sink()).map_err(BuildFailed::Build)?;
    let Some(manifest) = manifest else {
        let image = engine.image_blocking(&built, stop).map_err(fail)?;
        return Ok(Finished { image, sealed: None, built });
    };
    let (image, sealed) = engine.seal_as(&built, manifest, stop).map_err(fail)?;
    views.sink().emit(Event::ImageSealed { digest: sealed.digest.clone(), size_bytes: sealed.size_bytes });
    Ok(Finished { image, sealed: Some(sealed), built })
}

/// Names first: whoever pushes or saves finds the image by them.
fn deliver(
    finished: &Finished,
    names: &[Reference],
    outputs: &[Output],
    delivery: &Delivery<'_>,
    views: &Views,
) -> Result<Vec<String>, BuildFailed> {
    let store = delivery.store;
    for name in names {
        // One that is right already is not written again.
        let is_named = store.resolve(name).ok().flatten().is_some_and(|known| known.id == finished.image.id);
        if !is_named {
            let tagged = store.tag_relaxed(name, &finished.image.id).with_context(|| format!("cannot tag {name}"));
            tagged.map_err(BuildFailed::Other)?;
        }
        views.sink().emit(Event::TagWritten { reference: name.familiar(), digest: finished.digest() });
    }
    let mut pushed = Vec::new();
    for output in outputs {
        pushed.extend(output.write(delivery).map_err(BuildFailed::Other)?);
    }
    Ok(pushed)
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
