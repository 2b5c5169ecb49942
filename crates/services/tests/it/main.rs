//! Order, readiness, failures, links and snapshots, on a clock that the tests move.

mod script;

use std::time::Duration;

use compose::{Healthcheck, Hook, Link, Mount, MountSource, Ready, ReadyLog, Snapshot};
use script::{Act, World, service};
use services::{ServiceError, ServiceFailure};

fn listens(at: u64) -> Act {
    Act { ports: vec![(at, "0.0.0.0:5432")], ..Act::default() }
}

fn ends(at: u64, code: i32) -> Act {
    Act { ends: Some((at, code)), ..Act::default() }
}

fn failure(error: Option<ServiceError>) -> ServiceFailure {
    match error {
        Some(ServiceError::Failed(failure)) => *failure,
        other => panic!("expected a failed service, found {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn services_come_in_order_and_go_backwards() {
    let services =
        vec![service("web: api!"), service("api: db! cache"), service("db"), service("cache"), service("mail")];
    let world = World::new(services).expose("5432/tcp");
    let world = ["web", "api", "db", "cache"].iter().fold(world, |world, name| world.act(name, listens(300)));
    assert!(world.run(&["web"]).await.is_none());
    let story = world.story();
    let at = |line: &str| story.lines().position(|other| other == line).unwrap_or_else(|| panic!("{line} in\n{story}"));
    for (first, later) in [
        ("start db", "ready db: port 5432 accepts"),
        ("ready db: port 5432 accepts", "start api"),
        ("start cache", "start api"),
        ("ready api: port 5432 accepts", "start web"),
        ("ready web: port 5432 accepts", "stop web 2 10s"),
        ("stop web 2 10s", "stop api 2 10s"),
        ("stop api 2 10s", "stop db 2 10s"),
        ("stop api 2 10s", "stop cache 2 10s"),
    ] {
        assert!(at(first) < at(later), "{first} before {later} in\n{story}");
    }
    // Side by side: neither waits for the other's readiness.
    assert!(at("start cache") < at("ready db: port 5432 accepts"), "{story}");
    assert!(!story.contains("mail"), "{story}");
}

#[tokio::test(start_paused = true)]
async fn what_two_users_need_is_started_once() {
    let world = World::new(vec![service("db")]).expose("5432/tcp").act("db", listens(100));
    let names = ["db".to_owned()];
    let failed = world
        .run_with(&["db"], async |services| {
            let (a, b) = tokio::join!(services.up(&names), services.up(&names));
            assert!(a.is_ok() && b.is_ok());
            assert_eq!(services.outcomes().len(), 1);
        })
        .await;
    assert!(failed.is_none());
    assert_eq!(world.story(), "start db\nready db: port 5432 accepts\nstop db 2 10s");
    assert_eq!(world.verdicts(), "db passed");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_listens_fails_with_its_last_lines() {
    let act = Act { lines: vec![(5, "no space left"), (7, "waiting")], ..Act::default() };
    let world = World::new(vec![service("db"), service("api: db!")]).expose("5432/tcp").act("db", act);
    let failure = failure(world.run(&["api"]).await);
    assert_eq!(failure.reason, "was not ready after 2m 0s: port 5432 does not accept");
    assert_eq!((failure.service.as_str(), failure.command.as_str(), failure.exit), ("db", "/serve", None));
    assert_eq!(failure.tail, ["no space left", "waiting"]);
    assert_eq!(failure.duration.as_secs(), 120);
    assert_eq!(world.story(), "start db\nstop db 2 10s");
}

#[tokio::test(start_paused = true)]
async fn one_that_only_listens_to_itself_is_told_so() {
    let act = Act { ports: vec![(0, "127.0.0.1:5432")], ..Act::default() };
    let world = World::new(vec![service("db")]).expose("5432/tcp").act("db", act);
    let failure = failure(world.run(&["db"]).await);
    assert!(failure.reason.contains("port 5432 accepts on 127.0.0.1 only"), "{}", failure.reason);
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_fails_at_once() {
    let world = World::new(vec![service("db")]).expose("5432/tcp");
    let world = world.act("db", Act { lines: vec![(1, "bad config")], ..ends(200, 78) });
    let failed = failure(world.run(&["db"]).await);
    assert_eq!(failed.reason, "exited 78 before it was ready");
    assert_eq!((failed.exit.map(|exit| exit.code), failed.duration), (Some(78), Duration::from_millis(200)));
    assert_eq!(failed.tail, ["bad config"]);
    // Also one that ends well: nothing listens any more.
    let world = World::new(vec![service("db")]).expose("5432/tcp").act("db", ends(200, 0));
    assert_eq!(failure(world.run(&["db"]).await).reason, "exited 0 before it was ready");
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_while_it_is_needed_fails_too() {
    let world = World::new(vec![service("db")]).expose("5432/tcp");
    let world = world.act("db", Act { ends: Some((5_000, 139)), ..listens(10) });
    let failed = world.run_with(&["db"], async |services| services.failed().await).await;
    assert_eq!(failure(failed).reason, "exited 139 while it was needed");
    // One that ends well does not: it has done its work.
    let world = World::new(vec![service("db")]).expose("5432/tcp");
    let world = world.act("db", Act { ends: Some((5_000, 0)), ..listens(10) });
    assert!(world.run_with(&["db"], async |_| tokio::time::sleep(Duration::from_secs(9)).await).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_shots_are_awaited_to_their_end() {
    let services = || vec![service("api: migrate."), service("migrate: db!"), service("db")];
    let healthy = |mut services: Vec<compose::Service>| {
        services[2].healthcheck =
            Some(Healthcheck { test: Some(vec!["CMD".into(), "ok".into()]), ..Healthcheck::default() });
        services
    };
    let world = World::new(healthy(services()));
    let world = world.act("migrate", ends(4_000, 0)).act("db", Act { healthy: Some(700), ..Act::default() });
    assert!(world.run(&["api"]).await.is_none());
    assert_eq!(
        world.story(),
        "start db\nready db: healthy at attempt 1 of 3\nstart migrate\nready migrate: ended with 0\nstart api\n\
         ready api: still running\nstop api 2 10s\nstop db 2 10s"
    );
    let world = World::new(healthy(services()));
    let world = world.act("migrate", ends(4_000, 1)).act("db", Act { healthy: Some(700), ..Act::default() });
    let failure = failure(world.run(&["api"]).await);
    assert_eq!((failure.service.as_str(), failure.reason.as_str()), ("migrate", "exited 1"));
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_one_is_given_up_when_docker_would() {
    let mut db = service("db");
    db.healthcheck = Some(Healthcheck {
        test: Some(vec!["CMD-SHELL".into(), "pg_isready".into()]),
        interval: Some(Duration::from_secs(1)),
        retries: Some(5),
        start_period: Some(Duration::from_secs(10)),
        ..Healthcheck::default()
    });
    let world = World::new(vec![db]);
    let failure = failure(world.run(&["db"]).await);
    assert_eq!(failure.reason, "was not healthy in 5 attempts");
    assert_eq!((failure.duration.as_secs(), failure.tail), (15, vec!["connection refused".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_absent_does_not_stop_the_rest() {
    let services = vec![service("api: metrics?! db"), service("metrics"), service("db")];
    let world = World::new(services).act("metrics", ends(10, 3));
    assert!(world.run(&["api"]).await.is_none());
    let story = world.story();
    assert!(story.contains("ready api") && story.contains("ready db"), "{story}");
    assert!(world.verdicts().contains("metrics failed"), "{}", world.verdicts());
}

#[tokio::test(start_paused = true)]
async fn all_conditions_have_to_hold() {
    let with = |times| {
        let mut db = service("db");
        let log = Some(ReadyLog { pattern: "ready to accept".into(), times });
        let command = Some(vec!["CMD-SHELL".to_owned(), "psql -c 'select 1'".to_owned()]);
        let timeout = Some(Duration::from_secs(20));
        db.ready = Some(Ready { log, command, port: Some(5432), timeout, ..Ready::default() });
        db
    };
    let act = Act {
        lines: vec![(100, "LOG: ready to accept"), (150, "LOG: shutting down"), (900, "LOG: ready to accept")],
        healthy: Some(400),
        ..listens(50)
    };
    let world = World::new(vec![with(2)]).act("db", act.clone());
    let failed = world
        .run_with(&["db"], async |services| {
            let outcome = &services.outcomes()[0];
            assert_eq!(
                outcome.how,
                "a line like `ready to accept` in its log, port 5432 accepts, `psql -c 'select 1'`"
            );
            assert_eq!(outcome.duration, Duration::from_millis(900));
        })
        .await;
    assert!(failed.is_none());
    let world = World::new(vec![with(3)]).act("db", Act { healthy: None, ..act });
    assert_eq!(
        failure(world.run(&["db"]).await).reason,
        "was not ready after 20s: its log had 2 of 3 lines like `ready to accept`; `psql -c 'select 1'` exited 2 \
         connection refused"
    );
}

#[tokio::test(start_paused = true)]
async fn linked_services_are_told_as_docker_does() {
    let mut api = service("my-api: db");
    api.links = vec![Link { service: "db".into(), alias: "store".into() }];
    api.environment.insert("STORE_NAME".into(), "mine".into());
    let mut db = service("db");
    db.environment.insert("POSTGRES_DB".into(), "app".into());
    let world = World::new(vec![api, db]).expose("5432/tcp");
    let world = world.act("my-api", listens(1)).act("db", listens(1));
    assert!(world.run(&["my-api"]).await.is_none());
    let spec = world.spec("my-api");
    let value = |name: &str| spec.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(value("STORE_PORT_5432_TCP_ADDR"), Some("10.1.2.3"));
    assert_eq!(value("STORE_PORT"), Some("tcp://10.1.2.3:5432"));
    assert_eq!(value("STORE_ENV_POSTGRES_DB"), Some("app"));
    assert_eq!(value("STORE_ENV_FROM_IMAGE"), Some("yes"));
    assert_eq!(value("STORE_NAME"), Some("mine"), "the user's own word wins");
    assert_eq!(spec.attachment.extra_hosts, [("store".to_owned(), "10.1.2.3".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn steps_before_the_start_come_first_and_may_refuse() {
    let mut db = service("db");
    let step = |word: &str| Hook { command: vec!["prepare".into(), word.into()], ..Hook::default() };
    db.pre_start = vec![step("one"), Hook { user: Some("root".into()), ..step("two") }];
    let volume = MountSource::Volume { name: "data".into(), subpath: None, nocopy: false };
    db.mounts = vec![Mount { place: None, source: volume, target: "/data".into(), read_only: false }];
    let steps = |code| {
        World::new(vec![db.clone()])
            .act("db-before-1", ends(10, 0))
            .act("db-before-2", Act { lines: vec![(1, "not now")], ..ends(10, code) })
    };
    let world = steps(0);
    assert!(world.run(&["db"]).await.is_none());
    assert_eq!(world.story(), "start db-before-1\nstart db-before-2\nstart db\nready db: still running\nstop db 2 10s");
    let (second, spec) = (world.spec("db-before-2"), world.spec("db"));
    assert_eq!((second.args, second.user.as_str()), (vec!["prepare".into(), "two".into()], "root"));
    assert_eq!(second.surroundings.volumes, spec.surroundings.volumes);
    assert_eq!(spec.surroundings.volumes[0].name, "data");
    let failure = failure(steps(4).run(&["db"]).await);
    assert_eq!(failure.reason, "has a step before its start that exited 4: `prepare two`");
    assert_eq!(failure.tail, ["not now"]);
}

/// A database whose state is kept; its seed is a file of the repository.
fn warm(seed: &str) -> World {
    let mut db = service("db");
    db.snapshot = Some(Snapshot::Ready);
    let volume = MountSource::Volume { name: "data".into(), subpath: None, nocopy: false };
    db.mounts = vec![Mount { place: None, source: volume, target: "/data".into(), read_only: false }];
    let mut world = World::new(vec![db]).expose("5432/tcp").act("db", listens(3_000));
    let path = world.path().join("seed.sql");
    std::fs::write(&path, seed).expect("written");
    world.project.services[0].seed = vec![path];
    world
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_ready_service_is_kept_and_forked() {
    let world = warm("one");
    assert!(world.run(&["db"]).await.is_none());
    assert_eq!(
        world.story(),
        "start db\nstop db 2 10s\nsave db\nstart db (saved)\nready db: port 5432 accepts (warm)\nstop db 2 10s"
    );
    assert!(world.spec("db").surroundings.volumes.is_empty(), "what it keeps belongs to the snapshot");
    assert!(world.run(&["db"]).await.is_none());
    assert_eq!(world.story(), "start db (saved)\nready db: port 5432 accepts (warm)\nstop db 2 10s");
    // Another seed is another state.
    std::fs::write(world.path().join("seed.sql"), "two").expect("written");
    assert!(world.run(&["db"]).await.is_none());
    assert!(world.story().contains("save db"));
}

#[tokio::test(start_paused = true)]
async fn an_unclean_end_is_never_kept() {
    let world = warm("one").act("db", Act { is_stubborn: true, ..listens(1) });
    assert!(world.run(&["db"]).await.is_none());
    assert_eq!(world.story(), "start db\nstop db 2 10s\nstart db\nready db: port 5432 accepts\nstop db 2 10s");
    assert!(world.warnings().contains("service db has no snapshot: it did not stop"), "{}", world.warnings());
    let mut world = warm("one");
    world.cannot_save = true;
    assert!(world.run(&["db"]).await.is_none());
    assert!(world.warnings().contains("this engine cannot keep files"), "{}", world.warnings());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_is_refused_with_its_reason() {
    let refused = async |change: &dyn Fn(&mut compose::Service)| {
        let mut db = service("db");
        change(&mut db);
        match World::new(vec![db]).run(&["db"]).await {
            Some(ServiceError::Invalid { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    let bind = |path: &str| Mount {
        place: None,
        source: MountSource::Bind { path: path.into(), create: false },
        target: "/x".into(),
        read_only: true,
    };
    for (change, expected) in [
        (
            &(|db: &mut compose::Service| db.privileged = true) as &dyn Fn(&mut compose::Service),
            "`privileged` is not given",
        ),
        (&|db| db.mounts = vec![bind("/etc")], "/etc: it is outside of the repository"),
        (&|db| db.from = Some("web".into()), "this run does not build an image `web`"),
        (&|db| db.image = None, "it needs `image` or `build`"),
        (&|db| db.network_mode = Some(compose::NetworkMode::Host), "the host's network is not given"),
    ] {
        let message = refused(change).await;
        assert!(message.starts_with("service db: ") && message.contains(expected), "{message}");
    }
    // What the definitions tell is known before anything is started.
    let mut web = service("web");
    web.privileged = true;
    let world = World::new(vec![service("db"), web]);
    assert!(matches!(world.run(&["db", "web"]).await, Some(ServiceError::Invalid { .. })));
    assert_eq!(world.story(), "");
    let world = World::new(vec![service("missing")]);
    assert!(matches!(world.run(&["missing"]).await, Some(ServiceError::Image { .. })));
    let Some(ServiceError::Invalid { message, hint, .. }) = world.run(&["mising"]).await else { panic!() };
    assert_eq!((message.as_str(), hint.as_deref()), ("there is no service `mising`", Some("did you mean `missing`?")));
}

#[tokio::test(start_paused = true)]
async fn cancelling_stops_what_is_awaited() {
    let world = World::new(vec![service("db")]).expose("5432/tcp");
    let cancel = world.cancel.clone();
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cancel.cancel();
    };
    let (failed, ()) = tokio::join!(world.run(&["db"]), later);
    assert!(matches!(failed, Some(ServiceError::Cancelled)), "{failed:?}");
    assert_eq!(world.story(), "start db\nstop db 2 10s");
    assert_eq!(world.verdicts(), "db skipped");
}
