//! The text of `--output`, with buildx' words and meaning.

use std::path::{Path, PathBuf};

use oci::Reference;
use store::Compression;

use super::{Archive, ArchiveOutput, Fields, Form, ImageOutput, Output, refuse_terminal};
use crate::{
    commands::{build::annotations::Annotations, named},
    failure::Failure,
};

const FLAG: &str = "--output";

/// One output: `type=…,…`; a bare word is a directory, `-` a tar on stdout.
pub(super) fn output(given: &str, cwd: &Path, annotations: &Annotations) -> Result<Output, Failure> {
    if !given.contains('=') {
        return match given {
            "-" => tar(None, String::new()),
            "" => Err(Failure::usage("`--output` is empty")),
            directory => Ok(Output::Local { directory: cwd.join(directory), is_split: false, prefix: String::new() }),
        };
    }
    let mut fields = Fields::parse(FLAG, given)?;
    let Some(kind) = fields.take("type") else {
        return Err(Failure::usage(format!("`--output {given}` has no type"))
            .hint("types are image, registry, oci, docker, local, tar and cacheonly"));
    };
    let dest = fields.take("dest").or_else(|| fields.take("destination"));
    let path = dest.as_ref().filter(|dest| *dest != "-").map(|dest| cwd.join(dest));
    let output = match kind.as_str() {
        "image" | "registry" => {
            if let Some(dest) = dest {
                return Err(Failure::usage(format!("`--output type={kind}` takes no `dest` (it is `{dest}`)")));
            }
            image(&mut fields, kind == "registry", annotations)?
        }
        "docker" | "oci" => archive(&mut fields, &kind, dest.is_some(), path, annotations)?,
        "local" => {
            let Some(directory) = path else {
                return Err(Failure::usage("`--output type=local` needs `dest=DIRECTORY`"));
            };
            let is_split = fields.take_bool("platform-split")?.unwrap_or(false);
            Output::Local { directory, is_split, prefix: attestation_prefix(&mut fields)? }
        }
        "tar" => tar(path, attestation_prefix(&mut fields)?)?,
        "cacheonly" => Output::CacheOnly,
        other => {
            return Err(Failure::usage(format!("`--output type={other}` is unknown"))
                .hint("types are image, registry, oci, docker, local, tar and cacheonly"));
        }
    };
    fields.finish()?;
    Ok(output)
}

fn tar(path: Option<PathBuf>, prefix: String) -> Result<Output, Failure> {
    refuse_terminal(path.as_ref(), "tar")?;
    Ok(Output::Tar { path, prefix })
}

/// What the names of attestations begin with, so that they meet no file of the image.
fn attestation_prefix(fields: &mut Fields) -> Result<String, Failure> {
    let prefix = fields.take("attestation-prefix").unwrap_or_default();
    if prefix.contains('/') {
        return Err(Failure::usage(format!("`--output`: attestation-prefix is `{prefix}`, and names no directory")));
    }
    Ok(prefix)
}

fn image(fields: &mut Fields, is_registry: bool, annotations: &Annotations) -> Result<Output, Failure> {
    let names = names(fields)?;
    let push = fields.take_bool("push")?.unwrap_or(is_registry);
    let by_digest = fields.take_bool("push-by-digest")?.unwrap_or(false);
    // The store keeps every image unpacked, under its digests as well, and without a name by its id.
    for done_anyway in ["unpack", "store", "name-canonical"] {
        fields.take_bool(done_anyway)?;
    }
    fields.take("dangling-name-prefix");
    let form = form(fields, annotations)?;
    let names = match by_digest {
        // `latest` is no part of a name that goes by its digest.
        true => names,
        false => names.iter().map(named::with_default_tag).collect(),
    };
    if by_digest && let Some(tagged) = names.iter().find(|name| name.tag().is_some()) {
        return Err(Failure::usage(format!("{tagged} has a tag, and is to be pushed by its digest")));
    }
    Ok(Output::Image(ImageOutput { names, push, by_digest, form }))
}

fn archive(
    fields: &mut Fields,
    kind: &str,
    has_dest: bool,
    path: Option<PathBuf>,
    annotations: &Annotations,
) -> Result<Output, Failure> {
    let is_tar = fields.take_bool("tar")?.unwrap_or(true);
    let names: Vec<Reference> = names(fields)?.iter().map(named::with_default_tag).collect();
    let form = form(fields, annotations)?;
    let kind = match kind {
        // Without a place docker loads it into its own store.
        "docker" if !has_dest => {
            return Ok(Output::Image(ImageOutput { names, form, ..ImageOutput::default() }));
        }
        // buildx writes the same layout for both when it is a directory.
        _ if !is_tar && path.is_none() => {
            return Err(Failure::usage(format!("`--output type={kind},tar=false` needs `dest=DIRECTORY`")));
        }
        _ if !is_tar => Archive::OciDirectory,
        "docker" => Archive::Docker,
        _ => Archive::Oci,
    };
    refuse_terminal(path.as_ref(), if kind == Archive::Docker { "docker" } else { "oci" })?;
    Ok(Output::Archive(ArchiveOutput { kind, names, path, form }))
}

/// `name=A,B`; buildx separates them by commas, which need quotes around the field.
fn names(fields: &mut Fields) -> Result<Vec<Reference>, Failure> {
    let text = fields.take("name").unwrap_or_default();
    let names = text.split([',', ';']).map(str::trim).filter(|name| !name.is_empty());
    let parse = |name: &str| {
        name.parse::<Reference>().map_err(|error| Failure::usage("`--output`: a name is wrong").because(&error))
    };
    names.map(parse).collect()
}

fn form(fields: &mut Fields, annotations: &Annotations) -> Result<Form, Failure> {
    let mut form = Form::default();
    let compression = fields.take("compression");
    if let Some(name) = &compression {
        form.manifest.compression = self::compression(FLAG, name)?;
    }
    if let Some(level) = fields.take("compression-level") {
        form.manifest.level = Some(self::level(FLAG, &level, form.manifest.compression)?);
    }
    form.manifest.force = fields.take_bool("force-compression")?.unwrap_or(false);
    form.manifest.docker_types = !fields.take_bool("oci-mediatypes")?.unwrap_or(true);
    // File times later than the commit's (or SOURCE_DATE_EPOCH) are always set to it.
    fields.take_bool("rewrite-timestamp")?;
    let mut own = Annotations::default();
    for (name, value) in fields.take_prefixed("annotation") {
        own.add_named(&name, &value)?;
    }
    form.annotations = own.over(annotations);
    form.is_explicit =
        compression.is_some() || form.manifest != Default::default() || form.annotations != Default::default();
    Ok(form)
}

/// A compression by buildx' names.
pub(crate) fn compression(flag: &str, name: &str) -> Result<Compression, Failure> {
    match name {
        "uncompressed" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "estargz" => Err(Failure::usage(format!(
            "`{flag}`: estargz is not offered: it serves snapshotters that fetch files one by one, and costs size and time"
        ))
        .hint("use compression=zstd, or gzip for readers before docker 23")),
        other => Err(Failure::usage(format!("`{flag}`: there is no compression `{other}`"))
            .hint("compressions are gzip, zstd and uncompressed")),
    }
}

/// A level of a compression.
pub(crate) fn level(flag: &str, text: &str, compression: Compression) -> Result<u8, Failure> {
    let levels = compression.levels();
    text.parse().ok().filter(|level| levels.contains(level)).ok_or_else(|| {
        Failure::usage(format!("`{flag}`: compression-level is `{text}`, not {} to {}", levels.start(), levels.end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::ManifestOptions;

    fn check(given: &str) -> Result<Output, String> {
        output(given, Path::new("/w"), &Annotations::default()).map_err(|failure| failure.message)
    }

    #[test]
    fn outputs_are_dockers() {
        let image = |push| Output::Image(ImageOutput { push, ..ImageOutput::default() });
        let archive = |kind, path: &str| {
            let path = Some(path.into());
            Output::Archive(ArchiveOutput { kind, names: Vec::new(), path, form: Form::default() })
        };
        let local =
            |directory: &str, is_split| Output::Local { directory: directory.into(), is_split, prefix: String::new() };
        let tar = |prefix: &str| Output::Tar { path: Some("/x.tar".into()), prefix: prefix.into() };
        for (given, expected) in [
            ("type=registry", image(true)),
            ("type=image,push=true", image(true)),
            ("type=image,unpack=true,store=true,rewrite-timestamp=true", image(false)),
            ("type=docker", image(false)),
            ("type=oci,dest=x.tar", archive(Archive::Oci, "/w/x.tar")),
            ("type=oci,tar=false,dest=/x", archive(Archive::OciDirectory, "/x")),
            ("type=docker,dest=x.tar", archive(Archive::Docker, "/w/x.tar")),
            ("out", local("/w/out", false)),
            ("type=local,dest=out,platform-split=true", local("/w/out", true)),
            ("type=tar,dest=/x.tar", tar("")),
            ("type=tar,dest=/x.tar,attestation-prefix=x.", tar("x.")),
            ("type=cacheonly", Output::CacheOnly),
        ] {
            assert_eq!(check(given), Ok(expected), "{given}");
        }
    }

    #[test]
    fn manifests_have_options() {
        let Ok(Output::Image(image)) = check(
            r#"type=image,"name=a,b:1",compression=zstd,compression-level=9,force-compression=true,oci-mediatypes=false,annotation.k=v"#,
        ) else {
            panic!("an image")
        };
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        let expected = ManifestOptions {
            compression: Compression::Zstd,
            level: Some(9),
            force: true,
            docker_types: true,
            annotations: [("k".to_owned(), "v".to_owned())].into(),
        };
        assert_eq!(image.form.options(&oci::Platform::host()), expected);
    }

    #[test]
    fn mistakes_are_named() {
        for (given, words) in [
            ("dest=x", "has no type"),
            ("type=nowhere", "`--output type=nowhere` is unknown"),
            ("type=local", "needs `dest=DIRECTORY`"),
            ("type=image,dest=x", "takes no `dest`"),
            ("type=image,compresion=zstd", "there is no option `compresion`"),
            ("type=image,compression=estargz", "estargz is not offered"),
            ("type=oci,dest=x,compression-level=12", "not 0 to 9"),
            ("type=local,dest=x,attestation-prefix=../", "names no directory"),
            ("type=image,push-by-digest=true,name=a:1", "has a tag"),
            ("type=oci,tar=perhaps,dest=x", "neither true nor false"),
        ] {
            let message = check(given).expect_err(given);
            assert!(message.contains(words), "{given}: {message}");
        }
    }
}
