//! Runs the tests of a program that has a `main` of its own: it starts itself again as a container's helper, which
//! libtest's programs cannot. Filters and options are libtest's, and it uses as many threads.

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// A test by its name; it fails when it panics.
pub struct Test {
    name: String,
    run: Box<dyn Fn() + Send + Sync>,
}

impl Test {
    /// A test of this name.
    pub fn new(name: impl Into<String>, run: impl Fn() + Send + Sync + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Runs the tests that the command line asks for, those at the front first.
pub fn run_tests(mut tests: Vec<Test>) -> ExitCode {
    let wanted = Wanted::of(std::env::args().skip(1));
    tests.retain(|test| wanted.has(&test.name));
    if wanted.is_list {
        tests.iter().for_each(|test| say(&format!("{}: test", test.name)));
        return ExitCode::SUCCESS;
    }
    say(&format!("\nrunning {} tests", tests.len()));
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            // A thread of its own, which bears the test's name.
            let passed = thread::scope(|scope| {
                let thread = thread::Builder::new().name(test.name.clone()).spawn_scoped(scope, &test.run);
                thread.expect("threads can be had").join().is_ok()
            });
            let word = if passed { "ok" } else { "FAILED" };
            say(&format!("test {} ... {word} ({} ms)", test.name, start.elapsed().as_millis()));
            if !passed {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(test.name.as_str());
            }
        }
    };
    thread::scope(|scope| (0..wanted.threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = tests.len() - failed.len();
    say(&format!("\ntest result: {word}. {passed} passed; {} failed {}\n", failed.len(), failed.join(" ")));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line asks for, in libtest's words.
struct Wanted {
    filters: Vec<String>,
    skipped: Vec<String>,
    is_exact: bool,
    is_list: bool,
    threads: usize,
}

impl Wanted {
    fn of(mut arguments: impl Iterator<Item = String>) -> Self {
        let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|text| text.parse().ok());
        let threads = threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let mut wanted = Self { filters: Vec::new(), skipped: Vec::new(), is_exact: false, is_list: false, threads };
        while let Some(argument) = arguments.next() {
            let (flag, value) =
                argument.split_once('=').map_or((&*argument, None), |(flag, value)| (flag, Some(value)));
            let mut value = || value.map(str::to_owned).or_else(|| arguments.next()).expect("the flag has a value");
            match flag {
                "--skip" => wanted.skipped.push(value()),
                "--test-threads" => wanted.threads = value().parse().expect("a number of threads"),
                "--exact" => wanted.is_exact = true,
                "--list" => wanted.is_list = true,
                // How results are shown is the same here in every case.
                flag if flag.starts_with('-') => {}
                _ => wanted.filters.push(argument),
            }
        }
        wanted
    }

    fn has(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.is_exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

/// Whole lines, since several tests run at once.
fn say(line: &str) {
    // Nobody is left to hear that stdout is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}
