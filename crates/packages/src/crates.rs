//! Registries of cargo: the sparse index that tells what is there, and the upload (The Cargo Book, "Registry Web API").

use std::{collections::BTreeMap, io::Write as _, path::Path};

use registry::WebRequest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml::Table;
use url::Url;

use crate::{Index, Package, PublishErrorKind, State, archive, body, error::words, package::About};

/// How cargo names the registry of a dependency that comes from crates.io.
const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";
/// The sparse index of crates.io.
const CRATES_IO_HOST: &str = "index.crates.io";
/// An index file has a line for each version.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A crate's `Cargo.toml` (as `cargo package` wrote it) in the words of the upload, but for what depends on the registry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Manifest {
    name: String,
    vers: String,
    deps: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
    authors: Vec<String>,
    description: Option<String>,
    documentation: Option<String>,
    homepage: Option<String>,
    readme: Option<String>,
    readme_file: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
    license: Option<String>,
    license_file: Option<String>,
    repository: Option<String>,
    badges: BTreeMap<String, Value>,
    links: Option<String>,
    rust_version: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Dependency {
    name: String,
    version_req: String,
    features: Vec<String>,
    optional: bool,
    default_features: bool,
    target: Option<String>,
    kind: &'static str,
    /// The URL of its index; the upload leaves that of its own registry out.
    registry: Option<String>,
    explicit_name_in_toml: Option<String>,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = archive::of_tar_gz(path, |name| archive::is_below_top(name, "Cargo.toml"))?;
        let cannot = |error: &dyn std::fmt::Display| format!("its Cargo.toml cannot be read: {error}");
        let table: Table = String::from_utf8_lossy(&bytes).parse().map_err(|error: toml::de::Error| cannot(&error))?;
        let mut manifest = Self::of(&table)?;
        if let Some(file) = manifest.readme_file.clone() {
            let text = archive::of_tar_gz(path, |name| archive::is_below_top(name, file.trim_start_matches("./")));
            manifest.readme = text.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        }
        Ok(manifest)
    }

    fn of(table: &Table) -> Result<Self, String> {
        let package = table.get("package").and_then(|it| it.as_table()).ok_or("its Cargo.toml has no `package`")?;
        let text = |key: &str| package.get(key).and_then(|it| it.as_str()).map(str::to_owned);
        let texts = |key: &str| package.get(key).map(strings).unwrap_or_default();
        let name = text("name").filter(|name| is_name(name)).ok_or("its Cargo.toml has no `name` that cargo takes")?;
        let vers = text("version").ok_or("its Cargo.toml has no `version`")?;
        semver::Version::parse(&vers).map_err(|error| format!("its version `{vers}`: {error}"))?;
        if package.get("publish").and_then(|it| it.as_bool()) == Some(false) {
            return Err("its Cargo.toml says `publish = false`".into());
        }
        let mut deps = dependencies(table, None);
        let targets = table.get("target").and_then(|it| it.as_table());
        for (target, section) in targets.into_iter().flatten() {
            deps.extend(section.as_table().into_iter().flat_map(|section| dependencies(section, Some(target))));
        }
        let features = table.get("features").and_then(|it| it.as_table());
        let badges = table.get("badges").and_then(|it| it.as_table());
        Ok(Self {
            name,
            vers,
            deps,
            features: features.into_iter().flatten().map(|(name, list)| (name.clone(), strings(list))).collect(),
            authors: texts("authors"),
            description: text("description"),
            documentation: text("documentation"),
            homepage: text("homepage"),
            readme: None,
            readme_file: text("readme"),
            keywords: texts("keywords"),
            categories: texts("categories"),
            license: text("license"),
            license_file: text("license-file"),
            repository: text("repository"),
            badges: badges
                .into_iter()
                .flatten()
                .filter_map(|(name, badge)| Some((name.clone(), serde_json::to_value(badge).ok()?)))
                .collect(),
            links: text("links"),
            rust_version: text("rust-version"),
        })
    }

    /// As this index hears it: a dependency's registry is told where it is another one (cargo's `registry/publish.rs`).
    fn for_index(mut self, index: &Url) -> Self {
        let is_crates_io = index.host_str() == Some(CRATES_IO_HOST);
        let own = index.as_str().trim_end_matches('/');
        for dependency in &mut self.deps {
            dependency.registry = match dependency.registry.take() {
                Some(url) if url.trim_start_matches("sparse+").trim_end_matches('/') == own => None,
                Some(url) => Some(url),
                None => (!is_crates_io).then(|| CRATES_IO.to_owned()),
            };
        }
        self
    }
}

/// Names are part of paths of the index.
fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(legal)
}

fn strings(value: &toml::Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

fn dependencies(section: &Table, target: Option<&String>) -> Vec<Dependency> {
    let kinds = [
        ("dependencies", "normal"),
        ("build-dependencies", "build"),
        ("build_dependencies", "build"),
        ("dev-dependencies", "dev"),
        ("dev_dependencies", "dev"),
    ];
    let mut found = Vec::new();
    for (key, kind) in kinds {
        for (name, value) in section.get(key).and_then(|it| it.as_table()).into_iter().flatten() {
            let get = |key: &str| value.as_table().and_then(|table| table.get(key));
            let text = |key: &str| get(key).and_then(|it| it.as_str()).map(str::to_owned);
            let is = |key: &str, default: bool| get(key).and_then(|it| it.as_bool()).unwrap_or(default);
            let package = text("package");
            found.push(Dependency {
                name: package.clone().unwrap_or_else(|| name.clone()),
                version_req: value
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| text("version"))
                    .unwrap_or_else(|| "*".into()),
                features: get("features").map(strings).unwrap_or_default(),
                optional: is("optional", false),
                default_features: is("default-features", is("default_features", true)),
                target: target.cloned(),
                kind,
                registry: text("registry-index"),
                explicit_name_in_toml: package.map(|_| name.clone()),
            });
        }
    }
    found
}

/// Uploads, unless the index has the version.
pub(crate) async fn push(
    index: Index<'_>,
    place: &Url,
    package: &Package,
    is_sending: bool,
) -> Result<State, PublishErrorKind> {
    let About::Crate(manifest) = &package.about else { unreachable!("it was read for cargo") };
    if is_there(index, place, package, manifest).await? {
        return Ok(State::WasThere);
    }
    let api = api(index, place).await?;
    if !is_sending {
        return Ok(State::Absent);
    }
    let metadata =
        serde_json::to_vec(&manifest.as_ref().clone().for_index(place)).map_err(PublishErrorKind::malformed)?;
    let ours = package.clone();
    let (source, length) = body::write(move |out| {
        // Both lengths are 32 bits, little-endian.
        let length = |length: u64| u32::try_from(length).map_err(|_| std::io::Error::other("the crate is too large"));
        out.write_all(&length(metadata.len() as u64)?.to_le_bytes())?;
        out.write_all(&metadata)?;
        out.write_all(&length(ours.size_bytes)?.to_le_bytes())?;
        body::append(out, &ours)
    })
    .await?;
    let url = api.join("api/v1/crates/new").map_err(PublishErrorKind::malformed)?;
    let request = authorized(index, WebRequest::put(url, "application/octet-stream", source, length));
    let answer = index.client.exchange(&request, ANSWER_BYTES_MAX).await?;
    // Old servers say 200 and tell the mistake in the document.
    let is_refused =
        !answer.is_success() || serde_json::from_slice::<Value>(&answer.body).is_ok_and(|it| it["errors"].is_array());
    if !is_refused {
        return Ok(State::Sent);
    }
    // Somebody was faster, or our answer was lost. Indexes that are behind do not list it yet; then the words count.
    if words(&answer).contains("already") && is_there(index, place, package, manifest).await? {
        return Ok(State::WasThere);
    }
    Err(PublishErrorKind::of(&answer))
}

/// Whether the index lists the version with the same content.
async fn is_there(
    index: Index<'_>,
    place: &Url,
    package: &Package,
    manifest: &Manifest,
) -> Result<bool, PublishErrorKind> {
    #[derive(Deserialize)]
    struct Line {
        vers: String,
        cksum: String,
    }
    let url = place.join(&path_of(&manifest.name)).map_err(PublishErrorKind::malformed)?;
    let answer = index.client.exchange(&authorized(index, WebRequest::get(url)), INDEX_BYTES_MAX).await?;
    match answer.status {
        200 => {}
        // As cargo understands them: not found, gone, and for legal reasons.
        404 | 410 | 451 => return Ok(false),
        _ => return Err(PublishErrorKind::of(&answer)),
    }
    let text = String::from_utf8_lossy(&answer.body);
    // Lines of forms to come are passed over, as cargo does.
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    // Build metadata makes no other version.
    let without_build = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    match lines.find(|line| without_build(&line.vers) == without_build(&manifest.vers)) {
        None => Ok(false),
        Some(line) if line.cksum.eq_ignore_ascii_case(package.sha256.hex()) => Ok(true),
        Some(line) => Err(PublishErrorKind::Differs {
            theirs: format!("sha256:{}", line.cksum),
            ours: package.sha256.to_string(),
        }),
    }
}

/// Where the index says that its API is.
async fn api(index: Index<'_>, place: &Url) -> Result<Url, PublishErrorKind> {
    #[derive(Deserialize)]
    struct Config {
        api: Option<String>,
    }
    let url = place.join("config.json").map_err(PublishErrorKind::malformed)?;
    let answer = index.client.exchange(&authorized(index, WebRequest::get(url)), ANSWER_BYTES_MAX).await?;
    if !answer.is_success() {
        return Err(PublishErrorKind::of(&answer));
    }
    let config: Config = serde_json::from_slice(&answer.body).map_err(PublishErrorKind::malformed)?;
    let api =
        config.api.ok_or_else(|| PublishErrorKind::malformed("its config.json names no `api`: it takes no crates"))?;
    let api = api.parse().map(crate::target::directory).map_err(PublishErrorKind::malformed)?;
    // The token goes there: not from TLS to none.
    if place.scheme() == "https" && api.scheme() != "https" {
        return Err(PublishErrorKind::malformed(format!("its API {api} is not reached by TLS")));
    }
    Ok(api)
}

/// Where the lines of a crate are (The Cargo Book, "Index files").
fn path_of(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.len() {
        1 => format!("1/{lower}"),
        2 => format!("2/{lower}"),
        3 => format!("3/{}/{lower}", &lower[..1]),
        _ => format!("{}/{}/{lower}", &lower[..2], &lower[2..4]),
    }
}

fn authorized(index: Index<'_>, request: WebRequest) -> WebRequest {
    match index.login {
        Some(login) if login.user.is_some() => request.authorization(&login.basic("")),
        Some(login) => request.authorization(&login.secret),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_files_are_where_cargo_looks() {
        for (name, path) in [("a", "1/a"), ("ab", "2/ab"), ("Abc", "3/a/abc"), ("Serde_json", "se/rd/serde_json")] {
            assert_eq!(path_of(name), path);
        }
        for name in ["", "../a", "1a", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn dependencies_are_told_as_cargo_tells_them() {
        let table: Table = "[package]\nname='a'\nversion='1.0.0'\nreadme='README.md'\n\
            [dependencies.b]\nversion='1'\noptional=true\ndefault-features=false\nfeatures=['x']\n\
            [dependencies.c]\nversion='2'\npackage='real'\nregistry-index='sparse+https://index.example/a/'\n\
            [target.'cfg(unix)'.build-dependencies]\nd='3'\n[features]\ndefault=['b']\n"
            .parse()
            .unwrap();
        let manifest = Manifest::of(&table).unwrap();
        let told = |index: &str| {
            let manifest = manifest.clone().for_index(&index.parse().unwrap());
            let deps = manifest.deps.iter();
            deps.map(|it| {
                format!(
                    "{} {} {} {:?} {:?} {:?}",
                    it.name, it.version_req, it.kind, it.target, it.explicit_name_in_toml, it.registry
                )
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(
            told("https://index.example/a/"),
            [
                format!("b 1 normal None None Some({CRATES_IO:?})"),
                "real 2 normal None Some(\"c\") None".into(),
                format!("d 3 build Some(\"cfg(unix)\") None Some({CRATES_IO:?})"),
            ]
        );
        assert!(told("https://index.crates.io/")[0].ends_with("None"));
        assert!(told("https://index.crates.io/")[1].ends_with("Some(\"sparse+https://index.example/a/\")"));
    }
}
