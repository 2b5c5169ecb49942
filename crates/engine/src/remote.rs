//! Names of things that lie elsewhere: Git repositories and files on the web, as docker's command line and ADD write them.

use std::fmt;

use url::{Url, form_urlencoded};

/// A Git repository with what is wanted of it, written as BuildKit reads it: `https://host/repo.git#ref:dir`,
/// `git@host:repo?branch=main&subdir=dir`, `ssh://…`, `git://…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// What `git` is given.
    pub remote: String,
    /// Branch, tag, full name of a reference, or commit; `None` is the remote's HEAD.
    pub reference: Option<String>,
    /// Directory of the repository that is meant; `None` is all of it.
    pub subdir: Option<String>,
    /// The commit (or its first digits) that the reference has to name.
    pub checksum: Option<String>,
    /// Whether `.git` is wanted too, if that is said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are wanted, if that is said.
    pub submodules: Option<bool>,
}

/// What is meant by a source or context that is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteSource {
    /// A Git repository.
    Git(GitSource),
    /// A file on the web (`http://`, `https://`).
    Http(String),
}

/// A source looks like a URL, but cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{}` {reason}", redacted(.text))]
pub struct InvalidSource {
    /// As it was written.
    pub text: String,
    /// What is wrong, as the end of a sentence.
    pub reason: String,
}

impl RemoteSource {
    /// Reads a source; `Ok(None)` is a path. Web addresses are repositories if their path ends with `.git` (BuildKit's
    /// `ParseGitRef`).
    ///
    /// # Errors
    /// It is no path, but wrong as what it is.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidSource> {
        let wrong = |reason: String| InvalidSource { text: text.to_owned(), reason };
        let Some((scheme, _)) = text.split_once("://") else { return scp(text).map_err(wrong) };
        let is_web = matches!(scheme, "http" | "https");
        if !is_web && !matches!(scheme, "git" | "ssh") {
            return Ok(None);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("holds a blank or control character".into()));
        }
        let url = Url::parse(text).map_err(|error| wrong(format!("is no URL: {error}")))?;
        if is_web && !url.path().ends_with(".git") {
            return Ok(Some(Self::Http(text.to_owned())));
        }
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let fragment = url.fragment().map(decoded);
        let git = GitSource::new(&text[..end], fragment.as_deref(), url.query().unwrap_or("")).map_err(wrong)?;
        Ok(Some(Self::Git(git)))
    }
}

impl RemoteSource {
    /// The same for a build context, where docker also takes `github.com/owner/repository` for a repository.
    ///
    /// # Errors
    /// As [`RemoteSource::parse`].
    pub fn parse_context(text: &str) -> Result<Option<Self>, InvalidSource> {
        let Some(rest) = text.strip_prefix("github.com/") else { return Self::parse(text) };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('/').trim_end_matches(".git");
        Self::parse(&format!("https://github.com/{path}.git{}", &rest[end..]))
    }
}

impl fmt::Display for RemoteSource {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(git) => git.fmt(f),
            Self::Http(url) => f.write_str(&redacted(url)),
        }
    }
}

impl GitSource {
    /// Puts together what stands before, behind `#` and behind `?`.
    fn new(remote: &str, fragment: Option<&str>, query: &str) -> Result<Self, String> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (reference, subdir) = fragment.unwrap_or("").split_once(':').unwrap_or((fragment.unwrap_or(""), ""));
        let mut git =
            Self { remote: remote.to_owned(), reference: some(reference), subdir: some(subdir), ..Self::default() };
        let mut seen = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&key) {
                return Err(format!("has `{key}` twice"));
            }
            seen.push(key.clone());
            let may_be_empty = matches!(&*key, "submodules" | "keep-git-dir");
            if value.is_empty() && !may_be_empty {
                return Err(format!("has no value for `{key}`"));
            }
            match &*key {
                "ref" => set("a reference", &mut git.reference, value.into_owned())?,
                "tag" => set("a reference", &mut git.reference, prefixed("refs/tags/", &value))?,
                "branch" => set("a reference", &mut git.reference, prefixed("refs/heads/", &value))?,
                "subdir" => set("a directory", &mut git.subdir, value.into_owned())?,
                "checksum" | "commit" => set("a commit", &mut git.checksum, value.into_owned())?,
                "keep-git-dir" => git.keep_git_dir = Some(boolean(&key, &value)?),
                "submodules" => git.submodules = Some(boolean(&key, &value)?),
                _ => {
                    return Err(format!(
                        "has the unknown option `{key}`; known are `ref`, `branch`, `tag`, `commit`, `checksum`, \
                         `subdir`, `keep-git-dir` and `submodules`"
                    ));
                }
            }
        }
        if git.reference.is_none() {
            git.reference.clone_from(&git.checksum);
        }
        for text in [&git.reference, &git.subdir].into_iter().flatten() {
            if text.chars().any(char::is_control) {
                return Err("holds a control character".into());
            }
        }
        if let Some(reference) = git.reference.as_ref().filter(|reference| reference.starts_with('-')) {
            return Err(format!("names `{reference}`, which is no reference"));
        }
        if let Some(commit) = &git.checksum {
            let is_commit = (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_commit {
                return Err(format!("names `{commit}`, which is no commit: at least seven hex digits are"));
            }
        }
        Ok(git)
    }
}

impl fmt::Display for GitSource {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.remote))?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or("")),
            (reference, Some(subdir)) => write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or("")),
        }
    }
}

/// `user@host:path`, as ssh's own programs write it. BuildKit takes it without the user too, but then a file `a:b` of a
/// context could not be copied.
fn scp(text: &str) -> Result<Option<RemoteSource>, String> {
    let is_word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((user, rest)) = text.split_once('@') else { return Ok(None) };
    let Some((host, rest)) = rest.split_once(':') else { return Ok(None) };
    if !is_word(user, "-_") || !is_word(host, "-.") || host.starts_with('-') {
        return Ok(None);
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() {
        return Ok(None);
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character".into());
    }
    let git = GitSource::new(&format!("{user}@{host}:{path}"), fragment, query)?;
    Ok(Some(RemoteSource::Git(git)))
}

fn set(what: &str, place: &mut Option<String>, value: String) -> Result<(), String> {
    match place {
        Some(other) if *other != value => Err(format!("names {what} twice: `{other}` and `{value}`")),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("has `{value}` for `{key}`, which is neither true nor false")),
    }
}

/// Percent signs of a fragment resolved.
fn decoded(fragment: &str) -> String {
    let escaped = fragment.replace('+', "%2B");
    form_urlencoded::parse(format!("x={}", escaped.replace('&', "%26")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

/// A URL for messages: a password in it is not shown.
pub fn redacted(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:xxxxx@{host}{path}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitSource {
        match RemoteSource::parse(text) {
            Ok(Some(RemoteSource::Git(git))) => git,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn repositories_are_read_as_buildkit_reads_them() {
        let check = |text: &str, remote: &str, reference: Option<&str>, subdir: Option<&str>| {
            let git = git(text);
            assert_eq!(
                (git.remote.as_str(), git.reference.as_deref(), git.subdir.as_deref()),
                (remote, reference, subdir)
            );
        };
        check("https://h/r.git", "https://h/r.git", None, None);
        check("https://h/r.git#", "https://h/r.git", None, None);
        check("https://h/r.git#v1", "https://h/r.git", Some("v1"), None);
        check("https://h/r.git#feature/x:a/b", "https://h/r.git", Some("feature/x"), Some("a/b"));
        check("https://h/r.git#:a", "https://h/r.git", None, Some("a"));
        check("https://h/r.git#a%20b+c", "https://h/r.git", Some("a b+c"), None);
        check("git@h:o/r#v1:d", "git@h:o/r", Some("v1"), Some("d"));
        check("git@h:o/r?tag=v1", "git@h:o/r", Some("refs/tags/v1"), None);
        check("ssh://git@h:22/o/r", "ssh://git@h:22/o/r", None, None);
        check("git://h:1234/r?branch=b&subdir=s", "git://h:1234/r", Some("refs/heads/b"), Some("s"));
        check("https://h/r.git?ref=refs/pull/1/head", "https://h/r.git", Some("refs/pull/1/head"), None);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let all = git(&format!("https://h/r.git?tag=v1&commit={commit}&keep-git-dir&submodules=false"));
        assert_eq!(
            (all.checksum.as_deref(), all.keep_git_dir, all.submodules),
            (Some(commit), Some(true), Some(false))
        );
        assert_eq!(git("https://h/r.git?checksum=0123456").reference.as_deref(), Some("0123456"));
    }

    #[test]
    fn files_and_paths_are_told_apart() {
        let http = |text: &str| assert_eq!(RemoteSource::parse(text), Ok(Some(RemoteSource::Http(text.into()))));
        http("https://h/f.tar.gz");
        http("http://h/r.git/f");
        for path in ["a", "./git@h:x", "a:b", "C:\\x", "file:///r.git", "ext::sh", "a@b", "x y@h:p", "s3://b/k"] {
            assert_eq!(RemoteSource::parse(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn contexts_of_github_need_no_scheme() {
        let context = |text: &str| RemoteSource::parse_context(text).unwrap().map(|source| source.to_string());
        assert_eq!(context("github.com/o/r#v1:d").as_deref(), Some("https://github.com/o/r.git#v1:d"));
        assert_eq!(context("github.com/o/r.git").as_deref(), Some("https://github.com/o/r.git"));
        assert_eq!(context("./github.com/o/r"), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong = |text: &str, part: &str| {
            let message = RemoteSource::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        wrong("https://h/r.git?ref=a&tag=b", "names a reference twice: `a` and `refs/tags/b`");
        wrong("https://h/r.git?branch=a&tag=a", "names a reference twice");
        wrong("https://h/r.git?depth=1", "unknown option `depth`");
        wrong("https://h/r.git?ref=", "no value for `ref`");
        wrong("https://h/r.git?commit=zz", "no commit");
        wrong("https://h/r.git#--upload-pack=x", "no reference");
        wrong("https:///", "no URL");
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("https://u:p@h/x?y"), "https://u:xxxxx@h/x?y");
        assert_eq!(redacted("https://u@h/x@y:z"), "https://u@h/x@y:z");
        assert_eq!(redacted("git@h:x"), "git@h:x");
    }
}
