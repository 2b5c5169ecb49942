//! Webhooks: what happened is told to others, signed, again and again until they take it.
//!
//! [`event`] is what is told, [`queue`] keeps it as files until it is delivered, [`deliver`] sends it. A push only writes a
//! small file; nobody waits for a receiver.

mod deliver;
mod event;
mod queue;
mod view;

use std::{fmt, io, path::Path, str::FromStr, sync::Arc, time::Duration};

use futures::future::join_all;
use url::Url;

use super::{Notices, Pattern, metrics::Metrics};
use queue::Queue;

pub(super) use event::{Change, Origin};
pub use queue::{Delivery, HookAnswer};
pub(super) use view::list;
pub use view::{HookState, redeliver, webhooks};

/// Somebody who is told what happens.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its name in files, metrics and commands: lower-case letters, digits and `-`.
    pub name: String,
    /// Where it is told.
    pub url: HookUrl,
    /// Signs what is told; without one nothing is signed.
    pub secret: Option<HookSecret>,
    /// What it hears of; empty for everything.
    pub events: Vec<HookEvent>,
    /// Repositories it hears of; empty for all.
    pub repositories: Vec<Pattern>,
    /// The wait after a first failure; it doubles each time, up to an hour.
    pub retry_wait: Duration,
    /// After this time a delivery counts as failed, and waits to be sent again by command.
    pub give_up_after: Duration,
}

/// Kinds of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A manifest was pushed, once for each of its tags.
    Push,
    /// A manifest or a tag was deleted.
    Delete,
    /// A tag names another manifest than before.
    Tag,
}

/// Where something is told. No log shows it: its path or query may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Url);

/// The text is no address that can be told anything. It is not repeated: it may hold a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the webhook's URL is not one with `https://` or `http://`")]
pub struct InvalidHookUrl;

impl FromStr for HookUrl {
    type Err = InvalidHookUrl;

    fn from_str(text: &str) -> Result<Self, InvalidHookUrl> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.map(Self).ok_or(InvalidHookUrl)
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

/// A key for signatures. No log shows it.
#[derive(Clone)]
pub struct HookSecret(pub String);

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Webhook {
    /// A webhook that hears of everything, with the usual patience.
    pub fn new(name: impl Into<String>, url: HookUrl) -> Self {
        Self {
            name: name.into(),
            url,
            secret: None,
            events: Vec::new(),
            repositories: Vec::new(),
            retry_wait: Duration::from_secs(5),
            give_up_after: Duration::from_secs(24 * 3600),
        }
    }

    /// Whether a name can be a webhook's.
    pub fn is_name(name: &str) -> bool {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !name.is_empty() && name.len() <= 64 && name.bytes().all(legal)
    }

    fn wants(&self, event: HookEvent, repository: &str) -> bool {
        (self.events.is_empty() || self.events.contains(&event))
            && (self.repositories.is_empty() || self.repositories.iter().any(|it| it.matches(repository)))
    }
}

/// The webhooks of a server.
#[derive(Debug)]
pub(super) struct Hooks {
    queues: Vec<Arc<Queue>>,
    /// Names this run of the server in events.
    instance: String,
}

impl Hooks {
    /// Takes up what an earlier process left to be delivered.
    pub(super) fn open(hooks: &[Webhook], directory: &Path) -> io::Result<Self> {
        let open =
            |hook: &Webhook| Queue::open(hook.clone(), &directory.join("webhooks").join(&hook.name)).map(Arc::new);
        let queues = hooks.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { queues, instance: super::uploads::new_id()? })
    }

    /// Whether anybody wants to hear of a repository, so that it is worth looking closer.
    pub(super) fn hears_of(&self, repository: &str) -> bool {
        let events = [HookEvent::Push, HookEvent::Delete, HookEvent::Tag];
        self.queues.iter().any(|queue| events.iter().any(|event| queue.hook.wants(*event, repository)))
    }

    /// Notes for each webhook what it wants to hear. Blocks for as long as a small file takes.
    pub(super) fn tell(&self, metrics: &Metrics, origin: &Origin, repository: &str, changes: &[Change]) {
        for queue in &self.queues {
            let wanted: Vec<&Change> =
                changes.iter().filter(|change| queue.hook.wants(change.event, repository)).collect();
            if wanted.is_empty() {
                continue;
            }
            let envelope = event::envelope(origin, &self.instance, repository, &wanted);
            // The push is done whatever becomes of this: what could not be noted is counted.
            if !queue.add(repository, envelope, event::summary(repository, &wanted)).unwrap_or(false) {
                metrics.hook_attempt(&queue.hook.name, "dropped");
            }
        }
    }

    /// Delivers for ever.
    pub(super) async fn deliver(&self, metrics: &Metrics, notices: &Notices) {
        join_all(self.queues.iter().map(|queue| deliver::forever(queue, metrics, notices))).await;
        std::future::pending().await
    }

    /// Looks again at what there is to deliver, and does not wait any longer with it.
    pub(super) fn look(&self) -> io::Result<()> {
        self.queues.iter().try_for_each(|queue| queue.load())
    }

    /// Deliveries that wait and that failed, by webhook.
    pub(super) fn counts(&self) -> io::Result<Vec<(String, usize, usize)>> {
        let count = |queue: &Arc<Queue>| Ok((queue.hook.name.clone(), queue.pending(), queue.failed()?.len()));
        self.queues.iter().map(count).collect()
    }
}
