//! Where a build reads from: the context and the Dockerfile, fetched or unpacked where they are not here.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Read},
    path::Path,
    time::SystemTime,
};

use anyhow::Context as _;
use engine::{BuildContext, DockerfileSource, Material, NamedContext, RemoteSource};
use engine_embedded::{CacheImport, Embedded, looks_like_archive};
use events::EventSink;
use evidence::Trust;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::{flags::BuildArgs, no_dockerfile};
use crate::{
    cli::{EngineArgs, Progress},
    commands::{environment, trust},
    context::Context,
    failure::{self, Failure},
    settings::find_dockerfile,
    terminal::{self, summary::relative},
};

/// A Dockerfile may be this long; real ones have a few kilobytes.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;
/// So much of stdin tells an archive from a Dockerfile: one block of a tar.
const START_BYTES: u64 = 512;
/// BuildKit's build argument that keeps `.git` in a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// The engine, made when something has to be fetched for the build, or for the build itself.
pub(super) struct LazyEngine<'a> {
    context: &'a Context,
    args: &'a EngineArgs,
    imports: &'a [CacheImport],
    /// The build context as it was given.
    given: &'a str,
    made: OnceCell<Embedded>,
}

impl<'a> LazyEngine<'a> {
    pub(super) fn new(context: &'a Context, args: &'a BuildArgs, imports: &'a [CacheImport]) -> Self {
        Self { context, args: &args.engine, imports, given: &args.context, made: OnceCell::new() }
    }

    /// Always the same one: what it fetched goes when it goes.
    pub(super) fn get(&self) -> anyhow::Result<&Embedded> {
        if let Some(engine) = self.made.get() {
            return Ok(engine);
        }
        let engine = self.context.engine_with_cache(self.args, self.imports.to_vec(), self.trust()?)?;
        Ok(self.made.get_or_init(|| engine))
    }

    /// By the pipeline file here, or, where there is none, by that of a context elsewhere.
    fn trust(&self) -> Result<Trust, Failure> {
        let cwd = &self.context.settings.cwd;
        let governing =
            [cwd.clone(), cwd.join(self.given)].into_iter().find(|from| pipeline::find_file(from).is_some());
        governing.map_or_else(|| Ok(Trust::default()), |from| trust::nearest(&from, &environment()))
    }
}

/// What a build reads.
pub(super) struct Source {
    pub(super) context: BuildContext,
    pub(super) dockerfile: DockerfileSource,
    /// Time of the context's commit, where it is a repository.
    pub(super) time: Option<SystemTime>,
    /// What was fetched as the context, by what cannot change.
    pub(super) material: Option<Material>,
}

impl Source {
    /// Finds what the flags name.
    pub(super) fn find(
        args: &BuildArgs,
        build_args: &BTreeMap<String, String>,
        context: &Context,
        engine: &LazyEngine<'_>,
    ) -> anyhow::Result<Self> {
        let cwd = &context.settings.cwd;
        if args.context == "-" {
            return stdin(args, context, engine);
        }
        let local = cwd.join(&args.context);
        if !local.exists()
            && let Some(source) = RemoteSource::parse_context(&args.context).map_err(|error| wrong_source(&error))?
        {
            let keeps_git_dir =
                build_args.get(KEEP_GIT_DIR).is_some_and(|value| matches!(value.as_str(), "1" | "true"));
            return remote(args, &source, keeps_git_dir, context, engine);
        }
        let directory = if args.context == "." { cwd.clone() } else { local };
        match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Failure::usage(format!("the build context `{}` is a file", args.context))
                    .hint(format!("name the Dockerfile with `-f {} .`", args.context))
                    .into());
            }
            Err(error) => {
                let message = format!("there is no build context `{}`", args.context);
                return Err(Failure::usage(message).because(&error).into());
            }
        }
        let dockerfile = match &args.file {
            Some(file) if file == Path::new("-") => from_stdin()?,
            Some(file) if is_web(file) => from_web(file, context, engine)?,
            Some(file) => {
                // Docker's command line reads it from the working directory, its older one from the context.
                let here = cwd.join(file);
                let found = [here.clone(), directory.join(file)].into_iter().find(|path| path.is_file());
                local_dockerfile(&found.ok_or_else(|| no_file(&here))?, cwd)?
            }
            None => local_dockerfile(&find_dockerfile(&directory).ok_or_else(|| no_dockerfile(&directory))?, cwd)?,
        };
        Ok(Self { context: BuildContext::Directory(directory), dockerfile, time: None, material: None })
    }
}

/// Whether the context is not simply here.
pub(super) fn may_need_fetching(context: &str) -> bool {
    context == "-" || !matches!(RemoteSource::parse_context(context), Ok(None))
}

/// Whether `-f` names a file of the web.
pub(super) fn is_web(file: &Path) -> bool {
    file.to_str().is_some_and(|file| matches!(RemoteSource::parse(file), Ok(Some(RemoteSource::Http(_)))))
}

fn wrong_source(error: &engine::InvalidSource) -> Failure {
    Failure::usage("the build context is wrong").because(error)
}

fn no_file(path: &Path) -> Failure {
    Failure::usage(format!("there is no Dockerfile {}", path.display()))
}

/// A context from a repository or the web.
fn remote(
    args: &BuildArgs,
    source: &RemoteSource,
    keeps_git_dir: bool,
    context: &Context,
    engine: &LazyEngine<'_>,
) -> anyhow::Result<Source> {
    let engine = engine.get()?;
    context.watch_signals();
    if !matches!(args.progress(), Progress::Quiet | Progress::None | Progress::Json) {
        terminal::message_line(&format!("fetching {source}"));
    }
    let fetched = engine
        .fetch_context(source, keeps_git_dir, &context.cancel, &EventSink::silent())
        .map_err(|error| failure::fetch(&source.to_string(), error))?;
    let dockerfile = match (&fetched.file, &args.file) {
        (_, Some(file)) if file == Path::new("-") => from_stdin()?,
        (Some(name), _) => fetched_dockerfile(&fetched.directory, Path::new(name))?,
        (None, file) => dockerfile_within(&fetched.directory, file.as_deref())?,
    };
    let context = BuildContext::Fetched { directory: fetched.directory, origin: source.to_string() };
    Ok(Source { context, dockerfile, time: fetched.time, material: Some(fetched.material) })
}

/// `-`: an archive with the context, or a Dockerfile without one.
fn stdin(args: &BuildArgs, context: &Context, engine: &LazyEngine<'_>) -> anyhow::Result<Source> {
    let file = args.file.as_deref();
    if file == Some(Path::new("-")) {
        return Err(Failure::usage("stdin cannot be both the build context and the Dockerfile")
            .hint("name a directory: `seatrial build -f - DIRECTORY`")
            .into());
    }
    let mut start = Vec::new();
    std::io::stdin()
        .lock()
        .take(START_BYTES)
        .read_to_end(&mut start)
        .context("cannot read the build context from stdin")?;
    if !looks_like_archive(&start) {
        if let Some(file) = file {
            return Err(Failure::usage(format!("stdin holds no archive in which `{}` could be", file.display()))
                .hint("give a tar archive, or leave out `-f` and give a Dockerfile")
                .into());
        }
        let text = read_text(Cursor::new(start).chain(std::io::stdin().lock()), "the Dockerfile on stdin")?;
        let dockerfile = DockerfileSource { name: "Dockerfile".into(), path: None, text };
        return Ok(Source { context: BuildContext::Empty, dockerfile, time: None, material: None });
    }
    let engine = engine.get()?;
    context.watch_signals();
    let directory = engine
        .unpack_context(&mut Cursor::new(start).chain(std::io::stdin().lock()), &context.cancel)
        .map_err(|error| failure::fetch("on stdin", error))?
        .ok_or_else(|| Failure::usage("stdin holds something compressed that is no tar archive"))?;
    let dockerfile = dockerfile_within(&directory, file)?;
    let context = BuildContext::Fetched { directory, origin: "-".into() };
    Ok(Source { context, dockerfile, time: None, material: None })
}

/// The Dockerfile of a context that somebody else filled.
fn dockerfile_within(directory: &Path, file: Option<&Path>) -> anyhow::Result<DockerfileSource> {
    let names = match file {
        Some(file) => vec![file],
        None => vec![Path::new("Dockerfile"), Path::new("Containerfile")],
    };
    for name in &names {
        if open_within(directory, name).is_some() {
            return fetched_dockerfile(directory, name);
        }
    }
    let names: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
    Err(Failure::usage(format!("the build context has no {}", names.join(" and no ")))
        .hint("name the Dockerfile within the context: `-f PATH/IN/CONTEXT`")
        .into())
}

fn fetched_dockerfile(directory: &Path, name: &Path) -> anyhow::Result<DockerfileSource> {
    let file = open_within(directory, name).ok_or_else(|| no_file(name))?;
    let text = read_text(file, &name.display().to_string())?;
    Ok(DockerfileSource { name: name.display().to_string(), path: Some(directory.join(name)), text })
}

/// Opens a file below a directory; links in it do not lead out.
fn open_within(directory: &Path, name: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, name, flags, Mode::empty(), resolve).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// `-f https://…`: a Dockerfile of the web for a context that is here.
fn from_web(file: &Path, context: &Context, engine: &LazyEngine<'_>) -> anyhow::Result<DockerfileSource> {
    let source = file.to_str().map(RemoteSource::parse);
    let Some(Ok(Some(source))) = source else { return Err(no_file(file).into()) };
    context.watch_signals();
    let fetched = engine.get()?.fetch_context(&source, false, &context.cancel, &EventSink::silent());
    let fetched = fetched.map_err(|error| failure::fetch(&source.to_string(), error))?;
    let Some(name) = fetched.file else {
        return Err(Failure::usage(format!("{source} is an archive, not a Dockerfile")).into());
    };
    let dockerfile = fetched_dockerfile(&fetched.directory, Path::new(&name))?;
    Ok(DockerfileSource { name: source.to_string(), path: None, ..dockerfile })
}

fn from_stdin() -> anyhow::Result<DockerfileSource> {
    let text = read_text(std::io::stdin().lock(), "the Dockerfile on stdin")?;
    Ok(DockerfileSource { name: "Dockerfile".into(), path: None, text })
}

fn local_dockerfile(path: &Path, cwd: &Path) -> anyhow::Result<DockerfileSource> {
    let file = fs_err::File::open(path).context("cannot read the Dockerfile")?;
    let text = read_text(file, &path.display().to_string())?;
    let name = relative(path, cwd).display().to_string();
    let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
    Ok(DockerfileSource { name, path: Some(path.to_owned()), text })
}

fn read_text(from: impl Read, what: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {what}"))?;
    if bytes.len() as u64 > DOCKERFILE_BYTES_MAX {
        return Err(Failure::usage(format!("{what} is too long for a Dockerfile")).into());
    }
    let text =
        String::from_utf8(bytes).map_err(|error| Failure::usage(format!("{what} is not UTF-8")).because(&error))?;
    Ok(text)
}

/// `--build-context NAME=SOURCE`.
pub(super) fn named_context(given: &str, cwd: &Path) -> Result<(String, NamedContext), Failure> {
    let Some((name, value)) = given.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
    else {
        return Err(Failure::usage(format!("`--build-context {given}` is not NAME=SOURCE")));
    };
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Failure::usage(format!("`--build-context {name}` is wrong")).because(error)
    };
    let directory = cwd.join(value);
    if let Some(stage) = value.strip_prefix("target:") {
        return Ok((name.to_owned(), NamedContext::Stage(stage.to_owned())));
    }
    if directory.is_dir() {
        return Ok((name.to_owned(), NamedContext::Directory(directory)));
    }
    let context = match value.parse::<NamedContext>().map_err(|error| wrong(&error))? {
        NamedContext::OciLayout { path, name } => NamedContext::OciLayout { path: cwd.join(path), name },
        NamedContext::Directory(_) if value.contains("://") => {
            return Err(Failure::usage(format!("`--build-context {given}`: this kind of context is unknown")).hint(
                "use a directory, a Git repository, a URL, `docker-image://NAME`, `oci-layout://DIRECTORY[:TAG]` or \
                 `target:STAGE`",
            ));
        }
        NamedContext::Directory(_) => {
            let message = format!("`--build-context {given}`: there is no directory {}", directory.display());
            return Err(Failure::usage(message));
        }
        context => context,
    };
    Ok((name.to_owned(), context))
}
