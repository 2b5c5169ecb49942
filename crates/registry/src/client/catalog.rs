//! Which repositories a registry has (distribution's `_catalog`, which the specification does not have and most registries do),
//! and what the tags of one name.

use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Reference};
use reqwest::Method;
use serde::Deserialize;

use super::{Client, auth::Scope, next_link, transport::Call};
use crate::{ErrorKind, RegistryError};

/// Bytes of one page.
const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// More than this is no list that anybody reads.
const REPOSITORIES_MAX: usize = 1_000_000;
/// Tags that are looked up side by side.
const PARALLEL_TAGS: usize = 8;
/// Names asked for at a time.
const PAGE_NAMES: usize = 1000;

impl Client {
    /// Paths of all repositories of a registry that we may see, in its order.
    ///
    /// # Errors
    /// The registry fails or refuses; many large ones show nobody such a list.
    pub async fn list_repositories(&self, host: &str) -> Result<Vec<String>, RegistryError> {
        self.repositories_kind(host).await.map_err(|kind| kind.during("list the repositories of", host))
    }

    /// What tags name, several looked up side by side; `None` for one that is not there (any more).
    ///
    /// # Errors
    /// The registry fails or refuses.
    pub async fn resolve_tags(
        &self,
        repository: &Reference,
        tags: Vec<String>,
    ) -> Result<Vec<(String, Option<Descriptor>)>, RegistryError> {
        let look_up = async |tag: String| {
            // What is no legal tag cannot be asked for.
            if !oci::is_valid_tag(&tag) {
                return Ok((tag, None));
            }
            match self.resolve(&repository.with_tag(&tag)).await {
                Ok(found) => Ok((tag, Some(found))),
                Err(error) if error.is_not_found() => Ok((tag, None)),
                Err(error) => Err(error),
            }
        };
        let lookups: Vec<_> = tags.into_iter().map(look_up).collect();
        futures::stream::iter(lookups).buffered(PARALLEL_TAGS).try_collect().await
    }

    async fn repositories_kind(&self, host: &str) -> Result<Vec<String>, ErrorKind> {
        #[derive(Deserialize)]
        struct Page {
            repositories: Option<Vec<String>>,
        }
        let mut found = Vec::new();
        let mut call = Call::catalog(Method::GET, host, PAGE_NAMES).scope(Scope::catalog());
        loop {
            let (url, link, bytes) = self.transport.get_document(&call, PAGE_BYTES_MAX).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| ErrorKind::malformed(error.to_string()))?;
            let page = page.repositories.unwrap_or_default();
            let is_empty = page.is_empty();
            found.extend(page);
            match link.as_deref().and_then(|link| next_link(&url, link)) {
                // A page without names that points to a next one would go round for ever.
                Some(next) if !is_empty && found.len() < REPOSITORIES_MAX => call = call.at(next),
                _ => return Ok(found),
            }
        }
    }
}
