//! `webhooks`: who is told what happens.

use std::path::Path;

use ::registry::{HookEvent, HookSecret, HookUrl, Webhook};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Glob, Span, secret::SecretAt};

/// One receiver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Entry {
    name: Name,
    url: Address,
    secret: Option<SecretAt>,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    repositories: Vec<Glob>,
    #[serde(default)]
    retry: Retry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Retry {
    first: Option<Span>,
    give_up: Option<Span>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    Push,
    Delete,
    Tag,
}

read_from_text!(Name, String, |text: &str| {
    if Webhook::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not lower-case letters, digits and `-`"))
    }
});
read_from_text!(Address, HookUrl, str::parse::<HookUrl>);

impl Entry {
    /// The webhook, with its secret.
    pub(super) fn open(self, beside: &Path) -> Result<Webhook, String> {
        let Name(name) = self.name;
        let secret = self.secret.map(|secret| secret.read(beside)).transpose();
        let secret = secret.map_err(|reason| format!("1:1: webhook `{name}`: {reason}"))?;
        let events = self.events.iter().map(|event| match event {
            Event::Push => HookEvent::Push,
            Event::Delete => HookEvent::Delete,
            Event::Tag => HookEvent::Tag,
        });
        let usual = Webhook::new(name, self.url.0);
        Ok(Webhook {
            secret: secret.map(HookSecret),
            events: events.collect(),
            repositories: self.repositories.into_iter().map(|glob| glob.0).collect(),
            retry_wait: self.retry.first.map_or(usual.retry_wait, |span| span.0),
            give_up_after: self.retry.give_up.map_or(usual.give_up_after, |span| span.0),
            ..usual
        })
    }
}
