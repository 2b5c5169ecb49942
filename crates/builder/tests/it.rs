//! Builds for real: our own runtime starts this very program again as the containers' helper, so it has a `main` of its own.
#![expect(clippy::print_stdout, reason = "a test program that reports for itself")]

#[path = "it/cache.rs"]
mod cache;
#[path = "it/causes.rs"]
mod causes;
#[path = "it/dockerfiles.rs"]
mod dockerfiles;
#[path = "it/failures.rs"]
mod failures;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/over.rs"]
mod over;
#[path = "it/rules.rs"]
mod rules;
#[path = "it/sources.rs"]
mod sources;
#[path = "it/surroundings.rs"]
mod surroundings;
#[path = "it/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

fn main() -> std::process::ExitCode {
    runtime::run_if_reexecuted();
    let privilege = runtime::enter().expect("the kernel lets us become root of something");
    if let runtime::Privilege::None { reason } = &privilege {
        println!("skipped: containers cannot be started here: {reason}");
        return std::process::ExitCode::SUCCESS;
    }
    world::set_privilege(privilege);
    let tests: Vec<(&str, fn())> = [
        dockerfiles::TESTS,
        cache::TESTS,
        causes::TESTS,
        failures::TESTS,
        hostile::TESTS,
        over::TESTS,
        rules::TESTS,
        sources::TESTS,
        surroundings::TESTS,
    ]
    .concat();
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return std::process::ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let mut count = 0;
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        count += 1;
        let start = std::time::Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({} ms)", if passed { "ok" } else { "FAILED" }, start.elapsed().as_millis());
        if !passed {
            failed.push(name);
        }
    }
    println!("\n{count} tests, {} failed {}", failed.len(), failed.join(" "));
    if failed.is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
