//! RPM's databases: headers of installed packages in one of three forms of storage.

mod bdb;
mod header;
mod log;
mod ndb;
mod sqlite;

use super::{
    layer::{Installed, Malformed},
    source::ReadAt,
};

/// Headers with the file lists of the largest packages have some megabytes.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// A distribution has some ten thousand packages in all.
const HEADERS_MAX: usize = 100_000;

/// How a database stores its headers, by the name of its file (rpm, `lib/backend`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// `rpmdb.sqlite`.
    Sqlite,
    /// `Packages.db`.
    Ndb,
    /// `Packages`, a hash of Berkeley DB.
    Bdb,
}

impl Storage {
    /// The database of which distributions keep in one of these directories.
    pub(crate) fn of(directory: &str, name: &str) -> Option<Self> {
        if !matches!(directory, "var/lib/rpm" | "usr/lib/sysimage/rpm" | "usr/share/rpm" | "var/lib/rpmmanifest") {
            return None;
        }
        match name {
            "rpmdb.sqlite" => Some(Self::Sqlite),
            "Packages.db" => Some(Self::Ndb),
            "Packages" => Some(Self::Bdb),
            _ => None,
        }
    }
}

/// The packages of a database of so many bytes, with what SQLite has logged beside it and not yet written into it. One that is broken further on gives those before, and the problem.
pub(crate) fn parse(
    source: &dyn ReadAt,
    length: u64,
    log: Option<&dyn ReadAt>,
    storage: Storage,
    problems: &mut Vec<Malformed>,
) -> Vec<Installed> {
    let (mut packages, mut headers) = (Vec::new(), 0);
    let mut each = |blob: &[u8]| {
        headers += 1;
        if headers > HEADERS_MAX {
            return Err(Malformed::new(format!("it has more than {HEADERS_MAX} packages")));
        }
        packages.extend(header::parse(blob)?);
        Ok(())
    };
    let read = match storage {
        Storage::Sqlite => sqlite::each_blob(source, length, log, &mut each),
        Storage::Ndb => ndb::each_blob(source, length, &mut each),
        Storage::Bdb => bdb::each_blob(source, length, &mut each),
    };
    problems.extend(read.err());
    packages
}

/// Hears the header of one package after the other.
type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Malformed>;
