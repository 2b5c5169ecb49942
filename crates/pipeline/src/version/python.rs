//! Where Python packages keep their version: stated, or in a module or file that the build back end reads. Modules are
//! looked at, never imported.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::file::{File, Found, VersionFileError, alone, cargo, key, text_at, value_at};

/// `project.version`, Poetry's, or where `dynamic` leads to (pyproject.toml specification; each back end's own words).
pub(super) fn pyproject(file: &File) -> Found {
    let table = file.toml()?;
    let stated = text_at(&table, &["project", "version"]);
    let is_dynamic_poetry =
        value_at(&table, &["tool", "poetry-dynamic-versioning", "enable"]).and_then(toml::Value::as_bool) == Some(true);
    if let Some(version) =
        stated.or_else(|| text_at(&table, &["tool", "poetry", "version"]).filter(|_| !is_dynamic_poetry))
    {
        return Ok(version);
    }
    let tool = |path: &[&str]| value_at(&table, &[&["tool"], path].concat());
    let of_git = is_dynamic_poetry
        || tool(&["setuptools_scm"]).is_some()
        || tool(&["setuptools-git-versioning"]).is_some()
        || tool(&["hatch", "version", "source"]).and_then(toml::Value::as_str) == Some("vcs")
        || tool(&["pdm", "version", "source"]).and_then(toml::Value::as_str) == Some("scm");
    if of_git {
        let message = format!("`{}` takes its version from Git", file.name);
        return Err(VersionFileError::not_found(message).hint("write `version: {git: describe, form: pep440}`"));
    }
    if let Some(attribute) = text_at(&table, &["tool", "setuptools", "dynamic", "version", "attr"]) {
        return attr(file, &attribute);
    }
    if let Some(named) = value_at(&table, &["tool", "setuptools", "dynamic", "version", "file"]) {
        let first = named.as_str().or_else(|| named.as_array().and_then(|list| list.first()?.as_str()));
        return in_file(file, first.unwrap_or_default());
    }
    for (tool, pattern) in [("hatch", text_at(&table, &["tool", "hatch", "version", "pattern"])), ("pdm", None)] {
        if let Some(path) = text_at(&table, &["tool", tool, "version", "path"]) {
            return module(file, Path::new(&path), pattern.as_deref());
        }
    }
    let back_end = text_at(&table, &["build-system", "build-backend"]).unwrap_or_default();
    if back_end.starts_with("maturin")
        && let Some(manifest) = file
            .follow(Path::new(&text_at(&table, &["tool", "maturin", "manifest-path"]).unwrap_or("Cargo.toml".into())))
    {
        return cargo(&manifest);
    }
    if back_end.starts_with("flit") || back_end.starts_with("flit_core") {
        let name =
            text_at(&table, &["tool", "flit", "module", "name"]).or_else(|| text_at(&table, &["project", "name"]));
        return attr(file, &format!("{}.__version__", name.unwrap_or_default().replace('-', "_")));
    }
    if let Some(found) = file.follow(Path::new("setup.cfg")).and_then(|other| setup_cfg(&other).ok()) {
        return Ok(found);
    }
    if let Some(found) = file.follow(Path::new("setup.py")).and_then(|other| setup_py(&other).ok()) {
        return Ok(found);
    }
    Err(file.missing("`project.version`, and nothing says where a dynamic one is").hint(
        "name the file that has it: `version: {file: src/app/__init__.py}`, or `version: {git: describe, form: pep440}`",
    ))
}

/// `version` of `[metadata]`: a text, `attr: package.__version__` or `file: VERSION` (setuptools, "Configuring setuptools
/// using setup.cfg files").
pub(super) fn setup_cfg(file: &File) -> Found {
    let value = key(&file.text, Some("metadata")).ok_or_else(|| file.missing("`version =` in `[metadata]`"))?;
    if let Some(attribute) = value.strip_prefix("attr:") {
        return attr(file, attribute.trim());
    }
    match value.strip_prefix("file:") {
        Some(path) => in_file(file, path.split(',').next().unwrap_or_default().trim()),
        None => Ok(value),
    }
}

/// `version="…"`, or a name that the file gives a text.
pub(super) fn setup_py(file: &File) -> Found {
    let code = without_comments(&file.text);
    let stated = Regex::new(r#"\bversion\s*=\s*(?:"([^"\n]+)"|'([^'\n]+)'|([A-Za-z_]\w*)\s*[,)])"#).expect("a pattern");
    let unclear = || {
        file.missing("`version=\"…\"` as a plain text; it is not executed").hint(
            "say how to ask for it: `version: {command: python setup.py --version}`, or name the file that has it",
        )
    };
    let found = stated.captures(&code).ok_or_else(unclear)?;
    if let Some(text) = found.get(1).or_else(|| found.get(2)) {
        return Ok(text.as_str().to_owned());
    }
    found.get(3).and_then(|name| assigned(&code, name.as_str())).ok_or_else(unclear)
}

/// The text that a module gives a name: `__version__ = "1.2.3"`, also with a type.
pub(super) fn assigned(text: &str, name: &str) -> Option<String> {
    let pattern = format!(r#"(?m)^{}(?:\s*:\s*[\w.\[\]]+)?\s*=\s*["']([^"'\n]+)["']"#, regex::escape(name));
    Some(Regex::new(&pattern).ok()?.captures(text)?.get(1)?.as_str().to_owned())
}

/// Comments could have a version of former times. A `#` in a text is cut as well, which loses nothing that is looked for.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `package.module.NAME`, below the file's directory or its `src`.
fn attr(file: &File, attribute: &str) -> Found {
    let missing = || file.missing(&format!("module with a plain `{attribute}`"));
    let (module, name) = attribute.rsplit_once('.').ok_or_else(missing)?;
    let path = module.replace('.', "/");
    let places = ["", "src/", "lib/"].into_iter().flat_map(|base| {
        [format!("{base}{path}.py"), format!("{base}{path}/__init__.py"), format!("{base}{path}/__about__.py")]
    });
    let mut found = places.filter_map(|place| assigned(&file.follow(Path::new(&place))?.text, name));
    found.next().ok_or_else(missing)
}

fn in_file(file: &File, path: &str) -> Found {
    let other =
        file.follow(Path::new(path)).ok_or_else(|| file.missing(&format!("file `{path}` in the repository")))?;
    alone(&other)
}

/// A module by path; hatch's pattern has the group `version`.
fn module(file: &File, path: &Path, pattern: Option<&str>) -> Found {
    let shown = PathBuf::from(path).display().to_string();
    let other = file.follow(path).ok_or_else(|| file.missing(&format!("file `{shown}` in the repository")))?;
    let own = pattern.and_then(|pattern| {
        let pattern = Regex::new(&format!("(?m){pattern}")).ok()?;
        pattern.captures(&other.text)?.name("version").map(|found| found.as_str().to_owned())
    });
    let usual = || ["__version__", "VERSION", "version"].iter().find_map(|name| assigned(&other.text, name));
    own.or_else(usual).ok_or_else(|| other.missing("`__version__ = \"…\"`"))
}
