//! Dates in tags: formats of moment.js, as docker/metadata-action writes them, or of strftime; in any time zone.

use std::time::SystemTime;

use jiff::{
    Timestamp, Zoned,
    fmt::strtime,
    tz::{Offset, TimeZone},
};

/// moment.js' tokens, longer ones first, with what strftime says. `None` is worked out here.
const TOKENS: [(&str, Option<&str>); 30] = [
    ("YYYY", Some("%Y")),
    ("GGGG", Some("%G")),
    ("MMMM", Some("%B")),
    ("DDDD", Some("%j")),
    ("dddd", Some("%A")),
    ("MMM", Some("%b")),
    ("DDD", Some("%-j")),
    ("ddd", Some("%a")),
    ("SSS", Some("%3f")),
    ("YY", Some("%y")),
    ("GG", Some("%g")),
    ("MM", Some("%m")),
    ("DD", Some("%d")),
    ("HH", Some("%H")),
    ("hh", Some("%I")),
    ("mm", Some("%M")),
    ("ss", Some("%S")),
    ("WW", Some("%V")),
    ("ZZ", Some("%z")),
    ("M", Some("%-m")),
    ("D", Some("%-d")),
    ("H", Some("%-H")),
    ("h", Some("%-I")),
    ("m", Some("%-M")),
    ("s", Some("%-S")),
    ("W", Some("%-V")),
    ("Z", Some("%:z")),
    ("X", Some("%s")),
    ("A", Some("%p")),
    ("Q", None),
];

/// The date in words of a format: moment.js' tokens (`YYYYMMDD`, `[at]` for plain text), or strftime's where there is a `%`.
///
/// # Errors
/// Why not, in words.
pub(super) fn format(time: SystemTime, format: &str, tz: Option<&str>) -> Result<String, String> {
    let timestamp = Timestamp::try_from(time).map_err(|error| error.to_string())?;
    let zoned = timestamp.to_zoned(zone(tz)?);
    let format = if format.contains('%') { format.to_owned() } else { of_moment(format, &zoned) };
    strtime::format(&format, &zoned).map_err(|error| format!("`{format}` is no format of dates: {error}"))
}

/// Whether format and zone can be used.
///
/// # Errors
/// Why not, in words.
pub(crate) fn check(format: &str, tz: Option<&str>) -> Result<(), String> {
    self::format(SystemTime::UNIX_EPOCH, format, tz).map(drop)
}

fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let name = match name.map(str::trim) {
        None | Some("" | "UTC" | "Etc/UTC" | "Z" | "GMT") => return Ok(TimeZone::UTC),
        Some(name) => name,
    };
    if let Some(offset) = offset(name) {
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(name).map_err(|_| {
        format!("the time zone `{name}` is not known here (without the package tzdata only UTC and offsets such as `+02:00` are)")
    })
}

/// `+02:00`, `-0530`, `+2`.
fn offset(text: &str) -> Option<Offset> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = if digits.len() > 2 { digits.split_at(digits.len() - 2) } else { (digits.as_str(), "0") };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn of_moment(format: &str, time: &Zoned) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if let Some((literal, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            out.push_str(literal);
            rest = behind;
        } else if let Some((token, strftime)) = TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            match strftime {
                Some(strftime) => out.push_str(strftime),
                None => out.push_str(&((time.month() + 2) / 3).to_string()),
            }
            rest = &rest[token.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_follow_their_format_and_zone() {
        // 2026-01-02T03:04:05Z.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        for (text, tz, expected) in [
            ("YYYYMMDD", None, "20260102"),
            ("YYYY-MM-DD", Some("UTC"), "2026-01-02"),
            ("YYYYMMDD-HHmmss", None, "20260102-030405"),
            ("YY.M.D", None, "26.1.2"),
            ("X", None, "1767323045"),
            ("[nightly-]YYYY.Q", None, "nightly-2026.1"),
            ("GGGG[w]WW", None, "2026w01"),
            ("YYYYMMDD-HH", Some("-05:00"), "20260101-22"),
            ("YYYYMMDD-HH", Some("+0530"), "20260102-08"),
            ("%Y%m%d", None, "20260102"),
        ] {
            assert_eq!(format(time, text, tz).as_deref(), Ok(expected), "{text} {tz:?}");
        }
        assert!(format(time, "YYYY", Some("Europe/Nowhere")).is_err());
        assert!(check("%Q%", None).is_err());
    }
}
