//! `upstreams`: other registries that this one hands on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ::registry::{Client, ClientOptions, Credential, Credentials, HostFiles, Upstream, UpstreamAddress};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Span, secret::SecretAt};

/// Long enough that a busy server asks seldom, short enough that a new `latest` is there soon.
const FRESH: Duration = Duration::from_secs(600);
/// Builds ask for the same missing cache images again and again.
const ABSENT: Duration = Duration::from_secs(60);
/// Clients wait meanwhile: what is here is better than what may come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: u32 = 2;

/// One registry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Entry {
    registry: Address,
    prefix: Option<Prefix>,
    fresh: Option<Span>,
    absent: Option<Span>,
    /// A file in docker's format.
    credentials: Option<PathBuf>,
    user: Option<String>,
    password: Option<SecretAt>,
    #[serde(default)]
    insecure: bool,
}

read_from_text!(Address, UpstreamAddress, str::parse::<UpstreamAddress>);
read_from_text!(Prefix, String, |text: &str| {
    let legal = format!("localhost/{text}/x").parse::<oci::Reference>();
    let is_legal = legal.is_ok_and(|it| it.path() == format!("{text}/x"));
    if is_legal { Ok(text.to_owned()) } else { Err(format!("`{text}` cannot begin a repository's name")) }
});

impl Entry {
    /// The upstream, with its credentials. Nothing is connected yet.
    pub(super) fn open(self, beside: &Path) -> Result<Upstream, String> {
        let Address(address) = self.registry;
        let wrong = |reason: String| format!("1:1: upstream `{}`: {reason}", address.host());
        let credentials = match (self.credentials, self.user, self.password) {
            (None, None, None) => Credentials::from_environment(|name| std::env::var_os(name)),
            (Some(file), None, None) => {
                let file = beside.join(file);
                fs_err::metadata(&file).map_err(|error| wrong(error.to_string()))?;
                Credentials::from_files([file])
            }
            (None, Some(user), Some(password)) => {
                let password = password.read(beside).map_err(wrong)?;
                Credentials::anonymous().with(address.host(), Credential::Password { user, password })
            }
            _ => return Err(wrong("either `credentials`, or `user` and `password`".into())),
        };
        let is_insecure = self.insecure || address.is_plain();
        // Mirrors of this machine stay out of it: this server may be one of them.
        let certificates = HostFiles::from_environment(|name| std::env::var_os(name)).certificates;
        let client = Client::new(ClientOptions {
            credentials,
            insecure_hosts: is_insecure.then(|| address.host().to_owned()).into_iter().collect(),
            hosts: HostFiles { certificates, ..HostFiles::default() },
            connect_timeout: CONNECT_TIMEOUT,
            retries: RETRIES,
            ..ClientOptions::default()
        });
        Ok(Upstream {
            address,
            prefix: self.prefix.map(|prefix| prefix.0),
            client,
            fresh: self.fresh.map_or(FRESH, |span| span.0),
            absent: self.absent.map_or(ABSENT, |span| span.0),
        })
    }
}
