//! The examples of codes show what they say.

use dockerfile::{
    codes::{examples, rules},
    lint::{LintInput, check},
    parse, parse_with_warnings,
};

/// Found while building, or in another file: the parser knows nothing of them.
const LATER: &[&str] = &[
    "ST104", "ST118", "ST120", "ST121", "ST122", "ST123", "ST124", "ST125", "ST126", "ST127", "ST128", "ST130",
    "ST140", "ST141",
];

fn codes_of(text: &str) -> Vec<String> {
    match parse_with_warnings(text) {
        Ok(parsed) => parsed.warnings.iter().map(|diagnostic| diagnostic.code.to_string()).collect(),
        Err(diagnostics) => diagnostics.iter().map(|diagnostic| diagnostic.code.to_string()).collect(),
    }
}

#[test]
fn wrong_examples_have_their_code_and_right_ones_have_none() {
    for (code, wrong, right) in examples::ALL {
        let (of_wrong, of_right) = (codes_of(wrong), codes_of(right));
        if LATER.contains(code) {
            assert!(!of_wrong.iter().any(|found| found == code), "the parser finds {code} after all");
        } else {
            assert_eq!(of_wrong, [*code], "{wrong}");
        }
        if *code != "ST126" {
            assert_eq!(of_right, Vec::<String>::new(), "{code}: {right}");
        }
    }
}

#[test]
fn checks_find_something_in_wrong_examples_only() {
    for (code, wrong, right) in rules::ALL {
        let finds = |text: &str| {
            let file = parse(text).unwrap_or_else(|problems| panic!("{code}: {problems:?}"));
            let input = LintInput { experimental: true, ..LintInput::default() };
            check(&file, text, &input).iter().any(|finding| finding.code == *code)
        };
        assert!(finds(wrong), "{code} is not found in:\n{wrong}");
        assert!(!finds(right), "{code} is found in:\n{right}");
    }
}
