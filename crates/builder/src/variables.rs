//! Build arguments and environment: what `$NAME` means at a place of the Dockerfile.

use std::collections::BTreeMap;

use dockerfile::{ArgDecl, expand::ExpandError};
use oci::Platform;

/// Arguments that need no ARG and never count for the cache (Dockerfile reference, "Predefined ARGs").
const PROXY_ARGS: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What docker's own runtime uses when an image says nothing.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order in which they were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env(Vec<(String, String)>);

impl Env {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `NAME=value` entries of an image config.
    pub(crate) fn of_config(entries: &[String]) -> Self {
        let mut env = Self::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.set(name, value);
        }
        env
    }
}

/// Arguments of the global scope: the platform's, and those before the first FROM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    /// Platform arguments: known to FROM lines; a stage has to declare them.
    platform: Env,
    /// Declared before the first FROM, with their values.
    declared: Env,
    build_args: BTreeMap<String, String>,
}

impl Globals {
    /// Values of the global arguments, each seeing those before it. The error names the argument's position.
    pub(crate) fn new(
        declarations: &[ArgDecl],
        build_args: &BTreeMap<String, String>,
        build: &Platform,
        target: &Platform,
        target_stage: &str,
        escape: char,
    ) -> Result<Self, (usize, ExpandError)> {
        let mut platform = Env::default();
        for (side, of) in [("BUILD", build), ("TARGET", target)] {
            for (name, value) in [
                ("PLATFORM", of.to_string().as_str()),
                ("OS", &of.os),
                ("OSVERSION", of.os_version.as_deref().unwrap_or("")),
                ("ARCH", &of.architecture),
                ("VARIANT", of.variant.as_deref().unwrap_or("")),
            ] {
                platform.set(&format!("{side}{name}"), value);
            }
        }
        platform.set("TARGETSTAGE", target_stage);
        let mut globals = Self { platform, declared: Env::default(), build_args: build_args.clone() };
        for (at, declaration) in declarations.iter().enumerate() {
            let name = expand_in(&globals, &declaration.name.raw, escape).map_err(|error| (at, error))?;
            let value = match (build_args.get(&name), &declaration.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(expand_in(&globals, &default.raw, escape).map_err(|error| (at, error))?),
                (None, None) => None,
            };
            if let Some(value) = value {
                globals.declared.set(&name, &value);
            }
        }
        Ok(globals)
    }

    /// The value on a FROM line.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let platform = || self.build_args.get(name).map(String::as_str).or_else(|| self.platform.get(name));
        match self.declared.get(name) {
            Some(value) => Some(value.to_owned()),
            None if self.platform.get(name).is_some() => platform().map(str::to_owned),
            None => None,
        }
    }

    /// The value that a stage's `ARG name[=default]` gives.
    pub(crate) fn declare(&self, name: &str, default: Option<String>) -> Option<String> {
        self.build_args.get(name).cloned().or(default).or_else(|| self.get(name))
    }

    /// Proxy settings that were given as build arguments.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        PROXY_ARGS.iter().filter_map(|name| self.build_args.get(*name).map(|value| (*name, value.as_str())))
    }

    /// Whether a build argument that no ARG declares still has a meaning.
    pub(crate) fn is_predefined(&self, name: &str) -> bool {
        PROXY_ARGS.contains(&name)
            || self.platform.get(name).is_some()
            || name.starts_with("BUILDKIT_")
            || name == "SOURCE_DATE_EPOCH"
    }

    /// Names of all build arguments that were given.
    pub(crate) fn given(&self) -> impl Iterator<Item = &str> {
        self.build_args.keys().map(String::as_str)
    }
}

fn expand_in(globals: &Globals, text: &str, escape: char) -> Result<String, ExpandError> {
    dockerfile::expand::expand(text, escape, &|name| globals.get(name))
}
