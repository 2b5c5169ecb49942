//! `seatrial base`: base images where no registry can be reached.

use std::time::Instant;

use base::{DebianErrorKind, DebianOptions, HostErrorKind, HostOptions, Variant};
use clap::ValueEnum;
use oci::Reference;
use store::Image;

use crate::{context::Context, exit::Exit, failure::Failure, terminal, terminal::text};

/// Flags of `seatrial base`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seatrial base host --with python3\n  \
    seatrial base debian:bookworm-slim --include python3,python3-venv -t localhost/python:3.11\n\n\
    `host` copies this machine's own shell and core tools; what is built on it is for trying things out, and `publish`\n\
    refuses it. `debian:SUITE` installs packages through mmdebstrap from the mirrors that this machine's apt uses.")]
pub(crate) struct BaseArgs {
    /// `host`, or `debian:SUITE` (`debian:SUITE-slim` leaves out manuals and translations)
    #[arg(value_name = "host|debian:SUITE")]
    what: String,

    /// Name of the image [default: localhost/host, or debian:SUITE]
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,

    /// host: further programs, or absolute paths of files and directories; python3 and perl bring their libraries
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    with: Vec<String>,

    /// debian: further packages
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    include: Vec<String>,

    /// debian: how much is installed beside --include
    #[arg(long, value_enum, default_value_t)]
    variant: VariantArg,

    /// debian: use only this mirror
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// debian: make it again if the mirror has changed since
    #[arg(long)]
    refresh: bool,

    /// debian: trust the certificate authorities in this machine's /usr/local/share/ca-certificates
    #[arg(long)]
    local_certificates: bool,
}

/// mmdebstrap's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum VariantArg {
    /// Essential and required packages, and apt
    #[default]
    Minbase,
    /// Essential packages and apt
    Apt,
}

/// Makes a base image and prints its name.
pub(crate) fn run(args: &BaseArgs, context: &Context) -> anyhow::Result<Exit> {
    match args.what.split_once(':') {
        None if args.what == "host" => host(args, context),
        Some(("debian", suite)) => debian(args, suite, context),
        _ => Err(Failure::usage(format!("cannot make a base image from `{}`", args.what))
            .hint("from this machine's own tools: `seatrial base host`")
            .hint("from Debian packages: `seatrial base debian:bookworm`")
            .into()),
    }
}

fn host(args: &BaseArgs, context: &Context) -> anyhow::Result<Exit> {
    for (flag, is_given) in [
        ("--include", !args.include.is_empty()),
        ("--mirror", args.mirror.is_some()),
        ("--refresh", args.refresh),
        ("--local-certificates", args.local_certificates),
    ] {
        if is_given {
            return Err(misplaced(flag, "debian:SUITE", "name programs of this machine with `--with`"));
        }
    }
    let start = Instant::now();
    let store = context.store()?;
    let scope = store.open_scope()?;
    let options = HostOptions { with: args.with.clone(), names: args.tag.clone(), search_path: search_path() };
    let made = base::host(store, &scope, &options).map_err(|error| match &error.0 {
        HostErrorKind::NoProgram(_) | HostErrorKind::Plan { .. } => {
            Failure::usage("cannot make a base image from this machine").because(&error.0).into()
        }
        _ => anyhow::Error::new(error),
    })?;
    for skipped in &made.skipped {
        terminal::warning(&format!("left out {}: {}", skipped.what, skipped.reason));
    }
    terminal::message_line(&format!(
        "{} files, {} in {}",
        made.files,
        text::bytes(made.size_bytes),
        text::duration(start.elapsed())
    ));
    show(&made.image, &made.names);
    Ok(Exit::Passed)
}

fn debian(args: &BaseArgs, suite: &str, context: &Context) -> anyhow::Result<Exit> {
    if !args.with.is_empty() {
        return Err(misplaced("--with", "host", "name packages with `--include`"));
    }
    let start = Instant::now();
    let store = context.store()?;
    let scope = store.open_scope()?;
    let options = DebianOptions {
        suite: suite.to_owned(),
        include: args.include.clone(),
        variant: match args.variant {
            VariantArg::Minbase => Variant::Minbase,
            VariantArg::Apt => Variant::Apt,
        },
        mirror: args.mirror.clone(),
        names: args.tag.clone(),
        refresh: args.refresh,
        local_certificates: args.local_certificates,
        epoch: context.settings.source_date_epoch,
    };
    let mut progress = |line: &str| match line.strip_prefix("I: ") {
        Some(text) => terminal::message_line(&format!("debian: {}", text::one_line(text))),
        None => terminal::message_line(&format!("debian: {}", text::one_line(line))),
    };
    let made = base::debian(store, &scope, &options, &mut progress).map_err(|error| explain(error, suite))?;
    if made.is_cached {
        terminal::message_line("made before from the same packages; `--refresh` asks the mirror for newer ones");
    } else {
        terminal::message_line(&format!(
            "{} in {}",
            text::bytes(made.image.size_bytes),
            text::duration(start.elapsed())
        ));
    }
    show(&made.image, &made.names);
    Ok(Exit::Passed)
}

fn explain(error: base::DebianError, suite: &str) -> anyhow::Error {
    let head = format!("cannot make a base image of Debian {suite}");
    match &error.kind {
        DebianErrorKind::BadName(..) => Failure::usage(head).because(&error.kind).into(),
        DebianErrorKind::NotInstalled => Failure::surroundings(head)
            .because(&error.kind)
            .hint("install it: `apt-get install mmdebstrap`")
            .hint("or take this machine's own tools: `seatrial base host`")
            .into(),
        DebianErrorKind::Failed { .. } => Failure::surroundings(head)
            .because(&error.kind)
            .hint("name a mirror that can be reached from here: `--mirror URL`")
            .into(),
        _ => anyhow::Error::new(error).context("`seatrial base` failed"),
    }
}

fn misplaced(flag: &str, place: &str, instead: &str) -> anyhow::Error {
    Failure::usage(format!("{flag} belongs to `seatrial base {place}`")).hint(instead).into()
}

fn show(image: &Image, names: &[Reference]) {
    for name in names {
        terminal::result_line(&format!("{}  {}", name.familiar(), image.id));
    }
}

/// The user's PATH.
pub(super) fn search_path() -> Vec<std::path::PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}
