//! The files that a project was read from. All of them share one range of places, so that a value may come from any of
//! them and a mistake is still shown where it stands.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use dockerfile::{Diagnostic, Severity, Span, line_column};
use events::Place;

use crate::{codes, template::Variables};

/// A text file of the user's, for showing places in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceText {
    /// As the user would name it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Something noticed in one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file with its text.
    pub file: Arc<SourceText>,
    /// What, with its place in that file.
    pub diagnostic: Diagnostic,
}

/// A file as it takes part in a project.
pub(crate) struct Source {
    pub(crate) file: Arc<SourceText>,
    /// Relative paths in it start here.
    pub(crate) base: PathBuf,
    /// What fills in its templates, and its names without values.
    pub(crate) variables: Rc<dyn Variables>,
    start: usize,
}

/// All files that were read, in order.
#[derive(Default)]
pub(crate) struct Sources {
    sources: Vec<Source>,
}

impl Sources {
    /// Adds a file; places in it begin at what is given back.
    pub(crate) fn add(&mut self, file: Arc<SourceText>, base: &Path, variables: Rc<dyn Variables>) -> usize {
        // One byte between files, so that a place at the end of one is not at the beginning of the next.
        let start = self.sources.last().map_or(0, |last| last.start + last.file.text.len() + 1);
        self.sources.push(Source { file, base: base.to_path_buf(), variables, start });
        start
    }

    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// The file that a place is in.
    pub(crate) fn of(&self, span: &Span) -> &Source {
        let after = self.sources.partition_point(|source| source.start <= span.start);
        &self.sources[after.saturating_sub(1)]
    }

    pub(crate) fn place(&self, span: &Span) -> Place {
        let source = self.of(span);
        let (line, column) = line_column(&source.file.text, span.start - source.start);
        Place { file: source.file.name.clone(), line, column }
    }

    /// For messages that speak of a second place.
    pub(crate) fn describe(&self, span: &Span) -> String {
        let Place { file, line, .. } = self.place(span);
        format!("{file}, line {line}")
    }

    /// The diagnostics in the order of files and places, none twice: aliases show one value at several places. Of a text whose
    /// template has no value nothing else is said, because nobody knows what it would have been.
    pub(crate) fn findings(&self, mut diagnostics: Vec<Diagnostic>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        let is_unfilled = |diagnostic: &Diagnostic| {
            diagnostic.severity == Severity::Error
                && matches!(diagnostic.code, codes::ABSENT_VALUE | codes::BAD_TEMPLATE)
        };
        let unfilled: Vec<Span> =
            diagnostics.iter().filter(|diagnostic| is_unfilled(diagnostic)).filter_map(|d| d.span.clone()).collect();
        diagnostics.retain(|diagnostic| {
            is_unfilled(diagnostic) || !diagnostic.span.as_ref().is_some_and(|span| unfilled.contains(span))
        });
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map_or(0, |span| span.start));
        for mut diagnostic in diagnostics {
            let source = self.of(&diagnostic.span.clone().unwrap_or_default());
            diagnostic.span = diagnostic.span.map(|span| span.start - source.start..span.end - source.start);
            let finding = Finding { file: Arc::clone(&source.file), diagnostic };
            // They are sorted, so that equal ones are near.
            let near = findings.iter().rev().take_while(|own| {
                Arc::ptr_eq(&own.file, &finding.file)
                    && own.diagnostic.span.as_ref().map(|span| span.start)
                        == finding.diagnostic.span.as_ref().map(|span| span.start)
            });
            if !near.into_iter().any(|own| own.diagnostic == finding.diagnostic) {
                findings.push(finding);
            }
        }
        findings
    }
}
