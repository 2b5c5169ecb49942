//! Texts of strangers: never a panic, never more than the bounds, never a file that blocks.

use proptest::prelude::*;

use crate::Case;

/// Pieces that meet in real files, so that random texts get further than the first key.
const PIECES: &[&str] = &[
    "services:\n",
    "  a:\n",
    "    image: x\n",
    "    ports: [\"80:80\"]\n",
    "    environment: {A: 1}\n",
    "    extends: a\n",
    "    volumes: [\"./a:/b:ro\"]\n",
    "    depends_on: [a]\n",
    "networks: {n: }\n",
    "${A:-",
    "}",
    "$",
    "!reset ",
    "!override []",
    "&a ",
    "*a",
    "<<: *a\n",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "  ",
    "'",
    "\"",
    "é",
    "\u{0}",
    "include: [compose.yaml]\n",
    "0-70000",
    ":::",
    "-1",
    "healthcheck: {test: x}",
    "x-a: ",
    "null",
    "~",
    "|",
    ">",
    "%",
    "@",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        Case::one(&pieces.concat()).findings();
    }

    #[test]
    fn no_value_panics(value in "\\PC{0,20}", key in prop::sample::select(&["ports", "expose", "volumes", "tmpfs", "command", "devices",
        "extra_hosts", "mem_limit", "cpus", "ulimits", "restart", "pull_policy", "platform", "image", "links", "dns", "stop_signal", "build"][..])) {
        let quoted = serde_json::to_string(&value).expect("JSON");
        Case::one(&format!("services: {{a: {{image: x, {key}: {quoted}}}}}")).findings();
        Case::one(&format!("services: {{a: {{image: x, {key}: [{quoted}]}}}}")).findings();
    }

    #[test]
    fn no_env_file_panics(text in "[A-C=:$\"'#\\\\ {}\n\\-é]{0,40}") {
        Case::new(&[("compose.yaml", "services: {a: {image: x, env_file: e}}"), ("e", &text), (".env", &text)]).findings();
    }
}

#[test]
fn everything_has_a_bound() {
    let has = |case: Case, expected: &str| {
        let findings = case.findings();
        assert!(findings.contains(expected), "{}", &findings[..findings.len().min(500)]);
    };
    has(Case::one(&"#".repeat(2 << 20)), "is larger than");
    has(Case::one(&format!("x-a: {}{}", "[".repeat(100), "]".repeat(100))), "more than 64 levels");
    // Ports of ranges.
    let ranges = ["\"1-65535\""; 10].join(",");
    has(Case::one(&format!("services: {{a: {{image: x, expose: [{ranges}]}}}}")), "more than 100000 ports");
    // Templates that double.
    let doubling: String = std::iter::once("A0=xxxxxxxxxxxxxxxx\n".to_owned())
        .chain((1..40).map(|n| format!("A{n}=$A{m}$A{m}\n", m = n - 1)))
        .collect();
    has(
        Case::new(&[("compose.yaml", "services: {a: {image: x, env_file: e}}"), ("e", &doubling)]),
        "the value is longer than",
    );
    let large = Case::one(&format!("services: {{a: {{image: x, labels: [{}]}}}}", "$LARGE,".repeat(1000)));
    has(large.env(&[("LARGE", &"x".repeat(100_000))]), "variables make more than");
    // Services that extend each other, and files that include each other twice.
    let chain: String = (0..100).map(|n| format!("  s{n}: {{image: x, extends: s{}}}\n", n + 1)).collect();
    has(Case::one(&format!("services:\n{chain}  s100: {{image: x}}\n")), "services extend each other");
    let files: Vec<(String, String)> = (0..14)
        .map(|n| {
            (
                if n == 0 { "compose.yaml".into() } else { format!("f{n}.yaml") },
                format!("include: [f{m}.yaml, {{path: f{m}.yaml}}]", m = n + 1),
            )
        })
        .chain([("f14.yaml".to_owned(), "x-a: 1".to_owned())])
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    has(Case::new(&files), "more than 100 files");
}

#[test]
fn a_fifo_does_not_block() {
    let case = Case::one("services: {a: {image: x, env_file: fifo}}");
    let made = std::process::Command::new("mkfifo").arg(case.path().join("fifo")).status().expect("mkfifo");
    assert!(made.success());
    assert_eq!(case.findings(), "ST306 1:36+4 `fifo` is not a regular file");
}
