//! JSON Schema of services and what goes with them, and of values with places.
//!
//! The schema helps editors; the readers are stricter and say what is wrong.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{At, parse::service::SERVICE};

/// A value with its place looks in the file as the value alone.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// What a key takes.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    Flag,
    Texts,
    Pairs,
    Command,
    Duration,
    Size,
    Map,
    List,
    TextOrMap,
    ListOrMap,
    NumberOrText,
}

impl Form {
    fn schema(self) -> Value {
        match self {
            Form::Text => json!({ "type": ["string", "number"] }),
            Form::Number => json!({ "type": ["integer", "string"] }),
            Form::NumberOrText => json!({ "type": ["number", "string"] }),
            Form::Flag => json!({ "type": ["boolean", "string"] }),
            Form::Texts => json!({ "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": ["string", "number", "boolean"] } }
            ] }),
            Form::Pairs => json!({ "anyOf": [
                { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "null"] } },
                { "type": "array", "items": { "type": "string" } }
            ] }),
            Form::Command => json!({ "anyOf": [
                { "type": "null" },
                { "type": "string" },
                { "type": "array", "items": { "type": ["string", "number", "boolean"] } }
            ] }),
            Form::Duration => json!({ "type": "string", "examples": ["2s", "1m30s"] }),
            Form::Size => json!({ "type": ["string", "integer"], "examples": ["64m", "1.5g"] }),
            Form::Map => json!({ "type": "object" }),
            Form::List => json!({ "type": "array" }),
            Form::TextOrMap => json!({ "type": ["string", "object"] }),
            Form::ListOrMap => json!({ "type": ["array", "object"] }),
        }
    }
}

/// Keys of a service with what they mean; a test compares them with those of the reader.
const PROPERTIES: &[(&str, Form, &str)] = &[
    ("annotations", Form::Pairs, "Annotations of the container."),
    ("attach", Form::Flag, "`false`: its log is only shown when asked for."),
    (
        "build",
        Form::TextOrMap,
        "How the image is built: the directory of the context, or a map as in the section `build`.",
    ),
    ("cap_add", Form::Texts, "Capabilities beside the default ones."),
    ("cap_drop", Form::Texts, "Capabilities that are taken away; `ALL` is all."),
    ("command", Form::Command, "Command instead of the image's: a list, or a text that is split without a shell."),
    ("configs", Form::List, "Files from the section `configs`: names, or maps with `source` and `target`."),
    ("container_name", Form::Text, "Name of the container."),
    ("cpus", Form::NumberOrText, "Processors that it may use, such as 1.5."),
    (
        "depends_on",
        Form::ListOrMap,
        "Services that have to be ready before: names, or a map with `condition` and `required`.",
    ),
    ("deploy", Form::Map, "`replicas`, `resources.limits` and `restart_policy`."),
    ("develop", Form::Map, "`watch`: what is done about changes of files."),
    ("devices", Form::List, "Devices of the host."),
    ("dns", Form::Texts, "Name servers."),
    ("dns_opt", Form::Texts, "Options of the resolver."),
    ("dns_search", Form::Texts, "Domains in which names are searched."),
    ("domainname", Form::Text, "Domain name of the container."),
    ("entrypoint", Form::Command, "Entrypoint instead of the image's."),
    ("env_file", Form::ListOrMap, "Files of variables; `environment` wins over them."),
    ("environment", Form::Pairs, "Variables; one without a value is taken from the environment, or left out."),
    ("expose", Form::List, "Ports that other services use."),
    ("extends", Form::TextOrMap, "A service that this one builds upon: `service`, and `file` if it is in another one."),
    ("extra_hosts", Form::ListOrMap, "Names for `/etc/hosts`: `name=address`."),
    ("from", Form::Text, "The image of this name that the same run builds."),
    ("group_add", Form::Texts, "Further groups of the user."),
    (
        "healthcheck",
        Form::Map,
        "Health check instead of the image's: `test`, `interval`, `timeout`, `retries`, `start_period`, `start_interval`, `disable`.",
    ),
    ("hostname", Form::Text, "Host name of the container."),
    ("image", Form::Text, "Image that it is started from."),
    ("init", Form::Flag, "A small first process that reaps others."),
    ("label_file", Form::Texts, "Files of labels; `labels` wins over them."),
    ("labels", Form::Pairs, "Labels of the container."),
    (
        "links",
        Form::Texts,
        "Services with their addresses in variables, as docker had them: `service` or `service:alias`.",
    ),
    ("logging", Form::Map, "`driver` and `options`."),
    ("mem_limit", Form::Size, "Memory that it may use."),
    ("network_mode", Form::Text, "`none`, `host`, `bridge`, `service:NAME` or `container:NAME`."),
    (
        "networks",
        Form::ListOrMap,
        "Networks that it is in: names, or a map with `aliases` and addresses. Default: `default`.",
    ),
    ("pids_limit", Form::Number, "Processes and threads that it may have."),
    ("platform", Form::Text, "Platform of the image, such as `linux/arm64`."),
    (
        "ports",
        Form::List,
        "Ports on the host: `8080:80`, `127.0.0.1:8080:80/udp`, ranges, or maps with `target` and `published`.",
    ),
    (
        "pre_start",
        Form::List,
        "Steps that have to pass before it starts, each in a container of its own: maps with `command`, `image`, `user`, `environment`.",
    ),
    ("privileged", Form::Flag, "All rights of the host."),
    ("profiles", Form::Texts, "Profiles that it belongs to; without one it always belongs to the project."),
    ("pull_policy", Form::Text, "`always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_12h`."),
    ("read_only", Form::Flag, "The root filesystem cannot be written."),
    ("ready", Form::Map, "When it counts as started: `log`, `http`, `port`, `command`; `timeout`, `interval`."),
    ("restart", Form::TextOrMap, "`no`, `always`, `on-failure[:ATTEMPTS]` or `unless-stopped`."),
    ("scale", Form::Number, "Number of containers."),
    (
        "secrets",
        Form::List,
        "Files from the section `secrets`, below `/run/secrets`: names, or maps with `source` and `target`.",
    ),
    ("security_opt", Form::Texts, "`no-new-privileges`; others have no effect."),
    ("seed", Form::Texts, "Files whose content a warm snapshot depends on."),
    ("shm_size", Form::Size, "Size of `/dev/shm`."),
    ("snapshot", Form::Text, "`ready`: keep the state of the ready service, and start from it next time."),
    ("stdin_open", Form::Flag, "Its input stays open."),
    ("stop_grace_period", Form::Duration, "Time between the stop signal and SIGKILL."),
    ("stop_signal", Form::Text, "Signal that stops it. Default: the image's, else SIGTERM."),
    ("sysctls", Form::Pairs, "Parameters of the kernel."),
    ("tmpfs", Form::Texts, "Filesystems in memory: `/run`, `/tmp:size=64m`."),
    ("tty", Form::Flag, "A terminal."),
    ("ulimits", Form::Map, "Limits by name: a number, or `soft` and `hard`."),
    ("user", Form::Text, "User, as `name[:group]` or numbers. Default: the image's."),
    ("verify", Form::Texts, "What must be proven of the image: `gates`, `signature`."),
    ("volumes", Form::List, "Mounts: `volume:/path`, `./path:/path[:ro]`, or maps with `type`, `source` and `target`."),
    ("volumes_from", Form::Texts, "Services whose mounts it has as well: `service[:ro]`."),
    ("working_dir", Form::Text, "Working directory. Default: the image's."),
];

/// The schema of a service of the pipeline file.
pub struct ServiceForm;

impl JsonSchema for ServiceForm {
    fn schema_name() -> Cow<'static, str> {
        "Service".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for (key, form, description) in PROPERTIES {
            let mut schema = form.schema();
            schema["description"] = (*description).into();
            properties.insert((*key).to_owned(), schema);
        }
        for key in SERVICE.later {
            let description = "A key of Compose that has no effect here; Seatrial warns of it.";
            properties.insert((*key).to_owned(), json!({ "description": description }));
        }
        let mut schema = json_schema!({
            "type": "object",
            "description": "A container that gates need, in Compose's words.",
            "additionalProperties": false
        });
        schema.insert("properties".into(), Value::Object(properties));
        schema
    }
}

/// The schema of `include` in the pipeline file.
pub struct IncludeForm;

impl JsonSchema for IncludeForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Include".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let texts = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
        let entry = json!({ "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "path": { "description": "The file, or several that are merged.", "anyOf": texts["anyOf"] },
                    "project_directory": { "type": "string", "description": "Directory that paths in it are relative to." },
                    "env_file": { "description": "Files of variables. Default: `.env` beside it.", "anyOf": texts["anyOf"] }
                },
                "required": ["path"],
                "additionalProperties": false
            }
        ] });
        json_schema!({ "anyOf": [entry, { "type": "array", "items": entry }] })
    }
}

/// The schema of `networks`, `volumes`, `configs` and `secrets`: a map of maps, which the reader checks.
pub struct NamedForm;

impl JsonSchema for NamedForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Named".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": ["object", "null"] } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::service::OWN_SERVICE;

    #[test]
    fn the_schema_has_exactly_the_keys_that_the_reader_takes() {
        let mut known: Vec<&str> = OWN_SERVICE.known.to_vec();
        known.sort_unstable();
        let described: Vec<&str> = PROPERTIES.iter().map(|(key, ..)| *key).collect();
        assert_eq!(described, known);
    }

    #[test]
    fn the_page_names_every_key() {
        let page = include_str!("../../../docs/services.md");
        let words: Vec<&str> = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let missing: Vec<&&str> =
            OWN_SERVICE.known.iter().chain(SERVICE.later).filter(|key| !words.contains(key)).collect();
        assert!(missing.is_empty(), "docs/services.md says nothing of {missing:?}");
    }
}
