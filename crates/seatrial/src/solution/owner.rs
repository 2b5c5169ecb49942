//! The process that keeps a project up: it holds the containers and answers commands, until nothing of it is left.

mod calls;
mod images;

use std::{
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use engine::{Cancel, Engine as _};
use engine_embedded::Embedded;
use events::RunId;
use evidence::Trust;
use registry::Client;
use services::Solution;
use store::Store;
use tokio::{
    net::UnixListener,
    task::{JoinSet, LocalSet},
};

use super::{
    logs::ProjectLogs,
    place::ProjectPlace,
    protocol::{Answer, Call, Receiver, VERSION},
};
use crate::{cli::EngineArgs, context::Context, exit::Exit, failure::Failure, terminal};

/// What the owner says to whoever started it.
pub(crate) const READY: &str = "ready";
/// Another process was first.
pub(crate) const TAKEN: &str = "taken";

/// Whoever starts an owner calls at once; one that nobody calls was started for nothing.
const FIRST_CALL_MAX: Duration = Duration::from_secs(20);
/// People and scripts call a few times at once; more are not answered.
const CALLS_MAX: usize = 256;

/// Flags of the hidden command that starts an owner.
#[derive(Debug, clap::Args)]
pub(crate) struct OwnerArgs {
    /// The project
    project: String,
    /// Only remove what a killed owner left
    #[arg(long)]
    sweep: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// All that answers need.
pub(crate) struct Owner {
    pub(crate) project: String,
    pub(crate) engine: Embedded,
    pub(crate) store: Store,
    /// For runs of the pipeline that build images; nothing is published from here.
    pub(crate) registry: Client,
    pub(crate) solution: Solution,
    pub(crate) logs: Arc<ProjectLogs>,
    /// Ends the owner.
    pub(crate) done: Cancel,
    /// Somebody has brought something up.
    pub(crate) calls: AtomicUsize,
    /// Processes that nobody waits for.
    pub(crate) detached: Mutex<JoinSet<()>>,
}

/// Owns a project: becomes free of the terminal, answers calls, ends with the last container.
pub(crate) fn run(args: &OwnerArgs, context: &Context) -> anyhow::Result<Exit> {
    // Fails only for the leader of a group, which a started command is not; then it lives and dies with its terminal.
    let _ = rustix::process::setsid();
    let store = context.store()?;
    let place = ProjectPlace::of(store.root(), &args.project);
    let made = place.make().and_then(|()| place.lock());
    let lock = made.with_context(|| format!("cannot make {}", place.directory().display()))?;
    let Some(_lock) = lock else {
        terminal::result_line(TAKEN);
        return Ok(Exit::Passed);
    };
    // Opening the store has swept.
    place.clear();
    if args.sweep {
        return Ok(Exit::Passed);
    }
    // Each call says by which rules images are used, since files change.
    let engine = context.engine(&args.engine, Trust::default())?;
    let logs = ProjectLogs::new(place.logs()).context("cannot keep logs")?;
    let calls = LocalSet::new();
    let outcome = context.block_on(calls.run_until(async {
        let scope = engine.open_scope(RunId(0)).await?;
        let logs = Arc::new(logs);
        let owner = Arc::new(Owner {
            project: args.project.clone(),
            store: store.clone(),
            registry: context.client(&args.engine.insecure_registry),
            solution: Solution::new(scope, logs.clone()),
            engine,
            logs,
            done: Cancel::new(),
            calls: AtomicUsize::new(0),
            detached: Mutex::default(),
        });
        let listener = place.listen().context("cannot listen for commands")?;
        terminal::result_line(READY);
        leave_terminal(&place)?;
        let served = serve(&owner, listener, &context.cancel).await;
        // Nothing is told of it any more: the next command sees what is missing.
        let _ = owner.solution.remove(&[], None, &|_| {}).await;
        let closed = match Arc::into_inner(owner) {
            Some(owner) => owner.solution.close().await.map_err(Into::into),
            None => Ok(()),
        };
        served.and(closed)
    }));
    place.clear();
    outcome??;
    Ok(Exit::Passed)
}

/// From here on nobody reads along: words go to the owner's own log.
fn leave_terminal(place: &ProjectPlace) -> anyhow::Result<()> {
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    let log = fs_err::File::create(place.own_log())?;
    rustix::stdio::dup2_stdin(&null).context("cannot leave the input")?;
    rustix::stdio::dup2_stdout(log.file()).context("cannot leave the output")?;
    rustix::stdio::dup2_stderr(log.file()).context("cannot leave the error output")?;
    std::env::set_current_dir("/").context("cannot leave the directory")
}

/// Answers calls until it is done, or told to end.
async fn serve(owner: &Arc<Owner>, listener: std::os::unix::net::UnixListener, stop: &Cancel) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut answering = JoinSet::new();
    loop {
        let is_idle = answering.is_empty() && owner.solution.is_empty();
        let nobody_calls = async {
            match is_idle {
                // Nothing is up and nobody asks: there is nothing to own. Who has just been started waits for a first call.
                true if owner.calls.load(Ordering::SeqCst) > 0 => {}
                true => tokio::time::sleep(FIRST_CALL_MAX).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = owner.done.cancelled() => break,
            accepted = listener.accept(), if answering.len() < CALLS_MAX => {
                let (stream, _) = accepted.context("cannot take a call")?;
                owner.calls.fetch_add(1, Ordering::SeqCst);
                let stream = stream.into_std()?;
                let owner = Arc::clone(owner);
                answering.spawn_local(async move { answer(&owner, stream).await });
            }
            Some(_) = answering.join_next() => {}
            () = nobody_calls => break,
        }
    }
    // Those who follow logs hear of the end by the end of the connection.
    answering.abort_all();
    while answering.join_next().await.is_some() {}
    owner.detached.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    Ok(())
}

async fn answer(owner: &Arc<Owner>, stream: UnixStream) {
    // A command that has gone needs no answer.
    let _ = try_answer(owner, stream).await;
}

async fn try_answer(owner: &Arc<Owner>, stream: UnixStream) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    let read = move || {
        let mut receiver = Receiver::new(stream);
        let call = receiver.next::<Call>();
        (call, receiver)
    };
    let (call, mut receiver) = tokio::task::spawn_blocking(read).await?;
    let Some(call) = call? else { return Ok(()) };
    let stream = receiver.stream().try_clone()?;
    let fds = receiver.take_fds();
    drop(receiver);
    let answers = calls::Answers::new(stream)?;
    if call.v != VERSION {
        let failure = Failure::usage("the project was started by another version of seatrial")
            .hint("end it with that version's `seatrial down`, and bring it up again");
        return answers.last(Answer::Failed(failure.into())).await;
    }
    calls::answer(owner, call.request, fds, answers).await
}
