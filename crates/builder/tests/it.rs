//! Builds for real: our own runtime starts this very program again as the containers' helper, so it has a `main` of its own.

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

fn main() -> std::process::ExitCode {
    runtime::run_if_reexecuted();
    let privilege = runtime::enter().expect("the kernel lets us become root of something");
    if let runtime::Privilege::None { reason } = &privilege {
        testkit::skip(format_args!("containers cannot be started here: {reason}"));
        return std::process::ExitCode::SUCCESS;
    }
    world::set_privilege(privilege);
    let tests = [
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
    testkit::run_tests(tests.into_iter().map(|(name, test)| testkit::Test::new(name, test)).collect())
}
