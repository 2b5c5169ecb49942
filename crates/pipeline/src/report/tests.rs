use super::{junit::problem, *};

fn told(text: &str) -> Vec<String> {
    let cases = junit(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    cases
        .iter()
        .map(|case| {
            let name = &case.name;
            match (&case.outcome, problem(case)) {
                (CaseOutcome::Passed, _) => format!("{name} passed"),
                (CaseOutcome::Skipped { message }, _) => format!("{name} skipped {message}"),
                (_, Some(problem)) => {
                    let file = problem.file.unwrap_or_default();
                    format!("{name} {file}:{} {}", problem.line.unwrap_or(0), problem.message)
                }
                _ => unreachable!("a failure is a problem"),
            }
        })
        .collect()
}

#[test]
fn tests_are_read_as_frameworks_write_them() {
    for (what, text, expected) in [
        ("empty", "<testsuites><testsuite/></testsuites>", &[][..]),
        (
            "pytest",
            r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="3" time="0.1">
               <testcase classname="tests.test_even" name="test_even" time="0.001" />
               <testcase classname="tests.test_even" name="test_odd" time="0.001"><failure message="assert 1 == 0&#10; +  where 1 = f()">
               def test_odd():
&gt;       assert f(3) == 0
E       assert 1 == 0

tests/test_even.py:12: AssertionError</failure></testcase>
               <testcase classname="t" name="later"><skipped type="pytest.skip" message="not &lt;now&gt;">x.py:1: no</skipped></testcase>
               </testsuite></testsuites>"#,
            &["test_even passed", "test_odd tests/test_even.py:12 assert 1 == 0", "later skipped not <now>"],
        ),
        (
            "nextest",
            r#"<testsuites><testsuite name="app"><testcase name="adds" classname="app" time="0.01">
               <failure type="test failure">thread &apos;adds&apos; panicked at src/lib.rs:10:5:
assertion `left == right` failed</failure><system-out><![CDATA[<failure>]]></system-out></testcase></testsuite></testsuites>"#,
            &["adds src/lib.rs:10 thread 'adds' panicked at src/lib.rs:10:5:"],
        ),
        (
            "attributes",
            r#"<testsuite><testcase name="a" file="a/b.js" line="7"><error message="boom"/></testcase></testsuite>"#,
            &["a a/b.js:7 boom"],
        ),
        (
            "surefire's reruns passed in the end",
            r#"<testsuite><testcase name="a"><flakyFailure message="x"><stackTrace>y</stackTrace></flakyFailure></testcase></testsuite>"#,
            &["a passed"],
        ),
        (
            "skipped and failed",
            "<testsuite><testcase name='a'><skipped/><failure/></testcase><testcase name='b'><failure/><skipped/></testcase></testsuite>",
            &["a :0 ", "b :0 "],
        ),
        (
            "what is not in a test",
            "<testsuite><failure/><testcase name='a'><properties><error/></properties></testcase><error/></testsuite>",
            &["a passed"],
        ),
        ("a namespace", "<j:testsuite xmlns:j='x'><j:testcase name='a'/></j:testsuite>", &["a passed"]),
        ("a comment", "<testsuite><!-- <testcase/> --><testcase name='a > b'/></testsuite>", &["a > b passed"]),
    ] {
        assert_eq!(told(text), expected, "{what}");
    }
}

#[test]
fn what_is_no_junit_says_why() {
    for (text, reason) in [
        ("<html></html>", "it is no JUnit report: it has no `testsuite`"),
        ("not xml", "it is not XML: there is no element"),
        ("", "it is not XML: there is no element"),
        ("<testsuite><testcase", "it is not XML: "),
        ("<testsuite><testcase>", "it is cut off: an element is not closed"),
        ("<testsuite><!-- open", "it is not XML: "),
        ("<testsuite></testsuites>", "it is not XML: "),
    ] {
        let error = junit(text).expect_err(text).to_string();
        assert!(error.starts_with(reason), "{text}: {error}");
    }
    let deep = "<testsuite>".repeat(100_000);
    assert_eq!(junit(&deep).expect_err("too deep").to_string(), "it is nested too deep");
}

#[test]
fn entities_of_a_document_are_not_expanded() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>
        <testsuite name="&b;"><testcase name="&b;"><failure message="&f;">&b;&f;&amp;&#33;</failure></testcase></testsuite>"#;
    let cases = junit(bomb).expect("well-formed");
    assert_eq!(cases[0].name, "&b;");
    assert_eq!(cases[0].outcome, CaseOutcome::Failed { message: "&f;".into(), text: "&b;&f;&!".into() });
}

#[test]
fn coverage_is_read_in_three_formats() {
    for (what, text, expected) in [
        (
            "Cobertura's own sum",
            r#"<coverage line-rate="0.5" lines-covered="873" lines-valid="1000"/>"#,
            Ok((873, 1000)),
        ),
        (
            "Cobertura without a sum",
            r#"<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd"><coverage line-rate="0.5"><packages><package><classes><class>
               <methods><method><lines><line number="1" hits="3"/></lines></method></methods>
               <lines><line number="1" hits="3"/><line number="2" hits="0"/></lines></class></classes></package></packages></coverage>"#,
            Ok((1, 2)),
        ),
        (
            "JaCoCo",
            r#"<report name="x"><package><counter type="LINE" missed="9" covered="9"/></package><counter type="BRANCH" missed="1" covered="1"/><counter type="LINE" missed="1" covered="3"/></report>"#,
            Ok((3, 4)),
        ),
        (
            "LCOV",
            "TN:\nSF:a.c\nDA:1,5\nDA:2,0\nLF:2\nLH:1\nend_of_record\nSF:a.c\nDA:2,1,hash\nend_of_record\n",
            Ok((2, 2)),
        ),
        ("LCOV's sums", "SF:a.c\nLF:10\nLH:7\nend_of_record\n", Ok((7, 10))),
        ("another root", "<html/>", Err("`html` is neither Cobertura (`coverage`) nor JaCoCo (`report`)")),
        ("nothing", "hello", Err("it is neither XML nor LCOV: no line begins with `SF:`")),
        ("no lines", "<coverage/>", Err("it is no Cobertura report: it has no lines")),
        ("nonsense", r#"<coverage lines-covered="3" lines-valid="1"/>"#, Err("it has more covered lines than lines")),
        ("a wrong line", "SF:a\nDA:x,y\n", Err("`DA:x,y` is no line of LCOV")),
    ] {
        let read = coverage(text).map(|sum| (sum.covered, sum.lines)).map_err(|error| error.to_string());
        assert_eq!(read, expected.map_err(str::to_owned), "{what}");
    }
}

#[test]
fn findings_are_read_with_their_levels() {
    let text = r#"{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x", "rules": [
        {"id": "R1", "defaultConfiguration": {"level": "error"}}, {"id": "R2"}]}}, "results": [
        {"ruleId": "R1", "message": {"text": "first\nsecond"}, "locations": [{"physicalLocation": {"artifactLocation": {"uri": "file:///srv/a%20b.py"}, "region": {"startLine": 3}}}]},
        {"ruleIndex": 1, "message": {"text": "two"}},
        {"ruleId": "R2", "level": "note", "message": {"text": "three"}},
        {"ruleId": "R2", "level": "none", "message": {"text": "no"}},
        {"ruleId": "R2", "kind": "pass", "message": {"text": "no"}},
        {"ruleId": "R2", "message": {"text": "no"}, "suppressions": [{"kind": "inSource"}]}]}]}"#;
    let found: Vec<String> = sarif(text)
        .expect("it is SARIF")
        .iter()
        .map(|one| format!("{:?} {} {} {:?} {:?}", one.level, one.name, one.message, one.file, one.line))
        .collect();
    assert_eq!(
        found,
        ["Error R1 first Some(\"/srv/a b.py\") Some(3)", "Warning R2 two None None", "Note R2 three None None"]
    );
    assert!(sarif("{}").is_err() && sarif("[").is_err() && sarif(r#"{"version": "1.0.0", "runs": []}"#).is_err());
    assert!(sarif(&"[".repeat(1_000_000)).is_err());
}
