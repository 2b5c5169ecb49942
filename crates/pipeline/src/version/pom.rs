//! The version of a Maven project: its own or its parent's, with properties filled in (Maven's POM reference).

use std::{collections::BTreeMap, path::Path};

use quick_xml::{Reader, events::Event};

use super::file::{File, Found, VersionFileError};

/// A property may name others; deeper than this is a circle.
const NAMES_DEPTH_MAX: usize = 8;

/// What a `pom.xml` says.
#[derive(Default)]
struct Pom {
    /// By path, such as `version`, `parent/version`.
    texts: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
}

/// The version of the project.
pub(super) fn version(file: &File) -> Found {
    let mut poms = vec![read(file)?];
    // Properties may stand in any parent of this repository; those of elsewhere are not looked for.
    let mut place = None;
    while let Some(parent) = place.as_ref().unwrap_or(file).follow(Path::new(&relative_path(poms.last()))) {
        if !poms.last().is_some_and(|pom| pom.texts.contains_key("parent/artifactId")) {
            break;
        }
        poms.push(read(&parent)?);
        place = Some(parent);
    }
    let own = poms.iter().take(1).find_map(|pom| pom.texts.get("version").or_else(|| pom.texts.get("parent/version")));
    let own = own.ok_or_else(|| file.missing("`<version>`, and neither has its `<parent>`"))?;
    fill(own, &poms, 0).map_err(|name| {
        file.missing(&format!("property `{name}`, which its version needs"))
            .hint("ask Maven: `version: {command: mvn -q help:evaluate -Dexpression=project.version -DforceStdout}`")
    })
}

fn relative_path(pom: Option<&Pom>) -> String {
    let given = pom.and_then(|pom| pom.texts.get("parent/relativePath")).map_or("../pom.xml", String::as_str);
    if given.ends_with(".xml") { given.to_owned() } else { format!("{given}/pom.xml") }
}

/// `${revision}`, `${project.parent.version}` and the like.
fn fill(text: &str, poms: &[Pom], depth: usize) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}').map(|end| start + end) else { break };
        let name = &rest[start + 2..end];
        out.push_str(&rest[..start]);
        let of_project = |name: &str| {
            let path = name.strip_prefix("project.").or_else(|| name.strip_prefix("pom."))?.replace('.', "/");
            let own = poms.first()?;
            own.texts
                .get(&path)
                .or_else(|| own.texts.get(&format!("parent/{path}")))
                .filter(|found| found.as_str() != text)
        };
        let value = poms.iter().find_map(|pom| pom.properties.get(name)).or_else(|| of_project(name));
        match value {
            Some(value) if depth < NAMES_DEPTH_MAX => out.push_str(&fill(value, poms, depth + 1)?),
            _ => return Err(name.to_owned()),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn read(file: &File) -> Result<Pom, VersionFileError> {
    let broken = |error: &dyn std::fmt::Display| VersionFileError::not_found(format!("`{}`: {error}", file.name));
    let mut reader = Reader::from_str(&file.text);
    let mut pom = Pom::default();
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event().map_err(|error| broken(&error))? {
            Event::Start(start) => path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|error| broken(&error))?.trim().to_owned();
                match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    _ if text.is_empty() => {}
                    ["project", "properties", name] => drop(pom.properties.insert(name.to_owned(), text)),
                    ["project", ref place @ ..] if matches!(place.len(), 1 | 2) => {
                        pom.texts.insert(place.join("/"), text);
                    }
                    _ => {}
                }
            }
            Event::Eof => return Ok(pom),
            _ => {}
        }
    }
}
