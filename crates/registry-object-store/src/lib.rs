//! The registry server's storage in an object store: S3 and what speaks like it, Google Cloud Storage, Azure, or a directory.
//!
//! Knows nothing of repositories or manifests: records and content under keys ([`registry::Backend`]). A crate of its own,
//! because the clients of three clouds take longer to compile than the registry. Start at [`open`].

mod bucket;

use std::sync::Arc;

use object_store::ObjectStoreScheme;
use registry::Backend;
use url::Url;

use bucket::Bucket;

/// The object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No URL.
    #[error("`{0}` is not a URL such as `s3://bucket/path`")]
    Url(String),
    /// Its scheme, host or settings are not understood.
    #[error("object store `{url}` cannot be used")]
    Store {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// Threads for its requests cannot be started.
    #[error("no threads for the object store")]
    Threads(#[source] std::io::Error),
}

/// Opens `s3://bucket/path`, `gs://bucket/path`, `az://container/path` or `file:///directory` (which has to exist). `settings`
/// are named as the clouds' own tools name their environment variables (`AWS_REGION`, `AWS_ENDPOINT`,
/// `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, and so on); others are ignored. Nothing is sent yet.
///
/// One server may write to a path at a time.
pub fn open(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Arc<dyn Backend>, OpenError> {
    let parsed = Url::parse(url).map_err(|_| OpenError::Url(url.to_owned()))?;
    let because = |source| OpenError::Store { url: url.to_owned(), source };
    let (scheme, _) = ObjectStoreScheme::parse(&parsed).map_err(|error| because(error.into()))?;
    // A web server cannot be written to, and memory is forgotten.
    if matches!(scheme, ObjectStoreScheme::Http | ObjectStoreScheme::Memory) {
        return Err(OpenError::Url(url.to_owned()));
    }
    let settings = settings.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let (store, prefix) = object_store::parse_url_opts(&parsed, settings).map_err(because)?;
    Ok(Arc::new(Bucket::new(Arc::from(store), prefix).map_err(OpenError::Threads)?))
}

/// Uses an object store that was set up elsewhere, below `prefix`.
pub fn with_store(
    store: Arc<dyn object_store::ObjectStore>,
    prefix: object_store::path::Path,
) -> Result<Arc<dyn Backend>, OpenError> {
    Ok(Arc::new(Bucket::new(store, prefix).map_err(OpenError::Threads)?))
}
