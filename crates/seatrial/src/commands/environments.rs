//! `promote`, `approve`, `rollback`, `history`, `where`: one digest walks from environment to environment.
//!
//! A tag of the repository stands for each environment, so that whoever deploys needs nothing of ours. It moves on the
//! condition that it still names what was looked at. Then a statement says what came where; what came before is found by these
//! statements, each of which names its predecessor.

mod desk;
mod history;
mod recorded;
mod steps;
mod verify;
mod whereabouts;

use std::{path::PathBuf, time::SystemTime};

use evidence::{
    NamedKey, PublicKey, Signer,
    promotion::{Approval, Promotion},
};
use oci::Digest;
use pipeline::EnvironmentPlan;
use serde_json::json;

use self::{
    desk::{Desk, Target},
    steps::{Counting, Entry, STEPS_MAX, Step, entries, former, newest, of_image},
};
pub(crate) use self::{
    history::{HistoryArgs, history},
    whereabouts::{WhereArgs, find},
};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::{self, Failure},
    terminal::{self, table::Format},
};

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
    let now = desk.block_on_tag(&desk.repository_of(&target), environment, context)?;
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
    let now = desk.block_on_tag(&repository, environment, context)?;
    let Some(current) = now.clone() else {
        return Err(Failure::refused(format!("nothing has come into {} yet", environment.name)).into());
    };
    let target = context.block_on_cancellable(async {
        let counting = desk.counting(environment)?;
        let named = match &args.to {
            Some(image) => {
                let digest = desk.target(&desk.image(image)?).await?.digest;
                let target = desk.target(&repository.with_digest(digest)).await?;
                // What its own records tell needs no look at those of others.
                if verify::was_in(&desk, environment, &target).await?.is_ok() {
                    return Ok(target);
                }
                Some(target.digest)
            }
            None => None,
        };
        let all = recorded::of_environment(&recorded::of_tagged_if_shown(&desk, &repository).await?, &counting);
        let entries = entries(&desk, &counting, &repository, &current, &all, STEPS_MAX).await?;
        // Its own records were asked already.
        let is_unknown = named.is_some();
        let wanted = named.or_else(|| before(&entries, &all, &current)).ok_or_else(|| {
            let failure = Failure::refused(format!("what {} had before is not recorded", environment.name))
                .hint(format!("name it: `seatrial rollback {} --to IMAGE`", environment.name));
            if counting.keys.is_empty() {
                failure
            } else {
                failure.hint("a record counts if one of `keys` has signed it")
            }
        })?;
        let target = desk.target(&repository.with_digest(wanted)).await?;
        let mut steps = entries.iter().filter_map(Entry::step);
        let is_told = steps.any(|step| step.promotion.from.as_ref() == Some(&target.digest));
        if !is_told && (is_unknown || verify::was_in(&desk, environment, &target).await?.is_err()) {
            let message = format!("{} was never in {}", target.digest.short(), environment.name);
            return Err(Failure::refused(message).hint("promote it: `seatrial promote`").into());
        }
        Ok(target)
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

/// What an environment had before what its tag names now.
fn before(entries: &[Entry], all: &[Step], current: &Digest) -> Option<Digest> {
    let recorded = entries.first().and_then(Entry::step);
    let last = newest(all.iter());
    let Some(last) = last.filter(|last| {
        last.digest != *current && recorded.is_none_or(|recorded| recorded.promotion.time < last.promotion.time)
    }) else {
        // A way back is not gone again: behind a rollback the one before its target is meant.
        return former(entries, current);
    };
    // The tag is not where the last record says: it was moved by other means, or the mover was killed before it could record it.
    // Back from the last one is where a rollback would have led, and going a step further back is not what is meant.
    let is_back = last.promotion.action == "promote" && last.promotion.from.as_ref() == Some(current);
    Some(if is_back { current.clone() } else { last.digest.clone() })
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
        let name = target.place.familiar();
        let is_there = now.as_ref() == Some(&target.digest);
        let from = if is_there {
            let counting = counting_beside(desk, environment, signer)?;
            let missing = context.block_on_cancellable(missing_record(desk, &counting, target))?;
            let Some(from) = missing else {
                terminal::message_line(&format!("{name} is in {} already", environment.name));
                return Ok(false);
            };
            from
        } else {
            now.clone()
        };
        let promotion = Promotion {
            environment: environment.name.clone(),
            action: self.action.to_owned(),
            tag: environment.tag.clone(),
            from,
            by: self.by,
            time: Promotion::stamp(SystemTime::now()),
            approved_by: self.approved_by,
        };
        let statement = promotion.statement(&target.place.repository(), &target.digest);
        context.block_on_cancellable(async {
            let unrecorded = |error| unrecorded(error, environment, target, self.action);
            if !is_there {
                desk.move_tag(environment, target, now).await?;
                if let Some(failure) = desk.overtaken(environment, target).await.map_err(unrecorded)? {
                    return Err(failure.into());
                }
            }
            desk.record(target, &statement, signer).await.map_err(unrecorded)
        })?;
        if is_there {
            terminal::message_line(&format!(
                "{name} is in {} already, which was not recorded: now it is",
                environment.name
            ));
        }
        Ok(!is_there)
    }
}

/// The records that make one by this signer needless: none that counts less than it.
fn counting_beside<'a>(
    desk: &Desk,
    environment: &'a EnvironmentPlan,
    signer: Option<&Signer>,
) -> Result<Counting<'a>, Failure> {
    let counting = desk.counting(environment)?;
    let is_trusted = signer.is_some_and(|signer| counting.keys.contains(signer.public()));
    Ok(if is_trusted { counting } else { Counting::all(environment) })
}

/// Where an image is in an environment without a record of its coming there, what was there before, as far as that is known: the
/// tag was moved by other means, or its mover was killed in the middle. `None` where all is recorded.
async fn missing_record(
    desk: &Desk,
    counting: &Counting<'_>,
    target: &Target,
) -> anyhow::Result<Option<Option<Digest>>> {
    let of_image = of_image(desk, &target.place, &target.digest).await?.into_iter();
    let own = newest(of_image.filter(|step| counting.counts(step)));
    let all =
        recorded::of_environment(&recorded::of_tagged_if_shown(desk, &desk.repository_of(target)).await?, counting);
    let last = newest(all.into_iter().filter(|step| step.digest != target.digest));
    let is_told = |own: &Step| last.as_ref().is_none_or(|last| last.promotion.time < own.promotion.time);
    Ok(if own.as_ref().is_some_and(is_told) { None } else { Some(last.map(|last| last.digest)) })
}

/// The tag is where it should be, and nothing tells of it: the same command makes up for that.
fn unrecorded(error: anyhow::Error, environment: &EnvironmentPlan, target: &Target, action: &str) -> anyhow::Error {
    let message = format!("{} has moved, and that could not be recorded", environment.name);
    let mut failure = failure::explain(error);
    let cause = std::mem::replace(&mut failure.message, message);
    failure.causes.insert(0, cause);
    let again = match action {
        "rollback" => format!("`seatrial rollback {} --to {}`", environment.name, target.digest),
        _ => format!("`seatrial promote {} {}`", target.digest, environment.name),
    };
    failure.hint(format!("record it: {again}")).into()
}

/// Keys with the names of their files.
fn names(keys: &[NamedKey], wanted: &PublicKey) -> Option<String> {
    keys.iter().find(|named| named.key == *wanted).map(|named| named.name.clone())
}
