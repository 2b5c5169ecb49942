//! `seatrial down`, `stop`, `start`, `restart`.

use std::time::Duration;

use super::solution::{expect_service, hear, owner};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    solution::{
        client,
        protocol::Request,
        source::{ProjectArgs, Source},
    },
    terminal,
};

/// Flags of `seatrial down`.
#[derive(Debug, clap::Args)]
pub(crate) struct DownArgs {
    /// Services to stop and remove; all without a name
    services: Vec<String>,
    /// Also remove the project's volumes, with all that is in them
    #[arg(short, long)]
    volumes: bool,
    /// What docker compose needs to be told, and happens here anyway
    #[arg(long, hide = true)]
    remove_orphans: bool,
    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten)]
    project: ProjectArgs,
}

/// How long containers have for their end.
#[derive(Debug, clap::Args)]
pub(crate) struct GraceArgs {
    /// Seconds until what has not ended is killed [default: `stop_grace_period`, else 10]
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u32>,
}

impl GraceArgs {
    fn grace(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Flags of `seatrial stop` and `restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// Services; all without a name
    services: Vec<String>,
    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Flags of `seatrial start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Services; all without a name
    services: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Stops and removes containers.
pub(crate) fn run(args: &DownArgs, context: &Context) -> anyhow::Result<Exit> {
    let source = Source::new(&args.project, context);
    // Volumes outlive the owner, so the file may be the only one that knows them.
    let volumes = match source.read() {
        Ok(read) => {
            for name in &args.services {
                expect_service(&read.project, name)?;
            }
            let own = read.project.volumes.into_values().filter(|volume| args.volumes && !volume.external);
            own.map(|volume| volume.name).collect()
        }
        Err(_) if source.name().is_ok() => Vec::new(),
        Err(failure) => return Err(failure.into()),
    };
    let name = source.name()?;
    let stream = match client::find(context, &name)? {
        Some(stream) => stream,
        None if args.volumes => client::find_or_start(context, &name, &EngineArgs::default())?,
        None => {
            terminal::message_line(&format!("project {name} is not up: there is nothing to take down"));
            return Ok(Exit::Passed);
        }
    };
    let request = Request::Down {
        services: args.services.clone(),
        volumes,
        all_volumes: args.volumes,
        grace: args.grace.grace(),
        kill_when_left: false,
    };
    hear(context, stream, request, &[])?;
    Ok(Exit::Passed)
}

/// Stops containers.
pub(crate) fn stop(args: &StopArgs, context: &Context) -> anyhow::Result<Exit> {
    let request = Request::Stop { services: args.services.clone(), grace: args.grace.grace() };
    change(&args.project, request, context)
}

/// Starts stopped containers.
pub(crate) fn start(args: &StartArgs, context: &Context) -> anyhow::Result<Exit> {
    change(&args.project, Request::Start(args.services.clone()), context)
}

/// Stops and starts containers.
pub(crate) fn restart(args: &StopArgs, context: &Context) -> anyhow::Result<Exit> {
    let request = Request::Restart { services: args.services.clone(), grace: args.grace.grace() };
    change(&args.project, request, context)
}

fn change(project: &ProjectArgs, request: Request, context: &Context) -> anyhow::Result<Exit> {
    let (_, stream) = owner(project, context)?;
    hear(context, stream, request, &[])?;
    Ok(Exit::Passed)
}
