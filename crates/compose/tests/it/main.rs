//! Compose files as users write them, and what is made of them.

mod diagnostics;
mod dotenv;
mod files;
mod hostile;
mod keys;
mod values;

use std::{collections::BTreeMap, fs, path::Path};

use compose::{Finding, LoadError, LoadRequest, Loaded, Project};
use serde_json::Value;

/// A directory with files, and a request for what docker compose would read there.
struct Case {
    directory: tempfile::TempDir,
    request: LoadRequest,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Case {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        let working_directory = directory.path().canonicalize().expect("the directory");
        let env = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        Case { directory, request: LoadRequest { working_directory, env, ..LoadRequest::default() } }
    }

    fn one(text: &str) -> Case {
        Case::new(&[("compose.yaml", text)])
    }

    fn env(mut self, pairs: &[(&str, &str)]) -> Case {
        self.request.env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    fn files(mut self, files: &[&str]) -> Case {
        self.request.files = files.iter().map(Into::into).collect();
        self
    }

    fn profiles(mut self, profiles: &[&str]) -> Case {
        self.request.profiles = profiles.iter().map(|profile| (*profile).to_owned()).collect();
        self
    }

    fn path(&self) -> &Path {
        &self.request.working_directory
    }

    #[track_caller]
    fn load(&self) -> Loaded {
        let _alive = &self.directory;
        match Project::load(&self.request) {
            Ok(loaded) => loaded,
            Err(LoadError::Invalid(findings)) => panic!("{}", show(&findings)),
            Err(error) => panic!("{error}"),
        }
    }

    /// The project as `seatrial config` prints it, with `$DIR` for the directory.
    #[track_caller]
    fn json(&self) -> Value {
        let text = serde_json::to_string(&self.load().project).expect("JSON");
        let text = text.replace(&*self.path().to_string_lossy(), "$DIR");
        serde_json::from_str(&text).expect("JSON")
    }

    /// A key of the service `a`.
    #[track_caller]
    fn value(&self, key: &str) -> Value {
        let json = self.json();
        let service = json["services"].as_array().into_iter().flatten().find(|service| service["name"] == "a");
        let mut value = service.map(|service| service[key].clone()).unwrap_or_else(|| panic!("no service a: {json}"));
        forget_places(&mut value);
        value
    }

    /// Errors and warnings, one a line.
    fn findings(&self) -> String {
        match Project::load(&self.request) {
            Ok(loaded) => show(&loaded.warnings),
            Err(LoadError::Invalid(findings)) => show(&findings),
            Err(error) => error.to_string().replace(&*self.path().to_string_lossy(), "$DIR"),
        }
    }
}

fn forget_places(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("place");
            map.values_mut().for_each(forget_places);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_places),
        _ => {}
    }
}

/// `CODE FILE:LINE:COLUMN+WIDTH message (label)`; warnings begin with `warning`.
fn show(findings: &[Finding]) -> String {
    let line = |Finding { file, diagnostic }: &Finding| {
        let severity = if diagnostic.is_error() { "" } else { "warning " };
        let place = diagnostic.span.as_ref().map_or("-".to_owned(), |span| {
            let (line, column) = dockerfile::line_column(&file.text, span.start);
            format!("{line}:{column}+{}", file.text[span.clone()].chars().count())
        });
        let label = diagnostic.label.as_deref().map(|label| format!(" ({label})")).unwrap_or_default();
        let name = if file.name == "compose.yaml" { String::new() } else { format!("{}:", file.name) };
        format!("{severity}{} {name}{place} {}{label}", diagnostic.code, diagnostic.message)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}
