//! Answers to single calls.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStringExt as _, net::UnixStream as StdStream},
    },
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use engine::{Cancel, Container, Engine as _, EngineError, ExecSpec, FileChange, Stdio};
use events::{EventSink, Record, Subscriber};
use services::{Change, Instance, ServiceError, UpRequest};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{Owner, images};
use crate::{
    exit::Exit,
    failure::{self, Failure},
    settings,
    solution::{
        logs::{Line, Reader},
        protocol::{self, Answer, Exec, Move, Port, Request, Up},
        told::{Told, service_failure},
    },
};

/// News that a command has not read yet; what comes on top is left out, except for the end.
const NEWS_MAX: usize = 1024;
/// Lines that travel together.
const LINES_MAX: usize = 512;
/// docker's code for "the process could not be started".
const CANNOT_START: u8 = 125;

/// The way back to a command.
pub(super) struct Answers {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    /// The same socket, for messages with descriptors.
    plain: StdStream,
    /// It is closed by the end of this process, not before.
    is_kept: bool,
}

impl Answers {
    pub(super) fn new(stream: StdStream) -> io::Result<Self> {
        let plain = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        Ok(Self { read, write, plain, is_kept: false })
    }

    /// An answer after which nothing comes.
    pub(super) async fn last(mut self, answer: Answer) -> anyhow::Result<()> {
        let said = self.say(&answer).await;
        if self.is_kept {
            self.write.forget();
            std::mem::forget(self.plain);
        }
        said
    }

    async fn say(&mut self, answer: &Answer) -> anyhow::Result<()> {
        Ok(self.write.write_all(&protocol::encode(answer)?).await?)
    }

    /// Ends when the command has gone.
    async fn gone(read: &mut OwnedReadHalf) {
        let mut byte = [0];
        while matches!(read.read(&mut byte).await, Ok(1)) {}
    }

    /// Does work that has news, and cancels it when the command goes.
    async fn during(mut self, work: impl AsyncFnOnce(&News, &Cancel) -> Result<(), Failure>) -> anyhow::Result<()> {
        let (sender, mut receiver) = mpsc::channel(NEWS_MAX);
        let news = News(sender);
        let cancel = Cancel::new();
        let work = async {
            let result = work(&news, &cancel).await;
            drop(news);
            result
        };
        let mut work = std::pin::pin!(work);
        let mut is_gone = false;
        let mut result = None;
        loop {
            tokio::select! {
                biased;
                () = Self::gone(&mut self.read), if !is_gone => {
                    is_gone = true;
                    cancel.cancel();
                }
                answer = receiver.recv() => match answer {
                    Some(answer) if !is_gone => drop(self.say(&answer).await),
                    Some(_) => {}
                    None if result.is_some() => break,
                    None => {}
                },
                done = &mut work, if result.is_none() => result = Some(done),
            }
        }
        match result {
            Some(Err(failure)) => self.last(Answer::Failed(failure.into())).await,
            _ => self.last(Answer::Done).await,
        }
    }
}

/// Where news of one call go.
#[derive(Clone)]
struct News(mpsc::Sender<Answer>);

impl News {
    fn change(&self) -> impl Fn(Change) + Sync + '_ {
        |change| self.tell(Answer::Change(change))
    }

    fn tell(&self, answer: Answer) {
        // Whoever does not read misses some of what goes by.
        let _ = self.0.try_send(answer);
    }
}

impl Subscriber for News {
    fn event(&self, record: &Record) {
        self.tell(Answer::Event(Box::new(record.clone())));
    }
}

/// Answers one call.
pub(super) async fn answer(
    owner: &Arc<Owner>,
    request: Request,
    fds: Vec<OwnedFd>,
    mut answers: Answers,
) -> anyhow::Result<()> {
    match request {
        Request::Up(up) => answers.during(async |news, cancel| bring_up(owner, *up, news, cancel).await).await,
        Request::Down { services, volumes, all_volumes, grace, kill_when_left } => {
            let take_down = async |news: &News, cancel: &Cancel| {
                let killing = async {
                    cancel.cancelled().await;
                    if kill_when_left {
                        owner.solution.kill().await;
                    }
                    std::future::pending().await
                };
                tokio::select! {
                    done = take_down(owner, &services, (volumes, all_volumes), grace, news) => done,
                    done = killing => done,
                }
            };
            // The command hears the end of this process by the end of the connection.
            let is_whole = services.is_empty();
            answers.is_kept = is_whole;
            let answered = answers.during(take_down).await;
            if is_whole {
                owner.done.cancel();
            }
            answered
        }
        Request::Stop { services, grace } => {
            let stop = async |news: &News, _: &Cancel| {
                known(owner, &services)?;
                owner.solution.stop(&services, grace, &news.change()).await.map_err(service_failure)
            };
            answers.during(stop).await
        }
        Request::Start(services) => {
            let start = async |news: &News, cancel: &Cancel| {
                known(owner, &services)?;
                owner.solution.start(&services, cancel, &news.change()).await.map_err(service_failure)
            };
            answers.during(start).await
        }
        Request::Restart { services, grace } => {
            let restart = async |news: &News, cancel: &Cancel| {
                known(owner, &services)?;
                owner.solution.restart(&services, grace, cancel, &news.change()).await.map_err(service_failure)
            };
            answers.during(restart).await
        }
        Request::List => {
            let containers = owner.solution.instances().iter().map(listed).collect();
            answers.last(Answer::Containers(containers)).await
        }
        Request::Logs { services, follow, tail, since, attached_only, forever } => {
            if !forever && let Err(failure) = known(owner, &services) {
                return answers.last(Answer::Failed(failure.into())).await;
            }
            let wanted = Wanted { services, tail, since, attached_only, forever };
            show_logs(owner, &wanted, follow, answers).await
        }
        Request::Ended(services) => {
            let ended = async |_: &News, cancel: &Cancel| {
                tokio::select! {
                    () = owner.solution.ended(&services) => {}
                    () = cancel.cancelled() => {}
                }
                Ok(())
            };
            answers.during(ended).await
        }
        Request::Sync { service, moves } => {
            let sync = async |_: &News, _: &Cancel| {
                let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
                let change = |Move { from, to }| {
                    let from = path(from);
                    FileChange { from: from.symlink_metadata().is_ok().then_some(from), to: path(to) }
                };
                let changes: Vec<FileChange> = moves.into_iter().map(change).collect();
                let changed = owner.solution.change_files(&service, &changes).await;
                changed.map_err(|error| service_failure(ServiceError::Engine(error)))
            };
            answers.during(sync).await
        }
        Request::Exec(exec) => execute(owner, *exec, fds, answers).await,
    }
}

/// Names that no service has are mistakes.
fn known(owner: &Owner, services: &[String]) -> Result<(), Failure> {
    let instances = owner.solution.instances();
    for name in services {
        if !instances.iter().any(|instance| instance.service == *name) {
            let known: Vec<&str> = instances.iter().map(|instance| instance.service.as_str()).collect();
            let failure = Failure::refused(format!("no such service: {name} (of project {})", owner.project));
            return Err(match dockerfile::nearest(name, known.iter().copied()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("see which are up: `seatrial ps`"),
            });
        }
    }
    Ok(())
}

async fn bring_up(owner: &Owner, up: Up, news: &News, cancel: &Cancel) -> Result<(), Failure> {
    let read = up.source.read()?;
    let trust = up.source.trust(&read)?;
    let mut project = read.project;
    for (name, count) in &up.scale {
        match project.services.iter_mut().find(|service| service.name == *name) {
            Some(service) => service.replicas = Some(*count),
            None => return Err(Failure::usage(format!("there is no service `{name}` to scale"))),
        }
    }
    let events = EventSink::new(vec![Arc::new(news.clone()) as Arc<dyn Subscriber>]);
    let tell = news.change();
    let engine = owner.engine.trusting(trust);
    let built = match &read.plan {
        Some(plan) => images::build(owner, &engine, plan, &up, &events, cancel).await?,
        None => BTreeMap::new(),
    };
    let request = UpRequest {
        engine: &engine,
        built: &built,
        project,
        names: up.services,
        with_dependencies: up.with_dependencies,
        recreate: up.recreate,
        remove_orphans: up.remove_orphans,
        pull: up.pull,
        no_cache: up.no_cache,
        devices: settings::allowed_devices(),
        env: up.source.env(),
        directory: &read.directory,
        events: &events,
        tell: &tell,
        cancel,
    };
    owner.solution.up(request).await.map_err(service_failure)
}

async fn take_down(
    owner: &Owner,
    services: &[String],
    (volumes, all_volumes): (Vec<String>, bool),
    grace: Option<Duration>,
    news: &News,
) -> Result<(), Failure> {
    known(owner, services)?;
    let project = owner.solution.project();
    owner.solution.remove(services, grace, &news.change()).await.map_err(service_failure)?;
    let own = project.volumes.values().filter(|volume| all_volumes && !volume.external);
    let mut names: Vec<String> = volumes.into_iter().chain(own.map(|volume| volume.name.clone())).collect();
    names.sort();
    names.dedup();
    for name in names {
        let removed = owner.engine.remove_volume(&name).await;
        if removed.map_err(|error| service_failure(ServiceError::Engine(error)))? {
            news.tell(Answer::VolumeRemoved(name));
        }
    }
    Ok(())
}

fn listed(instance: &Instance) -> protocol::Container {
    let port = |port: &engine::BoundPort| Port {
        host: port.host,
        target: port.container_port,
        protocol: match port.protocol {
            engine::Protocol::Tcp => "tcp".into(),
            engine::Protocol::Udp => "udp".into(),
        },
    };
    protocol::Container {
        name: instance.name.clone(),
        service: instance.service.clone(),
        number: instance.number,
        image: instance.image.clone(),
        command: instance.command.clone(),
        created: instance.created,
        status: instance.status.clone(),
        ports: instance.ports.iter().map(port).collect(),
    }
}

/// Of which lines are shown.
struct Wanted {
    services: Vec<String>,
    tail: Option<usize>,
    since: Option<u64>,
    attached_only: bool,
    forever: bool,
}

impl Wanted {
    fn has(&self, instance: &Instance) -> bool {
        let is_named = self.services.is_empty() || self.services.contains(&instance.service);
        is_named && !(self.attached_only && instance.is_quiet)
    }
}

async fn show_logs(owner: &Arc<Owner>, wanted: &Wanted, follow: bool, mut answers: Answers) -> anyhow::Result<()> {
    let mut changes = owner.logs.changes();
    let mut readers: BTreeMap<String, Reader> = BTreeMap::new();
    let (mut is_first, mut is_closing) = (true, false);
    loop {
        changes.mark_unchanged();
        // Asked for before the lines, so that what was said before the end is not missed.
        let is_ended = || owner.solution.instances().iter().filter(|one| wanted.has(one)).all(is_over);
        let has_ended = !follow || is_closing || (!wanted.forever && is_ended());
        for instance in owner.solution.instances().iter().filter(|instance| wanted.has(instance)) {
            readers.entry(instance.name.clone()).or_insert_with(|| owner.logs.reader(&instance.name));
        }
        let mut lines = Vec::new();
        for reader in readers.values_mut() {
            let tail = wanted.tail.filter(|_| is_first);
            take(reader, wanted.since, tail, &mut lines);
        }
        // Several containers in the order of their words.
        lines.sort_by_key(|line| line.at);
        let is_more = !lines.is_empty();
        while !lines.is_empty() {
            let rest = lines.split_off(lines.len().min(LINES_MAX));
            answers.say(&Answer::Lines(std::mem::replace(&mut lines, rest))).await?;
        }
        is_first = false;
        if is_more {
            continue;
        }
        if has_ended {
            return answers.last(Answer::Done).await;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = owner.solution.ended(&wanted.services), if !wanted.forever => {}
            // It may still read: what was said until now is its.
            () = Answers::gone(&mut answers.read) => is_closing = true,
        }
    }
}

fn is_over(instance: &Instance) -> bool {
    instance.status.state == services::State::Exited
}

/// Lines of one log that were not taken yet, bounded: who has more comes again.
fn take(reader: &mut Reader, since: Option<u64>, tail: Option<usize>, lines: &mut Vec<Line>) {
    /// Some megabytes at most.
    const TAKEN_MAX: usize = 20_000;
    let mut taken = std::collections::VecDeque::new();
    while let Some(line) = reader.next() {
        if since.is_some_and(|since| line.at < since) {
            continue;
        }
        taken.push_back(line);
        match tail {
            Some(tail) if taken.len() > tail => drop(taken.pop_front()),
            None if taken.len() >= TAKEN_MAX => break,
            _ => {}
        }
    }
    lines.extend(taken);
}

async fn execute(owner: &Arc<Owner>, exec: Exec, fds: Vec<OwnedFd>, answers: Answers) -> anyhow::Result<()> {
    let Some(inside) = owner.solution.inside(&exec.service, exec.number) else {
        let failure = match known(owner, std::slice::from_ref(&exec.service)) {
            Ok(()) => Failure::refused(format!("service \"{}\" is not running", exec.service))
                .hint(format!("start it with `seatrial start {}`", exec.service)),
            Err(failure) => failure,
        };
        return answers.last(Answer::Failed(failure.into())).await;
    };
    let stdio = match (exec.terminal, <[OwnedFd; 3]>::try_from(fds)) {
        (Some((rows, cols)), _) => {
            let plain = answers.plain.try_clone()?;
            let hand_on = move |master: OwnedFd| {
                // A command that has gone closes its terminal with it.
                let _ = protocol::send(&plain, &Answer::Terminal, &[master.as_fd()]);
            };
            Stdio::Terminal { rows, cols, master: Arc::new(hand_on) }
        }
        (None, Ok(fds)) => Stdio::Descriptors(Arc::new(fds)),
        (None, Err(_)) => Stdio::Sink(Arc::new(|_| {})),
    };
    let mut env = inside.exec.env.clone();
    for (name, value) in exec.env {
        env.retain(|(known, _)| *known != name);
        env.push((name, value));
    }
    let spec = ExecSpec {
        args: exec.command,
        env,
        cwd: exec.workdir.unwrap_or_else(|| inside.exec.cwd.clone()),
        user: exec.user.unwrap_or_else(|| inside.exec.user.clone()),
        stdio,
        timeout: None,
    };
    if exec.detached {
        detach(owner, inside.container, spec);
        return answers.last(Answer::Exit(0)).await;
    }
    let answer = match inside.container.exec(spec).await {
        Ok(exit) => Answer::Exit(u8::try_from(exit.code).unwrap_or(u8::MAX)),
        Err(error) => Answer::Failed(not_executed(error)),
    };
    answers.last(answer).await
}

fn detach(owner: &Owner, container: Arc<dyn Container>, spec: ExecSpec) {
    let mut detached = owner.detached.lock().unwrap_or_else(PoisonError::into_inner);
    while detached.try_join_next().is_some() {}
    detached.spawn(async move { drop(container.exec(spec).await) });
}

/// 127 for a program that is not there, 126 for one that cannot be executed, 125 for everything else.
fn not_executed(error: EngineError) -> Told {
    let code = error.command_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT_START);
    let mut failure: Failure = failure::explain(error.into());
    failure.exit = Exit::Command(code);
    failure.into()
}
