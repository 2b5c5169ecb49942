//! A request as the gate and the log see it: from where, by whom, about what.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use jiff::Timestamp;

use super::{
    Action, Gate, Need,
    audit::{Deed, Entry},
    users::User,
};
use crate::server::{
    blobs::CONTENT_DIGEST,
    hooks::Origin,
    listener::Peer,
    page::Page,
    routes::{Endpoint, Query},
    storage::RepositoryName,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The log is not to be filled by whoever asks for long names.
const LOGGED_CHARACTERS_MAX: usize = 300;

/// A request under way.
pub(in crate::server) struct Visit {
    address: IpAddr,
    scheme: &'static str,
    host: Option<String>,
    user: Option<Arc<str>>,
    has_credentials: bool,
    subject: Option<Subject>,
}

/// What the log says that it is about.
struct Subject {
    deed: Deed,
    repository: Option<String>,
    reference: Option<String>,
    digest: Option<String>,
    /// One request of several that make one deed: only its failure is worth a line.
    is_step: bool,
}

impl Subject {
    fn new(deed: Deed) -> Self {
        Self { deed, repository: None, reference: None, digest: None, is_step: false }
    }

    fn of(deed: Deed, name: &RepositoryName) -> Self {
        Self { repository: Some(name.as_str().to_owned()), ..Self::new(deed) }
    }
}

impl Visit {
    pub(in crate::server) fn begin(gate: &Gate, peer: Peer, headers: &HeaderMap) -> Self {
        let address = peer.address.ip().to_canonical();
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let (mut client, mut scheme) = (address, if peer.is_tls { "https" } else { "http" });
        if gate.proxies.contains(&address) {
            // Each proxy adds whom it heard; what a proxy of ours did not write may be anybody's invention.
            // Some add a line of their own.
            let lines = headers.get_all(FORWARDED_FOR).iter().rev().map(|line| line.to_str().unwrap_or_default());
            let heard = lines.flat_map(|line| line.rsplit(',')).map_while(|it| it.trim().parse().ok());
            for heard in heard.map(|it: IpAddr| it.to_canonical()) {
                client = heard;
                if !gate.proxies.contains(&heard) {
                    break;
                }
            }
            scheme = match text(&FORWARDED_PROTO) {
                Some("https") => "https",
                Some("http") => "http",
                _ => scheme,
            };
        }
        let is_legal = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        let host = text(&header::HOST).filter(|host| !host.is_empty()).filter(is_legal).map(str::to_owned);
        Self { address: client, scheme, host, user: None, has_credentials: false, subject: None }
    }

    pub(in crate::server) fn address(&self) -> IpAddr {
        self.address
    }

    /// Who does it, as webhooks tell it.
    pub(in crate::server) fn origin(&self, method: &Method, headers: &HeaderMap) -> Origin {
        Origin {
            actor: self.user.as_deref().map(str::to_owned),
            address: self.address.to_string(),
            method: method.as_str().to_owned(),
            scheme: self.scheme,
            host: self.host.clone().unwrap_or_default(),
            user_agent: Origin::user_agent(headers),
        }
    }

    /// The URL that the client asks at.
    pub(super) fn base(&self, address: SocketAddr) -> String {
        match &self.host {
            Some(host) => format!("{}://{host}", self.scheme),
            None => format!("{}://{address}", self.scheme),
        }
    }

    pub(super) fn is_of(&mut self, user: &User) {
        self.user = Some(Arc::clone(&user.name));
    }

    pub(super) fn claims_to_be(&mut self, name: &str) {
        self.user = Some(name.into());
    }

    pub(super) fn shows_credentials(&mut self) {
        self.has_credentials = true;
    }

    /// Notes what is asked for, and tells what that needs.
    pub(in crate::server) fn is_about(&mut self, endpoint: &Endpoint, method: &Method, query: &Query) -> Need {
        let (deed, action) = match *method {
            Method::HEAD => (Deed::Look, Action::Pull),
            Method::GET => (Deed::Pull, Action::Pull),
            Method::DELETE => (Deed::Delete, Action::Delete),
            _ => (Deed::Push, Action::Push),
        };
        let bounded = |text: &str| text.chars().take(LOGGED_CHARACTERS_MAX).collect::<String>();
        let of = |name: &RepositoryName, action| Need::Repository(name.clone(), action);
        let (subject, need) = match endpoint {
            Endpoint::Token => (Subject::new(Deed::Login), Need::Nothing),
            Endpoint::Health => (Subject { is_step: true, ..Subject::new(Deed::Look) }, Need::Nothing),
            Endpoint::Metrics => (Subject { is_step: true, ..Subject::new(Deed::Look) }, Need::Login),
            // What receivers said is not for everybody.
            Endpoint::Page(Page::Webhooks) => (Subject { is_step: true, ..Subject::new(Deed::Look) }, Need::Login),
            Endpoint::Page(page) => {
                (Subject { is_step: true, ..Subject::new(Deed::Look) }, Need::Page(page.name().cloned()))
            }
            Endpoint::Base => (Subject { is_step: true, ..Subject::new(Deed::Login) }, Need::Entry),
            Endpoint::Catalog => (Subject::new(Deed::Catalog), Need::Catalog),
            Endpoint::Tags(name) => (Subject::of(Deed::List, name), of(name, action)),
            Endpoint::Referrers(name, digest) => {
                (Subject { reference: Some(digest.to_string()), ..Subject::of(Deed::List, name) }, of(name, action))
            }
            Endpoint::Manifest(name, reference) => {
                (Subject { reference: Some(bounded(reference)), ..Subject::of(deed, name) }, of(name, action))
            }
            Endpoint::Blob(name, digest) => {
                (Subject { digest: Some(digest.to_string()), ..Subject::of(deed, name) }, of(name, action))
            }
            Endpoint::Uploads(name) => {
                let mounted = query.get("mount");
                let deed = if mounted.is_some() { Deed::Mount } else { Deed::Push };
                let digest = mounted.or(query.get("digest")).map(bounded);
                (Subject { is_step: digest.is_none(), digest, ..Subject::of(deed, name) }, of(name, Action::Push))
            }
            // Whoever may send may ask how far it is, and give up.
            Endpoint::Upload(name, _) => {
                let digest = query.get("digest").filter(|_| method == Method::PUT).map(bounded);
                (Subject { is_step: digest.is_none(), digest, ..Subject::of(Deed::Push, name) }, of(name, Action::Push))
            }
        };
        self.subject = Some(subject);
        need
    }

    /// Writes the log's line, if it is worth one.
    pub(in crate::server) async fn end(
        self,
        gate: &Gate,
        status: StatusCode,
        headers: &HeaderMap,
        code: Option<&'static str>,
    ) {
        let (Some(audit), Some(subject)) = (&gate.audit, self.subject) else { return };
        // Clients ask first without anything, only to hear what they have to show.
        let is_question = status == StatusCode::UNAUTHORIZED && !self.has_credentials;
        if is_question || (subject.is_step && code.is_none()) {
            return;
        }
        // A mount that was not to be had begins an upload instead.
        if subject.deed == Deed::Mount && status == StatusCode::ACCEPTED {
            return;
        }
        let told = || headers.get(CONTENT_DIGEST)?.to_str().ok().map(str::to_owned);
        let entry = Entry {
            time: Timestamp::now(),
            user: self.user,
            address: self.address,
            action: subject.deed,
            repository: subject.repository,
            reference: subject.reference,
            digest: subject.digest.or_else(told),
            status: status.as_u16(),
            result: code.unwrap_or("ok"),
        };
        audit.note(entry).await;
    }
}
