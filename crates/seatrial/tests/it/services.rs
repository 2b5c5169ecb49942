//! Services beside the image: real databases, awaited, linked, kept warm.

use testkit::{POSTGRES, REDIS, TINY, World};

use crate::{world, world_with_image};

/// An application image with `psql`, and a database that its gate writes to and reads from.
const LEDGER: &str = "\
image: team/ledger
services:
  db:
    image: localhost/postgres:15
    healthcheck: {test: pg_isready -h 127.0.0.1 -U postgres, interval: 200ms, retries: 150}
test:
  links: [\"db:store\"]
  gates:
    writes:
      - psql -h store -U postgres -c 'create table entries (amount int)'
      - psql -h store -U postgres -c 'insert into entries values (40), (2)'
    reads:
      needs: writes
      run: test \"$(psql -h $STORE_PORT_5432_TCP_ADDR -p $STORE_PORT_5432_TCP_PORT -U postgres -Atc 'select sum(amount) from entries')\" = 42
health: false
";

fn ledger(pipeline: &str) -> Option<World> {
    let world = world();
    if !world.add_postgres() {
        return None;
    }
    world.file("Dockerfile", &format!("FROM {POSTGRES}\n")).file("seatrial.yaml", pipeline).commit();
    Some(world)
}

#[test]
fn a_gate_writes_and_reads_through_postgres() {
    let Some(world) = ledger(LEDGER) else { return };
    let finished = world.seatrial(["run"]).run().exits(0);
    let stderr = finished.stderr();
    for words in ["PASS [TIME", "db  healthy at attempt", "db ready after"] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    world.seatrial(["logs", "last", "db"]).run().exits(0).stdout_has("database system is ready to accept connections");
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn a_warm_database_has_its_data_and_needs_no_recovery() {
    let pipeline = LEDGER
        .replace("    healthcheck", "    snapshot: ready\n    seed: [seed.sql]\n    volumes: [\"./seed.sql:/docker-entrypoint-initdb.d/seed.sql:ro\", \"data:/var/lib/postgresql/data\"]\n    healthcheck")
        .replace("test:\n", "volumes: {data: {}}\ntest:\n")
        .replace("create table entries (amount int)", "select count(*) from entries");
    let Some(world) = ledger(&pipeline) else { return };
    world.file("seed.sql", "create table entries (amount int);\n\ninsert into entries values (0);\n\n");
    let is_warm = || {
        let events = world.seatrial(["logs", "last", "--events"]).run().exits(0).stdout();
        let line = events.lines().find(|line| line.contains("\"service.ready\"")).expect("it became ready");
        line.split_once("\"warm\":").expect("it says so").1.split([',', '}']).next().expect("a value").to_owned()
    };
    world.seatrial(["run"]).run().exits(0);
    let log = world.seatrial(["logs", "last", "db"]).run().exits(0).stdout();
    for words in ["seeding from", "database system is shut down", "its files are kept"] {
        assert!(log.contains(words), "`{words}` is missing in:\n{log}");
    }
    assert_eq!(is_warm(), "true");
    // The second run forks it: nothing is initialised, nothing recovered, and what the first run wrote is not there.
    world.seatrial(["run", "--rerun"]).run().exits(0);
    let log = world.seatrial(["logs", "last", "db"]).run().exits(0).stdout();
    for words in ["seeding", "recovery", "not properly shut down", "interrupted"] {
        assert!(!log.contains(words), "`{words}` in:\n{log}");
    }
    assert!(log.contains("ready to accept connections"), "{log}");
    assert_eq!(is_warm(), "true");
}

#[test]
fn a_database_that_dies_fails_the_run_with_its_last_lines() {
    let pipeline = LEDGER.replace("    healthcheck", "    command: [postgres, -D, /nowhere]\n    healthcheck");
    let Some(world) = ledger(&pipeline) else { return };
    let finished = world.seatrial(["run"]).run().exits(3);
    let stderr = finished.stderr();
    for words in [
        "service db: `postgres -D /nowhere` exited 2 before it was ready after TIME",
        " --> seatrial.yaml:3:3",
        "  │ postgres: could not access directory",
    ] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    assert!(!stderr.contains("gate writes:"), "no gate was tried:\n{stderr}");
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// A gate of its own database each, fresh, and one that others share.
#[test]
fn migrations_run_on_a_fresh_and_on_an_existing_database() {
    let pipeline = "\
image: team/ledger
services:
  # Its port accepts while it still starts.
  db: {image: localhost/postgres:15, ready: {log: ready to accept connections}}
test:
  gates:
    fresh:
      services: {fresh: [db]}
      run: sh migrate.sh
    again:
      services: {fresh: [db]}
      run: [sh migrate.sh, sh migrate.sh]
health: false
";
    let Some(world) = ledger(pipeline) else { return };
    let migrate = "psql -v ON_ERROR_STOP=1 -h db -U postgres -c 'create table if not exists a (b int)'\n";
    world.file("migrate.sh", migrate).file("Dockerfile", &format!("FROM {POSTGRES}\nCOPY migrate.sh .\n"));
    let finished = world.seatrial(["run"]).run().exits(0);
    finished.stderr_has("db (fresh)").stderr_has("db (again)");
    world.seatrial(["logs", "last", "db (again)"]).run().exits(0).stdout_has("ready to accept connections");
    // The second time it is there already, and only in the gate that migrates twice.
    world.seatrial(["logs", "last", "again"]).run().exits(0).stdout_has("already exists");
    assert!(!world.seatrial(["logs", "last", "fresh"]).run().exits(0).stdout().contains("already exists"));
}

#[test]
fn redis_is_ready_when_its_port_accepts() {
    let world = world();
    if !world.add_redis() {
        return;
    }
    let pipeline = "\
services: {cache: {image: \"localhost/redis:7\"}, pair: {image: \"localhost/redis:7\", deploy: {replicas: 2}}}
test:
  services: [cache]
  gates:
    set: redis-cli -h cache set a b
    get: {needs: set, run: \"test \\\"$(redis-cli -h cache get a)\\\" = b\"}
    both: {services: [pair], run: \"test $(busybox nslookup pair | busybox grep -c ^Name:) = 2\"}
health:
  services: [cache]
  environment: {STORE: cache}
  command: test \"$(redis-cli -h $STORE ping)\" = PONG
";
    world.file("Dockerfile", &format!("FROM {REDIS}\n")).file("seatrial.yaml", pipeline).commit();
    world.seatrial(["run"]).run().exits(0).stderr_has("cache  port 6379 accepts");
    // Each of several containers is awaited by itself, and the health check has a cache of its own.
    let told = world.seatrial(["logs", "last", "--events"]).run().exits(0).stdout();
    for stage in ["pair-1", "pair-2", "cache (health)", "health"] {
        assert!(told.contains(&format!("\"{stage}\"")), "{stage} in:\n{told}");
    }
}

/// One gate publishes, another one takes what it published, each over a connection of its own.
#[test]
fn messages_go_through_rabbitmq() {
    let world = world_with_image();
    if !world.add_rabbitmq() {
        return;
    }
    let pipeline = "\
services: {queue: {image: \"localhost/rabbitmq:3\", stop_signal: SIGKILL, ready: {log: Server startup complete, port: 5672}}}
test:
  services: [queue]
  mounts: [amqp]
  gates:
    write: busybox nc queue 5672 -e sh -c 'cat amqp/write; exec busybox grep -q -z finished'
    read: {needs: write, run: busybox nc queue 5672 -e sh -c 'cat amqp/read; exec busybox grep -q -z hello.from.the.gate'}
health: false
";
    world.file("Dockerfile", &format!("FROM {TINY}\nENV PATH=/bin\n")).file("seatrial.yaml", pipeline);
    std::fs::create_dir(world.repo().join("amqp")).unwrap();
    let text = b"hello from the gate";
    let size = u64::try_from(text.len()).unwrap().to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &[0, 0]].concat();
    // Basic.Publish to the default exchange, content header, body.
    let publish = [method(1, 60, 40, b"\0\0\0\x08messages\0"), frame(2, 1, &header), frame(3, 1, text)].concat();
    // Basic.Get, acknowledged by itself.
    let get = method(1, 60, 70, b"\0\0\x08messages\x01");
    for (name, work) in [("write", publish), ("read", get)] {
        std::fs::write(world.repo().join("amqp").join(name), conversation(&work)).unwrap();
    }
    world.commit();
    world.seatrial(["run"]).run().exits(0).stderr_has("in its log, port 5672 accepts");
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// All that a client says in AMQP 0-9-1, without waiting for answers: it logs in, opens a channel, declares a queue, does its
/// work, and declares another one, whose name comes back when the work is done.
fn conversation(work: &[u8]) -> Vec<u8> {
    let declare = |queue: &str| method(1, 50, 10, format!("\0\0\x08{queue}\0\0\0\0\0").as_bytes());
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        method(0, 10, 11, b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US"),
        method(0, 10, 31, b"\x07\xff\0\x02\0\0\0\0"),
        method(0, 10, 40, b"\x01/\0\0"),
        method(1, 20, 10, b"\0"),
        declare("messages"),
        work.to_vec(),
        declare("finished"),
    ]
    .concat()
}

fn method(channel: u8, class: u8, id: u8, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&[0, class, 0, id], arguments].concat())
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, channel][..], &length, payload, b"\xce"].concat()
}

#[test]
fn mistakes_are_told_with_their_places() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\n").commit();
    let pipeline = |gate: &str| {
        format!("services: {{db: {{image: tiny:1, command: [sleep, '60']}}}}\ntest: {{gates: {{unit: {gate}}}}}\n")
    };
    for (gate, expected) in [
        ("{run: 'true', services: [bd]}", "there is no service `bd`"),
        ("{run: 'true', links: ['dbs:x']}", "there is no service `dbs`"),
        ("{run: 'true', services: {fresh: [db], shared: [db]}}", "has no key `shared`"),
    ] {
        world.file("seatrial.yaml", &pipeline(gate));
        world.seatrial(["run"]).run().exits(2).stderr_has(expected).stderr_has("seatrial.yaml:2:");
    }
    world.file(
        "seatrial.yaml",
        "services: {unit: {image: tiny:1}}\ntest: {gates: {unit: {run: 'true', services: [unit]}}}\n",
    );
    world.seatrial(["run"]).run().exits(2).stderr_has("named like a service");
}

/// What of the host and its kernel a service has: a device that the machine's owner allows, parameters of its own, and the
/// address that the file gives it in a network without a way out.
#[test]
fn devices_kernel_parameters_and_addresses_are_those_of_the_file() {
    let world = world_with_image();
    let pipeline = r#"
services:
  page:
    image: tiny:1
    command: [sh, -c, "mkdir /www; cat /proc/sys/net/core/somaxconn > /www/page; head -c 3 /dev/zeros | wc -c >> /www/page; exec httpd -f -p 8080 -h /www"]
    expose: [8080]
    sysctls: {net.core.somaxconn: 77}
    devices: ["DEVICE:/dev/zeros:rw"]
    networks: {fixed: {ipv4_address: 172.30.7.9}}
  other: {image: tiny:1, command: [sleep, "60"], networks: [fixed]}
networks: {fixed: {internal: true, ipam: {config: [{subnet: 172.30.7.0/24, ip_range: 172.30.7.8/29}]}}}
test: {gates: {asks: {services: [other, page], run: "test \"$(wget -q -O - http://172.30.7.9:8080/page | tr -d '\\n')\" = 773"}}}
health: false
"#;
    world.file("Dockerfile", "FROM tiny:1\n").file("seatrial.yaml", &pipeline.replace("DEVICE", "/dev/zero")).commit();
    std::fs::create_dir_all(world.path("config/seatrial")).unwrap();
    let run = || world.seatrial(["run"]).env("XDG_CONFIG_HOME", world.path("config"));
    run().run().exits(2).stderr_has("the device /dev/zero is the host's").stderr_has("write `device=/dev/zero` into");
    std::fs::write(world.path("config/seatrial/allow"), "device=/dev/zero\n").unwrap();
    run().run().exits(0).stderr_has("page  port 8080 accepts");
    std::fs::write(world.path("config/seatrial/allow"), "device\n").unwrap();
    world.file("seatrial.yaml", &pipeline.replace("DEVICE", "/dev/no-such-device"));
    let finished = run().run().exits(2);
    finished.stderr_has("service page: this machine has no device /dev/no-such-device").stderr_has("seatrial.yaml:3:3");
}

/// What a definition asks for in vain is told before the build, which may take long.
#[test]
fn what_no_service_gets_is_told_before_anything_is_built() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN echo built\n").file(
        "seatrial.yaml",
        "services:\n  db: {image: tiny:1, network_mode: host}\nhealth: false\ntest: {gates: {g: {services: [db], run: \"true\"}}}\n",
    );
    world.seatrial(["check"]).run().exits(0).stdout_has("so that this service cannot be started");
    let run = world.seatrial(["run"]).run().exits(2).stderr_has("the host's network is not given to services of a run");
    assert!(!run.stderr().contains("echo built"), "{}", run.stderr());
}
