//! How a service's image is built.

use std::collections::BTreeMap;

use oci::{Platform, Reference};
use serde::Serialize;

use crate::{FileGrant, HostAddress, is_default};

/// `build`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Build {
    /// Directory of the context, absolute; or a Git repository or URL, as written.
    pub context: String,
    /// Path of the Dockerfile, relative to the context or absolute; `None`: `Dockerfile`, else `Containerfile`.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile: Option<String>,
    /// The Dockerfile itself.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile_inline: Option<String>,
    /// Stage to build; `None`: the last one.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Build arguments; those without a value and without one in the environment are left out.
    #[serde(skip_serializing_if = "is_default")]
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Named contexts: absolute directories, `service:NAME`, or URLs as written.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_contexts: BTreeMap<String, String>,
    /// Network of RUN: `default`, `none`, `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// Names for `/etc/hosts` during RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// `no_cache`.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache: bool,
    /// `pull`: ask the registry for newer bases.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: bool,
    /// Further names of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<Reference>,
    /// Platforms to build for.
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<Platform>,
    /// Secrets for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileGrant>,
}
