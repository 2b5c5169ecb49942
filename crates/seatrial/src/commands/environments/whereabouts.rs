//! `seatrial where`: in which environments an image is, and was.

use serde_json::{Value, json};

use super::{
    DeskArgs,
    desk::{Asked, Desk},
    recorded,
    steps::{Counting, of_image, to_the_second},
};
use crate::{
    cli::FormatArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Flags of `seatrial where`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Environments are those of the pipeline file, in its order, then those that the image's records tell of; so \
    it answers for any image of any registry.\n\nExamples:\n  \
    seatrial where 1.4.2\n  \
    seatrial where registry.example/team/app@sha256:…"
)]
pub(crate) struct WhereArgs {
    /// The image: a tag or digest of the pipeline's repository, or a whole name
    image: String,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    desk: DeskArgs,
}

/// In which environments an image is now, and into which it came, each with the newest record.
pub(crate) fn find(args: &WhereArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = args.format.parse()?;
    let desk = Desk::open_for_reading(&args.desk, context)?;
    let image = match desk.image_of(&args.image)? {
        Asked::Image(image) => image,
        _ => {
            let failure = Failure::usage(format!("`{}` names no image: it has neither a tag nor a digest", args.image));
            return Err(match args.image.contains('/') {
                true => failure.hint(format!("see all of it: `seatrial history {}`", args.image)),
                false => failure.hint(format!("name all of it: `registry.example/team/app:{}`", args.image)),
            }
            .into());
        }
    };
    let (place, values) = context.block_on_cancellable(async {
        let target = desk.target(&image).await?;
        let repository = desk.repository_of(&target);
        let steps = of_image(&desk, &target.place, &target.digest).await?;
        let mut values = Vec::new();
        for environment in recorded::with_recorded(&desk, &repository, &steps) {
            let is_there = desk.tag(&repository, &environment).await?.as_ref() == Some(&target.digest);
            let counting = Counting::all(&environment);
            let of_environment = steps.iter().filter(|step| counting.counts(step)).map(|step| &step.promotion);
            let times = of_environment.clone().count();
            let last = of_environment.max_by(|one, other| one.time.cmp(&other.time));
            if !is_there && last.is_none() {
                continue;
            }
            values.push(json!({
                "Environment": environment.name, "Name": repository.with_tag(&environment.tag).to_string(),
                "Digest": target.digest, "Current": is_there, "Time": last.map(|last| last.time.as_str()),
                "By": last.map(|last| last.by.as_str()), "Records": times,
            }));
        }
        Ok((target.place, values))
    })?;
    if format != Format::Table {
        for value in &values {
            format.line(value)?.iter().for_each(|line| terminal::result_line(line));
        }
    } else if values.is_empty() {
        terminal::message_line(&format!("{} is in no environment", place.familiar()));
    } else {
        let rows: Vec<Vec<String>> = values.iter().map(row).collect();
        terminal::result(&table::render(&["ENVIRONMENT", "STATE", "CAME", "BY"], &rows));
    }
    Ok(Exit::Passed)
}

fn row(value: &Value) -> Vec<String> {
    let told = |field: &str| text::one_line(value[field].as_str().unwrap_or("-"));
    let state = if value["Current"] == true { "is there" } else { "was there" };
    vec![told("Environment"), state.to_owned(), to_the_second(&told("Time")), told("By")]
}
