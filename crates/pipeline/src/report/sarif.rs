//! SARIF 2.1.0: findings of linters and scanners.

use std::collections::HashMap;

use events::{Problem, ProblemKind, ProblemLevel};
use serde::Deserialize;

use super::{InvalidReport, cut, one_line};

#[derive(Deserialize)]
struct Log {
    version: Option<String>,
    runs: Option<Vec<Run>>,
}

#[derive(Deserialize)]
struct Run {
    tool: Option<Tool>,
    results: Option<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Tool {
    driver: Option<Driver>,
}

#[derive(Deserialize)]
struct Driver {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    id: String,
    default_configuration: Option<Configuration>,
}

#[derive(Deserialize)]
struct Configuration {
    level: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    rule_id: Option<String>,
    rule_index: Option<i64>,
    level: Option<String>,
    kind: Option<String>,
    message: Option<Message>,
    #[serde(default)]
    locations: Vec<Location>,
    #[serde(default)]
    suppressions: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: Option<PhysicalLocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: Option<ArtifactLocation>,
    region: Option<Region>,
}

#[derive(Deserialize)]
struct ArtifactLocation {
    uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: Option<u64>,
}

/// The findings that count: neither suppressed, nor told as passed (SARIF 2.1.0, 3.27.9 and 3.27.10).
///
/// # Errors
/// It is not JSON, or not SARIF.
pub(crate) fn sarif(text: &str) -> Result<Vec<Problem>, InvalidReport> {
    let text = text.trim_start_matches('\u{feff}');
    let log: Log =
        serde_json::from_str(text).map_err(|error| InvalidReport::new(format!("it is no SARIF report: {error}")))?;
    let runs = log.runs.ok_or_else(|| InvalidReport::new("it is no SARIF report: it has no `runs`"))?;
    if let Some(version) = log.version.filter(|version| !version.starts_with("2.")) {
        return Err(InvalidReport::new(format!("SARIF {} is not known, 2.1.0 is", cut(&version, 20))));
    }
    Ok(runs.into_iter().flat_map(findings).collect())
}

fn findings(run: Run) -> Vec<Problem> {
    let rules = run.tool.and_then(|tool| tool.driver).map(|driver| driver.rules).unwrap_or_default();
    let by_id: HashMap<&str, &Rule> = rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    let results = run.results.into_iter().flatten();
    results
        .filter(|result| result.suppressions.is_empty())
        .filter(|result| matches!(result.kind.as_deref(), None | Some("fail" | "open" | "review")))
        .filter_map(|result| {
            let index = result.rule_index.and_then(|index| usize::try_from(index).ok());
            let rule = index
                .and_then(|index| rules.get(index))
                .or_else(|| result.rule_id.as_deref().and_then(|id| by_id.get(id).copied()));
            let default = rule.and_then(|rule| rule.default_configuration.as_ref()?.level.clone());
            let level = match result.level.or(default).as_deref() {
                Some("error") => ProblemLevel::Error,
                Some("note") => ProblemLevel::Note,
                Some("none") => return None,
                _ => ProblemLevel::Warning,
            };
            let name = result.rule_id.or_else(|| rule.map(|rule| rule.id.clone())).unwrap_or_default();
            let place = result.locations.into_iter().next().and_then(|location| location.physical_location);
            let (file, line) = place.map_or((None, None), |place| {
                let uri = place.artifact_location.and_then(|artifact| artifact.uri);
                (uri.map(|uri| path_of(&uri)), place.region.and_then(|region| region.start_line))
            });
            let message = result.message.and_then(|message| message.text).unwrap_or_default();
            Some(Problem {
                kind: ProblemKind::Finding,
                level,
                name: cut(&name, 200),
                message: one_line(&message),
                file,
                line,
                in_repository: false,
            })
        })
        .collect()
}

/// A path of a URI: `file://` goes, percent signs are resolved.
fn path_of(uri: &str) -> String {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    cut(&String::from_utf8_lossy(&bytes), 1000)
}
