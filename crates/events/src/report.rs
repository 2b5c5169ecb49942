//! What gates report: tests, covered lines, findings.

use serde::{Deserialize, Serialize};

/// Numbers of a test report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCounts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed or broke.
    pub failed: u64,
    /// Tests that were left out.
    pub skipped: u64,
}

impl std::ops::Add for TestCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Lines of a coverage report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Lines that ran.
    pub covered: u64,
    /// Lines that could have run.
    pub lines: u64,
}

impl std::ops::Add for Coverage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { covered: self.covered + other.covered, lines: self.lines + other.lines }
    }
}

impl Coverage {
    /// Of a hundred, with one decimal, rounded down: only full coverage is 100. Without any line it is full.
    pub fn percent(self) -> f64 {
        if self.lines == 0 {
            return 100.0;
        }
        let per_mille = u128::from(self.covered.min(self.lines)) * 1000 / u128::from(self.lines);
        per_mille as f64 / 10.0
    }
}

/// A failing test, or a finding of a linter or scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// How bad it is.
    pub level: ProblemLevel,
    /// The test's name, or the rule's.
    pub name: String,
    /// One line.
    pub message: String,
    /// The file: within the repository where it is known there, else as the report has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The file is one of the repository, so that a link to it works.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_repository: bool,
}

/// What a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// A test that failed.
    Test,
    /// A finding.
    Finding,
}

/// How bad a problem is (SARIF, `level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemLevel {
    /// Serious.
    Error,
    /// Less so.
    Warning,
    /// For information.
    Note,
}

#[cfg(test)]
mod tests {
    use super::Coverage;

    #[test]
    fn only_full_coverage_is_a_hundred() {
        for (covered, lines, percent) in
            [(873, 1000, 87.3), (9999, 10_000, 99.9), (0, 0, 100.0), (2, 3, 66.6), (5, 5, 100.0)]
        {
            assert!((Coverage { covered, lines }.percent() - percent).abs() < 1e-9, "{covered} of {lines}");
        }
    }
}
