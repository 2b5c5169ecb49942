//! The licences of a Maven project, from its `pom.xml` (Maven, "POM Reference", "Licenses").

use quick_xml::{Reader, events::Event};

/// A project names one licence or two.
const LICENCES_MAX: usize = 20;
/// `project/licenses/license/name` is all that is looked for; what is nested deeper than any project is no project.
const DEPTH_MAX: usize = 100;

/// The licences' names; of one without a name, its address. What is no XML has none.
pub(crate) fn licences(text: &str) -> Vec<String> {
    const LICENCE: [&str; 3] = ["project", "licenses", "license"];
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut found: Vec<(String, String)> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(_) if path.len() >= DEPTH_MAX => break,
            Event::Start(start) => {
                path.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                if path == LICENCE && found.len() < LICENCES_MAX {
                    found.push(Default::default());
                }
            }
            Event::End(_) => drop(path.pop()),
            Event::Text(text) => {
                let (Ok(text), Some((name, parents))) = (text.decode(), path.split_last()) else { continue };
                if parents == LICENCE
                    && let Some((named, address)) = found.last_mut()
                {
                    match name.as_str() {
                        "name" => named.push_str(text.trim()),
                        "url" => address.push_str(text.trim()),
                        _ => {}
                    }
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let licences = found.into_iter().map(|(name, address)| if name.is_empty() { address } else { name });
    licences.filter(|licence| !licence.is_empty() && !licence.contains("${")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_projects_own_licences_count() {
        let text = "<?xml version='1.0'?><project xmlns='http://maven.apache.org/POM/4.0.0'><licenses><!-- <license><name>no</name></license> -->\
                    <license><name> Apache-2.0 </name><url>x</url></license><license><url>https://example.com/l</url></license>\
                    <license><name>${licence}</name></license></licenses>\
                    <build><licenses><license><name>other</name></license></licenses></build></project>";
        assert_eq!(licences(text), ["Apache-2.0", "https://example.com/l"]);
        assert!(licences("<project><licenses><license><name>MIT").len() < 2);
        assert!(licences("no").is_empty());
        assert!(licences(&"<a>".repeat(100_000)).is_empty());
    }
}
