//! JUnit XML, as pytest, Surefire, Gradle, nextest, jest and many others write it.

use std::sync::LazyLock;

use events::{Problem, ProblemKind, ProblemLevel};
use regex::Regex;

use super::{
    InvalidReport, cut, one_line,
    xml::{self, Piece},
};

/// Larger suites are counted no further: nobody has them.
const CASES_MAX: usize = 200_000;
/// Of a failure's text; what is cut is in the file.
const TEXT_BYTES_MAX: usize = 16 * 1024;
const NAME_CHARS_MAX: usize = 500;

/// A test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// The suite that it belongs to.
    pub suite: String,
    /// `classname`.
    pub class: String,
    /// Its name.
    pub name: String,
    /// The file, as the report has it.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u64>,
    /// Seconds that it took.
    pub seconds: Option<f64>,
    /// How it ended.
    pub outcome: CaseOutcome,
}

/// How a test ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CaseOutcome {
    /// It passed.
    #[default]
    Passed,
    /// It was left out.
    Skipped {
        /// Why.
        message: String,
    },
    /// It failed, or broke.
    Failed {
        /// One line.
        message: String,
        /// The whole of it, cut.
        text: String,
    },
}

/// Reads a report.
///
/// # Errors
/// It is not well-formed, or has no `testsuite`.
pub fn junit(text: &str) -> Result<Vec<Case>, InvalidReport> {
    let mut reader = Suites::default();
    xml::walk(text, &mut |piece| reader.piece(piece))?;
    if !reader.is_junit {
        return Err(InvalidReport::new("it is no JUnit report: it has no `testsuite`"));
    }
    if reader.cases.len() >= CASES_MAX {
        return Err(InvalidReport::new(format!("it has more than {CASES_MAX} tests")));
    }
    Ok(reader.cases)
}

/// A failed test for people; `None` for others.
pub(crate) fn problem(case: &Case) -> Option<Problem> {
    let CaseOutcome::Failed { message, text } = &case.outcome else { return None };
    let (file, line) = place(case, text);
    let message = if message.is_empty() { one_line(text) } else { message.clone() };
    Some(Problem {
        kind: ProblemKind::Test,
        level: ProblemLevel::Error,
        name: case.name.clone(),
        message,
        file,
        line,
        in_repository: false,
    })
}

#[derive(Default)]
struct Suites {
    is_junit: bool,
    /// Names of open elements.
    path: Vec<String>,
    suites: Vec<String>,
    case: Option<Case>,
    /// The text of an open `failure` or `error`.
    failure: Option<String>,
    cases: Vec<Case>,
}

impl Suites {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Open(element) => {
                let name = element.name();
                match name.as_str() {
                    "testsuite" | "testsuites" => {
                        self.is_junit = true;
                        self.suites.push(element.get("name").unwrap_or_default());
                    }
                    "testcase" if self.case.is_none() => {
                        let of = |name| element.get(name).map(|text| cut(text.trim(), NAME_CHARS_MAX));
                        self.case = Some(Case {
                            suite: self.suites.last().cloned().unwrap_or_default(),
                            class: of("classname").unwrap_or_default(),
                            name: of("name").unwrap_or_default(),
                            file: of("file").or_else(|| of("filepath")).filter(|file| !file.is_empty()),
                            line: element.number("line").or_else(|| element.number("lineno")),
                            seconds: element.number("time"),
                            outcome: CaseOutcome::Passed,
                        });
                    }
                    // Only what stands in the test itself; `rerunFailure` and the like say that it passed in the end.
                    "failure" | "error" if self.is_in_case() => {
                        let case = self.case.as_mut().expect("asked above");
                        let message = element.get("message").map(|text| one_line(&text)).unwrap_or_default();
                        case.line = element.number("line").or(case.line);
                        case.file = element.get("file").or(case.file.take());
                        case.outcome = CaseOutcome::Failed { message, text: String::new() };
                        self.failure = Some(String::new());
                    }
                    "skipped" if self.is_in_case() => {
                        let case = self.case.as_mut().expect("asked above");
                        if case.outcome == CaseOutcome::Passed {
                            let message = element.get("message").map(|text| one_line(&text)).unwrap_or_default();
                            case.outcome = CaseOutcome::Skipped { message };
                        }
                    }
                    _ => {}
                }
                self.path.push(name);
            }
            Piece::Text(text) => {
                if let Some(failure) = &mut self.failure
                    && failure.len() < TEXT_BYTES_MAX
                {
                    failure.push_str(text);
                }
            }
            Piece::Close => self.close(),
        }
    }

    fn is_in_case(&self) -> bool {
        self.case.is_some() && self.path.last().is_some_and(|name| name == "testcase")
    }

    fn close(&mut self) {
        match self.path.pop().as_deref() {
            Some("testsuite" | "testsuites") => drop(self.suites.pop()),
            Some("testcase") if !self.path.iter().any(|name| name == "testcase") => {
                if let Some(case) = self.case.take()
                    && self.cases.len() < CASES_MAX
                {
                    self.cases.push(case);
                }
            }
            Some("failure" | "error") if self.is_in_case() => {
                if let (Some(mut told), Some(case)) = (self.failure.take(), &mut self.case)
                    && let CaseOutcome::Failed { text, .. } = &mut case.outcome
                {
                    let mut end = TEXT_BYTES_MAX.min(told.len());
                    while !told.is_char_boundary(end) {
                        end -= 1;
                    }
                    told.truncate(end);
                    *text = told;
                }
            }
            _ => {}
        }
    }
}

/// `path.ext:12`, as compilers and test frameworks write places.
static PLACE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)(?P<start>^)?(?:^|[\s(\[])(?P<file>[\w@./+-]*[\w-]\.[A-Za-z]\w{0,5}):(?P<line>[1-9]\d{0,6})\b")
        .expect("a regex")
});

/// The file and line that the attributes name, else those of the failure's text: the last place at the beginning of a line,
/// where pytest has the failing assertion, else the first anywhere.
fn place(case: &Case, text: &str) -> (Option<String>, Option<u64>) {
    let places: Vec<(bool, &str, Option<u64>)> = PLACE
        .captures_iter(text)
        .filter_map(|found| {
            let file = found.name("file")?;
            let is_start = file.start() == 0 || text.as_bytes()[file.start() - 1] == b'\n';
            Some((is_start, file.as_str(), found["line"].parse().ok()))
        })
        .collect();
    if let Some(file) = &case.file {
        // The attributes name the test; its text may know the line that failed. pytest counts the former from 0.
        let within = places.iter().rev().find(|(_, path, _)| path == file);
        return (Some(file.clone()), within.map_or(case.line, |(_, _, line)| *line));
    }
    let found = places.iter().rev().find(|(is_start, ..)| *is_start).or(places.first());
    found.map_or((None, case.line), |(_, file, line)| (Some((*file).to_owned()), *line))
}
