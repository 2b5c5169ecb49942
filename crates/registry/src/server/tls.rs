//! The server's certificate and key, from files that are read again when they change.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use super::{Notices, watched::Stamp};

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read; the cause has its path.
    #[error("certificate and key cannot be read")]
    Io(#[from] io::Error),
    /// A file holds something else.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// They do not fit each other, or are of a kind that is not known.
    #[error("{} and {} cannot be used together", .files.certificate.display(), .files.key.display())]
    Mismatch {
        /// The files.
        files: TlsFiles,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate in use.
pub(super) struct Certificates {
    files: TlsFiles,
    state: RwLock<State>,
    notices: Notices,
}

struct State {
    stamps: [Option<Stamp>; 2],
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads both files.
    pub(super) fn open(files: TlsFiles, notices: Notices) -> Result<Self, TlsError> {
        // What is read after it was looked at is at least as new: a change between the two is seen next time.
        let stamps = stamps(&files);
        let config = Arc::new(read(&files)?);
        Ok(Self { files, state: RwLock::new(State { stamps, config }), notices })
    }

    /// For the next handshake. Files that cannot be used leave everything as it was: programs that renew certificates write
    /// one file after the other.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let stamps = stamps(&self.files);
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.stamps == stamps {
                return Arc::clone(&state.config);
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.stamps != stamps {
            state.stamps = stamps;
            match read(&self.files) {
                Ok(config) => state.config = Arc::new(config),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                    self.notices.say(&format!("the certificate stays as it was: {error}{cause}"));
                }
            }
        }
        Arc::clone(&state.config)
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|path| Stamp::of(path).ok())
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let damaged = |path: &PathBuf, what| {
        let path = path.clone();
        move |source| match source {
            pem::Error::Io(error) => TlsError::Io(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            source => TlsError::Pem { path, what, source },
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(damaged(&files.certificate, "certificate"))?;
    if chain.is_empty() {
        return Err(damaged(&files.certificate, "certificate")(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(damaged(&files.key, "private key"))?;
    let mismatch = |source| TlsError::Mismatch { files: files.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
