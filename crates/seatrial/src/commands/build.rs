//! `seatrial build`: docker's flags with docker's meaning.

mod annotations;
mod attest;
mod call;
mod commit;
mod finished;
mod flags;
mod metadata;
mod output;
mod run_flags;
mod source;
pub(super) mod warnings;

use std::time::Instant;

use anyhow::Context as _;
use engine::{BuildRequest, Built};
use events::{Event, RunId, Verdict};
use oci::Reference;
use serde_json::json;
use store::Stop;

use super::{
    cache::Caches,
    named,
    record::RunRecord,
    sign::{self, Signable},
    transfer::{self, Transfers},
};
use crate::{
    cli::Progress,
    context::Context,
    exit::Exit,
    failure::{self, Failure},
    terminal::{self, Palette, model::Model, summary, table::Format, text, views::Views},
};

pub(crate) use attest::is_value as is_attestation_value;
use attest::{Said, Speaker};
use finished::{Finished, Wanted};
pub(crate) use flags::BuildArgs;
use output::{Delivery, Output};
use source::LazyEngine;

pub(crate) use output::{Fields, compression, level};

/// Ends the help.
pub(crate) const FILE_TIMES: &str = "File times later than SOURCE_DATE_EPOCH are set to it. Where it is not given: later \
    than the commit of the Git repository that the context lies in (changes that are not committed are dated so as \
    well), or than the newest file of the context outside of Git.";

/// Builds, names, writes and pushes an image as the flags say.
pub(crate) fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Exit> {
    if let Some(name) = args.pipeline_image() {
        return super::run::build(name, &args.for_pipeline()?, context);
    }
    let caches = Caches::read(&args.cache, context)?;
    let engine = LazyEngine::new(context, args, &caches.imports);
    if let Some(call) = args.call()? {
        return call::run(call, &args.request(context, &engine)?.0, context);
    }
    let format = Format::parse(args.format.as_deref())?;
    let attestations = args.attestations()?;
    let (request, context_material) = args.request(context, &engine)?;
    let warnings = warnings::check(&request, context)?;
    let mut requests = for_platforms(request, args.platforms()?);
    let outputs = Output::all(args, context)?;
    let tags: Vec<Reference> = args.tag.iter().map(named::with_default_tag).collect();
    // What goes by its digest has no tag, and so no name here.
    let named = outputs.iter().flat_map(Output::names).filter(|name| name.tag().is_some());
    let mut names = tags.clone();
    names.extend(named.cloned());

    let store = context.store()?;
    let commit = commit::time(&requests[0], store);
    requests.iter_mut().for_each(|request| request.epoch = request.epoch.or(commit.known));
    let engine = engine.get()?.clone();
    let client = context.client(&args.engine.insecure_registry);
    let signer = sign::open(args.sign_key.as_deref(), context)?;
    let run = store.new_run().context("cannot record a run in the store")?;
    let title = names.first().map_or_else(|| directory_name(context), Reference::familiar);
    let views = Views::open(args.progress(), context.settings.ci, Some(&run.path));
    views.sink().emit(Event::RunStarted {
        run: RunId(run.number),
        name: title.clone(),
        commit: None,
        branch: None,
        stages: requests.iter().map(|request| request.stage.clone()).collect(),
    });

    let started = Instant::now();
    let scope =
        attestations.is_any().then(|| store.open_scope()).transpose().context("cannot open a scope in the store")?;
    let speaker = Speaker::new(&attestations, &requests[0], context_material, names.first().cloned(), run.number);
    for request in &requests {
        views.sink().emit(Event::StageStarted { stage: request.stage.clone() });
    }
    context.watch_signals();
    let cancel = context.cancel.clone();
    let is_stopped = || cancel.is_cancelled();
    let stop = Stop::when(&is_stopped);
    let is_read = args.metadata_file.is_some() || format.reads("Digest");
    let (speaker, scope) = (speaker.as_ref(), scope.as_ref());
    let is_index_kept = !names.is_empty() || outputs.iter().any(Output::has_index);
    let wanted =
        Wanted { outputs: &outputs, is_read, inline_cache: caches.inline, speaker, scope, is_index_kept, stop };
    let warn = |message| views.sink().emit(Event::Warning { message, place: None });
    commit.remark.into_iter().for_each(warn);
    let sign = signer.as_ref().map(|signer| {
        |image: &Reference, signables: &[Signable]| {
            context.block_on_cancellable(async { sign::attach_all(&client, image, signables, signer).await.map(drop) })
        }
    });
    let finished = Finished::build(&engine, store, &requests, &views, wanted).and_then(|(finished, parts)| {
        let progress = Transfers::new(views.sink(), "build");
        let delivery = Delivery {
            context,
            store,
            parts: &parts,
            names: &tags,
            stop,
            warn: &warn,
            push: &|reference, sealed| {
                context.block_on_cancellable(transfer::push_sealed(&client, store, reference, sealed, &progress))
            },
            push_index: &|reference, index| {
                context.block_on_cancellable(transfer::push_index(&client, store, reference, index, &progress))
            },
            scope,
            sign: sign.as_ref().map(|sign| sign as &output::Sign<'_>),
        };
        let pushed = deliver(&finished, &names, &outputs, &delivery, &views)?;
        caches.write(&engine, &finished.images(), stop, &warn).map_err(BuildFailed::Other)?;
        let provenance = parts.iter().map(|part| part.said.as_ref().and_then(Said::provenance_value)).collect();
        Ok((finished, pushed, provenance))
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
    for request in &requests {
        let of_platform = |finished: &Finished| {
            let made = finished.made.iter().find(|made| made.image.config.platform() == request.platform);
            let made = made.unwrap_or(finished.first());
            format!("{}, {}", text::bytes(made.image.size_bytes), steps_words(&made.built))
        };
        let summary = match &finished {
            Ok((finished, ..)) => of_platform(finished),
            Err(BuildFailed::Build(engine::BuildError::Step(step))) => summary::exit_words(&step.exit),
            Err(_) => String::new(),
        };
        views.sink().emit(Event::StageFinished { stage: request.stage.clone(), verdict, duration_ms, summary });
    }
    views.sink().emit(Event::RunFinished { verdict, duration_ms });
    views.finish();

    let mut record = RunRecord::new("build", &title, verdict, duration_ms);
    let (finished, pushed, provenance): (_, _, Vec<_>) = match finished {
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
    record.image = Some(finished.first().image.id.to_string());
    record.write(&run);

    metadata::write(args, context, &finished, &names, &provenance, run.number)?;
    if views.shows_summary() && views.progress != Progress::Quiet {
        terminal::message(&closing(&finished, &names, &pushed, duration_ms, &views.model()));
        terminal::message(&warnings::closing(&warnings, "repeat with `--check` to expand"));
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

/// One request for each platform.
fn for_platforms(request: BuildRequest, platforms: Vec<oci::Platform>) -> Vec<BuildRequest> {
    if platforms.len() == 1 {
        return vec![request];
    }
    let of = |platform: oci::Platform| BuildRequest {
        stage: format!("{} {platform}", request.stage),
        platform,
        ..request.clone()
    };
    platforms.into_iter().map(of).collect()
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
    let kept = if names.is_empty() {
        Vec::new()
    } else {
        output::kept_beside(outputs, delivery).map_err(BuildFailed::Other)?
    };
    for name in names {
        // One that is right already is not written again.
        let known = store.resolve_all(name).unwrap_or_default();
        // What cannot be read any more is written over as well.
        let is_said = !kept.is_empty() || !store.kept_beside(name).is_ok_and(|kept| kept.is_empty());
        if is_said || !known.iter().map(|image| &image.id).eq(finished.made.iter().map(|made| &made.image.id)) {
            let tagged = store.tag_all_with(name, &finished.images(), &kept, false);
            tagged.with_context(|| format!("cannot tag {name}")).map_err(BuildFailed::Other)?;
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
    let first = finished.first();
    let mut value = json!({
        "Id": finished.id(),
        "Digest": finished.digest(),
        "Tags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Size": first.image.size_bytes,
        "Layers": first.image.layers.len(),
        "Steps": finished.made.iter().map(|made| made.built.steps).sum::<usize>(),
        "StepsCached": finished.made.iter().map(|made| made.built.steps_cached).sum::<usize>(),
    });
    if finished.made.len() > 1 {
        let of = |made: &finished::Made| {
            let digest = made.sealed.as_ref().map(|sealed| sealed.digest.clone());
            json!({"Platform": made.image.config.platform().to_string(), "Id": made.image.id, "Digest": digest})
        };
        value["Platforms"] = finished.made.iter().map(of).collect();
    }
    if let Some(line) = format.line(&value)? {
        terminal::result_line(&line);
    } else if args.quiet || views.progress == Progress::Quiet {
        terminal::result_line(&finished.id().to_string());
    }
    Ok(())
}

fn closing(finished: &Finished, names: &[Reference], pushed: &[String], duration_ms: u64, model: &Model) -> String {
    let palette = Palette::stderr();
    let mut out =
        format!("{} {}", palette.good("✓"), palette.strong(&format!("built in {}", text::millis(duration_ms))),);
    let is_one = finished.made.len() == 1;
    for made in &finished.made {
        let platform = made.image.config.platform().to_string();
        let lead = if is_one { String::new() } else { format!("\n  {platform}") };
        out.push_str(&format!(
            "{lead}  {}…  {}, {}",
            &made.image.id.to_string()[..15],
            text::bytes(made.image.size_bytes),
            text::count(made.image.layers.len(), "layer"),
        ));
    }
    out.push('\n');
    let mut total = finished.first().built.clone();
    for made in &finished.made[1..] {
        total.steps += made.built.steps;
        total.steps_cached += made.built.steps_cached;
        total.saved += made.built.saved;
    }
    let steps = steps_words(&total);
    let saved = total.saved;
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
