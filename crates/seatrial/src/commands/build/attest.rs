//! `--sbom`, `--provenance`, `--attest`: what is said of an image in its index, with buildx' words and BuildKit's layout.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Context as _;
use engine::{BuildContext, BuildRequest, Built, Material};
use evidence::{
    BUILDER_ID, Invocation, Parameters, Provenance, Resource, Statement, in_index, predicate,
    sbom::{About, Inventory, created_s, inventory},
};
use oci::{Digest, Platform, Reference};
use pipeline::{Source, git_ref, public_url, read_source, resource_of, run_url};
use serde_json::{Map, Value, json};
use store::{Beside, Image, Scope, Stop, Store};

use super::output::Fields;
use crate::{commands::init::environment, failure::Failure};

/// The statements beside an image's files (BuildKit, "SBOM", "Provenance").
const SBOM_FILE: &str = "sbom.spdx.json";
const PROVENANCE_FILE: &str = "provenance.json";

/// Whether a word behind `--sbom` or `--provenance` is their value: `false`, `mode=max`. buildx' flags always have one, ours
/// may stand alone, and then the next word is the context.
pub(crate) fn is_value(word: &str) -> bool {
    const OPTIONS: [&str; 7] =
        ["mode", "version", "builder-id", "reproducible", "inline-only", "disabled", "generator"];
    let is_option = |field: &str| field.split_once('=').is_some_and(|(key, _)| OPTIONS.contains(&key));
    matches!(word, "true" | "TRUE" | "True" | "false" | "FALSE" | "False") || word.split(',').all(is_option)
}

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attestations {
    sbom: bool,
    provenance: Option<ProvenanceWanted>,
}

/// The options of `type=provenance`.
#[derive(Clone, Debug, Default, PartialEq)]
struct ProvenanceWanted {
    /// With the values of build arguments, names of secrets and the Dockerfile.
    is_max: bool,
    builder: Option<String>,
    /// Nothing of it is of one run only, so that the same build gives the same index.
    is_reproducible: bool,
}

impl Attestations {
    /// Reads the three flags; the first two are short for `--attest type=…` (buildx, "--attest").
    pub(super) fn parse(sbom: Option<&str>, provenance: Option<&str>, attest: &[String]) -> Result<Self, Failure> {
        let mut all: Vec<(&str, String)> = attest.iter().map(|text| ("--attest", text.clone())).collect();
        all.extend(provenance.and_then(|text| Some(("--provenance", written_out("provenance", text)?))));
        all.extend(sbom.and_then(|text| Some(("--sbom", written_out("sbom", text)?))));
        let mut wanted = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (flag, text) in &all {
            let mut fields = Fields::parse("--attest", text)?;
            let Some(kind) = fields.take("type").filter(|kind| !kind.is_empty()) else {
                return Err(Failure::usage(format!("`{flag} {text}` has no type"))
                    .hint("types are sbom and provenance: `--attest type=sbom`"));
            };
            if seen.contains(&kind) {
                return Err(Failure::usage(format!("the attestation `{kind}` is asked for twice")));
            }
            let is_off = fields.take_bool("disabled")?.unwrap_or(false);
            // Where images are: that is the only place that they are written to.
            fields.take_bool("inline-only")?;
            match kind.as_str() {
                "sbom" => wanted.sbom = sbom_of(fields)? && !is_off,
                "provenance" => wanted.provenance = Some(provenance_of(fields)?).filter(|_| !is_off),
                other => {
                    return Err(Failure::usage(format!("there is no attestation of type `{other}`"))
                        .hint("types are sbom and provenance"));
                }
            }
            seen.push(kind);
        }
        Ok(wanted)
    }

    /// Whether anything is to be said.
    pub(super) fn is_any(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }
}

/// `true`, `false`, or options; nothing for an empty text.
fn written_out(kind: &str, text: &str) -> Option<String> {
    match text {
        "" => None,
        // Go's `ParseBool`.
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(format!("type={kind}")),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(format!("type={kind},disabled=true")),
        options => Some(format!("type={kind},{options}")),
    }
}

fn sbom_of(mut fields: Fields) -> Result<bool, Failure> {
    if let Some(generator) = fields.take("generator") {
        return Err(Failure::usage(format!("`--sbom`: the generator `{generator}` is not started"))
            .hint("leave it out: the packages are found without running anything, see `seatrial sbom`"));
    }
    fields.finish()?;
    Ok(true)
}

fn provenance_of(mut fields: Fields) -> Result<ProvenanceWanted, Failure> {
    let mut wanted = ProvenanceWanted::default();
    match fields.take("mode").as_deref() {
        None | Some("" | "min") => {}
        Some("max") => wanted.is_max = true,
        Some(other) => return Err(Failure::usage(format!("`--provenance`: mode is `{other}`, neither min nor max"))),
    }
    match fields.take("version").as_deref() {
        None | Some("v1") => {}
        Some(other) => {
            return Err(Failure::usage(format!("`--provenance`: version `{other}` is not written"))
                .hint("provenance is SLSA's version 1: leave it out, or write version=v1"));
        }
    }
    wanted.builder = fields.take("builder-id").filter(|id| !id.is_empty());
    wanted.is_reproducible = fields.take_bool("reproducible")?.unwrap_or(false);
    fields.finish()?;
    Ok(wanted)
}

/// What the statements of all platforms have in common.
pub(super) struct Speaker<'a> {
    wanted: &'a Attestations,
    /// What Git says of the context, where it is a directory of a repository.
    source: Source,
    /// What was fetched as the context.
    context: Option<Material>,
    name: Option<Reference>,
    run: String,
    started: SystemTime,
}

impl<'a> Speaker<'a> {
    /// `None` when nothing is to be said.
    pub(super) fn new(
        wanted: &'a Attestations,
        request: &BuildRequest,
        context: Option<Material>,
        name: Option<Reference>,
        run: u64,
    ) -> Option<Self> {
        if !wanted.is_any() {
            return None;
        }
        let env = environment();
        let source = match &request.context {
            BuildContext::Directory(directory) if wanted.provenance.is_some() => read_source(directory, &env),
            _ => Source::default(),
        };
        let run = run_url(&env).unwrap_or_else(|| format!("build-{run}"));
        Some(Self { wanted, source, context, name, run, started: SystemTime::now() })
    }

    /// What is said of one image, whose manifest has this digest unless an output makes another.
    pub(super) fn say(
        &self,
        store: &Store,
        request: &BuildRequest,
        built: &Built,
        (image, manifest): (&Image, &Digest),
        stop: Stop<'_>,
    ) -> anyhow::Result<Said> {
        let packages = self.wanted.sbom.then(|| inventory(store, image, stop));
        let packages = packages.transpose().context("cannot list the packages of the image")?;
        let provenance = self.wanted.provenance.as_ref().map(|wanted| self.provenance(wanted, request, built));
        Ok(Said {
            name: self.name.clone(),
            manifest: manifest.clone(),
            architecture: image.config.architecture.clone(),
            created_s: created_s(image),
            packages,
            provenance,
        })
    }

    fn provenance(&self, wanted: &ProvenanceWanted, request: &BuildRequest, built: &Built) -> Provenance {
        let (repository, commit) = match &self.context {
            Some(Material::Repository { url, .. }) => (Some(url.clone()), None),
            _ => {
                let url = public_url(&self.source);
                let commit = self.source.sha.as_deref().map(|sha| Resource::commit(url.as_deref(), sha));
                (url, commit)
            }
        };
        let mut internal = Map::from_iter([("builderPlatform".to_owned(), json!(Platform::host().to_string()))]);
        let (mut args, mut secrets) = (BTreeMap::new(), Vec::new());
        if wanted.is_max {
            internal.insert("dockerfile".into(), json!(request.dockerfile.text));
            args = request.build_args.clone();
            secrets = request.run.secrets.keys().cloned().collect();
        }
        let materials = self.context.iter().chain(&built.materials).map(resource_of);
        let run = Invocation { id: self.run.clone(), started: self.started, finished: SystemTime::now() };
        Provenance {
            // Each manifest that is made of the image gets a statement of its own.
            subject: Resource::default(),
            parameters: Parameters {
                repository,
                reference: git_ref(&self.source),
                dockerfile: request.dockerfile.name.clone(),
                target: request.target.clone(),
                platform: request.platform.to_string(),
                args,
                secrets,
                is_dirty: self.source.is_dirty,
            },
            dependencies: commit.into_iter().chain(materials).collect(),
            builder: wanted.builder.clone().unwrap_or_else(|| BUILDER_ID.to_owned()),
            version: env!("CARGO_PKG_VERSION").into(),
            internal,
            run: (!wanted.is_reproducible).then_some(run),
        }
    }
}

/// What is said of one image, whatever its manifest will be.
pub(super) struct Said {
    name: Option<Reference>,
    manifest: Digest,
    architecture: String,
    created_s: i64,
    packages: Option<Inventory>,
    provenance: Option<Provenance>,
}

impl Said {
    /// The statements about a manifest of the image.
    pub(super) fn statements(&self, manifest: &Digest) -> Vec<Statement> {
        let name = self.name.as_ref().map(Reference::repository);
        let subject = match &name {
            Some(name) => Resource::image(name, manifest),
            // Nothing is known of it but the digest: BuildKit writes so, and the framework asks for a name.
            None => Resource::content(manifest).named("_"),
        };
        self.about(vec![subject], manifest)
    }

    /// The statements about files, as BuildKit writes them beside these: by the names that it gives them.
    pub(super) fn files(&self, files: &[(String, Digest)]) -> Vec<(&'static str, Vec<u8>)> {
        let subjects = files.iter().map(|(path, digest)| Resource::content(digest).named(path)).collect();
        let statements = self.about(subjects, &self.manifest).into_iter();
        let named = statements.map(|statement| {
            let name = if statement.predicate_type == predicate::SPDX { SBOM_FILE } else { PROVENANCE_FILE };
            (name, serde_json::to_vec_pretty(&statement).expect("a statement is JSON"))
        });
        named.collect()
    }

    fn about(&self, subjects: Vec<Resource>, manifest: &Digest) -> Vec<Statement> {
        let about = About {
            reference: self.name.as_ref(),
            digest: manifest,
            architecture: &self.architecture,
            created_s: self.created_s,
        };
        let packages = self.packages.as_ref();
        let packages = packages.map(|found| Statement::new(subjects.clone(), predicate::SPDX, found.spdx(&about)));
        let provenance = self.provenance.as_ref().map(Provenance::statement);
        let provenance = provenance.map(|statement| Statement { subject: subjects, ..statement });
        packages.into_iter().chain(provenance).collect()
    }

    /// The same as what an index lists behind the image.
    pub(super) fn beside(&self, store: &Store, scope: &Scope, manifest: &Digest) -> anyhow::Result<Beside> {
        let made = in_index(&self.statements(manifest), manifest);
        let kept = store.put_beside(scope, manifest, made.descriptor, made.manifest, &made.blobs);
        kept.context("cannot keep the attestations of the image")
    }

    /// The provenance as `--metadata-file` tells it.
    pub(super) fn provenance_value(&self) -> Option<Value> {
        self.provenance.as_ref().map(|provenance| provenance.statement().predicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sbom: &str, provenance: &str, attest: &[&str]) -> Result<Attestations, String> {
        let attest: Vec<String> = attest.iter().map(|text| (*text).to_owned()).collect();
        let given = |text| Some(text).filter(|text: &&str| *text != "-");
        Attestations::parse(given(sbom), given(provenance), &attest).map_err(|failure| failure.message)
    }

    #[test]
    fn attestations_are_asked_for_as_with_buildx() {
        let min = || Some(ProvenanceWanted::default());
        let max = || Some(ProvenanceWanted { is_max: true, ..ProvenanceWanted::default() });
        for (sbom, provenance, attest, expected) in [
            ("-", "-", &[][..], (false, None)),
            ("false", "false", &[], (false, None)),
            ("true", "true", &[], (true, min())),
            ("1", "mode=max", &[], (true, max())),
            ("-", "mode=min,version=v1,inline-only=true", &[], (false, min())),
            ("-", "-", &["type=sbom", "type=provenance,mode=max"], (true, max())),
            ("-", "mode=max", &["type=sbom,disabled=true"], (false, max())),
        ] {
            let wanted = parse(sbom, provenance, attest).expect("it is right");
            assert_eq!((wanted.sbom, wanted.provenance), expected, "{sbom} {provenance} {attest:?}");
        }
        let own = parse("-", "builder-id=https://ci.example/7,reproducible=true", &[]).expect("it is right").provenance;
        let own = own.expect("it is asked for");
        assert_eq!((own.builder.as_deref(), own.is_reproducible), (Some("https://ci.example/7"), true));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (sbom, provenance, attest, words) in [
            ("generator=docker/scout-sbom-indexer", "-", &[][..], "the generator `docker/scout-sbom-indexer`"),
            ("-", "mode=medium", &[], "neither min nor max"),
            ("-", "version=v0.2", &[], "version `v0.2` is not written"),
            ("-", "modes=max", &[], "there is no option `modes`"),
            ("true", "-", &["type=sbom"], "`sbom` is asked for twice"),
            ("-", "-", &["mode=max"], "has no type"),
            ("-", "-", &["type=licences"], "no attestation of type `licences`"),
        ] {
            let message = parse(sbom, provenance, attest).expect_err(words);
            assert!(message.contains(words), "{message}");
        }
    }
}
