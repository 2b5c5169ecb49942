//! The command line as types. Every flag can also be given as `SEATRIAL_<FLAG>` in the environment.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::commands::{
    base, build, capsule, check, clean, completions, config, copy, demo, diff, doctor, down, environments, evidence,
    exec, explain, images, init, inspect, keys, layers, load, login, logout, logs, man, ps, pull, push, registry, rmi,
    run, save, sbom, schema, shell, sign, tag, up, verify,
};
use crate::{failure::Failure, solution::owner::OwnerArgs, terminal::table::Format};

/// Build the image first, test inside it, push what passed
#[derive(Debug, Parser)]
#[command(name = "seatrial", version, infer_long_args = false)]
pub(crate) struct Cli {
    /// Directory of the store [default: /var/lib/seatrial for root, ~/.local/share/seatrial otherwise]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) home: Option<PathBuf>,

    /// Work in this directory
    #[arg(short = 'C', long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) directory: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole pipeline: build, gates in the built image, health check, tags; `--publish` to push
    Run(run::RunArgs),
    /// Build an image from a Dockerfile, with docker's flags
    #[command(after_help = build::FILE_TIMES)]
    Build(Box<build::BuildArgs>),
    /// Build, then run the gates (or only those named)
    Test(run::TestArgs),
    /// Build, then start the image and await its health check
    Health(run::HealthArgs),
    /// Push the image of this commit, if a run has passed it
    Publish(run::PublishArgs),
    /// Move an environment's tag to an image that has what the environment asks for
    Promote(environments::PromoteArgs),
    /// Sign that an image may come into an environment
    Approve(environments::ApproveArgs),
    /// Move an environment back to an image that it had before
    Rollback(environments::RollbackArgs),
    /// Show which images came into the environments, when and by whom
    History(environments::HistoryArgs),
    /// Show in which environments an image is, and was
    Where(environments::WhereArgs),
    /// Remove old runs, unused images and cache
    Clean(clean::CleanArgs),

    /// Bring the services of a compose.yaml up, and wait until all are ready
    Up(Box<up::UpArgs>),
    /// Stop and remove the services of a project
    Down(down::DownArgs),
    /// List the containers of a project
    Ps(ps::PsArgs),
    /// Run a command in a service that is up
    Exec(exec::ExecArgs),
    /// Start stopped services
    Start(down::StartArgs),
    /// Stop services without removing them
    Stop(down::StopArgs),
    /// Stop and start services
    Restart(down::StopArgs),
    /// Show the logs of services that are up, the log of a run, or the list of runs
    Logs(logs::LogsArgs),
    /// Write one file of a failed run, to do it again elsewhere
    Capsule(capsule::CapsuleArgs),
    /// Do again what a capsule holds
    Replay(capsule::ReplayArgs),
    /// A shell in a failed step or gate, in a service that is up, or in an image
    Shell(shell::ShellArgs),

    /// List images
    Images(images::ImagesArgs),
    /// Show everything about images, as JSON
    Inspect(inspect::InspectArgs),
    /// Show the layers of an image
    Layers(layers::LayersArgs),
    /// Compare two images: commits, packages, config, layers, files
    Diff(diff::DiffArgs),
    /// List the packages that an image holds, as a table, SPDX or CycloneDX
    Sbom(sbom::SbomArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Push images to their registry
    Push(push::PushArgs),
    /// Pull images from their registry
    Pull(pull::PullArgs),
    /// Copy an image with all that belongs to it between registries, OCI layouts and archives
    Copy(copy::CopyArgs),
    /// Write images to an archive or an OCI layout
    Save(save::SaveArgs),
    /// Read images from an archive, an OCI layout or a root filesystem
    Load(load::LoadArgs),
    /// Remove images or their names
    Rmi(rmi::RmiArgs),
    /// Show what is said of an image: signatures, provenance, verdicts, packages
    Evidence(evidence::EvidenceArgs),
    /// Check that an image has what a key or a policy asks for
    Verify(verify::VerifyArgs),
    /// Sign an image in its registry, with all its platforms
    Sign(sign::SignImageArgs),
    /// Make and show the keys that evidence is signed by
    Keys(keys::KeysArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Forget a login
    Logout(logout::LogoutArgs),
    /// Make a base image without a registry
    Base(base::BaseArgs),

    /// Serve a registry from a directory; list, inspect and remove what registries hold
    Registry(registry::RegistryArgs),

    /// Write a seatrial.yaml that says what is inferred without one
    Init(init::InitArgs),
    /// Check the Dockerfile and seatrial.yaml without building
    Check(check::CheckArgs),
    /// Show the resolved pipeline
    Config(config::ConfigArgs),
    /// Explain a message's code or a rule, or why the steps of a build were made
    Explain(explain::ExplainArgs),
    /// Check what this machine offers
    Doctor(doctor::DoctorArgs),
    /// Print the JSON Schema of seatrial.yaml
    Schema(schema::SchemaArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    Man(man::ManArgs),
    /// See the whole pipeline at work on a small service
    Demo(demo::DemoArgs),

    /// Keep a project up; started by `up`
    #[command(hide = true)]
    SolutionOwner(OwnerArgs),
}

/// What has to be ready before a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Flags are enough.
    Nothing,
    /// The store, with the rights to change it.
    Store,
}

impl Command {
    /// What has to be ready before this command starts in a directory.
    pub(crate) fn needs(&self, cwd: &Path) -> Needs {
        match self {
            Command::Registry(args) if args.needs_store(cwd) => Needs::Store,
            Command::Build(args) if !args.needs_store() => Needs::Nothing,
            Command::Copy(args) if args.needs_store() => Needs::Store,
            Command::Explain(args) if args.is_topic() => Needs::Nothing,
            Command::Logs(args) if args.is_of_services() => Needs::Nothing,
            Command::Run(_)
            | Command::Build(_)
            | Command::Test(_)
            | Command::Health(_)
            | Command::Publish(_)
            | Command::Clean(_)
            | Command::Logs(_)
            | Command::Shell(_)
            | Command::Capsule(_)
            | Command::Images(_)
            | Command::Inspect(_)
            | Command::Layers(_)
            | Command::Diff(_)
            | Command::Sbom(_)
            | Command::Tag(_)
            | Command::Push(_)
            | Command::Pull(_)
            | Command::Save(_)
            | Command::Load(_)
            | Command::Rmi(_)
            | Command::Base(_)
            | Command::Explain(_)
            | Command::Doctor(_)
            | Command::SolutionOwner(_)
            | Command::Demo(_) => Needs::Store,
            Command::Up(_)
            | Command::Down(_)
            | Command::Ps(_)
            | Command::Exec(_)
            | Command::Start(_)
            | Command::Stop(_)
            | Command::Restart(_)
            | Command::Copy(_)
            | Command::Replay(_)
            | Command::Evidence(_)
            | Command::Verify(_)
            | Command::Sign(_)
            | Command::Keys(_)
            | Command::Promote(_)
            | Command::Approve(_)
            | Command::Rollback(_)
            | Command::History(_)
            | Command::Where(_)
            | Command::Login(_)
            | Command::Logout(_)
            | Command::Registry(_)
            | Command::Init(_)
            | Command::Check(_)
            | Command::Config(_)
            | Command::Schema(_)
            | Command::Completions(_)
            | Command::Man(_) => Needs::Nothing,
        }
    }
}

/// `--cache-limit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CacheLimit {
    /// No limit.
    None,
    /// So many bytes.
    Bytes(u64),
    /// A share of the file system's size.
    Percent(u64),
}

impl Default for CacheLimit {
    /// Docker keeps between a tenth and three fifths of the disk; a laptop's disk has other work as well.
    fn default() -> Self {
        Self::Percent(20)
    }
}

impl CacheLimit {
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            _ if text == "none" => Ok(Self::None),
            None => crate::terminal::text::parse_bytes(text).map(Self::Bytes),
            Some(number) => {
                let percent = number.parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(Self::Percent).ok_or_else(|| format!("`{text}` is no share such as `20%`"))
            }
        }
    }

    /// In bytes, on a file system of this size.
    pub(crate) fn bytes(self, disk_bytes: u64) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => Some(disk_bytes / 100 * percent),
        }
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, `plain` elsewhere
    #[default]
    Auto,
    /// Lines that stay
    Plain,
    /// A view that is redrawn in place
    Tty,
    /// Only the summary
    Quiet,
    /// Nothing
    None,
    /// Events as JSON lines on stdout
    #[value(alias = "rawjson")]
    Json,
}

/// How results are written, for people or for programs.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct FormatArgs {
    /// `json` for a line each, or a template such as `{{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    /// Short for `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArgs {
    /// Reads the flags.
    pub(crate) fn parse(&self) -> Result<Format, Failure> {
        Format::parse(if self.json { Some("json") } else { self.format.as_deref() })
    }
}

/// Flags of every command that builds or starts containers.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct EngineArgs {
    /// Start containers by this OCI runtime (runc, crun) instead of the built-in one
    #[arg(long, value_name = "PATH", help_heading = "Engine options")]
    pub(crate) runtime: Option<PathBuf>,

    /// Bytes that the store may take beyond named images before the least recently used cache goes: a size, a share of the
    /// disk such as `30%`, or `none` [default: 20%]
    #[arg(long, value_name = "SIZE", help_heading = "Engine options", value_parser = CacheLimit::parse)]
    pub(crate) cache_limit: Option<CacheLimit>,

    /// Registry that may be reached without TLS, or with an unknown certificate; loopback always may
    #[arg(long, value_name = "HOST", value_delimiter = ',', help_heading = "Engine options")]
    pub(crate) insecure_registry: Vec<String>,
}

/// `--help` of the program: groups, as people look for commands.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Pipeline", &["run", "build", "test", "health", "publish", "clean"]),
    ("Containers", &["up", "down", "ps", "exec", "start", "stop", "restart", "logs", "shell", "capsule", "replay"]),
    (
        "Images",
        &[
            "images", "inspect", "layers", "diff", "tag", "push", "pull", "copy", "save", "load", "rmi", "sbom",
            "evidence", "verify", "sign", "keys", "login", "logout", "base",
        ],
    ),
    ("Environments", &["promote", "approve", "rollback", "history", "where"]),
    ("Server", &["registry"]),
    ("Start here", &["demo", "init", "check", "config", "explain", "doctor"]),
    ("Shell and editor", &["schema", "completions", "man"]),
];

/// The command with the environment behind each flag and its own help.
pub(crate) fn command() -> clap::Command {
    let mut command = with_environment(Cli::command());
    // Rendering help costs time that other commands do not need.
    if wants_help() {
        let help = grouped_help(&command);
        command = command.override_help(help);
    }
    command
}

fn wants_help() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        None => true,
        Some(first) => matches!(first.to_str(), Some("-h" | "--help" | "help" | "-C" | "--home" | "--directory")),
    }
}

/// The words of the command line as clap reads them: `build --sbom false` and `--provenance mode=max`, as buildx takes
/// them, with `=`.
pub(crate) fn arguments() -> Vec<OsString> {
    joined(std::env::args_os())
}

fn joined(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    // Other commands hand such words on to programs.
    let mut is_build = None;
    for word in words {
        let last = all.last();
        let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
        let is_value = last.is_some_and(|last| last == "-C" || last == "--directory" || last == "--home");
        if is_build.is_none() && last.is_some() && !is_option(&word) && !is_value {
            is_build = Some(word == "build");
        }
        let is_open = is_build == Some(true) && last.is_some_and(|last| last == "--sbom" || last == "--provenance");
        match all.last_mut().filter(|_| is_open && word.to_str().is_some_and(build::is_attestation_value)) {
            Some(flag) => {
                flag.push("=");
                flag.push(word);
            }
            None => all.push(word),
        }
    }
    all
}

/// Names the variable of every flag. What is said on the command line goes first.
fn with_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else { return arg };
            let name: &'static str =
                Box::leak(format!("SEATRIAL_{}", long.to_uppercase().replace('-', "_")).into_boxed_str());
            let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
            // An empty value is how a script says that a variable is not set.
            if !is_flag && std::env::var_os(name).is_some_and(|value| value.is_empty()) {
                return arg;
            }
            let arg = arg.env(name).hide_env(true);
            // `SEATRIAL_NO_CACHE=0` and an empty value mean no.
            if is_flag { arg.value_parser(clap::builder::FalseyValueParser::new()) } else { arg }
        })
        .mut_subcommands(with_environment)
}

fn grouped_help(command: &clap::Command) -> String {
    let mut out = String::from(
        "Build the image first, test inside it, push what passed\n\nUsage: seatrial [OPTIONS] <COMMAND>\n",
    );
    for (group, names) in GROUPS {
        out.push_str(&format!("\n{group}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            out.push_str(&format!("  {name:<12} {}\n", about.unwrap_or_default()));
        }
    }
    out.push_str(
        "\nOptions:\n  \
         -C, --directory <DIR>  Work in this directory\n      \
         --home <DIR>       Directory of the store\n  \
         -h, --help             Print help\n  \
         -V, --version          Print version\n\n\
         Every flag can be given in the environment: `--no-cache` as SEATRIAL_NO_CACHE=1.\n\
         Exit codes: 0 passed, 1 the verdict is no, 2 wrong input, 3 the surroundings failed, 4 authentication.\n\
         Begin with `seatrial demo`, or with `seatrial run` in a repository with a Dockerfile.\n",
    );
    out
}

/// What clap has to say without its guesses that mislead: a flag that is not like what was written, and the advice to hand
/// a misspelt flag on as a value.
pub(crate) fn without_far_guesses(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    error.remove(ContextKind::Suggested);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (Some(written), Some(guess)) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg))
        && dockerfile::nearest(&written, [guess.as_str()]).is_none()
    {
        error.remove(ContextKind::SuggestedArg);
    }
    error
}

/// What clap has to say, with its colours or without.
pub(crate) fn styled(error: &clap::Error, colours: bool) -> String {
    let text = error.render();
    if colours { text.ansi().to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        with_environment(Cli::command()).debug_assert();
    }

    #[test]
    fn values_of_attestation_flags_may_stand_apart() {
        for (given, expected) in [
            ("s build --provenance false .", "s build --provenance=false ."),
            (
                "s -C d build --sbom true --provenance mode=max,version=v1",
                "s -C d build --sbom=true --provenance=mode=max,version=v1",
            ),
            ("s build --sbom --provenance .", "s build --sbom --provenance ."),
            ("s build --sbom a=b --provenance=mode=max false", "s build --sbom a=b --provenance=mode=max false"),
            ("s exec build tool --sbom false", "s exec build tool --sbom false"),
        ] {
            let words = joined(given.split(' ').map(OsString::from)).join(OsStr::new(" "));
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let command = Cli::command();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut known: Vec<&str> = shown.map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }
}
