//! Errors as the user reads them: text, cause, hint, exit code. Only the front door knows the flags, so only it hints.

use std::error::Error;

use engine::BuildError;
use events::Place;

use crate::{
    exit::Exit,
    terminal::{Palette, diagnostics::Findings, model::TAIL_LINES_MAX, summary::Failed},
};

/// A failed command, told to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One line: what was attempted, on what.
    pub(crate) message: String,
    /// Causes, outermost first.
    pub(crate) causes: Vec<String>,
    /// A block already made for the terminal (a diagnostic with its place), shown instead of the message.
    pub(crate) block: Option<String>,
    /// Where in the user's files.
    pub(crate) place: Option<Box<Place>>,
    /// The disk is full: the front door adds where, and how much is left.
    pub(crate) is_no_space: bool,
    /// A command says that the disk is full. It is believed if the store's disk has little room indeed.
    pub(crate) suspects_no_space: bool,
    /// Whole commands or actions that help.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// A failure with nothing but its code and message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            block: None,
            place: None,
            is_no_space: false,
            suspects_no_space: false,
            hints: Vec::new(),
        }
    }

    /// What a cancelled command fails with; the front door replaces its exit code by the signal's.
    pub(crate) fn cancelled() -> Self {
        Self::new(Exit::Interrupted, "cancelled")
    }

    /// Whether this is nothing but the answer to a signal.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.exit == Exit::Interrupted
    }

    /// Exit 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Exit 3.
    pub(crate) fn surroundings(message: impl Into<String>) -> Self {
        Self::new(Exit::Surroundings, message)
    }

    /// Exit 1.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// A step that failed because the store's disk is full is no verdict.
    pub(crate) fn blame_full_disk(&mut self) {
        self.exit = Exit::Surroundings;
        self.hints.push(MAKE_ROOM.to_owned());
    }

    /// Adds an error and its own causes.
    #[must_use]
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.extend(chain(error));
        self
    }

    /// Adds a hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Shows a ready-made block instead of the message.
    #[must_use]
    pub(crate) fn shown_as(mut self, block: String) -> Self {
        self.block = Some(block);
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// What network libraries put between the attempt and the cause; it tells nobody anything.
const NOISE: [&str; 5] =
    ["error sending request", "client error (Connect)", "dns error", "error resolving DNS", "tcp connect error"];

/// The messages of an error and its sources; a message that only repeats the end of the former one is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        let is_noise = error.source().is_some() && NOISE.iter().any(|noise| message.starts_with(noise));
        if !message.is_empty() && !is_noise && !messages.last().is_some_and(|last| last.ends_with(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// An image that cannot be had from its registry has other ways in.
const WITHOUT_REGISTRY: [&str; 3] = [
    "make a base image here: `seatrial base debian:bookworm` or `seatrial base host`",
    "bring it as a file: `seatrial load -i image.tar`",
    "name a local layout: `seatrial build --build-context NAME=oci-layout://DIRECTORY .`",
];

/// What programs say of a full disk, in English (strerror of `ENOSPC`).
const NO_SPACE: &str = "No space left on device";

/// The way out of a full disk.
const MAKE_ROOM: &str = "make room: `seatrial clean --dry-run` shows what can go, `seatrial clean` removes it";

/// A build without an image, for a build that belongs to this run.
pub(crate) fn build(error: BuildError, run: u64) -> Failure {
    build_of("build", error, run)
}

/// The same of a service, whose name is that of the stage.
pub(crate) fn build_of(stage: &str, error: BuildError, run: u64) -> Failure {
    let message = error.to_string();
    match error {
        BuildError::Invalid { source_file, diagnostics, kept } => {
            let findings = Findings { name: &source_file.name, text: &source_file.text, diagnostics: &diagnostics };
            let failure = Failure::usage(message).shown_as(findings.render(Palette::stderr()));
            match kept {
                Some(_) => failure.hint(format!("see what it found there with `seatrial shell {run} {stage}`")),
                None => failure,
            }
        }
        BuildError::Step(step) => {
            let what = if stage == "build" { "build".to_owned() } else { format!("service {stage}") };
            let failed = Failed::step(&what, stage, run, &step);
            let suspects_no_space = step.tail.iter().any(|line| line.contains(NO_SPACE));
            let failure = Failure::refused(message).shown_as(failed.render(Palette::stderr(), TAIL_LINES_MAX));
            Failure { suspects_no_space, ..failure }
        }
        BuildError::Base { reference, place, is_auth, source } => {
            let mut failure = Failure::surroundings(message).because(source.as_ref());
            failure.place = place.map(Box::new);
            // The library tells the ways without a registry in its words; here they are commands below.
            for cause in &mut failure.causes {
                cause.truncate(cause.find("; without a registry").unwrap_or(cause.len()));
            }
            let host =
                reference.parse::<oci::Reference>().map_or_else(|_| "docker.io".to_owned(), |r| r.domain().to_owned());
            if is_auth {
                failure.exit = Exit::Authentication;
                failure.hint(format!("log in with `seatrial login {host}`"))
            } else {
                failure.hints.extend(without_registry());
                failure
            }
        }
        BuildError::Untrusted { place, .. } => {
            // The file may have more services of one image.
            let told = if stage == "build" { message } else { format!("service {stage}: {message}") };
            let mut failure = Failure::refused(told);
            failure.place = place.map(Box::new);
            failure.hint(
                "see what is said of it with `seatrial evidence IMAGE`; `trust` in seatrial.yaml says what it needs",
            )
        }
        BuildError::Remote { place, is_auth, source, .. } => {
            let mut failure = Failure::surroundings(message).because(source.as_ref());
            failure.place = place.map(Box::new);
            if is_auth { refused_access(failure) } else { failure }
        }
        BuildError::Cancelled => Failure::cancelled(),
        BuildError::Engine(error) => explain(error.into()),
    }
}

/// A build context that could not be fetched.
pub(crate) fn fetch(what: &str, error: engine_embedded::FetchError) -> Failure {
    use engine_embedded::FetchError;
    let message = format!("cannot fetch the build context {what}");
    match error {
        FetchError::Wrong(reason) => Failure { causes: vec![reason], ..Failure::usage(message) },
        FetchError::Mismatch { wanted, got, .. } => {
            Failure { causes: vec![format!("expected {wanted}, it has {got}")], ..Failure::usage(message) }
        }
        FetchError::Auth(source) => refused_access(Failure::surroundings(message).because(source.as_ref())),
        FetchError::Stopped => Failure::cancelled(),
        FetchError::Failed(source) => {
            // A full disk has its own way out.
            let told = explain(anyhow::Error::from_boxed(source));
            let causes = std::iter::once(told.message).chain(told.causes).collect();
            Failure { causes, message, ..told }
        }
    }
}

/// Exit 4, with what helps where no login of ours does.
fn refused_access(failure: Failure) -> Failure {
    Failure { exit: Exit::Authentication, ..failure }.hint(
        "for a Git repository set up a credential helper or an SSH agent; for a file write `https://USER:TOKEN@HOST/…`",
    )
}

/// Turns any error of a command into what the user reads.
pub(crate) fn explain(error: anyhow::Error) -> Failure {
    let error = match error.downcast::<Failure>() {
        Ok(failure) => return failure,
        Err(error) => error,
    };
    let messages = {
        let root: &(dyn Error + 'static) = error.as_ref();
        chain(root)
    };
    let mut failure = Failure::surroundings(messages.first().cloned().unwrap_or_default());
    failure.causes = messages.into_iter().skip(1).collect();
    for cause in error.chain() {
        classify(cause, &mut failure);
    }
    failure.hints.dedup();
    failure
}

/// What a known kind of error means for the exit code and which way out it has.
fn classify(cause: &(dyn Error + 'static), failure: &mut Failure) {
    if let Some(inner) = cause.downcast_ref::<Failure>() {
        failure.exit = inner.exit;
        failure.hints.extend(inner.hints.iter().cloned());
    } else if let Some(error) = cause.downcast_ref::<registry::RegistryError>() {
        registry_failure(error, failure);
    } else if let Some(error) = cause.downcast_ref::<engine::EngineError>() {
        failure.hints.extend(error.hint.clone());
    } else if let Some(error) = cause.downcast_ref::<oci::InvalidReference>() {
        failure.exit = Exit::Usage;
        failure.hints.extend(error.text.contains("://").then(|| "leave out the scheme: `HOST/NAME:TAG`".to_owned()));
    } else if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        io_failure(error, failure);
    }
}

/// Where a registry is asked: without TLS on this machine, elsewhere with it.
fn url_of(host: &str) -> String {
    let is_loopback = ["localhost", "127.", "[::1]"].iter().any(|start| host.starts_with(start));
    match host {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ if is_loopback => format!("http://{host}"),
        _ => format!("https://{host}"),
    }
}

pub(crate) fn registry_failure(error: &registry::RegistryError, failure: &mut Failure) {
    let host = error.target.split('/').next().unwrap_or(&error.target).to_owned();
    if error.is_auth() {
        failure.exit = Exit::Authentication;
        failure.hints.push(match &error.kind {
            registry::ErrorKind::Denied { .. } => {
                format!("if another user may do this, log in as that one: `seatrial login {host}`")
            }
            _ => format!("log in with `seatrial login {host}`"),
        });
    } else if error.is_unreachable() {
        failure.exit = Exit::Surroundings;
        if error.action.contains("pull") || error.action.contains("resolve") {
            failure.hints.extend(WITHOUT_REGISTRY.map(str::to_owned));
        } else {
            failure.hints.push(format!("see whether the registry answers: `curl -i {}/v2/`", url_of(&host)));
        }
    } else if error.is_not_found() || matches!(error.kind, registry::ErrorKind::PlatformMissing { .. }) {
        failure.exit = Exit::Refused;
    } else {
        failure.exit = Exit::Surroundings;
    }
}

/// The hints for a base image that cannot be had.
pub(crate) fn without_registry() -> Vec<String> {
    WITHOUT_REGISTRY.map(str::to_owned).to_vec()
}

fn io_failure(error: &std::io::Error, failure: &mut Failure) {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            failure.exit = Exit::Surroundings;
            failure.is_no_space = true;
            failure.hints.push(MAKE_ROOM.into());
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            failure.exit = Exit::Surroundings;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("disk on fire");
        let failure = explain(anyhow::Error::new(inner).context("cannot write x: disk on fire").context("cannot save"));
        assert_eq!(failure.message, "cannot save");
        assert_eq!(failure.causes, ["cannot write x: disk on fire"]);
        assert_eq!(failure.exit, Exit::Surroundings);
    }

    #[test]
    fn a_full_disk_names_the_way_out() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failure = explain(anyhow::Error::new(full).context("cannot write blob"));
        assert_eq!(failure.exit, Exit::Surroundings);
        assert!(failure.hints[0].contains("seatrial clean"));
    }
}
