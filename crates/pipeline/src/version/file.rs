//! The version that a package file states, as its own tools would read it; nothing of it is executed.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::{pom, python};

/// Package files are small; a version beyond the first mebibyte is not looked for.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files that one may lead to another through: a workspace, a parent, a module. More is a circle.
const PARENTS_MAX: usize = 16;

/// Why there is no version.
#[derive(Debug, thiserror::Error)]
pub enum VersionFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file has no version where its kind has one.
    #[error("{message}")]
    NotFound {
        /// What is missing, with the file's name.
        message: String,
        /// What to write instead, where something is known.
        hint: Option<String>,
    },
}

impl VersionFileError {
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::NotFound { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::NotFound { message, .. } => Self::NotFound { message, hint: Some(hint.into()) },
            other => other,
        }
    }
}

pub(super) type Found = Result<String, VersionFileError>;

/// The version in `Cargo.toml` (also inherited from its workspace), `pyproject.toml` (also dynamic, of setuptools, hatch, PDM,
/// Poetry, flit and maturin), `setup.cfg`, `setup.py`, `pom.xml` (also of its parent and by properties), JSON and TOML files
/// with `version` at the top, `.properties`, a Python module with `__version__`, or a file that holds nothing else. With
/// `pattern`, what its first group (or the group `version`) matches in any file.
///
/// `root` is the repository: nothing outside of it is read, wherever a file leads.
///
/// # Errors
/// The file is unreadable or has no version.
pub fn from_file(path: &Path, root: &Path, pattern: Option<&Regex>) -> Result<String, VersionFileError> {
    let source = File::open(path, root)?;
    let found = match pattern {
        Some(pattern) => by_pattern(&source, pattern),
        None => by_kind(&source),
    }?;
    let found = found.trim();
    if found.is_empty() || found.contains(char::is_whitespace) {
        return Err(VersionFileError::not_found(format!("`{}` has `{found}`, which is no version", source.name)));
    }
    Ok(found.to_owned())
}

/// A file of the repository with its text.
pub(super) struct File {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) text: String,
    root: PathBuf,
    /// Files that led here.
    depth: usize,
}

impl File {
    fn open(path: &Path, root: &Path) -> Result<Self, VersionFileError> {
        let mut text = String::new();
        let file = fs_err::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(VersionFileError::not_found(format!("{} is not a regular file", path.display())));
        }
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, path: path.to_path_buf(), text, root: root.to_path_buf(), depth: 0 })
    }

    /// Directory of the file.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.root)
    }

    /// A file that this one leads to; `None` where there is none within the repository.
    pub(super) fn follow(&self, path: &Path) -> Option<Self> {
        let path = self.directory().join(path).canonicalize().ok().filter(|path| path.starts_with(&self.root))?;
        if self.depth >= PARENTS_MAX || !path.is_file() {
            return None;
        }
        Some(Self { depth: self.depth + 1, ..Self::open(&path, &self.root).ok()? })
    }

    pub(super) fn toml(&self) -> Result<toml::Table, VersionFileError> {
        let parsed = self.text.parse();
        parsed.map_err(|error: toml::de::Error| {
            VersionFileError::not_found(format!("`{}`: {}", self.name, error.message()))
        })
    }

    pub(super) fn missing(&self, what: &str) -> VersionFileError {
        VersionFileError::not_found(format!("`{}` has no {what}", self.name))
    }
}

fn by_kind(file: &File) -> Found {
    let name = file.name.as_str();
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (name, extension) {
        ("Cargo.toml", _) => cargo(file),
        ("pyproject.toml", _) => python::pyproject(file),
        ("setup.cfg", _) => python::setup_cfg(file),
        ("setup.py", _) => python::setup_py(file),
        ("pom.xml", _) => pom::version(file),
        (_, "json") => json(file),
        (_, "toml") => top_of_toml(file),
        (_, "py") => python::assigned(&file.text, "__version__").ok_or_else(|| file.missing("`__version__ = \"…\"`")),
        (_, "cfg" | "ini" | "properties") => key(&file.text, None).ok_or_else(|| file.missing("`version =`")),
        _ => alone(file),
    }
}

pub(super) fn alone(file: &File) -> Found {
    let text = file.text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        let message = format!("`{}` holds more than a version alone", file.name);
        return Err(VersionFileError::not_found(message)
            .hint("say where it stands: `version: {file: PATH, regex: 'release = \"(.+)\"'}`"));
    }
    Ok(text.to_owned())
}

fn by_pattern(file: &File, pattern: &Regex) -> Found {
    let missing = || VersionFileError::not_found(format!("nothing in `{}` matches `{pattern}`", file.name));
    let captures = pattern.captures(&file.text).ok_or_else(missing)?;
    let group = captures.name("version").or_else(|| captures.get(1)).or_else(|| captures.get(0));
    group.map(|group| group.as_str().to_owned()).ok_or_else(missing)
}

fn json(file: &File) -> Found {
    let json: serde_json::Value = serde_json::from_str(&file.text)
        .map_err(|error| VersionFileError::not_found(format!("`{}`: {error}", file.name)))?;
    json["version"].as_str().map(str::to_owned).ok_or_else(|| file.missing("`version`"))
}

/// `version` at the top, or where package files have it.
fn top_of_toml(file: &File) -> Found {
    let table = file.toml()?;
    let places: [&[&str]; 3] = [&["version"], &["package", "version"], &["project", "version"]];
    let found = places.iter().find_map(|path| text_at(&table, path));
    found.ok_or_else(|| file.missing("`version` where it is usual"))
}

/// A text deep in a table.
pub(super) fn text_at(table: &toml::Table, path: &[&str]) -> Option<String> {
    value_at(table, path)?.as_str().map(str::to_owned)
}

pub(super) fn value_at<'t>(table: &'t toml::Table, path: &[&str]) -> Option<&'t toml::Value> {
    let (last, parents) = path.split_last()?;
    parents.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?.get(*last)
}

/// The Cargo Book, "The version field" and "The `package` table" of workspaces.
pub(super) fn cargo(file: &File) -> Found {
    let table = file.toml()?;
    if let Some(version) = text_at(&table, &["package", "version"]) {
        return Ok(version);
    }
    let inherits = value_at(&table, &["package", "version", "workspace"]).and_then(toml::Value::as_bool) == Some(true);
    let own = text_at(&table, &["workspace", "package", "version"]);
    if !inherits {
        return own.ok_or_else(|| file.missing("`package.version`"));
    }
    let named = text_at(&table, &["package", "workspace"]).map(|path| PathBuf::from(path).join("Cargo.toml"));
    let upwards = file.directory().ancestors().skip(1).map(|directory| directory.join("Cargo.toml"));
    let places: Vec<PathBuf> = match named {
        Some(path) => vec![path],
        None => upwards.collect(),
    };
    let mut inherited = places.iter().filter_map(|path| {
        let table = file.follow(path)?.toml().ok()?;
        table.contains_key("workspace").then(|| text_at(&table, &["workspace", "package", "version"]))
    });
    own.or_else(|| inherited.next().flatten())
        .ok_or_else(|| file.missing("version of its own, and no workspace above it has `workspace.package.version`"))
}

/// The value of `version` in lines of `key = value` or `key: value`, perhaps only of one section.
pub(super) fn key(text: &str, section: Option<&str>) -> Option<String> {
    let mut inside = section.is_none();
    for line in text.lines() {
        let line = line.trim_end();
        if let (Some(name), Some(section)) = (line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), section) {
            inside = name.trim() == section;
        }
        // A line that begins with a blank goes on with the value before it (configparser).
        if !inside || line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some((key, value)) = line.split_once(['=', ':'])
            && key.trim() == "version"
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests;
