//! Names that are probably slips of others, and durations.

use std::time::Duration;

use dockerfile::{nearest, parse_duration};

#[test]
fn near_names() {
    for (name, candidates, expected) in [
        ("relase", &["release", "base"][..], Some("release")),
        ("ap.sh", &["README.md", "app.sh"], Some("app.sh")),
        ("fron", &["front", "from"], Some("front")),
        ("teh", &["the"], Some("the")),
        ("ABC", &["abd"], Some("abd")),
        ("x", &["y"], None),
        ("ab", &["ac"], Some("ac")),
        ("build", &["release"], None),
        ("", &["a"], None),
        ("same", &["same"], None),
        ("RUN", &["ARG", "RUN "], Some("RUN ")),
    ] {
        assert_eq!(nearest(name, candidates.iter().copied()), expected, "{name}");
    }
}

#[test]
fn durations() {
    for (text, expected) in [
        ("30s", Some(Duration::from_secs(30))),
        ("1m30s", Some(Duration::from_secs(90))),
        ("1.5h", Some(Duration::from_secs(5400))),
        ("500ms", Some(Duration::from_millis(500))),
        ("1us", Some(Duration::from_micros(1))),
        ("1µs", Some(Duration::from_micros(1))),
        (".5s", Some(Duration::from_millis(500))),
        ("5.s", Some(Duration::from_secs(5))),
        ("0", Some(Duration::ZERO)),
        ("+5s", Some(Duration::from_secs(5))),
        ("0.0000000001s", Some(Duration::ZERO)),
        ("", None),
        ("5", None),
        ("s", None),
        (".s", None),
        ("1.2.3s", None),
        ("-5s", None),
        ("5 s", None),
        ("5d", None),
        ("9999999999h", None),
        ("99999999999999999999999999999999999999999999s", None),
    ] {
        assert_eq!(parse_duration(text), expected, "{text}");
    }
}
