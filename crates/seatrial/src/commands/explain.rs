//! `seatrial explain`: the long text behind a code or a rule, or why the steps of a build were made.

mod cause;
mod record;
mod topic;

use events::Cause;
use serde_json::json;

use super::{
    logs::{find_run, is_run},
    named,
};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};
use record::{BuildRecord, StepRecord};
#[cfg(test)]
pub(crate) use topic::example;

/// Flags of `seatrial explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seatrial explain ST104                   what a code means\n  \
    seatrial explain last                    why steps of the last run were made\n  \
    seatrial explain 41 Dockerfile:12        the same of one step, with all that is known\n  \
    seatrial explain app:1.2 'pip install'   a step of the run that built an image")]
pub(crate) struct ExplainArgs {
    /// A code such as ST104, the name of a rule, the number of a run (or `last`), or the name or id of an image; without
    /// one, codes are listed
    #[arg(value_name = "CODE|RULE|RUN|IMAGE")]
    topic: Option<String>,
    /// A step of the build: its number, its line (`Dockerfile:12`), or a part of its text
    step: Option<String>,
    /// All codes and rules with their whole text
    #[arg(long, conflicts_with = "topic")]
    all: bool,
    /// `json` for one step a line, or a template such as `{{.Reason}}`
    #[arg(long)]
    format: Option<String>,
}

impl ExplainArgs {
    /// Codes and rules are explained without a store.
    pub(crate) fn is_topic(&self) -> bool {
        self.step.is_none() && self.topic.as_ref().is_none_or(|topic| !topic::find(topic).is_empty())
    }
}

/// Prints an explanation.
pub(crate) fn run(args: &ExplainArgs, context: &Context) -> anyhow::Result<Exit> {
    let Some(wanted) = &args.topic else {
        terminal::result(&if args.all { topic::all() } else { topic::list() });
        return Ok(Exit::Passed);
    };
    if args.is_topic() {
        terminal::result(&topic::texts(&topic::find(wanted)));
        return Ok(Exit::Passed);
    }
    build(args, wanted, context)
}

/// Explains the steps of a build.
fn build(args: &ExplainArgs, wanted: &str, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let record = find(wanted, context)?;
    let steps = match &args.step {
        Some(step) => vec![record.find(step)?],
        None => record.steps.iter().collect(),
    };
    if format != Format::Table {
        for step in steps {
            if let Some(line) = format.line(&value(&record, step))? {
                terminal::result_line(&line);
            }
        }
        return Ok(Exit::Passed);
    }
    if args.step.is_some() {
        steps.iter().for_each(|step| terminal::result(&whole(&record, step)));
        return Ok(Exit::Passed);
    }
    terminal::result_line(&record.title());
    if steps.is_empty() {
        terminal::message_line("it has no steps: nothing in it was built");
        return Ok(Exit::Passed);
    }
    let rows: Vec<Vec<String>> = steps.iter().map(|step| row(step)).collect();
    terminal::result(&table::render(&["STEP", "PLACE", "INSTRUCTION", "TOOK", "CACHE"], &rows));
    // The first step that was made for a reason of its own is the one that people ask about.
    if let Some(step) = steps.iter().find(|step| step.cause.as_ref().is_some_and(Cause::is_telling)) {
        terminal::message_line(&format!(
            "\nmore of a step: `seatrial explain {} {}`",
            record.run,
            step.line().unwrap_or_else(|| step.number.to_string())
        ));
    }
    Ok(Exit::Passed)
}

/// The build of a run, or of the run that built an image.
fn find(wanted: &str, context: &Context) -> anyhow::Result<BuildRecord> {
    let store = context.store()?;
    if is_run(wanted) {
        return BuildRecord::read(&find_run(store, wanted)?);
    }
    let image = match named::find(store, wanted) {
        Ok((_, image)) => image,
        Err(error) => return Err(unknown(wanted, error)),
    };
    let Some(run) = record::run_of_image(store, &image.id.to_string())? else {
        return Err(Failure::refused(format!("no run that is recorded here built {wanted}"))
            .hint("it was loaded, pulled or made by `base`, or its run was cleaned; see `seatrial logs`")
            .hint(format!("its instructions are shown by `seatrial layers {wanted}`"))
            .into());
    };
    BuildRecord::read(&run)
}

/// Neither a code nor a rule nor a run nor an image.
fn unknown(wanted: &str, no_image: anyhow::Error) -> anyhow::Error {
    if let Some(near) = topic::nearest(wanted) {
        return Failure::usage(format!("there is nothing called `{wanted}` to explain"))
            .hint(format!("did you mean `seatrial explain {near}`?"))
            .into();
    }
    match no_image.downcast::<Failure>() {
        // The hint at a similar image helps here too.
        Ok(failure) => {
            let mut failure = failure.hint("see all codes with `seatrial explain`, and all runs with `seatrial logs`");
            failure.exit = Exit::Usage;
            failure.message = format!("there is nothing called `{wanted}` to explain");
            failure.into()
        }
        Err(_) => Failure::usage(format!("there is nothing called `{wanted}` to explain"))
            .hint("see all codes with `seatrial explain`")
            .into(),
    }
}

/// Columns of an instruction in the table.
const INSTRUCTION_COLUMNS: usize = 48;

fn row(step: &StepRecord) -> Vec<String> {
    vec![
        step.number.to_string(),
        step.line().unwrap_or_default(),
        text::fit(&text::one_line(&step.text), INSTRUCTION_COLUMNS),
        step.duration_ms.filter(|_| !step.is_cached).map(text::millis).unwrap_or_else(|| "-".into()),
        text::one_line(&step.reason()),
    ]
}

/// All that is known of one step.
fn whole(record: &BuildRecord, step: &StepRecord) -> String {
    let mut out = format!("step {} of run {}: {}\n", step.number, record.run, text::multi_line(&step.text));
    if let Some(place) = &step.place {
        out.push_str(&format!(" --> {}:{}:{}\n", text::one_line(&place.file), place.line, place.column));
    }
    out.push('\n');
    match (&step.cause, step.is_cached) {
        (_, true) => {
            let saved = step.saved_ms.map(|ms| format!("; making it took {}", text::millis(ms))).unwrap_or_default();
            out.push_str(&format!("taken from the cache{saved}\n"));
        }
        (Some(cause), _) => out.push_str(&cause::whole(cause, record.has_pipeline_file)),
        (None, _) if step.duration_ms.is_none() => out.push_str("it did not end: the run was cancelled or killed\n"),
        (None, _) => out.push_str("made; the run's record does not say why\n"),
    }
    if let Some(code) = step.exit_code.filter(|code| *code != 0) {
        out.push_str(&format!("it exited {code}: see `seatrial logs {} {}`\n", record.run, step.stage));
    }
    if let Some(Cause::EarlierStep { step: Some(earlier), .. }) = &step.cause {
        out.push_str(&format!("\nwhy that one: `seatrial explain {} {earlier}`\n", record.run));
    }
    out
}

fn value(record: &BuildRecord, step: &StepRecord) -> serde_json::Value {
    json!({
        "Run": record.run,
        "Stage": step.stage,
        "Step": step.number,
        "Text": step.text,
        "Place": step.place,
        "Cached": step.is_cached,
        "ExitCode": step.exit_code,
        "DurationMs": step.duration_ms,
        "SavedMs": step.saved_ms,
        "Reason": step.reason(),
        "Cause": step.cause,
    })
}
