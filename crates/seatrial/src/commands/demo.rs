//! `seatrial demo`: the whole pipeline on a small service, with nothing but what this machine has.
//!
//! It writes a Git repository, makes its base from this machine's tools, starts a registry, and calls the very function
//! behind `seatrial run --publish`.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use base::HostOptions;
use clap::{Parser as _, ValueEnum};
use registry::{Server, ServerOptions};
use tokio::sync::oneshot;

use super::base::search_path;
use crate::{
    cli::{self, Cli, Progress},
    context::Context,
    exit::Exit,
    failure::Failure,
    settings::Settings,
    terminal::{self, Palette, text},
};

/// Flags of `seatrial demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Break the input of one gate, to see how that looks
    #[arg(long, value_enum, value_name = "GATE")]
    fail: Option<Break>,

    /// Keep repository, store and registry, and say how to go on with them
    #[arg(long)]
    keep: bool,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
}

/// What can be broken. Each breaks one gate and leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Break {
    /// A file that does not compile: the build fails
    Build,
    /// A tab where blanks are asked for
    Style,
    /// A variable that hides another one
    Static,
    /// An even number that is odd
    Unit,
    /// A service that never becomes healthy
    Health,
}

/// The repository's files: name, text, whether it is a program.
const FILES: [(&str, &str, bool); 9] = [
    ("Dockerfile", include_str!("../../assets/demo/Dockerfile"), false),
    ("seatrial.yaml", include_str!("../../assets/demo/seatrial.yaml"), false),
    (".dockerignore", include_str!("../../assets/demo/.dockerignore"), false),
    ("bin/healthcheck", include_str!("../../assets/demo/bin/healthcheck"), true),
    ("bin/number-api", include_str!("../../assets/demo/bin/number-api"), true),
    ("lib/Numbers.pm", include_str!("../../assets/demo/lib/Numbers.pm"), false),
    ("tests/static.pl", include_str!("../../assets/demo/tests/static.pl"), true),
    ("tests/style.sh", include_str!("../../assets/demo/tests/style.sh"), true),
    ("tests/unit.pl", include_str!("../../assets/demo/tests/unit.pl"), true),
];

/// The rule that keeps everything but `master` out of the registry. It needs Git.
const ONLY_MASTER: &str = "  when: {branch: master}\n  tags: [\"${git.short}\", \"${git.branch}\"]\n";
/// Labels that need Git.
const LABELS: &str = "  labels: {commit: \"${git.sha}\", branch: \"${git.branch}\"}\n";
/// The rule on a machine without Git.
const WITHOUT_GIT: &str = "  tags: [demo]\n";

/// Runs the demo; its exit code is that of the run.
pub(crate) fn run(args: &DemoArgs, context: &Context) -> anyhow::Result<Exit> {
    let place = Place::make(args.keep, context)?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let registry = Registry::start(&threads, &place.registry())?;

    let files = files(args.fail, registry.address);
    let has_git = write_repository(&place.repository(), &files)?;
    let settings = Settings {
        home: place.store(),
        cwd: place.repository(),
        demo_registry: Some(registry.address.to_string()),
        ..context.settings.clone()
    };
    let inner = Context::new(settings, Some(context.privilege().clone()));
    let made = make_base(&inner)?;

    let palette = Palette::stderr();
    let row =
        |name: &str, what: &str| terminal::message_line(&format!("{} {what}", palette.faint(&format!("{name:<11}"))));
    row("base", &format!("localhost/host: {} files of this machine, {}", made.files, text::bytes(made.size_bytes)));
    let commit = if has_git { "one commit on master" } else { "no commit: Git is not installed" };
    row("repository", &format!("number-api: {} files, {commit}", FILES.len()));
    row("registry", &format!("{}, for this demo only", registry.address));
    terminal::message_line(&format!("\n{}", palette.strong("$ seatrial run --publish")));

    let outcome = pipeline(args, &inner);
    // The signal came to the inner command; its exit code is what the caller has to hear.
    if let Some(exit) = inner.stopped_by() {
        return Ok(exit);
    }
    let exit = outcome?;

    let tags = inner.block_on(tags(&inner, registry.address))?;
    terminal::message_line(&match tags.as_slice() {
        [] => "\nthe registry holds nothing of number-api: what did not pass is not pushed".to_owned(),
        tags => format!("\nthe registry holds number-api: {}", tags.join(", ")),
    });
    let address = registry.address;
    registry.stop(&threads)?;
    if args.keep {
        explain_keeping(&place, address);
    } else if exit != Exit::Passed {
        terminal::message_line("nothing was kept: what the hints name is there after the same command with `--keep`");
    }
    Ok(exit)
}

/// Exactly what `seatrial run --publish` does in the repository.
fn pipeline(args: &DemoArgs, inner: &Context) -> anyhow::Result<Exit> {
    let progress = args.progress.to_possible_value().expect("no variant is hidden");
    let cli = Cli::try_parse_from(["seatrial", "run", "--publish", "--progress", progress.get_name()])
        .expect("the words are constants and flags of `run`");
    let cli::Command::Run(run) = cli.command else { unreachable!("`run` was parsed") };
    super::run::run(&run, inner)
}

fn make_base(inner: &Context) -> anyhow::Result<base::HostBase> {
    let store = inner.store()?;
    let scope = store.open_scope()?;
    let options = HostOptions { with: vec!["perl-base".into()], search_path: search_path(), ..HostOptions::default() };
    base::host(store, &scope, &options).map_err(|error| match &error.0 {
        base::HostErrorKind::NoProgram(_) => {
            Failure::surroundings("the demo's service is written in Perl, and this machine has none")
                .hint("install it: `apt-get install perl-base`")
                .hint("or try your own repository: `seatrial run` beside a Dockerfile")
                .into()
        }
        _ => anyhow::Error::new(error),
    })
}

/// Where everything lies. Without `--keep` it is the scratch directory of a scope, so that the next command removes it
/// should this one be killed.
struct Place {
    directory: PathBuf,
    _scope: Option<store::Scope>,
}

impl Place {
    fn make(keep: bool, context: &Context) -> anyhow::Result<Self> {
        let (directory, scope) = if keep {
            let directory =
                tempfile::Builder::new().prefix("seatrial-demo-").tempdir().context("cannot make a directory")?;
            (directory.keep(), None)
        } else {
            let scope = context.store()?.open_scope()?;
            (scope.dir().join("demo"), Some(scope))
        };
        let place = Self { directory, _scope: scope };
        for directory in [place.repository(), place.store(), place.registry()] {
            fs_err::create_dir_all(directory)?;
        }
        Ok(place)
    }

    fn repository(&self) -> PathBuf {
        self.directory.join("number-api")
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn registry(&self) -> PathBuf {
        self.directory.join("registry")
    }
}

/// The embedded registry on a free port of this machine.
struct Registry {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Result<(), registry::ServerError>>,
}

impl Registry {
    fn start(threads: &tokio::runtime::Runtime, directory: &Path) -> anyhow::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = threads.block_on(Server::bind(any, directory, ServerOptions::default()))?;
        let address = server.local_addr();
        let (shutdown, asked) = oneshot::channel();
        let serving = threads.spawn(server.serve(async move {
            // The sender's loss means the same as its word.
            let _ = asked.await;
        }));
        Ok(Self { address, shutdown, serving })
    }

    fn stop(self, threads: &tokio::runtime::Runtime) -> anyhow::Result<()> {
        let _ = self.shutdown.send(());
        threads.block_on(self.serving).context("the registry ended badly")??;
        Ok(())
    }
}

/// What the registry has, as any client sees it. A repository that was never pushed to has nothing.
async fn tags(inner: &Context, address: SocketAddr) -> Vec<String> {
    let repository = format!("{address}/number-api").parse().expect("an address and a name are a repository");
    inner.client(&[]).list_tags(&repository).await.unwrap_or_default()
}

/// The files with the registry's address, and with one of them broken if that is asked for.
fn files(broken: Option<Break>, registry: SocketAddr) -> Vec<(&'static str, String, bool)> {
    let mut files: Vec<_> =
        FILES.iter().map(|(name, text, is_program)| (*name, (*text).to_owned(), *is_program)).collect();
    let mut edit = |file: &str, from: &str, to: &str| {
        let (_, text, _) = files.iter_mut().find(|(name, ..)| *name == file).expect("the file is in the list");
        assert!(text.contains(from), "{file} holds what is edited");
        *text = text.replacen(from, to, 1);
    };
    edit("seatrial.yaml", "@REGISTRY@", &registry.to_string());
    match broken {
        None => {}
        Some(Break::Build) => edit("bin/number-api", "while (1) {", "while (1 {"),
        Some(Break::Style) => edit("lib/Numbers.pm", "    my $first =", "\tmy $first ="),
        Some(Break::Static) => {
            edit("lib/Numbers.pm", "    return undef if $first", "    my $last = $last;\n    return undef if $first")
        }
        Some(Break::Unit) => edit("lib/Numbers.pm", "return 2 * any(", "return 1 + 2 * any("),
        Some(Break::Health) => {
            edit("lib/Numbers.pm", "(200, '{\"status\": \"ok\"}')", "(503, '{\"status\": \"busy\"}')")
        }
    }
    files
}

/// Writes the files and commits them. Without Git there is no commit, and publishing does not ask for a branch.
fn write_repository(directory: &Path, files: &[(&str, String, bool)]) -> anyhow::Result<bool> {
    for (name, text, is_program) in files {
        let path = directory.join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(directory))?;
        fs_err::File::create(&path)?.write_all(text.as_bytes())?;
        let mode = if *is_program { 0o755 } else { 0o644 };
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    for arguments in [&["init", "--quiet"][..], &["checkout", "--quiet", "-b", "master"], &["add", "."]] {
        if !git(directory, arguments)? {
            let file = directory.join("seatrial.yaml");
            let text = fs_err::read_to_string(&file)?;
            fs_err::write(&file, text.replace(ONLY_MASTER, WITHOUT_GIT).replace(LABELS, ""))?;
            return Ok(false);
        }
    }
    git(directory, &["commit", "--quiet", "--message", "A service that answers with numbers"])
}

/// Runs Git without the user's settings; whether it is there. What it says in failure is the error.
fn git(directory: &Path, arguments: &[&str]) -> anyhow::Result<bool> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(directory)
        .args(["-c", "init.defaultBranch=start", "-c", "commit.gpgSign=false"])
        .args(arguments);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_AUTHOR_NAME", "Demo"),
        ("GIT_AUTHOR_EMAIL", "demo@localhost"),
        ("GIT_COMMITTER_NAME", "Demo"),
        ("GIT_COMMITTER_EMAIL", "demo@localhost"),
    ] {
        command.env(name, value);
    }
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_TEMPLATE_DIR"] {
        command.env_remove(name);
    }
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(anyhow::anyhow!("{said}").context(format!("`git {}` failed", arguments.join(" "))))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot run git")),
    }
}

/// Only the demo itself may push an image of this machine's own files. Work directories of overlays may be closed even to
/// their owner, which stops `rm` of everybody but root.
fn explain_keeping(place: &Place, address: SocketAddr) {
    let directory = place.directory.display();
    terminal::message_line(&format!(
        "\nkept in {directory}; go on with\n  \
         cd {directory}/number-api && export SEATRIAL_HOME={directory}/store\n  \
         seatrial run\n\
         serve what was pushed with\n  \
         seatrial registry --listen {address} {directory}/registry\n\
         and remove it all with\n  \
         chmod -R u+rwX {directory} && rm -r {directory}"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

    fn text_of<'a>(files: &'a [(&str, String, bool)], name: &str) -> &'a str {
        &files.iter().find(|(file, ..)| *file == name).unwrap().1
    }

    #[test]
    fn every_way_of_breaking_changes_one_file() {
        let whole = files(None, ADDRESS);
        assert!(text_of(&whole, "seatrial.yaml").starts_with("image: 127.0.0.1:5000/number-api\n"));
        assert!(text_of(&whole, "seatrial.yaml").contains(ONLY_MASTER));
        assert!(text_of(&whole, "seatrial.yaml").contains(LABELS));
        for broken in Break::value_variants() {
            let changed = files(Some(*broken), ADDRESS).iter().zip(&whole).filter(|(a, b)| a != b).count();
            assert_eq!(changed, 1, "{broken:?}");
        }
    }

    #[test]
    fn all_files_of_the_demo_are_written() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
        let mut found = 0;
        for directory in ["", "bin", "lib", "tests"] {
            for entry in fs_err::read_dir(assets.join(directory)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    found += 1;
                    let name = path.strip_prefix(&assets).unwrap().to_str().unwrap();
                    assert!(FILES.iter().any(|(file, ..)| *file == name), "{name}");
                }
            }
        }
        assert_eq!(found, FILES.len());
    }
}
