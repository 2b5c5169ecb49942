//! Where a private key is: a file, a variable of the environment, or a program that signs and keeps it to itself.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use zeroize::Zeroizing;

use super::{KeyFileError, Password, PublicKey, SigningKey, file, program};

/// A private key takes some hundred bytes; an encrypted one not a thousand.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a private key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file in PEM.
    File(PathBuf),
    /// `env://NAME`: a variable that holds the PEM, as cosign writes it.
    Environment(String),
    /// `exec://PROGRAM ARG…`: a program that gets what is to be signed on its standard input and writes the signature, raw
    /// or in base64, to its standard output. Called with one more argument, `public-key`, it writes the public key in PEM.
    Program(Vec<String>),
}

/// What a text has to look like.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// There is no such kind of place.
    #[error("`{0}` keys are not known: name a file, `env://NAME` or `exec://PROGRAM`")]
    UnknownScheme(String),
    /// Something has to stand behind the scheme.
    #[error("nothing stands behind `{0}`")]
    Empty(&'static str),
    /// Keys do not belong into a pipeline file or on a command line.
    #[error("this is a key itself: put it into a file, or into a variable and write `env://NAME`")]
    IsKey,
}

impl FromStr for KeySource {
    type Err = KeySourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if file::is_pem(text) {
            return Err(KeySourceError::IsKey);
        }
        match text.split_once("://") {
            Some(("env", "")) => Err(KeySourceError::Empty("env://")),
            Some(("env", name)) => Ok(Self::Environment(name.to_owned())),
            Some(("exec", command)) => {
                let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
                if words.is_empty() { Err(KeySourceError::Empty("exec://")) } else { Ok(Self::Program(words)) }
            }
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some((scheme, _)) => Err(KeySourceError::UnknownScheme(format!("{scheme}://"))),
            None if text.is_empty() => Err(KeySourceError::Empty("key")),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "env://{name}"),
            Self::Program(words) => write!(f, "exec://{}", words.join(" ")),
        }
    }
}

/// What a source may ask for.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// Variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The key's password.
    pub password: Password<'a>,
    /// Files are relative to it, and programs start in it.
    pub directory: &'a Path,
    /// How long a program may take for each answer; usually [`PROGRAM_TIME`].
    pub program_time: Duration,
}

/// A key service answers within seconds; a token that waits for a finger within a minute, or nobody is there.
pub const PROGRAM_TIME: Duration = Duration::from_secs(60);

/// No signature could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign with {key}")]
pub struct SigningFailed {
    /// The key's place.
    pub key: String,
    /// Why not.
    #[source]
    pub kind: SigningFailure,
}

/// Why no signature could be made.
#[derive(Debug, thiserror::Error)]
pub enum SigningFailure {
    /// The variable is not set.
    #[error("the variable is not set")]
    NotSet,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// It is no usable key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The program cannot be started, or gives no answer.
    #[error("the program cannot be run")]
    Program(#[source] std::io::Error),
    /// The program said no.
    #[error("the program ended with {0}")]
    Refused(String),
    /// The program did not answer in time, and was ended.
    #[error("the program gave no answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// The program wrote more than any key or signature has, and was ended.
    #[error("the program wrote more than {0} bytes")]
    TooLong(u64),
    /// What the program wrote is no public key.
    #[error("with `public-key` the program wrote none")]
    NoPublicKey,
    /// What the program wrote is not a signature of its key.
    #[error("what the program wrote is no signature by its key")]
    NotASignature,
}

/// Makes signatures by one key.
#[derive(Debug)]
pub struct Signer {
    name: String,
    public: PublicKey,
    kind: SignerKind,
}

#[derive(Debug)]
enum SignerKind {
    Key(Box<SigningKey>),
    Program { words: Vec<String>, directory: PathBuf, time: Duration },
}

impl Signer {
    /// The signer of a key in memory.
    pub fn of(key: SigningKey) -> Self {
        Self { name: key.public().fingerprint(), public: key.public(), kind: SignerKind::Key(Box::new(key)) }
    }

    /// The key's public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Whether the same statement signed again is the same bytes. Key services mostly draw a number for each signature of
    /// ECDSA's.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.kind, SignerKind::Key(_))
    }

    /// Signs a message. Starts a program where the key is one's own.
    ///
    /// # Errors
    /// The program fails, or its answer is no signature of its key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        let failed = |kind| SigningFailed { key: self.name.clone(), kind };
        match &self.kind {
            SignerKind::Key(key) => Ok(key.sign(message)),
            SignerKind::Program { words, directory, time } => {
                let answer = program::call(words, None, message, directory, *time).map_err(failed)?;
                let signature = [raw(&answer), base64_of(&answer)].into_iter().flatten();
                let mut signature = signature.filter(|bytes| self.public.verifies(message, bytes));
                signature.next().ok_or_else(|| failed(SigningFailure::NotASignature))
            }
        }
    }
}

fn raw(answer: &[u8]) -> Option<Vec<u8>> {
    Some(answer.to_vec())
}

fn base64_of(answer: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text: String = std::str::from_utf8(answer).ok()?.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

impl KeySource {
    /// Whether the key is there, with a password where it needs one. Takes no time: nothing is decrypted, no program asked.
    ///
    /// # Errors
    /// There is no usable key there.
    pub fn look(&self, secrets: Secrets<'_>) -> Result<(), SigningFailed> {
        let failed = |kind| SigningFailed { key: self.to_string(), kind };
        // A pipe gives its key once: to who signs.
        if let Self::File(path) = self
            && let Ok(found) = std::fs::metadata(secrets.directory.join(path))
            && !found.is_file()
            && !found.is_dir()
        {
            return Ok(());
        }
        match self.text(secrets).map_err(failed)? {
            Some(text) => SigningKey::look(&text, secrets.password).map_err(|error| failed(error.into())),
            None => Ok(()),
        }
    }

    /// The text of the key; a program keeps it to itself.
    fn text(&self, secrets: Secrets<'_>) -> Result<Option<Zeroizing<String>>, SigningFailure> {
        match self {
            Self::File(path) => read(&secrets.directory.join(path)).map(Some).map_err(SigningFailure::Unreadable),
            Self::Environment(name) => (secrets.env)(name).map(Zeroizing::new).map(Some).ok_or(SigningFailure::NotSet),
            Self::Program(_) => Ok(None),
        }
    }

    /// Reads the key, or asks the program for its public half.
    ///
    /// # Errors
    /// There is no usable key there.
    pub fn open(&self, secrets: Secrets<'_>) -> Result<Signer, SigningFailed> {
        let failed = |kind| SigningFailed { key: self.to_string(), kind };
        let (public, kind) = match self {
            Self::File(_) | Self::Environment(_) => {
                let text = self.text(secrets).map_err(failed)?.unwrap_or_default();
                of_pem(&text, secrets).map_err(failed)?
            }
            Self::Program(words) => {
                let time = secrets.program_time;
                let answer = program::call(words, Some("public-key"), b"", secrets.directory, time).map_err(failed)?;
                let text = String::from_utf8_lossy(&answer);
                let public = PublicKey::from_pem(&text).map_err(|_| failed(SigningFailure::NoPublicKey))?;
                (public, SignerKind::Program { words: words.clone(), directory: secrets.directory.to_owned(), time })
            }
        };
        Ok(Signer { name: self.to_string(), public, kind })
    }
}

fn of_pem(text: &str, secrets: Secrets<'_>) -> Result<(PublicKey, SignerKind), SigningFailure> {
    let key = SigningKey::from_pem(text, secrets.password)?;
    Ok((key.public(), SignerKind::Key(Box::new(key))))
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    fs::File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
