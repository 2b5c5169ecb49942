//! `--output`, `--push`: where an image goes beside the store.

use std::path::PathBuf;

use anyhow::Context as _;
use oci::Reference;
use store::{ArchiveFormat, Image, Store};

use super::flags::BuildArgs;
use crate::{commands::save::write_file, context::Context, failure::Failure, terminal};

/// One place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// The store has it already.
    Store,
    /// The registry of each name.
    Push,
    /// An archive; without a path, stdout.
    Archive { format: Archive, path: Option<PathBuf> },
}

/// Forms of an archive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Archive {
    Docker,
    Oci,
    OciDirectory,
}

impl Output {
    /// All places that the flags name.
    pub(super) fn all(args: &BuildArgs, context: &Context) -> Result<Vec<Output>, Failure> {
        let mut outputs = Vec::new();
        for given in &args.output {
            outputs.extend(parse(given, &context.settings.cwd)?);
        }
        if args.push {
            outputs.push(Output::Push);
        }
        if outputs.contains(&Output::Push) && args.tag.is_empty() {
            return Err(Failure::usage("an image needs a name to be pushed").hint("name it: `--tag REGISTRY/NAME:TAG`"));
        }
        Ok(outputs)
    }

    /// Writes the image there.
    pub(super) fn write(
        &self,
        store: &Store,
        image: &Image,
        names: &[Reference],
        mut push: impl FnMut(&Reference) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut images: Vec<(Option<Reference>, Image)> =
            names.iter().map(|name| (Some(name.clone()), image.clone())).collect();
        if images.is_empty() {
            images.push((None, image.clone()));
        }
        match self {
            Output::Store => Ok(()),
            Output::Push => names.iter().try_for_each(&mut push),
            Output::Archive { format: Archive::OciDirectory, path: Some(path) } => {
                store.save_layout_dir(&images, path).with_context(|| format!("cannot write {}", path.display()))
            }
            Output::Archive { format, path } => {
                let format = if *format == Archive::Docker { ArchiveFormat::Docker } else { ArchiveFormat::Oci };
                match path {
                    Some(path) => write_file(path, |out| {
                        store.save(&images, format, out).with_context(|| format!("cannot write {}", path.display()))
                    }),
                    None => {
                        store.save(&images, format, &mut std::io::stdout().lock()).context("cannot write to stdout")
                    }
                }
            }
        }
    }
}

/// `type=…,dest=…,…`; a bare word is a directory, `-` is stdout.
fn parse(given: &str, cwd: &std::path::Path) -> Result<Vec<Output>, Failure> {
    let missing = |kind: &str| {
        Failure::usage(format!("`--output type={kind}` is not supported yet"))
            .hint("use type=image, type=registry, type=oci,dest=FILE or type=docker,dest=FILE")
    };
    if !given.contains('=') {
        return Err(missing(if given == "-" { "tar" } else { "local" }));
    }
    let mut kind = "";
    let mut path = None;
    let mut is_directory = false;
    let mut is_push = false;
    for part in given.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key.trim() {
            "type" => kind = value,
            "dest" | "destination" => path = (value != "-").then(|| cwd.join(value)),
            "tar" => is_directory = value == "false",
            "push" => is_push = value == "true",
            // What these ask for does not change where the image goes.
            "name" if value.is_empty() => {}
            other => return Err(Failure::usage(format!("`--output`: the option `{other}` is not supported yet"))),
        }
    }
    let archive = |format| {
        if path.is_none() && terminal::streams().stdout_is_terminal {
            return Err(Failure::usage("an archive is nothing for a terminal")
                .hint(format!("name a file: `--output type={kind},dest=FILE`")));
        }
        Ok(vec![Output::Archive { format, path: path.clone() }])
    };
    match kind {
        "image" if is_push => Ok(vec![Output::Push]),
        "image" => Ok(vec![Output::Store]),
        "registry" => Ok(vec![Output::Push]),
        "docker" => archive(Archive::Docker),
        "oci" if is_directory => match &path {
            Some(_) => archive(Archive::OciDirectory),
            None => Err(Failure::usage("`--output type=oci,tar=false` needs `dest=DIRECTORY`")),
        },
        "oci" => archive(Archive::Oci),
        "local" | "tar" | "cacheonly" => Err(missing(kind)),
        other => Err(Failure::usage(format!("`--output type={other}` is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn outputs_are_dockers() {
        let check = |given: &str| parse(given, Path::new("/w")).map_err(|failure| failure.message);
        let archive = |format, path: &str| Ok(vec![Output::Archive { format, path: Some(path.into()) }]);
        assert_eq!(check("type=registry"), Ok(vec![Output::Push]));
        assert_eq!(check("type=image,push=true"), Ok(vec![Output::Push]));
        assert_eq!(check("type=image"), Ok(vec![Output::Store]));
        assert_eq!(check("type=oci,dest=x.tar"), archive(Archive::Oci, "/w/x.tar"));
        assert_eq!(check("type=oci,tar=false,dest=/x"), archive(Archive::OciDirectory, "/x"));
        assert_eq!(check("type=docker,dest=x.tar"), archive(Archive::Docker, "/w/x.tar"));
        assert_eq!(check("out"), Err("`--output type=local` is not supported yet".into()));
        assert_eq!(
            check("type=oci,compression=zstd"),
            Err("`--output`: the option `compression` is not supported yet".into())
        );
    }
}
