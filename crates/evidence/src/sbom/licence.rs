//! Licences as packages declare them, in the words of SPDX's list where these are known.

use spdx::{Expression, ParseMode};

/// What is longer is a licence's text rather than its name.
const DECLARED_BYTES_MAX: usize = 1000;

/// The SPDX expression that a declared licence is; `None` where SPDX's list does not have it.
pub(crate) fn expression(declared: &str) -> Option<String> {
    let declared = declared.trim();
    if declared.is_empty() || declared.len() > DECLARED_BYTES_MAX {
        return None;
    }
    if let Ok(expression) = Expression::parse_mode(declared, STRICT) {
        return Some(expression.to_string());
    }
    whole_name(declared).map(str::to_owned)
}

/// Identifiers as the list has them, and those that it had before.
const STRICT: ParseMode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };

/// Whether this is a single identifier of SPDX's list.
pub(crate) fn is_listed(id: &str) -> bool {
    spdx::license_id(id).is_some_and(|known| known.name == id)
}

/// The identifier of a name in plain words, when it is all that is said and says which version it means. These are the names
/// that the Python Package Index classifies by, and what else is common.
fn whole_name(declared: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 22] = [
        ("MIT License", "MIT"),
        ("The MIT License", "MIT"),
        ("Expat", "MIT"),
        ("ISC License (ISCL)", "ISC"),
        ("ISC License", "ISC"),
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache Software License 2.0", "Apache-2.0"),
        ("BSD 2-Clause License", "BSD-2-Clause"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("The Unlicense (Unlicense)", "Unlicense"),
        ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
        ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
        ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
        ("GNU Lesser General Public License v3 or later (LGPLv3+)", "LGPL-3.0-or-later"),
        ("GNU Affero General Public License v3", "AGPL-3.0-only"),
    ];
    NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(declared)).map(|(_, id)| *id)
}

/// The words of SPDX for Debian's short names (machine-readable copyright format 1.0, "Short name"), alone or joined by
/// `and` or `or`; others stay as they are.
pub(crate) fn of_debian(name: &str) -> String {
    for (word, operator) in [(" and ", " AND "), (" or ", " OR ")] {
        if name.contains(word) && !name.contains(',') {
            let parts: Vec<String> = name.split(word).map(|part| of_debian(part.trim())).collect();
            let is_compound = |part: &String| part.contains(" OR ");
            let parts = parts.iter().map(|part| if is_compound(part) { format!("({part})") } else { part.clone() });
            return parts.collect::<Vec<_>>().join(operator);
        }
    }
    of_debian_alone(name).unwrap_or_else(|| name.to_owned())
}

fn of_debian_alone(name: &str) -> Option<String> {
    let plain = match name {
        "Expat" => "MIT",
        "Artistic" => "Artistic-1.0-Perl",
        "BSD-2-clause" => "BSD-2-Clause",
        "BSD-3-clause" | "BSD" => "BSD-3-Clause",
        "BSD-4-clause" => "BSD-4-Clause",
        "Apache-2" => "Apache-2.0",
        "CC0" => "CC0-1.0",
        "PSF-2" => "PSF-2.0",
        "Python" | "Python-2" => "Python-2.0",
        "zlib" | "ZLIB" => "Zlib",
        _ => return gnu(name),
    };
    Some(plain.to_owned())
}

/// `GPL-2+` is GPL-2.0-or-later, `LGPL-2.1` is LGPL-2.1-only.
fn gnu(name: &str) -> Option<String> {
    let (name, is_or_later) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
    let (family, version) = name.rsplit_once('-')?;
    if !matches!(family, "GPL" | "LGPL" | "AGPL" | "GFDL") || !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
    // The documentation licence has no 1.0.
    let version = if family == "GFDL" && version == "1.0" { "1.1".to_owned() } else { version };
    let id = format!("{family}-{version}-{}", if is_or_later { "or-later" } else { "only" });
    is_listed(&id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_licences_become_expressions_where_they_can() {
        for (declared, expected) in [
            ("MIT", Some("MIT")),
            ("MIT OR Apache-2.0", Some("MIT OR Apache-2.0")),
            ("GPL-2.0-only WITH Classpath-exception-2.0", Some("GPL-2.0-only WITH Classpath-exception-2.0")),
            ("GPL-2.0", Some("GPL-2.0")),
            ("MIT License", Some("MIT")),
            ("public domain", None),
            ("", None),
            ("MIT and more", None),
        ] {
            assert_eq!(expression(declared).as_deref(), expected, "{declared}");
        }
        assert!(is_listed("MIT") && !is_listed("mit") && !is_listed("MIT OR ISC"));
    }

    #[test]
    fn debians_names_are_spdxs() {
        for (name, expected) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("LGPL-2.1", "LGPL-2.1-only"),
            ("GFDL-1.3+", "GFDL-1.3-or-later"),
            ("Expat", "MIT"),
            ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
            ("GPL-2+ and BSD-3-clause", "GPL-2.0-or-later AND BSD-3-Clause"),
            ("public-domain", "public-domain"),
            ("GPL-2+ with OpenSSL exception", "GPL-2+ with OpenSSL exception"),
        ] {
            assert_eq!(of_debian(name), expected, "{name}");
        }
    }
}
