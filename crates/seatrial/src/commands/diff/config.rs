//! How the images say that they are run.

use std::collections::BTreeMap;

use oci::ImageConfig;
use serde_json::{Map, Value, json};

use super::limited;
use crate::terminal::{table, text};

/// One field, or one entry of a field that is a map, that differs.
pub(super) struct Field {
    /// Docker's name of it, such as `Env` or `Labels`.
    field: String,
    /// The entry's name; empty for a field as a whole.
    name: String,
    old: Option<Value>,
    new: Option<Value>,
}

/// Longer values are cut in the table.
const VALUE_COLUMNS: usize = 60;

/// What differs, by field and name.
pub(super) fn differences(old: &ImageConfig, new: &ImageConfig) -> Vec<Field> {
    let (old, new) = (entries(old), entries(new));
    let mut names: Vec<&(String, String)> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let field = |key: &(String, String)| Field {
        field: key.0.clone(),
        name: key.1.clone(),
        old: old.get(key).cloned(),
        new: new.get(key).cloned(),
    };
    differing.map(field).collect()
}

/// The config as fields and entries.
fn entries(image: &ImageConfig) -> BTreeMap<(String, String), Value> {
    let mut entries = BTreeMap::new();
    let config = serde_json::to_value(&image.config).ok();
    let fields: Map<String, Value> = config.and_then(|config| config.as_object().cloned()).unwrap_or_default();
    for (field, value) in fields {
        match &value {
            Value::Object(map) if field != "Healthcheck" => {
                entries.extend(map.iter().map(|(name, value)| ((field.clone(), name.clone()), value.clone())));
            }
            Value::Array(variables) if field == "Env" => {
                for variable in variables.iter().filter_map(Value::as_str) {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    entries.insert((field.clone(), name.to_owned()), value.into());
                }
            }
            _ => drop(entries.insert((field, String::new()), value)),
        }
    }
    entries.insert(("Platform".into(), String::new()), image.platform().to_string().into());
    if let Some(author) = &image.author {
        entries.insert(("Author".into(), String::new()), author.as_str().into());
    }
    entries
}

/// Lines for people.
pub(super) fn lines(fields: &[Field], all: bool) -> String {
    let rows: Vec<Vec<String>> = fields.iter().map(Field::row).collect();
    limited(table::columns(&rows).lines().map(str::to_owned).collect(), all)
}

impl Field {
    fn row(&self) -> Vec<String> {
        let what = match self.name.as_str() {
            "" => self.field.clone(),
            name => format!("{} {}", self.field, text::one_line(name)),
        };
        let change = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{} → {}", show(old), show(new)),
            (None, Some(new)) => format!("new: {}", show(new)),
            (Some(old), None) => format!("gone, was {}", show(old)),
            (None, None) => String::new(),
        };
        vec![what, change]
    }

    pub(super) fn value(&self) -> Value {
        json!({"Field": self.field, "Name": self.name, "Old": self.old, "New": self.new})
    }
}

fn show(value: &Value) -> String {
    let shown = match value {
        Value::String(text) => text.clone(),
        // Ports and volumes are keys without a value.
        Value::Object(map) if map.is_empty() => "yes".into(),
        other => other.to_string(),
    };
    text::fit(&text::one_line(&shown), VALUE_COLUMNS)
}
