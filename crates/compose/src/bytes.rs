//! Sizes as docker writes them: `50m`, `1.5g`, `64kb`; all multiples are binary.

/// Reads a size, in bytes. `None`: malformed, negative, or more than 8 EiB.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let exponent = match text[end..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(exponent);
    (bytes < 9.2e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_binary() {
        for (text, expected) in [
            ("64", Some(64)),
            ("2b", Some(2)),
            ("50M", Some(50 << 20)),
            ("1.5g", Some(3 << 29)),
            ("64 kb", Some(64 << 10)),
            ("1TiB", Some(1 << 40)),
            ("", None),
            ("-1", None),
            ("1x", None),
            ("1e3", None),
            ("9999999p", None),
        ] {
            assert_eq!(super::parse(text), expected, "{text}");
        }
    }
}
