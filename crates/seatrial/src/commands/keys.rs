//! `seatrial keys`: the keys that evidence is signed and verified by.

use std::{
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use evidence::{KeyKind, KeySource, PROGRAM_TIME, PublicKey, Secrets, Signer, SigningFailed, SigningKey};
use zeroize::Zeroizing;

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, text},
};

/// Holds the password of a key, for cosign as for us.
pub(super) const PASSWORD: &str = "COSIGN_PASSWORD";
/// How long a key's program may take for each answer. It is a matter of this machine, and of whoever has to touch a token,
/// not of the repository.
const PROGRAM_TIMEOUT: &str = "SEATRIAL_SIGN_TIMEOUT";

/// Flags of `seatrial keys`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// Make a pair of keys: NAME.key to sign with, NAME.pub to verify with
    Generate(GenerateArgs),
    /// Print the public key of a private one
    Public(PublicArgs),
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// Name of the files, without an ending; nothing is written over
    #[arg(default_value = "seatrial")]
    name: PathBuf,
    /// Kind of key
    #[arg(long = "type", value_enum, default_value_t)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kind {
    /// ECDSA on P-256, which every tool knows
    #[default]
    Ecdsa,
    /// Ed25519
    Ed25519,
}

#[derive(Debug, clap::Args)]
struct PublicArgs {
    /// A file, `env://NAME`, or `exec://PROGRAM`
    key: String,
    /// Only the fingerprint
    #[arg(long)]
    fingerprint: bool,
}

/// Makes or shows keys.
pub(crate) fn run(args: &KeysArgs, context: &Context) -> anyhow::Result<Exit> {
    match &args.command {
        KeysCommand::Generate(args) => generate(args, &context.settings.cwd),
        KeysCommand::Public(args) => public(args, &context.settings.cwd),
    }
}

fn generate(args: &GenerateArgs, directory: &Path) -> anyhow::Result<Exit> {
    let named = |ending: &str| {
        let mut name = args.name.clone().into_os_string();
        name.push(ending);
        directory.join(name)
    };
    let (private, public) = (named(".key"), named(".pub"));
    // Before anybody thinks of a password.
    if let Some(there) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format!("{} exists, and is not written over", there.display()))
            .hint("give another name: `seatrial keys generate NAME`")
            .into());
    }
    let password = new_password()?;
    let kind = match args.kind {
        Kind::Ecdsa => KeyKind::Ecdsa,
        Kind::Ed25519 => KeyKind::Ed25519,
    };
    let no_randomness = |error: &evidence::NoRandomness| Failure::surroundings("cannot make a key").because(error);
    let key = SigningKey::generate(kind).map_err(|error| no_randomness(&error))?;
    let pem = key.to_pem(password.as_ref().map(|password| password.as_str())).map_err(|error| no_randomness(&error))?;
    write_new(&private, 0o600, pem.as_bytes())?;
    write_new(&public, 0o644, key.public().to_pem().as_bytes())?;
    if password.is_none() {
        terminal::warning(&format!(
            "{} has no password: whoever reads it can sign (set {PASSWORD} to give it one)",
            private.display()
        ));
    }
    terminal::message_line(&format!("wrote {} and {}", private.display(), public.display()));
    terminal::result_line(&key.public().fingerprint());
    Ok(Exit::Passed)
}

/// The variable's, also an empty one as with cosign; else what is typed twice on a terminal; else none.
fn new_password() -> Result<Option<Zeroizing<String>>, Failure> {
    if let Ok(password) = std::env::var(PASSWORD) {
        return Ok(Some(Zeroizing::new(password)));
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let ask = |prompt: &str| {
        terminal::message(prompt);
        let line = console::Term::stderr().read_secure_line().map(Zeroizing::new);
        line.map_err(|error| Failure::surroundings("cannot read the password").because(&error))
    };
    let password = ask("Password for the private key (empty for none): ")?;
    if password.is_empty() {
        return Ok(None);
    }
    if *ask("The same again: ")? != *password {
        return Err(Failure::usage("the passwords differ: no key was made"));
    }
    Ok(Some(password))
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::surroundings(format!("cannot write {}", path.display())).because(&error))
}

fn public(args: &PublicArgs, directory: &Path) -> anyhow::Result<Exit> {
    let key = public_key(&args.key, directory)?;
    terminal::result(&if args.fingerprint { format!("{}\n", key.fingerprint()) } else { key.to_pem() });
    Ok(Exit::Passed)
}

/// A file may hold the public key itself.
fn public_key(text: &str, directory: &Path) -> Result<PublicKey, Failure> {
    let source = source(text)?;
    if let KeySource::File(path) = &source
        && let Ok(key) = std::fs::read_to_string(directory.join(path)).map(|text| PublicKey::from_pem(&text))
        && let Ok(key) = key
    {
        return Ok(key);
    }
    let signer = open(&source, directory).map_err(|error| {
        let failure = signing_failure(&error);
        Failure { message: format!("cannot read the key {source}"), ..failure }
    })?;
    Ok(signer.public().clone())
}

/// Where a key is, as a user writes it.
pub(super) fn source(text: &str) -> Result<KeySource, Failure> {
    let source = text.parse().map_err(|error: evidence::KeySourceError| Failure::usage(error.to_string()))?;
    if matches!(source, KeySource::Program(_)) {
        program_time().map_err(|error| Failure::usage(format!("{PROGRAM_TIMEOUT} is wrong: {error}")))?;
    }
    Ok(source)
}

/// Opens a private key with the environment's password, asking for it on a terminal.
pub(super) fn open(source: &KeySource, directory: &Path) -> Result<Signer, SigningFailed> {
    let env = |name: &str| std::env::var(name).ok();
    let password = || std::env::var(PASSWORD).ok().map(Zeroizing::new).or_else(ask);
    source.open(Secrets {
        env: &env,
        password: &password,
        directory,
        program_time: program_time().unwrap_or(PROGRAM_TIME),
    })
}

/// The same where nobody may be asked, because a view is drawn on the terminal.
pub(super) fn open_quietly(source: &KeySource, directory: &Path) -> Result<Signer, SigningFailed> {
    quietly(directory, |secrets| source.open(secrets))
}

/// Whether it is there to be opened so, as far as that takes no time.
pub(super) fn look(source: &KeySource, directory: &Path) -> Result<(), SigningFailed> {
    quietly(directory, |secrets| source.look(secrets))
}

fn quietly<T>(directory: &Path, ask: impl FnOnce(Secrets<'_>) -> T) -> T {
    let env = |name: &str| std::env::var(name).ok();
    let password = || std::env::var(PASSWORD).ok().map(Zeroizing::new);
    ask(Secrets { env: &env, password: &password, directory, program_time: program_time().unwrap_or(PROGRAM_TIME) })
}

fn program_time() -> Result<Duration, String> {
    match std::env::var(PROGRAM_TIMEOUT) {
        Err(_) => Ok(PROGRAM_TIME),
        Ok(text) => match text::parse_duration(&text)? {
            time if time.is_zero() => Err("it leaves no time".into()),
            time => Ok(time),
        },
    }
}

fn ask() -> Option<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    terminal::message("Password of the private key: ");
    console::Term::stderr().read_secure_line().ok().map(Zeroizing::new)
}

/// A key that cannot be used is the user's to mend.
pub(super) fn signing_failure(error: &SigningFailed) -> Failure {
    let failure = Failure::usage(error.to_string()).because(&error.kind);
    match &error.kind {
        evidence::SigningFailure::Key(evidence::KeyFileError::NoPassword) => {
            failure.hint(format!("give its password in {PASSWORD}"))
        }
        evidence::SigningFailure::TooSlow(_) => {
            failure.hint(format!("give the program more time in {PROGRAM_TIMEOUT}, for example `5m`"))
        }
        _ => failure,
    }
}
