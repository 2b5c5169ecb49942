//! Runs: `runs/<n>/`, numbered by who makes the directory first.

use std::path::PathBuf;

use fs_err as fs;

use crate::{Store, StoreError, store::names_in};

/// The directory of one run: `events.jsonl`, `log/<stage>`, `meta.json`; its content is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    /// Counts from 1.
    pub number: u64,
    /// `runs/<number>`, with a directory `log`.
    pub path: PathBuf,
}

impl Store {
    /// The next run's directory. Two processes never get the same number.
    pub fn new_run(&self) -> Result<RunDir, StoreError> {
        // The hint saves listing thousands of runs; the directory itself decides.
        let hint_path = self.path("runs").join(".next");
        let hint = std::fs::read_to_string(&hint_path).ok().and_then(|text| text.trim().parse().ok());
        let mut number = match hint {
            Some(number) => number,
            None => self.run_numbers()?.into_iter().max().unwrap_or(0) + 1,
        };
        loop {
            let path = self.path("runs").join(number.to_string());
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::create_dir(path.join("log"))?;
                    self.write_file(&hint_path, (number + 1).to_string().as_bytes())?;
                    return Ok(RunDir { number, path });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A run's directory, if it is there.
    pub fn run(&self, number: u64) -> Option<RunDir> {
        let path = self.path("runs").join(number.to_string());
        path.is_dir().then_some(RunDir { number, path })
    }

    /// All runs, oldest first.
    pub fn runs(&self) -> Result<Vec<RunDir>, StoreError> {
        let mut numbers = self.run_numbers()?;
        numbers.sort_unstable();
        let run = |number: u64| RunDir { number, path: self.path("runs").join(number.to_string()) };
        Ok(numbers.into_iter().map(run).collect())
    }

    fn run_numbers(&self) -> Result<Vec<u64>, StoreError> {
        Ok(names_in(&self.path("runs"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }
}
