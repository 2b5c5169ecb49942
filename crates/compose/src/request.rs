//! What a project is read from: Compose files ([`Project::load`]), or sections of the pipeline file ([`Sections::read`]).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use dockerfile::Diagnostic;

use crate::{
    Finding, Project,
    assemble::{Assembly, assemble},
    codes, files,
    load::{ComposeEnv, Filling, Loader, read_env_file},
    parse::{normalize, top},
    read::{Keys, shorten},
    source::SourceText,
    template::{Variables, interpolate},
    yaml::{Entry, Kind, Node},
};

/// What docker compose is told by its flags and environment.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// Working directory, absolute: relative paths of the request start here.
    pub working_directory: PathBuf,
    /// `-f`, in order; empty: `COMPOSE_FILE`, else [`find_files`](crate::find_files).
    pub files: Vec<PathBuf>,
    /// `--project-directory`; `None`: the first file's.
    pub project_directory: Option<PathBuf>,
    /// `-p`; `None`: `COMPOSE_PROJECT_NAME`, the files' `name`, the project directory's.
    pub name: Option<String>,
    /// `--env-file`, in order; empty: `.env` in the project directory, if it is there.
    pub env_files: Vec<PathBuf>,
    /// `--profile`; empty: `COMPOSE_PROFILES`. `*` is all.
    pub profiles: Vec<String>,
    /// The environment of the program; it wins over `.env`.
    pub env: BTreeMap<String, String>,
}

/// A project, and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Findings that stop nothing.
    pub warnings: Vec<Finding>,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No Compose file: exit 2.
    #[error("no Compose file in {} or above it", .directory.display())]
    NoFile {
        /// Where was looked.
        directory: PathBuf,
    },
    /// A file cannot be read: exit 2.
    #[error("{} {cause}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: files::ReadError,
    },
    /// A file of variables is wrong: exit 2.
    #[error("{0}")]
    EnvFile(String),
    /// The project's name is wrong: exit 2.
    #[error(
        "`{0}` is not the name of a project: lowercase letters, digits, `-` and `_`, beginning with a letter or digit"
    )]
    Name(String),
    /// The files are wrong: exit 2.
    #[error("{} is not valid", .0.first().map_or("the Compose file", |finding| finding.file.name.as_str()))]
    Invalid(Vec<Finding>),
}

impl Project {
    /// Reads Compose files as docker compose does.
    ///
    /// # Errors
    /// See [`LoadError`]; nothing of a project with a mistake is given.
    pub fn load(request: &LoadRequest) -> Result<Loaded, LoadError> {
        let files = request.chosen_files()?;
        let directory = match &request.project_directory {
            Some(directory) => normalize(&request.working_directory.join(directory)),
            None => files[0].parent().unwrap_or(Path::new("/")).to_path_buf(),
        };
        let env = ComposeEnv::new(request.variables(&directory)?);
        let filling = Filling::Compose(Rc::clone(&env));
        let mut loader = Loader::new(request.working_directory.clone(), None);
        let mut trees = Vec::new();
        for file in &files {
            let tree = loader.parse(file, &directory, &filling);
            trees.extend(tree.map_err(|cause| LoadError::Read { path: file.clone(), cause })?);
        }
        let name = request.project_name(&mut loader, &trees, &env, &directory)?;
        env.values.borrow_mut().insert("COMPOSE_PROJECT_NAME".into(), name.clone());

        let layers = trees.iter().map(|tree| loader.layer(tree, &filling)).collect();
        let tree = loader.model(layers, &filling, &mut files.clone()).unwrap_or_else(empty);
        let home = request.env.get("HOME").map(PathBuf::from);
        let assembly = Assembly {
            name,
            directory,
            files,
            profiles: request.active_profiles(&env),
            home: home.as_deref(),
            keys: &top::FILE,
            own_keys: false,
        };
        let project = assemble(&mut loader, &tree, assembly);
        let findings = loader.sources.findings(loader.reader.diagnostics);
        if findings.iter().any(|finding| finding.diagnostic.is_error()) {
            return Err(LoadError::Invalid(findings));
        }
        Ok(Loaded { project, warnings: findings })
    }
}

fn empty() -> Arc<Node> {
    Arc::new(Node::new(Kind::Map(Vec::new()), 0..0))
}

impl LoadRequest {
    fn chosen_files(&self) -> Result<Vec<PathBuf>, LoadError> {
        let absolute = |path: &Path| normalize(&self.working_directory.join(path));
        if !self.files.is_empty() {
            return Ok(self.files.iter().map(|path| absolute(path)).collect());
        }
        if let Some(files) = self.env.get("COMPOSE_FILE").filter(|files| !files.is_empty()) {
            let separator = self.env.get("COMPOSE_PATH_SEPARATOR").filter(|separator| !separator.is_empty());
            return Ok(files
                .split(separator.map_or(":", String::as_str))
                .map(|path| absolute(Path::new(path)))
                .collect());
        }
        let directory = self.project_directory.as_deref().map_or(self.working_directory.clone(), absolute);
        match files::find_files(&directory) {
            files if files.is_empty() => Err(LoadError::NoFile { directory }),
            files => Ok(files),
        }
    }

    /// The environment over the `.env` files.
    fn variables(&self, directory: &Path) -> Result<BTreeMap<String, String>, LoadError> {
        let mut files: Vec<PathBuf> = self.env_files.iter().map(|path| self.working_directory.join(path)).collect();
        let disabled =
            self.env.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        if files.is_empty() && !disabled && directory.join(".env").is_file() {
            files.push(directory.join(".env"));
        }
        let mut values = self.env.clone();
        for file in files {
            // Later files win over earlier ones, the environment over all.
            let outside = ComposeEnv::new(values.clone());
            values.extend(read_env_file(&file, &*outside).map_err(LoadError::EnvFile)?);
            values.extend(self.env.clone());
        }
        Ok(values)
    }

    fn active_profiles(&self, env: &ComposeEnv) -> Vec<String> {
        let values = env.values.borrow();
        let from_env = values.get("COMPOSE_PROFILES").filter(|_| self.profiles.is_empty());
        let names = from_env.into_iter().flat_map(|names| names.split(',').map(|name| name.trim().to_owned()));
        self.profiles.iter().cloned().chain(names).filter(|name| !name.is_empty()).collect()
    }

    /// `-p`, `COMPOSE_PROJECT_NAME`, the last file that has a `name`, the project directory.
    fn project_name(
        &self,
        loader: &mut Loader,
        trees: &[Arc<Node>],
        env: &Rc<ComposeEnv>,
        directory: &Path,
    ) -> Result<String, LoadError> {
        let from_env = env.values.borrow().get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned();
        if let Some(name) = self.name.clone().or(from_env) {
            return if is_project_name(&name) { Ok(name) } else { Err(LoadError::Name(name)) };
        }
        let named = trees.iter().rev().find_map(|tree| tree.get("name").filter(|node| node.scalar().is_some()));
        if let Some(node) = named {
            // A mistake in the template is told when the file is filled in.
            let name = node.scalar().and_then(|text| interpolate(text, &**env).ok()).unwrap_or_default();
            if is_project_name(&name) {
                return Ok(name);
            }
            let message = format!("`{}` is not the name of a project", shorten(&name));
            loader.reader.diagnostics.push(
                Diagnostic::error(codes::INVALID_VALUE, message)
                    .with_span(node.span.clone())
                    .with_help("use lowercase letters, digits, `-` and `_`, and begin with a letter or digit"),
            );
            return Ok("project".into());
        }
        let base = directory.file_name().unwrap_or_default().to_string_lossy();
        Ok(Some(directory_name(&base)).filter(|name| !name.is_empty()).unwrap_or_else(|| "project".into()))
    }
}

fn is_project_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && name.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
}

/// What docker compose makes of a directory's name.
fn directory_name(name: &str) -> String {
    let name: String = name.to_lowercase().chars().filter(|c| is_name_char(*c)).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

/// The sections of the pipeline file that are Compose's: `services`, `networks`, `volumes`, `configs`, `secrets`, `include`.
pub struct Sections<'a> {
    /// The pipeline file.
    pub file: &'a SourceText,
    /// Keys of those sections with their values; places are byte ranges in the file.
    pub entries: Vec<Entry>,
    /// Directory that paths are relative to, absolute, links resolved.
    pub base: &'a Path,
    /// Nothing outside of it is read or shown to services; absolute, links resolved.
    pub root: &'a Path,
    /// Name of the project: `<name>_<key>` is the name of a volume.
    pub name: &'a str,
    /// What fills in templates. Included files have [`Variables::environment`] and their own `.env` files.
    pub variables: Rc<dyn Variables>,
}

/// Keys of [`Sections`].
pub const SECTION_KEYS: &[&str] = &["include", "services", "networks", "volumes", "configs", "secrets"];

const SECTIONS: Keys = Keys { what: "the pipeline file", known: SECTION_KEYS, later: &[], foreign: &[] };

/// What [`Sections::read`] gives.
#[derive(Clone, Debug, Default)]
pub struct SectionsRead {
    /// The project; only to be used when no finding is an error.
    pub project: Project,
    /// Findings in the pipeline file, with places in it.
    pub diagnostics: Vec<Diagnostic>,
    /// Findings in files that it includes.
    pub included: Vec<Finding>,
}

impl Sections<'_> {
    /// Reads the sections; services know Seatrial's own keys, and all profiles are active.
    pub fn read(self) -> SectionsRead {
        let filling = Filling::Own(self.variables);
        let file = Arc::new(self.file.clone());
        let mut loader = Loader::new(self.base.to_path_buf(), Some(self.root.to_path_buf()));
        loader.sources.add(Arc::clone(&file), self.base, filling.variables());
        let span = self.entries.first().map_or(0..0, |entry| entry.key_span.clone());
        let tree = Arc::new(Node::new(Kind::Map(self.entries), span));
        let layer = loader.layer(&tree, &filling);
        let tree = loader.model(vec![layer], &filling, &mut vec![file.path.clone()]).unwrap_or_else(empty);
        let assembly = Assembly {
            name: self.name.to_owned(),
            directory: self.base.to_path_buf(),
            files: vec![file.path.clone()],
            profiles: vec!["*".into()],
            home: None,
            keys: &SECTIONS,
            own_keys: true,
        };
        let project = assemble(&mut loader, &tree, assembly);
        let findings = loader.sources.findings(loader.reader.diagnostics);
        let (own, included) = findings.into_iter().partition::<Vec<_>, _>(|finding| Arc::ptr_eq(&finding.file, &file));
        let diagnostics = own.into_iter().map(|finding| finding.diagnostic).collect();
        SectionsRead { project, diagnostics, included }
    }
}
