//! `seatrial load`: docker archives, OCI layouts, root filesystems.

use std::{
    io::{BufRead as _, ErrorKind},
    path::PathBuf,
};

use anyhow::Context as _;
use oci::Reference;
use store::{Image, ImportError, LoadSource};

use super::named;
use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial load`.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Archive or directory; without one, stdin is read
    file: Option<PathBuf>,
    /// The same, as docker has it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// Name for an archive that has none, such as a root filesystem
    #[arg(long, value_name = "IMAGE")]
    name: Option<Reference>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

/// Reads images into the store and names them.
pub(crate) fn run(args: &LoadArgs, context: &Context) -> anyhow::Result<Exit> {
    let file = args.file.as_ref().or(args.input.as_ref()).filter(|file| file.as_os_str() != "-");
    if file.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Failure::usage("there is nothing to read on stdin")
            .hint("name a file: `seatrial load image.tar`")
            .into());
    }
    let file = file.map(|file| context.settings.cwd.join(file));
    if let Some(file) = &file
        && !file.exists()
    {
        return Err(Failure::usage(format!("there is no file {}", file.display())).into());
    }
    // An empty tar is a root filesystem without files; nothing at all is a command that failed on the other side of the pipe.
    let is_empty = match &file {
        Some(file) => file.is_file() && file.metadata().is_ok_and(|metadata| metadata.len() == 0),
        None => std::io::stdin().lock().fill_buf().is_ok_and(<[u8]>::is_empty),
    };
    if is_empty {
        let what = file.as_ref().map_or_else(|| "stdin".to_owned(), |file| file.display().to_string());
        return Err(Failure::usage(format!("{what} is empty")).into());
    }
    let store = context.store()?;
    let scope = store.open_scope().context("cannot open a scope in the store")?;
    let name = args.name.as_ref().map(named::with_default_tag);

    let loaded = match &file {
        Some(file) => store
            .load(&scope, LoadSource::Path(file), name.as_ref())
            .map_err(|error| refused(error, format!("cannot load {}", file.display()))),
        None => store
            .load(&scope, LoadSource::Reader(&mut std::io::stdin().lock()), name.as_ref())
            .map_err(|error| refused(error, "cannot load from stdin".to_owned())),
    }?;
    // Images of several platforms come one after another under their name.
    for group in loaded.chunk_by(|(one, _), (other, _)| one.is_some() && one == other) {
        let (reference, image) = &group[0];
        let reference = reference.clone().or_else(|| name.clone().filter(|_| loaded.len() == 1));
        if let Some(reference) = &reference {
            let images: Vec<Image> = group.iter().map(|(_, image)| image.clone()).collect();
            store.tag_all(reference, &images).with_context(|| format!("cannot tag {reference}"))?;
        }
        terminal::result_line(&match (&reference, args.quiet) {
            (_, true) => image.id.to_string(),
            (Some(reference), false) => format!("Loaded image: {}", reference.familiar()),
            (None, false) => format!("Loaded image ID: {}", image.id),
        });
    }
    if loaded.is_empty() {
        return Err(Failure::usage("the archive holds no image").into());
    }
    Ok(Exit::Passed)
}

/// What is no image will be none the next time; everything else may be the surroundings' fault.
fn refused(error: ImportError, message: String) -> anyhow::Error {
    let is_content = match &error {
        ImportError::Document(_) | ImportError::Refused(_) | ImportError::Config(_) => true,
        ImportError::Archive(error) => {
            matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof | ErrorKind::Other
            )
        }
        ImportError::Layer(_) | ImportError::Store(_) => false,
    };
    if is_content {
        return Failure::usage(message).because(&error).into();
    }
    anyhow::Error::new(error).context(message)
}
