//! When a service is ready: its health check, what `ready:` says, its ports, or its end. Nothing here sleeps on a guess:
//! each wait ends with what it waits for, with the container, or with a bound.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use compose::{Protocol, Ready, ReadyHttp, Service};
use engine::{Cancel, Container, EngineError, ExecSpec, Exit, NetworkMode, Root};
use futures::future::{BoxFuture, join_all};
use regex::Regex;
use tokio::time::Instant;

use crate::{
    error::ended,
    health::{self, Check, SETTLE, Watch},
    http,
    log::Watched,
};

/// Without a bound of the user's: databases initialise within it on slow machines, and a hang is told within a coffee.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
/// The first gap between two looks, and the longest one unless the user says so: looking costs less than a millisecond.
const GAP_FIRST: Duration = Duration::from_millis(5);
const GAP_MAX: Duration = Duration::from_millis(250);
/// One question over HTTP, or one command; a longer one is asked again.
const ASK_MAX: Duration = Duration::from_secs(10);

/// How a service shows that it is ready.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Readiness {
    /// The image's health check, or the file's.
    Health(Check),
    /// `ready:`.
    Conditions(Ready),
    /// All of these accept TCP.
    Ports(Vec<u16>),
    /// It ends with 0: another service waits for that.
    Completion,
    /// Nothing is known: it ended with 0, or is still running after a moment.
    Start,
}

impl Readiness {
    /// `ready:` first, since it is the user's own word; then the health check, then ports. Ports of the file count before
    /// those of the image, which may name some that the service never opens.
    pub(crate) fn of(service: &Service, root: &Root, is_one_shot: bool) -> Readiness {
        if is_one_shot {
            return Readiness::Completion;
        }
        if let Some(ready) = &service.ready {
            return Readiness::Conditions(ready.clone());
        }
        let check = Check::of(root, &service.healthcheck.clone().unwrap_or_default());
        if check.command.is_some() {
            return Readiness::Health(check);
        }
        match exposed(service, root) {
            ports if ports.is_empty() => Readiness::Start,
            ports => Readiness::Ports(ports.into_iter().collect()),
        }
    }

    /// How long it is awaited.
    fn timeout(&self) -> Duration {
        match self {
            Readiness::Conditions(ready) => ready.timeout.unwrap_or(TIMEOUT_DEFAULT),
            Readiness::Health(check) => check.patience(),
            _ => TIMEOUT_DEFAULT,
        }
    }
}

/// TCP ports that have to accept.
fn exposed(service: &Service, root: &Root) -> BTreeSet<u16> {
    let expose = service.expose.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    let published = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.target);
    let ports: BTreeSet<u16> = expose.chain(published).collect();
    if !ports.is_empty() {
        return ports;
    }
    image_ports(root).filter(|(_, protocol)| *protocol == Protocol::Tcp).map(|(port, _)| port).collect()
}

/// EXPOSE of an image.
pub(crate) fn image_ports(root: &Root) -> impl Iterator<Item = (u16, Protocol)> {
    root.config.config.exposed_ports.keys().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = if protocol.eq_ignore_ascii_case("udp") { Protocol::Udp } else { Protocol::Tcp };
        Some((port.parse().ok()?, protocol))
    })
}

/// What was found out.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It is ready, and how that showed: `healthy at attempt 2 of 30`.
    Ready(String),
    /// It ended with 0, which is as good.
    Completed,
    /// It is not, and its time is over: why, in words that follow its name, and what the last look said.
    NotReady { reason: String, output: String },
    /// It ended.
    Ended(Exit),
    /// It was cancelled.
    Cancelled,
}

/// A started service that is awaited.
pub(crate) struct Waiting<'a> {
    pub(crate) container: &'a dyn Container,
    /// User, environment and directory of commands in it.
    pub(crate) exec: &'a ExecSpec,
    /// Its name, for `Host` headers.
    pub(crate) name: &'a str,
    /// Loopback counts as outside where nothing else is there, or all is shared.
    pub(crate) network: NetworkMode,
    pub(crate) root: &'a Root,
    /// Looks at its log for `ready.log`.
    pub(crate) watched: Option<&'a Arc<Watched>>,
    /// It began from a snapshot, or on the files that it left when it was ready: what initialisation logs does not come again.
    pub(crate) is_initialised: bool,
    pub(crate) cancel: &'a Cancel,
}

impl Waiting<'_> {
    /// Waits until it is known whether the service is ready.
    pub(crate) async fn until(&self, readiness: &Readiness) -> Result<Seen, EngineError> {
        let seen = match readiness {
            Readiness::Health(check) => self.healthy(check).await?,
            Readiness::Conditions(ready) => self.conditions(ready, readiness.timeout()).await?,
            Readiness::Ports(ports) => {
                let ports = ports.iter().map(|port| self.condition(port_words(*port), Aim::Port(*port)));
                self.all(ports.collect(), readiness.timeout()).await?
            }
            Readiness::Completion => self.bounded(std::future::pending(), None).await?,
            Readiness::Start => {
                let settled = async {
                    tokio::time::sleep(SETTLE).await;
                    Ok(Seen::Ready("still running".into()))
                };
                self.bounded(settled, None).await?
            }
        };
        Ok(match seen {
            Seen::Ended(exit) if exit == Exit::default() => match readiness {
                // What was to listen or to answer is gone, however well it ended.
                Readiness::Completion | Readiness::Start => Seen::Completed,
                _ => Seen::Ended(exit),
            },
            seen => seen,
        })
    }

    async fn healthy(&self, check: &Check) -> Result<Seen, EngineError> {
        let watch = Watch { container: self.container, check, exec: self.exec, cancel: self.cancel, told: &|_| {} };
        Ok(match watch.until_healthy().await? {
            health::Seen::Healthy(healthy) => {
                Seen::Ready(format!("healthy at attempt {} of {}", healthy.attempt, check.attempts))
            }
            health::Seen::Unhealthy { reason, output, .. } => {
                Seen::NotReady { reason: format!("was {reason}"), output }
            }
            health::Seen::Ended(exit) | health::Seen::Died(exit, _) => Seen::Ended(exit),
            health::Seen::Alive => Seen::Ready("still running".into()),
            health::Seen::Cancelled => Seen::Cancelled,
        })
    }

    async fn conditions(&self, ready: &Ready, timeout: Duration) -> Result<Seen, EngineError> {
        let gap = ready.interval.unwrap_or(GAP_MAX);
        let mut conditions = Vec::new();
        if let (Some(log), Some(watched)) = (&ready.log, self.watched) {
            // Initialisation often says the same once more.
            let times = if self.is_initialised { 1 } else { log.times };
            let words = format!("a line like `{}` in its log", log.pattern);
            conditions.push(self.condition(words, Aim::Log(watched, times)));
        }
        if let Some(port) = ready.port {
            conditions.push(self.condition(port_words(port), Aim::Port(port)));
        }
        if let Some(http) = &ready.http {
            let body = http.body.as_deref().and_then(|pattern| Regex::new(pattern).ok());
            let port = http.port.or_else(|| image_ports(self.root).map(|(port, _)| port).min());
            let words = format!("{} over HTTP", http.path);
            conditions.push(self.condition(words, Aim::Http(http, port.unwrap_or(80), body)));
        }
        if let Some((args, text)) = ready.command.as_ref().and_then(|test| health::command(self.root, test)) {
            conditions.push(self.condition(format!("`{text}`"), Aim::Command(args)));
        }
        conditions.iter_mut().for_each(|condition| condition.gap_max = gap);
        self.all(conditions, timeout).await
    }

    fn condition<'c>(&self, words: String, aim: Aim<'c>) -> Condition<'c> {
        Condition { words, aim, gap_max: GAP_MAX, state: Mutex::default() }
    }

    /// All conditions have to hold; one that once held is not looked at again.
    async fn all(&self, conditions: Vec<Condition<'_>>, timeout: Duration) -> Result<Seen, EngineError> {
        let met = async {
            let met = join_all(conditions.iter().map(|condition| condition.met(self))).await;
            met.into_iter().collect::<Result<Vec<()>, _>>()?;
            let words: Vec<&str> = conditions.iter().map(|condition| condition.words.as_str()).collect();
            Ok(Seen::Ready(words.join(", ")))
        };
        let seen = self.bounded(met, Some(timeout)).await?;
        let Seen::NotReady { .. } = seen else { return Ok(seen) };
        let open: Vec<String> = conditions.iter().filter_map(Condition::open).collect();
        let reason = format!("was not ready after {}: {}", compose::duration::human(timeout), open.join("; "));
        Ok(Seen::NotReady { reason, output: String::new() })
    }

    /// What ends first: the wait, the container, the time, the run.
    async fn bounded(
        &self,
        wait: impl Future<Output = Result<Seen, EngineError>>,
        timeout: Option<Duration>,
    ) -> Result<Seen, EngineError> {
        let time_is_over = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let seen = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Ok(Seen::Cancelled),
            exit = self.container.wait() => exit.map(Seen::Ended),
            seen = wait => seen,
            () = time_is_over => Ok(Seen::NotReady { reason: String::new(), output: String::new() }),
        };
        match seen {
            // The container may have ended under a look at it: that tells more than the look's error.
            Err(error) => match tokio::time::timeout(SETTLE, self.container.wait()).await {
                Ok(Ok(exit)) => Ok(Seen::Ended(exit)),
                _ => Err(error),
            },
            seen => seen,
        }
    }
}

fn port_words(port: u16) -> String {
    format!("port {port} accepts")
}

/// One thing that has to hold.
struct Condition<'a> {
    /// How it is told once it holds.
    words: String,
    aim: Aim<'a>,
    gap_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_met: bool,
    /// What the last look found instead.
    last: Option<String>,
}

enum Aim<'a> {
    Log(&'a Arc<Watched>, u32),
    Port(u16),
    Http(&'a ReadyHttp, u16, Option<Regex>),
    Command(Vec<String>),
}

impl Condition<'_> {
    /// Waits until it holds. An error says that it never can, or that the engine failed.
    async fn met(&self, waiting: &Waiting<'_>) -> Result<(), EngineError> {
        if let Aim::Log(watched, times) = &self.aim {
            watched.reached(*times).await;
            self.note(Ok(()));
            return Ok(());
        }
        let mut gap = GAP_FIRST.min(self.gap_max);
        loop {
            let next = Instant::now() + gap;
            let looked = self.look(waiting).await?;
            let is_met = looked.is_ok();
            self.note(looked);
            if is_met {
                return Ok(());
            }
            tokio::time::sleep_until(next).await;
            gap = (gap.saturating_mul(3) / 2).min(self.gap_max);
        }
    }

    async fn look(&self, waiting: &Waiting<'_>) -> Result<Result<(), String>, EngineError> {
        let container = waiting.container;
        let asked: BoxFuture<'_, Result<Result<(), String>, EngineError>> = match &self.aim {
            Aim::Log(..) => return Ok(Ok(())),
            Aim::Port(port) => return Ok(accepts(*port, &container.listening().await?, waiting.network)),
            Aim::Http(http, port, body) => Box::pin(async move {
                // Nobody listens yet: refused connections are what is waited for.
                let Ok(stream) = container.connect(*port).await else {
                    return Ok(Err(format!("port {port} does not accept")));
                };
                Ok(http::ask(stream, waiting.name, http, body.as_ref()).await)
            }),
            Aim::Command(args) => Box::pin(async move {
                let spec = ExecSpec { args: args.clone(), timeout: Some(ASK_MAX), ..waiting.exec.clone() };
                let (exit, output) = health::probe(container, spec).await?;
                Ok(match exit == Exit::default() {
                    true => Ok(()),
                    false => Err(format!("{} {output}", ended(&exit)).trim_end().to_owned()),
                })
            }),
        };
        // A command has its own bound, which also kills it.
        match tokio::time::timeout(ASK_MAX * 2, asked).await {
            Ok(answer) => answer,
            Err(_) => Ok(Err("there is no answer".into())),
        }
    }

    fn note(&self, looked: Result<(), String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(()) => state.is_met = true,
            Err(reason) => state.last = Some(reason),
        }
    }

    /// What is missing, in words.
    fn open(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_met {
            return None;
        }
        Some(match (&self.aim, &state.last) {
            (Aim::Log(watched, times), _) => {
                format!("its log had {} of {times} lines like `{}`", watched.count(), watched.pattern())
            }
            (Aim::Port(_), Some(last)) => last.clone(),
            (Aim::Http(http, ..), Some(last)) => format!("{}: {last}", http.path),
            (Aim::Command(args), Some(last)) => {
                format!("`{}` {last}", args.last().map(String::as_str).unwrap_or_default())
            }
            (_, None) => format!("{} was never seen", self.words),
        })
    }
}

/// Whether a port is open to others; why not, otherwise.
fn accepts(port: u16, listening: &[SocketAddr], network: NetworkMode) -> Result<(), String> {
    let mut here = listening.iter().filter(|address| address.port() == port).peekable();
    let Some(first) = here.peek() else { return Err(format!("port {port} does not accept")) };
    let only = first.ip();
    if network == NetworkMode::Default && here.all(|address| address.ip().is_loopback()) {
        return Err(format!("port {port} accepts on {only} only, where no other container reaches it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_alone_is_not_ready() {
        let listening = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
        };
        for (text, expected) in [
            ("0.0.0.0:5432", Ok(())),
            ("127.0.0.1:5432 [::]:5432", Ok(())),
            ("0.0.0.0:80", Err("port 5432 does not accept")),
            ("127.0.0.1:5432", Err("port 5432 accepts on 127.0.0.1 only, where no other container reaches it")),
        ] {
            let found = accepts(5432, &listening(text), NetworkMode::Default);
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{text}");
        }
        assert_eq!(accepts(5432, &listening("127.0.0.1:5432"), NetworkMode::None), Ok(()));
    }
}
