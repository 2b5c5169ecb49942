//! `seatrial up`: the services of a project, up and ready.

use std::{
    collections::BTreeMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    thread::JoinHandle,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use compose::Project;
use services::Recreate;

use super::{
    solution::{self, down, hear, lines},
    watch::Watch,
};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    solution::{
        client::{self, Answering},
        protocol::{self, Request},
        source::{ProjectArgs, Source},
    },
    terminal::{self, containers::Prefix},
};

/// Flags of `seatrial up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Images are built when something of them has changed, and every service is awaited until it is ready. Without -d \
    the output of all is shown, and Ctrl-C takes everything down; volumes stay until `down -v`."
)]
pub(crate) struct UpArgs {
    /// Services to bring up, with what they need; all without a name
    services: Vec<String>,
    /// Leave them running once all are ready
    #[arg(short, long)]
    detach: bool,
    /// Bring changes of files to the services that watch them (`develop.watch`)
    #[arg(short, long, conflicts_with = "detach")]
    watch: bool,
    /// Make all containers anew
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Make no container anew, even if its definition or image has changed
    #[arg(long)]
    no_recreate: bool,
    /// Without the services that the named ones need
    #[arg(long)]
    no_deps: bool,
    /// Remove containers of services that are not in the file any more
    #[arg(long)]
    remove_orphans: bool,
    /// So many containers of a service
    #[arg(long, value_name = "SERVICE=NUMBER", value_parser = scale)]
    scale: Vec<(String, u32)>,
    /// Ask registries for images also when they are here
    #[arg(long)]
    pull: bool,
    /// Build without the cache
    #[arg(long)]
    no_cache: bool,
    /// Lines of the output without the names of their containers
    #[arg(long)]
    no_log_prefix: bool,
    /// What docker compose needs to be told, and happens here anyway
    #[arg(long, hide = true)]
    build: bool,
    #[arg(long, hide = true)]
    wait: bool,
    #[arg(long, hide = true)]
    quiet_pull: bool,
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

fn scale(text: &str) -> Result<(String, u32), String> {
    let parsed = text.split_once('=').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not SERVICE=NUMBER"))
}

/// Brings services up.
pub(crate) fn run(args: &UpArgs, context: &Context) -> anyhow::Result<Exit> {
    let source = Source::new(&args.project, context);
    let read = source.read()?;
    terminal::message(&read.warnings);
    for name in &args.services {
        solution::expect_service(&read.project, name)?;
    }
    let watch = if args.watch { Some(Watch::new(&read.project, &args.services)?) } else { None };
    let project = &read.project.name;
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let up = || protocol::Up {
        source: source.clone(),
        services: args.services.clone(),
        with_dependencies: !args.no_deps,
        recreate: match (args.force_recreate, args.no_recreate) {
            (true, _) => Recreate::Always,
            (_, true) => Recreate::Never,
            _ => Recreate::Changed,
        },
        remove_orphans: args.remove_orphans,
        pull: args.pull,
        no_cache: args.no_cache,
        scale: args.scale.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    if args.detach {
        let stream = client::find_or_start(context, project, &args.engine)?;
        hear(context, stream, Request::Up(Box::new(up())), &[])?;
        return Ok(Exit::Passed);
    }
    // What they say while they come up tells why they do not.
    let logs = Request::Logs {
        services: args.services.clone(),
        follow: true,
        tail: None,
        since: u64::try_from(begun.as_nanos()).ok(),
        attached_only: args.services.is_empty(),
        forever: true,
    };
    let stream = client::find_or_start(context, project, &args.engine)?;
    let said = Said::follow(stream, logs, Prefix { is_shown: !args.no_log_prefix, times: false })?;
    let stayed = stay(&read.project, args, &up, watch.as_ref(), context);
    let is_interrupted = context.cancel.is_cancelled();
    if is_interrupted {
        down(context, project, true)?;
    }
    // To the last word of what was taken down.
    said.finish();
    if is_interrupted {
        return Ok(Exit::Interrupted);
    }
    stayed?;
    // All have ended by themselves; nobody is left to look at them.
    down(context, project, false)?;
    Ok(Exit::Passed)
}

/// Brings the services up, and stays until they have ended, or the command is stopped.
fn stay(
    project: &Project,
    args: &UpArgs,
    up: &dyn Fn() -> protocol::Up,
    watch: Option<&Watch<'_>>,
    context: &Context,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let stream = client::find_or_start(context, &project.name, &args.engine)?;
    hear(context, stream, Request::Up(Box::new(up())), &[])?;
    let took = terminal::text::duration(started.elapsed());
    terminal::message_line(&format!("all is up after {took}; Ctrl-C takes it down"));
    if let Some(watch) = watch {
        return watch.follow(up, context);
    }
    let shown = match args.services.as_slice() {
        [] => project.services.iter().filter(|service| !service.quiet).map(|service| service.name.clone()).collect(),
        named => named.to_vec(),
    };
    let stream = client::find(context, &project.name)?.ok_or_else(|| Failure::surroundings("the project has ended"))?;
    hear(context, stream, Request::Ended(shown), &[])
}

/// Shows what containers say, beside everything else.
struct Said {
    call: UnixStream,
    showing: JoinHandle<()>,
}

impl Said {
    fn follow(stream: UnixStream, logs: Request, prefix: Prefix) -> anyhow::Result<Self> {
        let mut answering = Answering::call(stream, logs, &[])?;
        let call = answering.hang_up()?;
        let showing = std::thread::Builder::new().name("logs".into()).spawn(move || {
            let mut show = lines(prefix);
            // Ends when we have heard enough, or with the owner, which is told by the other calls.
            while let Ok(Some(answer)) = answering.next() {
                show(answer);
            }
        })?;
        Ok(Self { call, showing })
    }

    /// Ends with what was said until now.
    fn finish(self) {
        // An owner that has gone has said all.
        let _ = self.call.shutdown(Shutdown::Write);
        let _ = self.showing.join();
    }
}
