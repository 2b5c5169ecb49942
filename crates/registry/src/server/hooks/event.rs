//! What is told: the envelope that distribution's registry sends (distribution, "Work with notifications"), so that its
//! receivers understand it. Events `tag`, and `previousDigest` in them, are ours.

use axum::http::{HeaderMap, header};
use oci::Digest;
use serde::Serialize;

use super::HookEvent;

/// Longest text that is taken over from a request.
const TEXT_CHARS_MAX: usize = 200;

/// Who did it, as the request says.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Origin {
    /// The user, where users are known.
    pub(in super::super) actor: Option<String>,
    /// The client's address.
    pub(in super::super) address: String,
    pub(in super::super) method: String,
    /// `http` or `https`, as the client sees it.
    pub(in super::super) scheme: &'static str,
    /// The name that the client calls this registry by.
    pub(in super::super) host: String,
    pub(in super::super) user_agent: String,
}

impl Origin {
    /// The `User-Agent` of a request, within bounds.
    pub(in super::super) fn user_agent(headers: &HeaderMap) -> String {
        let value = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect()
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(in super::super) struct Change {
    pub(in super::super) event: HookEvent,
    pub(in super::super) digest: Option<Digest>,
    /// Type and size of the manifest in bytes, where they are known.
    pub(in super::super) manifest: Option<(String, u64)>,
    pub(in super::super) tag: Option<String>,
    /// What the tag named before.
    pub(in super::super) previous: Option<Digest>,
}

impl HookEvent {
    /// Its name in events and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Tag => "tag",
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    events: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    id: String,
    timestamp: String,
    action: &'static str,
    target: Target<'a>,
    request: Request<'a>,
    actor: Actor<'a>,
    source: Source<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a Digest>,
    /// The same as `size`: older receivers read this.
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    repository: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_digest: Option<&'a Digest>,
}

#[derive(Serialize)]
struct Request<'a> {
    id: String,
    addr: &'a str,
    host: &'a str,
    method: &'a str,
    useragent: &'a str,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source<'a> {
    addr: &'a str,
    #[serde(rename = "instanceID")]
    instance_id: &'a str,
}

/// The body that is sent.
pub(super) fn envelope(origin: &Origin, instance: &str, repository: &str, changes: &[&Change]) -> String {
    let timestamp = jiff::Timestamp::now().to_string();
    let request = uuid();
    let events = changes.iter().map(|change| Event {
        id: uuid(),
        timestamp: timestamp.clone(),
        action: change.event.name(),
        target: Target {
            media_type: change.manifest.as_ref().map(|(kind, _)| kind.as_str()),
            size: change.manifest.as_ref().map(|(_, size)| *size),
            digest: change.digest.as_ref(),
            length: change.manifest.as_ref().map(|(_, size)| *size),
            repository,
            url: change
                .digest
                .as_ref()
                .filter(|_| !origin.host.is_empty())
                .map(|digest| format!("{}://{}/v2/{repository}/manifests/{digest}", origin.scheme, origin.host)),
            tag: change.tag.as_deref(),
            previous_digest: change.previous.as_ref(),
        },
        request: Request {
            id: request.clone(),
            addr: &origin.address,
            host: &origin.host,
            method: &origin.method,
            useragent: &origin.user_agent,
        },
        actor: Actor { name: origin.actor.as_deref() },
        source: Source { addr: &origin.host, instance_id: instance },
    });
    serde_json::to_string(&Envelope { events: events.collect() }).expect("texts and numbers are always JSON")
}

/// The same in a few words for people: `push team/app:1`.
pub(super) fn summary(repository: &str, changes: &[&Change]) -> String {
    let one = |change: &&Change| {
        let name = match (&change.tag, &change.digest) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{}", digest.short()),
            (None, None) => repository.to_owned(),
        };
        format!("{} {name}", change.event.name())
    };
    let first = changes.first().map(one).unwrap_or_default();
    match changes.len() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

/// A random UUID (RFC 9562, version 4); time and place make one where no randomness can be had.
fn uuid() -> String {
    let hex =
        crate::server::uploads::new_id().unwrap_or_else(|_| format!("{:032x}", jiff::Timestamp::now().as_nanosecond()));
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
