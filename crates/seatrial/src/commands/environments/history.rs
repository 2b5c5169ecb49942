//! `seatrial history`: what came into the environments, or where one image came.

use evidence::NamedKey;
use oci::Reference;
use pipeline::EnvironmentPlan;
use registry::RegistryError;
use serde_json::Value;

use super::{
    DeskArgs,
    desk::{Asked, Desk},
    recorded,
    steps::{Counting, STEPS_MAX, entries, newest, of_image, row},
};
use crate::{
    cli::FormatArgs,
    context::Context,
    exit::Exit,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Behind every time in RFC 3339.
const NEWER_THAN_ALL: &str = "~";

/// Flags of `seatrial history`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Outside a repository environments are found by what their registry has recorded.\n\nExamples:\n  \
    seatrial history                               all environments of the pipeline file\n  \
    seatrial history production --limit 5          the last five that came there\n  \
    seatrial history 1.4.2                         where one image came\n  \
    seatrial history registry.example/team/app     all environments of any repository"
)]
pub(crate) struct HistoryArgs {
    /// An environment, an image (tag, digest or whole name), or a repository; all environments without it
    #[arg(value_name = "ENVIRONMENT|IMAGE")]
    what: Option<String>,
    /// So many, the newest; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    desk: DeskArgs,
}

/// What came when, the newest first.
pub(crate) fn history(args: &HistoryArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = args.format.parse()?;
    let desk = Desk::open_for_reading(&args.desk, context)?;
    let asked = desk.asked(args.what.as_deref())?;
    let limit = if args.limit == 0 { STEPS_MAX } else { args.limit };
    let mut values = context.block_on_cancellable(values(&desk, &asked, limit))?;
    values.sort_by(|(one, _), (other, _)| other.cmp(one));
    let mut values: Vec<Value> = values.into_iter().map(|(_, value)| value).collect();
    let more = values.len().saturating_sub(limit);
    values.truncate(limit);
    if format != Format::Table {
        for value in &values {
            format.line(value)?.iter().for_each(|line| terminal::result_line(line));
        }
        return Ok(Exit::Passed);
    }
    if values.is_empty() {
        terminal::message_line(&format!("nothing is recorded of {}", asked.words(&desk)));
        return Ok(Exit::Passed);
    }
    let rows: Vec<Vec<String>> = values.iter().map(row).collect();
    terminal::result(&table::render(&["ENVIRONMENT", "IMAGE", "CAME", "BY", "HOW", "RECORD"], &rows));
    if more > 0 {
        terminal::message_line(&format!(
            "these are the newest {}; see more with `--limit`",
            text::count(limit, "record")
        ));
    }
    Ok(Exit::Passed)
}

/// The records that are asked for, each with what it is ordered by, and of each environment one more than is shown, so that it can
/// be told that there are more.
async fn values(desk: &Desk, asked: &Asked, limit: usize) -> anyhow::Result<Vec<(String, Value)>> {
    let (repository, environments) = match asked {
        Asked::Image(image) => return of_one(desk, image).await,
        Asked::Environment(environment) => (desk.repository()?, vec![environment.clone()]),
        Asked::File => (desk.repository()?, desk.environments().to_vec()),
        Asked::Repository(repository) => (repository.clone(), Vec::new()),
    };
    let found = match recorded::of_tagged(desk, &repository).await {
        // Nothing was published yet; but a name that somebody typed should be there.
        Err(error) if !matches!(asked, Asked::Repository(_)) && is_absent(&error) => Vec::new(),
        found => found?,
    };
    let environments = match asked {
        Asked::Repository(repository) => recorded::of_repository(desk, repository, &found),
        _ => environments,
    };
    let mut values = Vec::new();
    for environment in &environments {
        let keys = desk.keys(environment)?;
        // Each line says who signed it, so here all of them are shown.
        let counting = Counting::all(environment);
        let all = recorded::of_environment(&found, &counting);
        let current = match (desk.tag(&repository, environment).await?, newest(all.iter())) {
            (Some(current), _) => current,
            (None, None) => continue,
            (None, Some(last)) => {
                terminal::warning(&format!("{} has nothing now: its tag is gone", environment.name));
                last.digest.clone()
            }
        };
        // What is not recorded came before what followed it, and last of all where nothing did.
        let mut time = NEWER_THAN_ALL.to_owned();
        for entry in entries(desk, &counting, &repository, &current, &all, limit.saturating_add(1)).await? {
            time = entry.step().map_or(time, |step| step.promotion.time.clone());
            values.push((time.clone(), entry.value(environment, &repository, &keys)));
        }
    }
    Ok(values)
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<RegistryError>().is_some_and(RegistryError::is_not_found)
}

async fn of_one(desk: &Desk, image: &Reference) -> anyhow::Result<Vec<(String, Value)>> {
    let target = desk.target(image).await?;
    let repository = desk.repository_of(&target);
    let known: &[EnvironmentPlan] = desk.environments_of(&repository);
    let mut values = Vec::new();
    for step in of_image(desk, &target.place, &target.digest).await? {
        let environment = known.iter().find(|environment| environment.name == step.promotion.environment);
        let keys: Vec<NamedKey> =
            environment.map(|environment| desk.keys(environment)).transpose()?.unwrap_or_default();
        values.push((step.promotion.time.clone(), step.value(&repository, &keys)));
    }
    Ok(values)
}
