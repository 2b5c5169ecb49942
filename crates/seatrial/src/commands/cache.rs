//! `--cache-from` and `--cache-to`: build caches at other places, one scope for each branch.

mod scope;

use std::{path::Path, time::SystemTime};

use engine_embedded::{CacheExport, CacheImport, CachePlace, Embedded};
use oci::Reference;
use store::{Compression, Image, LayerOptions, Stop};

use super::build::{Fields, compression, level};
use crate::{context::Context, failure::Failure, terminal::text};
use scope::Scopes;

/// Flags of every command that builds.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CacheArgs {
    /// Take steps from another place: NAME or type=registry,ref=NAME, type=local,src=DIR; `scope=` names another branch's.
    /// May be repeated
    #[arg(long, value_name = "SOURCE", help_heading = "Cache options")]
    cache_from: Vec<String>,
    /// Write the steps of what passed to another place: type=registry,ref=NAME, type=local,dest=DIR or type=inline, with
    /// mode=min|max, scope=, cache-mounts=true, compression=, ignore-error=true. May be repeated
    #[arg(long, value_name = "TARGET", help_heading = "Cache options")]
    cache_to: Vec<String>,
}

/// Where steps come from and go to.
pub(crate) struct Caches {
    pub(crate) imports: Vec<CacheImport>,
    exports: Vec<Export>,
    /// The image carries its own steps.
    pub(crate) inline: bool,
}

#[derive(Debug, PartialEq)]
struct Export {
    export: CacheExport,
    ignore_error: bool,
}

impl Caches {
    /// Reads the flags. Git and the CI system are asked for the branch only when a cache is named.
    pub(crate) fn read(args: &CacheArgs, context: &Context) -> Result<Self, Failure> {
        let mut caches = Self { imports: Vec::new(), exports: Vec::new(), inline: false };
        if args.cache_from.is_empty() && args.cache_to.is_empty() {
            return Ok(caches);
        }
        let cwd = &context.settings.cwd;
        let scopes = Scopes::find(cwd);
        for given in &args.cache_from {
            caches.imports.push(import(given, cwd, &scopes)?);
        }
        for given in &args.cache_to {
            match export(given, cwd, &scopes)? {
                Some(export) => caches.exports.push(export),
                None => caches.inline = true,
            }
        }
        Ok(caches)
    }

    /// Writes the steps of a build that passed, for all its platforms.
    pub(crate) fn write(
        &self,
        engine: &Embedded,
        images: &[Image],
        stop: Stop<'_>,
        warn: &dyn Fn(String),
    ) -> anyhow::Result<()> {
        let layers: Vec<_> = images.iter().flat_map(|image| image.layers.iter().cloned()).collect();
        // They are of one build, so they have one time.
        let Some(epoch) = images.first().map(|image| image.epoch) else { return Ok(()) };
        for Export { export, ignore_error } in &self.exports {
            match engine.export_cache(&layers, epoch, export, stop) {
                Ok(written) => {
                    if written.is_outdated {
                        warn(format!(
                            "the cache {} was written by a build that began later, and stays as it is",
                            export.place
                        ));
                    }
                    written.left_out.into_iter().for_each(|what| warn(format!("left out of the cache: {what}")));
                }
                Err(error) if *ignore_error => warn(crate::failure::chain(&error).join(": ")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn import(given: &str, cwd: &Path, scopes: &Scopes) -> Result<CacheImport, Failure> {
    const FLAG: &str = "--cache-from";
    let mut fields = Fields::parse(FLAG, given)?;
    let place = if !given.contains('=') {
        fields = Fields::parse(FLAG, "type=registry")?;
        fields.take("type");
        CachePlace::Registry(reference(FLAG, given)?)
    } else {
        match fields.take("type").as_deref() {
            Some("registry") => CachePlace::Registry(named_reference(FLAG, &mut fields)?),
            Some("local") => CachePlace::Directory(cwd.join(directory(FLAG, "src", &mut fields)?)),
            other => return Err(unknown(FLAG, given, other)),
        }
    };
    let scopes = match fields.take("scope") {
        Some(scope) => vec![scope],
        None => scopes.read(),
    };
    fields.finish()?;
    Ok(CacheImport { place, scopes })
}

/// `None` for `type=inline`.
fn export(given: &str, cwd: &Path, scopes: &Scopes) -> Result<Option<Export>, Failure> {
    const FLAG: &str = "--cache-to";
    let mut fields = if given.contains('=') {
        Fields::parse(FLAG, given)?
    } else {
        Fields::parse(FLAG, if given == "inline" { "type=inline" } else { "type=registry" })?
    };
    let place = match fields.take("type").as_deref() {
        Some("inline") => {
            fields.finish()?;
            return Ok(None);
        }
        Some("registry") if !given.contains('=') => CachePlace::Registry(reference(FLAG, given)?),
        Some("registry") => CachePlace::Registry(named_reference(FLAG, &mut fields)?),
        Some("local") => CachePlace::Directory(cwd.join(directory(FLAG, "dest", &mut fields)?)),
        other => return Err(unknown(FLAG, given, other)),
    };
    let all_stages = match fields.take("mode").as_deref() {
        None | Some("min") => false,
        Some("max") => true,
        Some(other) => {
            return Err(Failure::usage(format!("`{FLAG}`: mode is `{other}`, neither min nor max")));
        }
    };
    let named = fields.take("compression");
    let compression = named.map_or(Ok(Compression::default()), |name| compression(FLAG, &name))?;
    let level = fields.take("compression-level").map(|text| level(FLAG, &text, compression)).transpose()?;
    let force = fields.take_bool("force-compression")?.unwrap_or(false);
    // The artefact is an image-spec manifest in any case.
    for done_anyway in ["oci-mediatypes", "image-manifest"] {
        if fields.take_bool(done_anyway)? == Some(false) {
            return Err(Failure::usage(format!("`{FLAG}`: {done_anyway} is always true")));
        }
    }
    let with_mounts = fields.take_bool("cache-mounts")?.unwrap_or(false);
    let ignore_error = fields.take_bool("ignore-error")?.unwrap_or(false);
    let scope = scopes.write(fields.take("scope"))?;
    fields.finish()?;
    let layers = LayerOptions { compression, level, force };
    let began = SystemTime::now();
    Ok(Some(Export { export: CacheExport { place, scope, all_stages, layers, with_mounts, began }, ignore_error }))
}

fn named_reference(flag: &'static str, fields: &mut Fields) -> Result<Reference, Failure> {
    let Some(name) = fields.take("ref") else {
        return Err(Failure::usage(format!("`{flag} type=registry` needs `ref=NAME`")));
    };
    reference(flag, &name)
}

fn reference(flag: &str, name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error: oci::InvalidReference| Failure::usage(format!("`{flag}` is wrong")).because(&error))
}

fn directory(flag: &str, key: &str, fields: &mut Fields) -> Result<String, Failure> {
    fields.take(key).ok_or_else(|| Failure::usage(format!("`{flag} type=local` needs `{key}=DIRECTORY`")))
}

fn unknown(flag: &str, given: &str, kind: Option<&str>) -> Failure {
    match kind {
        Some(kind @ ("gha" | "s3" | "azblob")) => {
            Failure::usage(format!("`{flag} type={kind}` is not offered: its services have protocols of their own"))
                .hint("use type=registry, or type=local with a directory that the CI system keeps")
        }
        Some("inline") => Failure::usage(format!("`{flag} type=inline`: an inline cache is read from its image"))
            .hint(format!("name the image: `{flag} NAME`")),
        Some(other) => Failure::usage(format!("`{flag} type={other}` is unknown"))
            .hint("types are registry, local and (to write) inline"),
        None => Failure::usage(format!("`{flag} {}` has no type", text::fit(given, 60)))
            .hint("types are registry, local and (to write) inline"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes() -> Scopes {
        Scopes { own: "feature".into(), target: Some("next".into()), default: "main".into(), is_request: false }
    }

    #[test]
    fn sources_are_dockers() {
        let check = |given: &str| import(given, Path::new("/w"), &scopes()).map_err(|failure| failure.message);
        let registry = |name: &str, scopes: &[&str]| {
            let scopes = scopes.iter().map(ToString::to_string).collect();
            Ok(CacheImport { place: CachePlace::Registry(name.parse().unwrap()), scopes })
        };
        let all = ["feature", "next", "main", ""];
        assert_eq!(check("r.io/app:cache"), registry("r.io/app:cache", &all));
        assert_eq!(check("type=registry,ref=r.io/app"), registry("r.io/app", &all));
        assert_eq!(check("type=registry,ref=r.io/app,scope=main"), registry("r.io/app", &["main"]));
        let local = check("type=local,src=cache").unwrap();
        assert_eq!(local.place, CachePlace::Directory("/w/cache".into()));
        assert!(check("type=gha").unwrap_err().contains("is not offered"));
        assert!(check("type=inline").unwrap_err().contains("is read from its image"));
        assert!(check("type=local").unwrap_err().contains("needs `src=DIRECTORY`"));
        assert!(check("type=local,src=a,mode=max").unwrap_err().contains("no option `mode`"));
    }

    #[test]
    fn targets_are_dockers() {
        let check = |given: &str| export(given, Path::new("/w"), &scopes()).map_err(|failure| failure.message);
        assert_eq!(check("type=inline"), Ok(None));
        let written = check("type=local,dest=c,mode=max,compression=zstd,ignore-error=true,cache-mounts=true");
        let Export { export, ignore_error } = written.unwrap().unwrap();
        assert!(export.all_stages && export.with_mounts && ignore_error);
        assert_eq!((export.scope.as_str(), export.layers.compression), ("feature", Compression::Zstd));
        assert!(check("type=s3,bucket=b").unwrap_err().contains("is not offered"));
        assert!(check("type=local,dest=c,mode=all").unwrap_err().contains("neither min nor max"));
        assert!(check("type=local,dest=c,scope=main").unwrap_err().contains("belongs to the branch"));
    }
}
