//! `.env` and `env_file`.

use serde_json::json;

use crate::Case;

const SERVICE: &str = "services: {a: {image: x, env_file: v.env}}";

#[track_caller]
fn check(env_file: &str, expected: serde_json::Value) {
    let case = Case::new(&[("compose.yaml", SERVICE), ("v.env", env_file)]).env(&[("SET", "value")]);
    assert_eq!(case.value("environment"), expected, "{env_file}");
}

#[track_caller]
fn wrong(env_file: &str, expected: &str) {
    let case = Case::new(&[("compose.yaml", SERVICE), ("v.env", env_file)]);
    assert_eq!(case.findings(), expected, "{env_file}");
}

#[test]
fn files_of_variables_are_read_as_the_specification_says() {
    check("# comment\n\nA=1\n  B = 2 \nexport C=3\nD: yaml\n", json!({"A": "1", "B": "2", "C": "3", "D": "yaml"}));
    check(
        "A=VAL # comment\nB=VAL# not a comment\nC=\"VAL # not\" # but this\n",
        json!({"A": "VAL", "B": "VAL# not a comment", "C": "VAL # not"}),
    );
    check(
        "A='$SET ${SET}'\nB=\"$SET\"\nC=$SET-$A\nD=$$A\n",
        json!({"A": "$SET ${SET}", "B": "value", "C": "value-$SET ${SET}", "D": "$A"}),
    );
    check(
        "A='Let\\'s go!'\nB=\"{\\\"hello\\\": \\\"json\\\"}\"\n",
        json!({"A": "Let's go!", "B": "{\"hello\": \"json\"}"}),
    );
    check(
        "A=\"some\\tvalue\\n\\$SET\"\nB='some\\tvalue'\nC=some\\tvalue\n",
        json!({"A": "some\tvalue\n$SET", "B": "some\\tvalue", "C": "some\\tvalue"}),
    );
    check("A=\"two\nlines\"\nB=\n", json!({"A": "two\nlines", "B": ""}));
    check("SET\nUNSET\nSET2=${SET:-x}${UNSET:-y}$UNSET\n", json!({"SET": "value", "SET2": "valuey"}));
    check("A=1\r\nB=2\r\n", json!({"A": "1", "B": "2"}));
    check("\u{feff}A=1\n", json!({"A": "1"}));
    check("A=1\nA=2\n", json!({"A": "2"}));
}

#[test]
fn wrong_lines_are_named() {
    wrong("A=1\nB=\"open\n", "ST306 1:36+5 `v.env`, line 2: the quote is not closed");
    wrong("A B=1\n", "ST306 1:36+5 `v.env`, line 1: `A B` is not a name");
    wrong("A=\"b\" c\n", "ST306 1:36+5 `v.env`, line 1: there is text behind the closing quote");
    wrong("A=${\n", "ST306 1:36+5 `v.env`, line 1: `${` has no `}`");
}

#[test]
fn later_files_and_the_environment_win() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "services:\n  a:\n    image: x\n    env_file: [one.env, {path: sub/two.env}, {path: raw.env, format: raw}]\n    environment: {C: own, GONE: }\n",
        ),
        ("one.env", "A=1\nB=1\nC=1\nGONE=1\n"),
        ("sub/two.env", "B=2\nC=2\n"),
        ("raw.env", "R=\"$A\" # all of it\n"),
    ]);
    assert_eq!(case.value("environment"), json!({"A": "1", "B": "2", "C": "own", "R": "\"$A\" # all of it"}));
}

#[test]
fn the_project_reads_its_dot_env() {
    let case = Case::new(&[
        ("compose.yaml", "services: {a: {image: \"x:${TAG}\", environment: [TAG, FROM]}}"),
        (".env", "TAG=1.2\nFROM=file\nCOMPOSE_PROJECT_NAME=named\n"),
        ("other.env", "TAG=7\n"),
        ("last.env", "FROM=last-$TAG\n"),
    ])
    .env(&[("FROM", "environment")]);
    assert_eq!(case.value("image"), "docker.io/library/x:1.2");
    assert_eq!(case.value("environment"), json!({"TAG": "1.2", "FROM": "environment"}));
    assert_eq!(case.load().project.name, "named");

    let mut case = case;
    case.request.env.remove("FROM");
    case.request.env_files = vec!["other.env".into(), "last.env".into()];
    assert_eq!(case.value("environment"), json!({"TAG": "7", "FROM": "last-7"}));

    case.request.env_files = vec!["nope.env".into()];
    assert_eq!(case.findings(), "`$DIR/nope.env` does not exist");
}

#[test]
fn labels_come_from_files_too() {
    let case =
        Case::new(&[("compose.yaml", "services: {a: {image: x, label_file: l, labels: {b: 2}}}"), ("l", "a=1\nb=1\n")]);
    assert_eq!(case.value("labels"), json!({"a": "1", "b": "2"}));
}
