//! `seatrial save`.

use std::{
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::ValueEnum;
use store::{ArchiveFormat, SaveOptions};

use super::named;
use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial save`.
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// File (or directory, for `oci-dir`) instead of stdout
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value_t = SaveFormat::Docker)]
    format: SaveFormat,
}

/// Forms that other tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    /// `docker save`'s archive
    Docker,
    /// OCI layout in a tar
    Oci,
    /// OCI layout as a directory
    OciDir,
}

/// Writes images to an archive.
pub(crate) fn run(args: &SaveArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    let mut images = Vec::new();
    let mut options = SaveOptions::default();
    for name in &args.images {
        let (reference, found) = named::find_all(store, name)?;
        if args.format == SaveFormat::Docker && found.len() > 1 {
            let platform = found[0].config.platform();
            terminal::warning(&format!(
                "`{name}` has images of several platforms and docker's archives hold one: saved is {platform}; \
                 `--format oci` takes all"
            ));
        }
        // docker's archives have no place for it.
        if let Some(reference) = reference.as_ref().filter(|_| args.format != SaveFormat::Docker) {
            let kept = store.kept_beside(reference).with_context(|| format!("cannot save what {name} keeps"))?;
            options.kept.extend(kept.into_iter().map(|kept| (reference.clone(), kept)));
        }
        images.extend(found.into_iter().map(|image| (reference.clone(), image)));
    }
    let output = args.output.as_ref().map(|path| context.settings.cwd.join(path));
    let format = match args.format {
        SaveFormat::Docker => ArchiveFormat::Docker,
        SaveFormat::Oci => ArchiveFormat::Oci,
        SaveFormat::OciDir => {
            let directory = output.ok_or_else(|| {
                Failure::usage("an OCI layout directory needs a place")
                    .hint("name it: `seatrial save --format oci-dir -o DIRECTORY IMAGE`")
            })?;
            store
                .save_layout_dir(&images, &options, &directory)
                .with_context(|| format!("cannot save to {}", directory.display()))?;
            return Ok(Exit::Passed);
        }
    };
    match output {
        Some(path) => {
            write_file(&path, |out| {
                store.save(&images, format, &options, out).with_context(|| format!("cannot save to {}", path.display()))
            })?;
        }
        None if terminal::streams().stdout_is_terminal => {
            return Err(Failure::usage("an archive is nothing for a terminal")
                .hint("name a file: `seatrial save -o image.tar IMAGE`")
                .into());
        }
        None => {
            let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            store.save(&images, format, &options, &mut out).context("cannot save to stdout")?;
            out.flush().context("cannot save to stdout")?;
        }
    }
    Ok(Exit::Passed)
}

/// Writes beside the target and renames, so that no half archive is ever seen under its name.
pub(crate) fn write_file(
    path: &std::path::Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    // Devices and pipes such as /dev/stdout cannot be renamed onto.
    if path.exists() && !path.is_file() {
        let mut out = BufWriter::new(fs_err::OpenOptions::new().write(true).open(path)?);
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    let temporary = tempfile::Builder::new()
        .prefix(".seatrial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    write(&mut out)?;
    let temporary = out
        .into_inner()
        .map_err(|error| error.into_error())
        .with_context(|| format!("cannot write {}", path.display()))?;
    temporary.persist(path).map_err(|error| error.error).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
