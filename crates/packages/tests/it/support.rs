//! A client that does not wait, archives made on the spot, and the story of a publication.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use packages::{Login, Package, PublishError, State, Target};
use registry::{Client, ClientOptions};

pub(crate) fn client() -> Client {
    Client::new(ClientOptions { retry_wait: Duration::from_millis(5), retries: 2, ..ClientOptions::default() })
}

/// A tar in gzip of these files.
pub(crate) fn tar_gz(path: &Path, files: &[(&str, &str)]) -> PathBuf {
    let mut tar = tar::Builder::new(GzEncoder::new(fs_err::File::create(path).unwrap(), Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path.to_owned()
}

/// A zip of these files.
pub(crate) fn zip(path: &Path, files: &[(&str, &str)]) -> PathBuf {
    let mut zip = zip::ZipWriter::new(fs_err::File::create(path).unwrap());
    for (name, text) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
    path.to_owned()
}

pub(crate) fn login(user: Option<&str>, secret: &str) -> Login {
    Login { user: user.map(str::to_owned), secret: secret.to_owned() }
}

/// Publishes one file.
pub(crate) async fn publish(target: &str, login: Option<&Login>, file: &Path) -> Result<State, PublishError> {
    let target: Target = target.parse().unwrap();
    let package = Package::read(file, &target).unwrap();
    let mut found = None;
    packages::publish(&client(), &target, login, &[package], &mut |_, state| found = Some(state)).await?;
    Ok(found.unwrap())
}

/// Only asks.
pub(crate) async fn look(target: &str, login: Option<&Login>, file: &Path) -> Result<State, PublishError> {
    let target: Target = target.parse().unwrap();
    let package = Package::read(file, &target).unwrap();
    let mut found = None;
    packages::look(&client(), &target, login, &[package], &mut |_, state| found = Some(state)).await?;
    Ok(found.unwrap())
}

/// An error with its causes.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
