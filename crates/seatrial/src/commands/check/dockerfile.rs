//! One Dockerfile, checked together with what is known of its context and of base images in the store.

use std::path::{Path, PathBuf};

use dockerfile::{
    Diagnostic, Dockerfile,
    dockerignore::DockerIgnore,
    lint::{self, BaseImage, LAYER_LIMIT, LintInput},
};
use engine::{BuildContext, BuildRequest};
use oci::{Platform, Reference};
use store::{Store, StoreOptions};

use crate::commands::named;

/// More names at the top of a context than this are not looked at: it is nobody's working copy.
const CONTEXT_NAMES_MAX: usize = 10_000;

/// A Dockerfile with its surroundings.
pub(in crate::commands) struct Subject<'a> {
    pub(in crate::commands) text: &'a str,
    /// The context's directory.
    pub(in crate::commands) context: Option<&'a Path>,
    /// Where the Dockerfile lies; `<Dockerfile>.dockerignore` lies beside it.
    pub(in crate::commands) path: Option<&'a Path>,
    pub(in crate::commands) target: Option<&'a str>,
    pub(in crate::commands) build_args: &'a [(String, String)],
    pub(in crate::commands) platform: Platform,
    pub(in crate::commands) layer_limit: usize,
    /// Leave out what a build of the target does not come across.
    pub(in crate::commands) only_needed_stages: bool,
}

/// A Dockerfile that was looked at.
pub(in crate::commands) struct CheckedDockerfile {
    /// Its values, unless it cannot be read.
    pub(in crate::commands) parsed: Option<Dockerfile>,
    /// What was found.
    pub(in crate::commands) diagnostics: Vec<Diagnostic>,
}

/// Checks what a build request would build; `home` is the store's directory, which need not be there.
pub(in crate::commands) fn check_request(
    request: &BuildRequest,
    home: &Path,
    only_needed_stages: bool,
) -> CheckedDockerfile {
    let context = match &request.context {
        BuildContext::Directory(directory) | BuildContext::Fetched { directory, .. } => Some(directory.as_path()),
        BuildContext::Layered { base, .. } => Some(base.as_path()),
        BuildContext::Empty => None,
    };
    let build_args: Vec<(String, String)> = request.build_args.clone().into_iter().collect();
    let subject = Subject {
        text: &request.dockerfile.text,
        context,
        path: request.dockerfile.path.as_deref(),
        target: request.target.as_deref(),
        build_args: &build_args,
        platform: request.platform.clone(),
        layer_limit: LAYER_LIMIT,
        only_needed_stages,
    };
    subject.check(home)
}

impl Subject<'_> {
    /// Reads and checks; findings in the order of the text.
    pub(in crate::commands) fn check(&self, home: &Path) -> CheckedDockerfile {
        let parsed = match dockerfile::parse_with_warnings(self.text) {
            Ok(parsed) => parsed,
            Err(diagnostics) => return CheckedDockerfile { parsed: None, diagnostics },
        };
        let ignore = self.ignore_file();
        let context_names = self.context.map(names_in).unwrap_or_default();
        let store = open_store(home);
        let base = |name: &str, platform: Option<&str>| self.base(store.as_ref()?, name, platform);
        let input = LintInput {
            ignore: ignore.as_ref(),
            context_names: &context_names,
            target: self.target,
            build_args: self.build_args,
            base: Some(&base),
            layer_limit: self.layer_limit,
            only_needed_stages: self.only_needed_stages,
            ..LintInput::default()
        };
        let mut diagnostics = parsed.warnings;
        diagnostics.extend(lint::check(&parsed.dockerfile, self.text, &input));
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
        CheckedDockerfile { parsed: Some(parsed.dockerfile), diagnostics }
    }

    /// `<Dockerfile>.dockerignore` before `.dockerignore`. A wrong one is the build's to report.
    fn ignore_file(&self) -> Option<DockerIgnore> {
        let own = self.path.map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dockerignore");
            PathBuf::from(name)
        });
        let shared = self.context.map(|directory| directory.join(".dockerignore"));
        let text = own.into_iter().chain(shared).find_map(|file| std::fs::read_to_string(file).ok())?;
        DockerIgnore::parse(&text).ok()
    }

    /// A base image, if the store has it; nothing is fetched for a check.
    fn base(&self, store: &Store, name: &str, platform: Option<&str>) -> Option<BaseImage> {
        let wanted = match platform {
            Some(platform) => platform.parse().ok()?,
            None => self.platform.clone(),
        };
        let reference: Reference = name.parse().ok()?;
        let config = store.resolve(&named::with_default_tag(&reference)).ok().flatten()?.config;
        let names = config.config.env.iter().filter_map(|entry| entry.split_once('='));
        // As in BuildKit, variants of an architecture are not compared.
        let words = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
        Some(BaseImage {
            variables: names.map(|(name, _)| name.to_owned()).collect(),
            has_shell: !config.config.shell.is_empty(),
            has_healthcheck: config.config.healthcheck.is_some(),
            user: Some(config.config.user.clone()).filter(|user| !user.is_empty()),
            platform: words(&config.platform()),
            wanted_platform: words(&wanted),
        })
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(CONTEXT_NAMES_MAX).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The store, if there is one already: a check makes none, and looks only at names and configs, which needs no rights.
fn open_store(home: &Path) -> Option<Store> {
    let options = StoreOptions { copy_snapshots: true, user_xattr: true, ignore_chown_errors: true };
    home.join("format").is_file().then(|| Store::open(home, options).ok()).flatten()
}
