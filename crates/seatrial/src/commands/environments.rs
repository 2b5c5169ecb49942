//! `promote`, `approve`, `rollback`, `history`, `where`: one digest walks from environment to environment.
//!
//! A tag of the repository stands for each environment, so that whoever deploys needs nothing of ours. It moves on the
//! condition that it still names what was looked at. Then a statement says what came where; what came before is found by these
//! statements, each of which names its predecessor.

mod desk;
mod verify;

use std::{collections::BTreeSet, path::PathBuf, time::SystemTime};

use evidence::{
    NamedKey, PublicKey, Signer,
    promotion::{Approval, PROMOTION, Promotion, Record, records},
};
use oci::{Digest, Reference};
use pipeline::EnvironmentPlan;
use serde_json::{Value, json};

use self::desk::{Desk, Target};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Steps that a history is followed back at most.
const STEPS_MAX: usize = 1000;

/// Flags of all of them.
#[derive(Debug, clap::Args)]
struct DeskArgs {
    /// This pipeline file instead of the nearest seatrial.yaml
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Flags of those that write.
#[derive(Debug, clap::Args)]
struct SignArgs {
    /// Private key that signs the record: a file, `env://NAME` or `exec://PROGRAM`
    #[arg(short, long, value_name = "KEY")]
    key: Option<String>,
    /// Who does it, for the record [default: the CI system's user, else this machine's]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// Flags of `seatrial promote`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seatrial promote 1.4.2 staging                 a tag of the repository that the pipeline file names\n  \
    seatrial promote registry.example/team/app@sha256:… production --key env://RELEASE_KEY")]
pub(crate) struct PromoteArgs {
    /// The image: a tag or digest of the pipeline's repository, or a whole name
    image: String,
    /// Where to
    environment: String,
    /// Only say whether it may
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// `json`, or a template such as `{{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    desk: DeskArgs,
}

/// Flags of `seatrial approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The image: a tag or digest of the pipeline's repository, or a whole name
    image: String,
    /// Where to
    environment: String,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    desk: DeskArgs,
}

/// Flags of `seatrial rollback`.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The environment
    environment: String,
    /// The image to go back to [default: the one before]
    #[arg(long, value_name = "IMAGE")]
    to: Option<String>,
    /// Only say what it would be
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    desk: DeskArgs,
}

/// Flags of `seatrial history`.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// One environment; all without a name
    environment: Option<String>,
    /// `json` for a line each, or a template such as `{{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    desk: DeskArgs,
}

/// Flags of `seatrial where`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhereArgs {
    /// The image: a tag or digest of the pipeline's repository, or a whole name
    image: String,
    /// `json` for a line each, or a template such as `{{.Environment}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    desk: DeskArgs,
}

/// Verifies, moves the tag, writes the record.
pub(crate) fn promote(args: &PromoteArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let desk = Desk::open(&args.desk, context)?;
    let environment = desk.environment(&args.environment)?;
    let signer = args.sign.signer(context)?;
    let (target, verified) = context.block_on_cancellable(async {
        let target = desk.target(&desk.image(&args.image)?).await?;
        let verified = verify::verify(&desk, environment, &target).await?;
        Ok((target, verified))
    })?;
    for check in &verified.checks {
        terminal::message_line(&check.line());
    }
    if let Some(missing) = verified.missing(environment, &target) {
        return Err(missing.into());
    }
    let now = desk.block_on_tag(environment, context)?;
    if args.dry_run {
        let state = if now.as_ref() == Some(&target.digest) { "is there already" } else { "would move there" };
        terminal::message_line(&format!("{} {state}: {}", environment.name, target.place.familiar()));
        return Ok(Exit::Passed);
    }
    let moved = Move { action: "promote", by: args.sign.by(context), approved_by: verified.approved_by };
    let is_new = moved.carry_out(&desk, environment, &target, now, signer.as_ref(), context)?;
    let tag = desk.repository_of(&target).with_tag(&environment.tag);
    let value = json!({
        "Environment": environment.name, "Name": tag.to_string(), "Digest": target.digest, "Moved": is_new,
        "Signed": signer.is_some(),
    });
    match format.line(&value)? {
        Some(line) => terminal::result_line(&line),
        None => terminal::result_line(&format!("{tag}@{}", target.digest)),
    }
    Ok(Exit::Passed)
}

/// Signs that an image may come.
pub(crate) fn approve(args: &ApproveArgs, context: &Context) -> anyhow::Result<Exit> {
    let desk = Desk::open(&args.desk, context)?;
    let environment = desk.environment(&args.environment)?;
    let signer = args.sign.signer(context)?.ok_or_else(|| {
        Failure::usage("an approval needs a key: without one anybody could have written it")
            .hint(format!("sign it: `seatrial approve {} {} --key FILE`", args.image, environment.name))
    })?;
    let keys = desk.keys(environment)?;
    let name = keys.iter().find(|named| named.key == *signer.public()).map(|named| named.name.clone());
    let Some(name) = name.filter(|name| environment.approve.contains(name)) else {
        return Err(Failure::refused(format!("this key approves nothing for {}", environment.name))
            .hint("the pipeline file says whose approval counts: `approve`, and their public keys in `keys`")
            .into());
    };
    context.block_on_cancellable(async {
        let target = desk.target(&desk.image(&args.image)?).await?;
        let approval = Approval::new(&environment.name, &args.sign.by(context), SystemTime::now());
        let statement = approval.statement(&target.place.repository(), &target.digest);
        desk.record(&target, &statement, Some(&signer)).await?;
        terminal::message_line(&format!("{name} approves {} for {}", target.place.familiar(), environment.name));
        Ok(())
    })?;
    Ok(Exit::Passed)
}

/// Back to what was there before.
pub(crate) fn rollback(args: &RollbackArgs, context: &Context) -> anyhow::Result<Exit> {
    let desk = Desk::open(&args.desk, context)?;
    let environment = desk.environment(&args.environment)?;
    let signer = args.sign.signer(context)?;
    let repository = desk.repository()?;
    let now = desk.block_on_tag(environment, context)?;
    let Some(current) = now.clone() else {
        return Err(Failure::refused(format!("nothing has come into {} yet", environment.name)).into());
    };
    let target = context.block_on_cancellable(async {
        let steps = steps(&desk, environment, &repository, &current).await?;
        let wanted = match &args.to {
            Some(image) => Some(desk.target(&desk.image(image)?).await?.digest),
            // A way back is not gone again: behind a rollback the one before its target is meant.
            None => former(&steps, &current),
        };
        let wanted = wanted.ok_or_else(|| {
            Failure::refused(format!("what {} had before is not recorded", environment.name))
                .hint(format!("name it: `seatrial rollback {} --to IMAGE`", environment.name))
        })?;
        if !steps.iter().any(|step| step.digest == wanted || step.promotion.from.as_ref() == Some(&wanted)) {
            let message = format!("{} was never in {}", wanted.short(), environment.name);
            return Err(Failure::refused(message).hint("promote it: `seatrial promote`").into());
        }
        desk.target(&repository.with_digest(wanted)).await
    })?;
    if args.dry_run {
        terminal::message_line(&format!("{} would go back to {}", environment.name, target.place.familiar()));
        return Ok(Exit::Passed);
    }
    let moved = Move { action: "rollback", by: args.sign.by(context), approved_by: Vec::new() };
    moved.carry_out(&desk, environment, &target, now, signer.as_ref(), context)?;
    terminal::result_line(&format!("{}@{}", repository.with_tag(&environment.tag), target.digest));
    Ok(Exit::Passed)
}

/// The digest before this one that is not itself what a rollback left behind.
fn former(steps: &[Step], current: &Digest) -> Option<Digest> {
    let is_back = steps.first().is_some_and(|step| step.promotion.action == "rollback");
    if !is_back {
        return steps.first()?.promotion.from.clone().filter(|from| from != current);
    }
    // Where this image came in for the first time, and what was there then.
    let first = steps.iter().rev().find(|step| step.digest == *current && step.promotion.action == "promote")?;
    first.promotion.from.clone()
}

/// What came when, the newest first.
pub(crate) fn history(args: &HistoryArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let desk = Desk::open(&args.desk, context)?;
    let chosen: &[EnvironmentPlan] = match &args.environment {
        Some(name) => std::slice::from_ref(desk.environment(name)?),
        None => desk.environments(),
    };
    let repository = desk.repository()?;
    let mut rows = Vec::new();
    for environment in chosen {
        let keys = desk.keys(environment)?;
        let Some(current) = desk.block_on_tag(environment, context)? else { continue };
        let steps = context.block_on_cancellable(steps(&desk, environment, &repository, &current))?;
        for step in steps {
            let value = step.value(environment, &keys);
            if let Some(line) = format.line(&value)? {
                terminal::result_line(&line);
            }
            rows.push(step.row(environment, &value));
        }
    }
    if format == Format::Table {
        if rows.is_empty() {
            terminal::message_line("nothing is recorded");
        } else {
            terminal::result(&table::render(&["ENVIRONMENT", "IMAGE", "CAME", "BY", "HOW", "RECORD"], &rows));
        }
    }
    Ok(Exit::Passed)
}

/// In which environments an image is now, and into which it came.
pub(crate) fn find(args: &WhereArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let desk = Desk::open(&args.desk, context)?;
    let (target, records) = context.block_on_cancellable(async {
        let target = desk.target(&desk.image(&args.image)?).await?;
        let records = records(&desk.client, &target.place, PROMOTION).await?;
        Ok((target, records))
    })?;
    let promotions: Vec<Promotion> = records.iter().filter_map(Record::promotion).collect();
    let mut rows = Vec::new();
    for environment in desk.environments() {
        let is_there = desk.block_on_tag(environment, context)?.as_ref() == Some(&target.digest);
        let of_environment = promotions.iter().filter(|promotion| promotion.environment == environment.name);
        let last = of_environment.max_by(|one, other| one.time.cmp(&other.time));
        if !is_there && last.is_none() {
            continue;
        }
        let value = json!({
            "Environment": environment.name, "Digest": target.digest, "Current": is_there,
            "Time": last.map(|last| last.time.as_str()), "By": last.map(|last| last.by.as_str()),
        });
        if let Some(line) = format.line(&value)? {
            terminal::result_line(&line);
        }
        let state = if is_there { "is there" } else { "was there" };
        let told = |field: &str| text::one_line(value[field].as_str().unwrap_or("-"));
        rows.push(vec![environment.name.clone(), state.to_owned(), to_the_second(&told("Time")), told("By")]);
    }
    if format == Format::Table {
        if rows.is_empty() {
            terminal::message_line(&format!("{} is in no environment", target.place.familiar()));
        } else {
            terminal::result(&table::render(&["ENVIRONMENT", "STATE", "CAME", "BY"], &rows));
        }
    }
    Ok(Exit::Passed)
}

/// One entry of a history.
struct Step {
    digest: Digest,
    promotion: Promotion,
    record: Record,
}

impl Step {
    fn value(&self, environment: &EnvironmentPlan, keys: &[NamedKey]) -> Value {
        let public: Vec<PublicKey> = keys.iter().map(|named| named.key.clone()).collect();
        let record = match (self.record.is_unsigned(), self.record.signer(&self.digest, &public)) {
            (true, _) => "unsigned".to_owned(),
            (false, Some(key)) => format!("signed by {}", names(keys, key).unwrap_or_else(|| key.hint())),
            (false, None) => "signed by an unknown key".to_owned(),
        };
        let Promotion { action, from, by, time, approved_by, .. } = &self.promotion;
        json!({
            "Environment": environment.name, "Digest": self.digest, "From": from, "Action": action, "By": by,
            "Time": time, "ApprovedBy": approved_by, "Record": record,
        })
    }

    fn row(&self, environment: &EnvironmentPlan, value: &Value) -> Vec<String> {
        let told = |field: &str| text::one_line(value[field].as_str().unwrap_or_default());
        let digest = self.digest.short().to_owned();
        vec![environment.name.clone(), digest, to_the_second(&told("Time")), told("By"), told("Action"), told("Record")]
    }
}

/// `2026-01-02T03:04:05.678901Z` for people.
fn to_the_second(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// The history of an environment by its records: each names what was there before.
async fn steps(
    desk: &Desk,
    environment: &EnvironmentPlan,
    repository: &Reference,
    current: &Digest,
) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut next = Some(current.clone());
    let mut seen = BTreeSet::new();
    while let Some(digest) = next.take() {
        let found = records(&desk.client, &repository.with_digest(digest.clone()), PROMOTION).await?;
        let before = steps.last().map(|step| step.promotion.time.clone());
        // An image may come several times: the entry before this one, not a later one.
        let of_here = found.into_iter().filter_map(|record| Some((record.promotion()?, record)));
        let fitting = of_here.filter(|(promotion, _)| {
            promotion.environment == environment.name && before.as_ref().is_none_or(|before| promotion.time <= *before)
        });
        let fitting = fitting.filter(|(promotion, _)| !seen.contains(&(digest.clone(), promotion.time.clone())));
        let Some((promotion, record)) = fitting.max_by(|one, other| one.0.time.cmp(&other.0.time)) else { break };
        seen.insert((digest.clone(), promotion.time.clone()));
        next = promotion.from.clone().filter(|_| steps.len() < STEPS_MAX);
        steps.push(Step { digest, promotion, record });
    }
    Ok(steps)
}

/// A tag that moves.
struct Move {
    action: &'static str,
    by: String,
    approved_by: Vec<String>,
}

impl Move {
    /// Moves the tag, then tells it. Whether it moved at all.
    fn carry_out(
        self,
        desk: &Desk,
        environment: &EnvironmentPlan,
        target: &Target,
        now: Option<Digest>,
        signer: Option<&Signer>,
        context: &Context,
    ) -> anyhow::Result<bool> {
        if now.as_ref() == Some(&target.digest) {
            terminal::message_line(&format!("{} is in {} already", target.place.familiar(), environment.name));
            return Ok(false);
        }
        let promotion = Promotion {
            environment: environment.name.clone(),
            action: self.action.to_owned(),
            tag: environment.tag.clone(),
            from: now.clone(),
            by: self.by,
            time: Promotion::stamp(SystemTime::now()),
            approved_by: self.approved_by,
        };
        let statement = promotion.statement(&target.place.repository(), &target.digest);
        context.block_on_cancellable(async {
            desk.move_tag(environment, target, now).await?;
            desk.record(target, &statement, signer).await.map_err(|error| {
                error.context(format!("{} has moved, and that could not be recorded", environment.name))
            })
        })?;
        Ok(true)
    }
}

/// Keys with the names of their files.
fn names(keys: &[NamedKey], wanted: &PublicKey) -> Option<String> {
    keys.iter().find(|named| named.key == *wanted).map(|named| named.name.clone())
}
