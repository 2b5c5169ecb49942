//! Coverage of lines: Cobertura XML, JaCoCo XML, LCOV.

use std::collections::BTreeMap;

use events::Coverage;

use super::{
    InvalidReport,
    xml::{self, Piece},
};

/// Reads a report of any known format.
///
/// # Errors
/// It is of none, or malformed.
pub(crate) fn coverage(text: &str) -> Result<Coverage, InvalidReport> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let sum = if text.starts_with('<') { from_xml(text)? } else { lcov(text)? };
    if sum.covered > sum.lines {
        return Err(InvalidReport::new("it has more covered lines than lines"));
    }
    Ok(sum)
}

fn from_xml(text: &str) -> Result<Coverage, InvalidReport> {
    let mut path: Vec<String> = Vec::new();
    let (mut told, mut counted, mut jacoco) = (None, Coverage::default(), None);
    let mut root = None;
    xml::walk(text, &mut |piece| match piece {
        Piece::Open(element) => {
            let name = element.name();
            if path.is_empty() {
                root = Some(name.clone());
                let (covered, lines) = (element.number("lines-covered"), element.number("lines-valid"));
                told = covered.zip(lines).map(|(covered, lines)| Coverage { covered, lines });
            }
            let parent = path.last().map(String::as_str);
            let is_line = name == "line" && parent == Some("lines");
            // Cobertura has the lines of a method a second time in its class.
            if is_line && path.iter().rev().nth(1).is_some_and(|name| name == "class") {
                counted.lines += 1;
                counted.covered += u64::from(element.number::<u64>("hits").unwrap_or(0) > 0);
            }
            if name == "counter" && path.len() == 1 && element.get("type").as_deref() == Some("LINE") {
                let (missed, covered): (u64, u64) =
                    (element.number("missed").unwrap_or(0), element.number("covered").unwrap_or(0));
                jacoco = Some(Coverage { covered, lines: covered.saturating_add(missed) });
            }
            path.push(name);
        }
        Piece::Close => drop(path.pop()),
        Piece::Text(_) => {}
    })?;
    match root.as_deref() {
        Some("coverage") if counted.lines > 0 => Ok(told.unwrap_or(counted)),
        Some("coverage") => told.ok_or_else(|| InvalidReport::new("it is no Cobertura report: it has no lines")),
        Some("report") => {
            jacoco.ok_or_else(|| InvalidReport::new("it is no JaCoCo report: it has no counter of lines"))
        }
        Some(other) => Err(InvalidReport::new(format!(
            "`{}` is neither Cobertura (`coverage`) nor JaCoCo (`report`)",
            super::cut(other, 40)
        ))),
        None => Err(InvalidReport::new("it is empty")),
    }
}

/// A file may come in several records, one for each test (geninfo(1)); a line that ran in one of them is covered.
fn lcov(text: &str) -> Result<Coverage, InvalidReport> {
    let mut files: BTreeMap<&str, (BTreeMap<u64, bool>, Coverage)> = BTreeMap::new();
    let mut file: Option<&mut (BTreeMap<u64, bool>, Coverage)> = None;
    for line in text.lines() {
        let line = line.trim_end();
        if let Some(path) = line.strip_prefix("SF:") {
            file = Some(files.entry(path).or_default());
        } else if line == "end_of_record" {
            file = None;
        } else if let Some((lines, sums)) = &mut file {
            if let Some((number, hits)) = line.strip_prefix("DA:").and_then(|data| data.split_once(',')) {
                let hits = hits.split(',').next().unwrap_or_default();
                let (Ok(number), Ok(hits)) = (number.parse(), hits.parse::<i64>()) else {
                    return Err(InvalidReport::new(format!("`{}` is no line of LCOV", super::cut(line, 60))));
                };
                *lines.entry(number).or_insert(false) |= hits > 0;
            } else if let Some(found) = line.strip_prefix("LF:") {
                sums.lines = sums.lines.max(found.parse().unwrap_or(0));
            } else if let Some(hit) = line.strip_prefix("LH:") {
                sums.covered = sums.covered.max(hit.parse().unwrap_or(0));
            }
        }
    }
    if files.is_empty() {
        return Err(InvalidReport::new("it is neither XML nor LCOV: no line begins with `SF:`"));
    }
    let of = |(lines, sums): &(BTreeMap<u64, bool>, Coverage)| match lines.is_empty() {
        true => *sums,
        false => Coverage { covered: lines.values().filter(|hit| **hit).count() as u64, lines: lines.len() as u64 },
    };
    Ok(files.values().map(of).fold(Coverage::default(), |sum, one| sum + one))
}
