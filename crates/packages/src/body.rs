//! Bodies of requests: written to a file without a name first, so that a package of any size costs no memory and a request can
//! be made again.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use registry::BlobSource;

use crate::{Package, PublishErrorKind};

/// Writes a body without holding up other tasks.
pub(crate) async fn write(
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()> + Send + 'static,
) -> Result<(BlobSource, u64), PublishErrorKind> {
    let task = tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::new(tempfile::tempfile()?);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let length = file.metadata()?.len();
        Ok((BlobSource::from(file), length))
    });
    task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The package itself.
pub(crate) fn append(out: &mut impl Write, package: &Package) -> io::Result<()> {
    package.copy_to(&mut |bytes| out.write_all(bytes))
}
