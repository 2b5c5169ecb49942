//! Durations as Compose and Go write them: `2s`, `1m30s`, `500ms`, `2h`, `1d`.

use std::time::Duration;

/// Units with their length in nanoseconds; longer names first, so that `ms` is not read as `m`.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// A bare number.
    #[error("`{0}` has no unit")]
    NoUnit(String),
    /// Something else.
    #[error("`{0}` is not a duration")]
    NotADuration(String),
}

/// Reads a duration.
///
/// # Errors
/// A number without a unit (except `0`), an unknown unit, or a value beyond 500 years.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let not = || InvalidDuration::NotADuration(text.chars().take(80).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(not());
    }
    if text.parse::<f64>().is_ok() {
        return Err(InvalidDuration::NoUnit(text.into()));
    }
    let (mut rest, mut nanos) = (text, 0u64);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(not)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(not)?;
        let value: f64 = number.parse().map_err(|_| not())?;
        let part = value * *scale as f64;
        // 2^63 ns are 292 years: nobody waits longer.
        if !(0.0..9.2e18).contains(&part) {
            return Err(not());
        }
        nanos = nanos.checked_add(part.round() as u64).ok_or_else(not)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Writes a duration so that [`parse`] reads it back: `1m30s`, `500ms`.
pub fn format(duration: Duration) -> String {
    let mut nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, scale) in UNITS.iter().rev().filter(|(name, _)| *name != "µs" && *name != "d") {
        if nanos >= *scale {
            text.push_str(&format!("{}{name}", nanos / scale));
            nanos %= scale;
        }
    }
    text
}

/// For people: `4.9s`, `1m 20s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.95 {
        format!("{:.0}ms", seconds * 1000.0)
    } else if seconds < 60.0 {
        format!("{seconds:.1}s").replace(".0s", "s")
    } else {
        format!("{}m {}s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// For `#[serde(serialize_with = …)]`: as [`format()`] writes it.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// As [`serialize`], for a duration that may be absent.
///
/// # Errors
/// The serializer's.
pub fn serialize_option<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_compose_does() {
        for (text, millis) in [
            ("2s", 2000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1.5s", 1500),
            ("0", 0),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("10"), Err(InvalidDuration::NoUnit("10".into())));
        for text in ["", "s", "2 s", "2x", "-1s", "1s2", "99999999999h", "1.2.3s", "ms", "٣s"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_so_that_they_can_be_read() {
        for text in ["2s", "1m30s", "500ms", "2h", "1h1m1s1ms1us1ns", "0s"] {
            assert_eq!(format(parse(text).unwrap_or_default()), text);
        }
    }
}
