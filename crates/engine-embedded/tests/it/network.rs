//! Private networks with real containers of busybox: names, ways out, ports, and what a killed process leaves.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio as ProcessStdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use engine::{
    Attachment, Container, ContainerSpec, Engine as _, HOST_GATEWAY, JoinedNetwork, NetworkMode, Protocol,
    PublishedPort, Root, Scope, SetupRequest,
};
use runtime::Privilege;
use testkit::Test;

use super::{PATIENCE, PRIVILEGE, World, shell, text};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A root with busybox, whose applets are links, and getent, which asks as most programs do: busybox is static, and cannot.
async fn busybox(world: &World) -> Root {
    let root = world.context().join("busybox");
    for dir in ["bin", "tmp", "etc", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "cat", "sleep", "echo", "nc", "nslookup", "ip", "timeout", "test"] {
        // Made before by another image of the same test.
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    world.copy_tools(&["getent", "perl"]);
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
    let request = world.request("FROM scratch\nCOPY root /\nCOPY busybox /\nENV PATH=/bin\n");
    world.engine.build(request, &world.events).await.unwrap().root
}

fn private(root: &Root, name: &str, script: &str) -> (ContainerSpec, Arc<Mutex<Vec<u8>>>) {
    let (mut spec, output) = shell(root, script);
    spec.name = name.into();
    spec.network = NetworkMode::Default;
    (spec, output)
}

fn joined(network: &str, internal: bool) -> JoinedNetwork {
    JoinedNetwork { name: network.into(), internal, ..JoinedNetwork::default() }
}

/// Runs to its end; what it wrote.
async fn run(scope: &dyn Scope, spec: (ContainerSpec, Arc<Mutex<Vec<u8>>>)) -> String {
    let container = scope.start(spec.0).await.unwrap();
    container.wait().await.unwrap();
    text(&spec.1).trim().to_owned()
}

/// A server that greets each who connects, and is there when this returns.
async fn greeter(scope: &dyn Scope, root: &Root, name: &str, port: u16, attachment: Attachment) -> Box<dyn Container> {
    let script = format!("nc -ll -p {port} -e echo hello from {name} & echo up; wait");
    let (mut spec, output) = private(root, name, &script);
    spec.attachment = attachment;
    let container = scope.start(spec).await.unwrap();
    until(|| text(&output).contains("up")).await;
    container
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it never came true");
        tokio::time::sleep(POLL).await;
    }
}

/// Connects until somebody listens.
const CONNECT: &str = "say() { got=$(timeout 5 nc -w 5 $1 $2 < /dev/null); test -n \"$got\" && echo $got; }
at() { set -- $(getent ahostsv4 $1) nowhere; echo $1; }
connect() {
    for i in 1 2 3 4 5 6 7 8 9; do say $(at $1) $2 && return; sleep 0.1; done
    echo no answer
}";

pub(super) async fn networks_containers_talk_by_name(world: World) {
    let root = busybox(&world).await;
    let mut scope = world.scope().await;
    let attachment = Attachment { aliases: vec!["www".into()], ..Attachment::default() };
    // Port 80: root of a container may use all.
    let web = greeter(&*scope, &root, "web", 80, attachment.clone()).await;
    let api = greeter(&*scope, &root, "api", 8080, Attachment::default()).await;
    let IpAddr::V4(address) = web.addresses()[0] else { panic!("addresses are IPv4") };
    let ask =
        format!("{CONNECT}; connect web 80; connect WWW 80; connect api 8080; connect {address} 80; cat /etc/hosts");
    let told = run(&*scope, private(&root, "client", &ask)).await;
    assert_eq!(told.matches("hello from web").count(), 3, "{told}");
    assert!(told.contains("hello from api") && told.contains("\tclient"), "{told}");
    // The other way round, from inside of a running one.
    let (exec, output) = super::exec(&format!("{CONNECT}; connect api 8080; connect web 80; getent hosts {address}"));
    web.exec(exec).await.unwrap();
    let told = text(&output);
    assert!(
        told.contains("hello from api")
            && told.contains("hello from web")
            && told.contains(&format!("{address}      web")),
        "{told}"
    );
    // A name lives as long as its container.
    api.stop(9, Duration::ZERO).await.unwrap();
    let (exec, output) = super::exec("getent hosts api || echo gone");
    web.exec(exec).await.unwrap();
    assert!(text(&output).contains("gone"), "{}", text(&output));
    scope.close().await.unwrap();
}

pub(super) async fn networks_scopes_are_apart(world: World) {
    let root = busybox(&world).await;
    let mut scopes = [world.scope().await, world.scope().await];
    let mut servers = Vec::new();
    for scope in &scopes {
        servers.push(greeter(&**scope, &root, "web", 80, Attachment::default()).await);
    }
    assert_eq!(servers[0].addresses(), servers[1].addresses());
    for scope in &scopes {
        let told = run(&**scope, private(&root, "client", &format!("{CONNECT}; connect web 80"))).await;
        assert_eq!(told, "hello from web");
    }
    for scope in &mut scopes {
        scope.close().await.unwrap();
    }
}

pub(super) async fn networks_have_their_own_names_and_ways(world: World) {
    let root = busybox(&world).await;
    let mut scope = world.scope().await;
    let in_networks = |networks: &[JoinedNetwork]| Attachment { networks: networks.to_vec(), ..Attachment::default() };
    let (front, back) = (joined("front", false), joined("back", true));
    let db = greeter(&*scope, &root, "db", 80, in_networks(std::slice::from_ref(&back))).await;
    let api = greeter(&*scope, &root, "api", 80, in_networks(&[front.clone(), back.clone()])).await;
    assert_eq!((db.addresses().len(), api.addresses().len()), (1, 2));

    let outside = listener_of_host();
    let script = |more: &str| format!("{CONNECT}; connect api 80; getent hosts db > /dev/null && echo sees db; {more}");
    let leave = outside.as_ref().map(|address| format!("say {} {} || echo kept inside", address.ip(), address.port()));
    let (mut spec, output) = private(&root, "inner", &script(&leave.clone().unwrap_or_default()));
    spec.attachment = in_networks(&[back]);
    let told = run(&*scope, (spec, output)).await;
    assert!(told.contains("hello from api") && told.contains("sees db"), "{told}");
    if leave.is_some() {
        assert!(told.contains("kept inside"), "{told}");
    }
    // From the other network neither the name nor the address is reached.
    let (mut spec, output) = private(&root, "outer", &script(&format!("say {} 80 || echo apart", db.addresses()[0])));
    spec.attachment = in_networks(&[front]);
    let told = run(&*scope, (spec, output)).await;
    assert!(told.contains("hello from api") && told.contains("apart") && !told.contains("sees db"), "{told}");
    scope.close().await.unwrap();
}

/// A service on an address of this host that is not its loopback, which greets. `None`: it has no other.
fn listener_of_host() -> Option<SocketAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("203.0.113.1:9").ok()?;
    let address = probe.local_addr().unwrap().ip();
    Some(greet(TcpListener::bind((address, 0)).unwrap(), "hello from the host\n"))
}

fn greet(listener: TcpListener, greeting: &'static str) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut connection, _)) = listener.accept() {
            let _ = connection.write_all(greeting.as_bytes());
        }
    });
    address
}

pub(super) async fn networks_lead_out_but_not_to_the_loopback(world: World) {
    let root = busybox(&world).await;
    let mut scope = world.scope().await;
    let port = greet(TcpListener::bind("127.0.0.1:0").unwrap(), "hello from the loopback\n").port();
    let Some(address) = listener_of_host() else { return testkit::skip("this host has no way out") };
    let gateways = "gateway=$(ip route | while read a b c d; do [ $a = default ] && echo $c; done)";
    let script = format!(
        "{CONNECT}; {gateways}; connect {} {}; connect host {}; for a in 127.0.0.1 $gateway $(at host) {}; do say $a {port} && echo reached $a & done; wait; echo done",
        address.ip(),
        address.port(),
        address.port(),
        address.ip()
    );
    let (mut spec, output) = private(&root, "client", &script);
    spec.attachment.extra_hosts = vec![("host".into(), HOST_GATEWAY.into())];
    let container = scope.start(spec).await.unwrap();
    container.wait().await.unwrap();
    let told = text(&output);
    assert!(told.contains("done") && !told.contains("reached"), "{told}");
    match network::ways_out(matches!(PRIVILEGE.get(), Some(Privilege::Root { .. }))) {
        Ok(_) => {
            assert!(told.contains("hello from the host"), "{told} {:?}", container.warnings());
            assert!(container.warnings().is_empty(), "{:?}", container.warnings());
        }
        Err(no_way_out) => {
            assert!(container.warnings().iter().any(|warning| *warning == no_way_out.to_string()));
            // Told once.
            let (spec, _) = private(&root, "next", "true");
            assert!(scope.start(spec).await.unwrap().warnings().is_empty());
        }
    }
    scope.close().await.unwrap();
}

pub(super) async fn networks_publish_ports(world: World) {
    let root = busybox(&world).await;
    let mut scope = world.scope().await;
    let port =
        |container_port, protocol| PublishedPort { host_address: None, host_port: None, container_port, protocol };
    let ports = vec![port(80, Protocol::Tcp), port(81, Protocol::Tcp), port(53, Protocol::Udp)];
    let script = "nc -ll -p 80 -e cat & perl -e 'socket(S, 2, 2, 0); bind(S, pack(\"Sna4x8\", 2, 53, \"\\0\\0\\0\\0\")); \
                  while ($from = recv(S, $got, 99, 0)) { send(S, $got, 0, $from) }' & echo up; wait";
    let (mut spec, output) = private(&root, "web", script);
    spec.attachment.ports = ports;
    let container = scope.start(spec.clone()).await.unwrap();
    let bound = container.ports();
    assert!(bound.len() == 3 && bound.iter().all(|bound| bound.host.ip().is_loopback()), "{bound:?}");
    until(|| text(&output).contains("up")).await;

    // What one side has said all of is answered by the other side.
    let echoed = tokio::task::spawn_blocking({
        let host = bound[0].host;
        move || {
            let start = Instant::now();
            loop {
                let mut connection = TcpStream::connect(host).unwrap();
                let sent = vec![b'x'; 1 << 20];
                let mut reader = connection.try_clone().unwrap();
                let sender = std::thread::spawn(move || {
                    let _ = connection.write_all(&sent);
                    let _ = connection.shutdown(std::net::Shutdown::Write);
                });
                let mut got = Vec::new();
                let _ = reader.read_to_end(&mut got);
                sender.join().unwrap();
                // Before the server is there, connections are refused.
                if got.len() == 1 << 20 || start.elapsed() > PATIENCE {
                    return got.len();
                }
            }
        }
    });
    assert_eq!(echoed.await.unwrap(), 1 << 20);
    // Nobody listens in there: refused, or as near as can be.
    let refused = TcpStream::connect(bound[1].host).and_then(|mut connection| connection.read(&mut [0; 1]));
    assert!(refused.is_err(), "{refused:?}");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(bound[2].host).unwrap();
    udp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answer = [0; 16];
    let start = Instant::now();
    let length = loop {
        udp.send(b"ping").unwrap();
        match udp.recv(&mut answer) {
            Ok(length) => break length,
            Err(_) => assert!(start.elapsed() < PATIENCE),
        }
    };
    assert_eq!(&answer[..length], b"ping");

    // A port in use is named, with who has it.
    spec.attachment.ports = vec![PublishedPort { host_port: Some(bound[0].host.port()), ..port(80, Protocol::Tcp) }];
    let error = scope.start(spec).await.err().unwrap();
    let told = error.with_causes();
    assert!(told.contains(&bound[0].host.to_string()) && told.contains("(process "), "{told}");
    container.stop(9, Duration::ZERO).await.unwrap();
    assert!(TcpStream::connect(bound[0].host).is_err(), "a port is free with the end of its container");
    assert!(UdpSocket::bind(bound[2].host).is_ok(), "also for datagrams");
    scope.close().await.unwrap();
}

pub(super) async fn networks_are_there_for_setup(world: World) {
    let root = busybox(&world).await;
    let mut scope = world.scope().await;
    let script = "cat /etc/resolv.conf > /seen; ip -4 addr show eth0 >> /seen";
    let request = SetupRequest { network: NetworkMode::Default, ..super::setup_request(&root, &[script], Vec::new()) };
    let root = scope.setup(request, &world.events).await.unwrap();
    let told = run(&*scope, private(&root, "look", "cat /seen")).await;
    assert!(told.contains("nameserver 10.2") && told.contains("inet 10.2"), "{told}");
    scope.close().await.unwrap();
}

pub(super) async fn networks_are_there_with_another_runtime(_world: World) {
    if !matches!(PRIVILEGE.get(), Some(Privilege::Root { .. })) {
        return testkit::skip("other runtimes are tried as root");
    }
    for name in ["runc", "crun"] {
        let found = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(name));
        let Some(program) = found.into_iter().find(|path| path.exists()) else {
            testkit::skip(format_args!("{name} is not installed"));
            continue;
        };
        let world = World::by(Some(program));
        let root = busybox(&world).await;
        let mut scope = world.scope().await;
        let mut alone = private(&root, "alone", "true").0;
        alone.network = NetworkMode::None;
        match scope.start(alone).await {
            Ok(container) => drop(container.wait().await.unwrap()),
            // It refuses machines that have both versions of control groups.
            Err(error) if name == "crun" => {
                testkit::skip(error.with_causes());
                continue;
            }
            Err(error) => panic!("{}", error.with_causes()),
        }
        let web = greeter(&*scope, &root, "web", 80, Attachment::default()).await;
        let told = run(&*scope, private(&root, "client", &format!("{CONNECT}; connect web 80; cat /etc/hosts"))).await;
        assert!(told.contains("hello from web") && told.contains("\tclient"), "{name}: {told}");
        let (exec, output) = super::exec(&format!("{CONNECT}; connect web 80"));
        web.exec(exec).await.unwrap();
        assert!(text(&output).contains("hello from web"), "{name}: {}", text(&output));
        scope.close().await.unwrap();
    }
}

/// Started by [`networks_of_the_killed_are_swept`]: makes networks, says so, and waits to be killed.
pub(super) async fn victim_of_networks(world: World) {
    let root = busybox(&world).await;
    let scope = world.scope().await;
    let _server = greeter(&*scope, &root, "web", 80, Attachment::default()).await;
    // Nobody waits for it when stdout is gone.
    let _ = writeln!(std::io::stdout(), "store {}", world.dir.path().join("store").display());
    std::future::pending::<()>().await;
}

pub(super) async fn networks_of_the_killed_are_swept(_world: World) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("victim_of_networks")
        .env("SEATRIAL_TEST_VICTIM", "1")
        .stdout(ProcessStdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut output = child.stdout.take().unwrap();
    let mut byte = [0];
    while !told.ends_with("/store\n") {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "{told}");
        told.push(char::from(byte[0]));
    }
    let store = Path::new(told.trim().rsplit_once("store ").unwrap().1).to_owned();
    let scopes = fs::read_dir(store.join("scopes")).unwrap().flatten();
    let scopes: Vec<String> = scopes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let has_way_out = network::ways_out(matches!(PRIVILEGE.get(), Some(Privilege::Root { .. }))).is_ok();
    assert!(!has_way_out || !leftovers(&store, &scopes).is_empty(), "what is looked for can be found");
    child.kill().unwrap();
    child.wait().unwrap();
    // Closed when the last process that had it is gone: helpers, containers, programs of the way out.
    drop(output.read_to_end(&mut Vec::new()));
    let options = store::StoreOptions {
        copy_snapshots: !runtime::overlay_works(store.parent().unwrap()),
        user_xattr: !matches!(PRIVILEGE.get().unwrap(), Privilege::Root { .. }),
        ignore_chown_errors: *PRIVILEGE.get().unwrap() == Privilege::SingleId,
    };
    engine_embedded::sweep(&store::Store::open(&store, options).unwrap()).unwrap();
    until(|| leftovers(&store, &scopes).is_empty()).await;
    fs::remove_dir_all(store.parent().unwrap()).unwrap();
}

/// Tables, devices and programs of these scopes on this host.
fn leftovers(store: &Path, scopes: &[String]) -> Vec<String> {
    let is_theirs = |text: &str| scopes.iter().any(|scope| text.contains(scope));
    let mut found = Vec::new();
    if let Ok(output) = Command::new("nft").args(["list", "tables"]).output() {
        let tables = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(tables.lines().filter(|line| is_theirs(line)).map(str::to_owned));
    }
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    found
        .extend(devices.map(|device| device.file_name().to_string_lossy().into_owned()).filter(|name| is_theirs(name)));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*store.to_string_lossy()) {
            found.push(line);
        }
    }
    found
}

/// All tests of networks once more without rights on the host: with the tun device for everybody, by each of the programs,
/// and without any way out.
pub(super) fn ordinary_users() -> Vec<Test> {
    if !matches!(PRIVILEGE.get(), Some(Privilege::Root { .. })) {
        return Vec::new();
    }
    let ways: [(&str, &[&str]); 3] = [("pasta", &["pasta"]), ("slirp4netns", &["slirp4netns"]), ("nothing", &[])];
    let test = |(way, programs)| {
        Test::new(format!("networks_of_ordinary_users_with_{way}"), move || pass_as_an_ordinary_user(programs))
    };
    ways.into_iter().map(test).collect()
}

fn pass_as_an_ordinary_user(programs: &[&str]) {
    let Some((uid, gid)) = testkit::user_with_subordinate_ids() else {
        return testkit::skip("no user has an entry in /etc/subuid and /etc/subgid");
    };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("it");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
    // Programs of this test only, so that each way out can be had alone.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["ldd", "nft", "newuidmap", "newgidmap", "sh", "bash"].iter().chain(programs) {
        let places = ["/usr/bin", "/usr/sbin"].map(|dir| Path::new(dir).join(tool));
        if let Some(found) = places.into_iter().find(|path| path.exists()) {
            std::os::unix::fs::symlink(found, bin.join(tool)).unwrap();
        }
    }
    let tun = dir.path().join("tun");
    let prepare = if programs.is_empty() {
        String::new()
    } else {
        format!("mknod -m 666 {0} c 10 200 && mount --bind {0} /dev/net/tun &&", tun.display())
    };
    // The mounts are this shell's own.
    let script = format!(
        "{prepare} exec setpriv --reuid {uid} --regid {gid} --clear-groups env PATH={} TMPDIR={} {} networks_ \
         --skip networks_are_there_with_another_runtime",
        bin.display(),
        dir.path().display(),
        program.display()
    );
    let output = Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", &script]).output();
    let output = output.unwrap();
    let [said, told] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "as user {uid}: {said}\n{told}");
    told.lines().filter_map(|line| line.strip_prefix("skipped: ")).for_each(testkit::skip);
}
