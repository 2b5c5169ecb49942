//! Valid services and their values.

use serde_json::{Value, json};

use crate::Case;

/// `services: {a: {image: x, KEY…}}`, with everything that services may refer to.
#[track_caller]
fn a(keys: &str) -> Case {
    Case::one(&format!(
        "services:\n  a: {{image: x, {keys}}}\n  b: {{image: y}}\n  c: {{image: z}}\n\
         networks: {{n: {{ipam: {{config: [{{subnet: 10.0.0.0/24}}]}}}}, m: }}\nvolumes: {{vol: , v: }}\nsecrets: {{s: {{file: ./s}}}}\nconfigs: {{k: {{content: hi}}}}\n"
    ))
    .env(&[("SET", "value"), ("PORT", "8080"), ("YES", "true"), ("EMPTY", "")])
}

#[track_caller]
fn check(keys: &str, key: &str, expected: Value) {
    let case = a(keys);
    assert_eq!(case.value(key), expected, "{keys}");
    // Keys that nothing acts on are read all the same.
    let is_expected = |line: &str| line.contains("has no effect here") || line.contains("cannot be started");
    let other = case.findings().lines().find(|line| !is_expected(line)).map(str::to_owned);
    assert_eq!(other, None, "{keys}");
}

#[test]
fn commands_and_processes() {
    check("command: sleep 1", "command", json!(["sleep", "1"]));
    check("command: [sleep, 1]", "command", json!(["sleep", "1"]));
    check("command: [\"echo $$HOME ${SET}\"]", "command", json!(["echo $HOME value"]));
    check("command: ''", "command", json!([]));
    check("command: []", "command", json!([]));
    check("command:", "command", Value::Null);
    check("entrypoint: sh -c 'a b'", "entrypoint", json!(["sh", "-c", "a b"]));
    check("user: 1000:1000", "user", json!("1000:1000"));
    check("group_add: [mail, 7]", "groups", json!(["mail", "7"]));
    check("working_dir: /w", "working_dir", json!("/w"));
    check("init: true", "init", json!(true));
    check("init: \"${YES}\"", "init", json!(true));
    check("tty: true", "tty", json!(true));
    check("stdin_open: true", "stdin_open", json!(true));
    check("stop_signal: SIGUSR1", "stop_signal", json!("SIGUSR1"));
    check("stop_signal: 15", "stop_signal", json!("15"));
    check("stop_signal: SIGRTMIN+3", "stop_signal", json!("SIGRTMIN+3"));
    check("stop_grace_period: 1m30s", "stop_grace_period", json!("1m30s"));
    check("restart: \"no\"", "restart", Value::Null);
    check("restart: no", "restart", Value::Null);
    check("restart: always", "restart", json!("always"));
    check("restart: unless-stopped", "restart", json!("unless_stopped"));
    check("restart: on-failure", "restart", json!({"on_failure": {"attempts": null}}));
    check("restart: \"on-failure:3\"", "restart", json!({"on_failure": {"attempts": 3}}));
    check(
        "deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}",
        "restart",
        json!({"on_failure": {"attempts": 2}}),
    );
    check("deploy: {restart_policy: {condition: none}}", "restart", Value::Null);
    check(
        "pre_start: [{command: ./migrate up, user: root}, {image: tool, command: [seed], environment: [SET]}]",
        "pre_start",
        json!([
            {"command": ["./migrate", "up"], "user": "root"},
            {"command": ["seed"], "image": "docker.io/library/tool", "environment": {"SET": "value"}}
        ]),
    );
}

#[test]
fn images() {
    check("pull_policy: always", "pull_policy", json!("always"));
    check("pull_policy: if_not_present", "pull_policy", json!("missing"));
    check("pull_policy: every_1h30m", "pull_policy", json!({"every": "1h30m"}));
    check("pull_policy: weekly", "pull_policy", json!({"every": "168h"}));
    check("platform: linux/arm64", "platform", json!({"os": "linux", "architecture": "arm64"}));
    let build = |keys: &str, expected: Value| check(&format!("build: {keys}"), "build", expected);
    build(".", json!({"context": "$DIR"}));
    build("./app", json!({"context": "$DIR/app"}));
    build("{context: ../x/./y, dockerfile: D, target: t}", {
        let parent = json!(a("").path().parent().map(|parent| parent.join("x/y")));
        json!({"context": parent, "dockerfile": "D", "target": "t"})
    });
    build("https://example.com/r.git#main:sub", json!({"context": "https://example.com/r.git#main:sub"}));
    build("{dockerfile_inline: \"FROM x\"}", json!({"context": "$DIR", "dockerfile_inline": "FROM x"}));
    build("{args: [A=1, SET, UNSET]}", json!({"context": "$DIR", "args": {"A": "1", "SET": "value"}}));
    build(
        "{args: {A: 1.10, B: true, SET: }}",
        json!({"context": "$DIR", "args": {"A": "1.10", "B": "true", "SET": "value"}}),
    );
    build(
        "{additional_contexts: {d: ./d, i: \"docker-image://x\", s: \"service:b\"}, no_cache: true, pull: true, network: host}",
        json!({
            "context": "$DIR", "no_cache": true, "pull": true, "network": "host",
            "additional_contexts": {"d": "$DIR/d", "i": "docker-image://x", "s": "service:b"}
        }),
    );
    build(
        "{tags: [\"r.example/x:1\"], secrets: [s]}",
        json!({
            "context": "$DIR", "tags": ["r.example/x:1"], "secrets": [{"source": "s", "target": "s"}]
        }),
    );
}

#[test]
fn environments_and_labels() {
    check(
        "environment: {A: 1, B: true, C: 1.10, D: , SET: , E: \"\"}",
        "environment",
        json!({
            "A": "1", "B": "true", "C": "1.10", "SET": "value", "E": ""
        }),
    );
    check("environment: [A=1, A=2, SET, UNSET, X=a=b]", "environment", json!({"A": "2", "SET": "value", "X": "a=b"}));
    check("labels: {a.b: 1, c: }", "labels", json!({"a.b": "1", "c": ""}));
    check("labels: [a=1, c]", "labels", json!({"a": "1", "c": ""}));
    check("annotations: {a: b}", "annotations", json!({"a": "b"}));
    check("container_name: web-1", "container_name", json!("web-1"));
    check("attach: false", "quiet", json!(true));
    check(
        "logging: {driver: syslog, options: {max-size: 10m}}",
        "logging",
        json!({"driver": "syslog", "options": {"max-size": "10m"}}),
    );
    check("scale: 3", "replicas", json!(3));
    check("deploy: {replicas: 2}", "replicas", json!(2));
    check("x-mine: {a: 1}", "name", json!("a"));
}

#[test]
fn ports() {
    let any = |target: u16| json!({"host_ip": null, "host": "any", "target": target, "protocol": "tcp"});
    let one =
        |host: u16, target: u16| json!({"host_ip": null, "host": {"port": host}, "target": target, "protocol": "tcp"});
    check("ports: [80]", "ports", json!([any(80)]));
    check("ports: [\"3000-3002\"]", "ports", json!([any(3000), any(3001), any(3002)]));
    check("ports: [\"8000:80\"]", "ports", json!([one(8000, 80)]));
    check("ports: [\"${PORT}:80\"]", "ports", json!([one(8080, 80)]));
    check("ports: [\"9090-9091:8080-8081\"]", "ports", json!([one(9090, 8080), one(9091, 8081)]));
    check(
        "ports: [\"8000-9000:80\"]",
        "ports",
        json!([{"host_ip": null, "host": {"range": [8000, 9000]}, "target": 80, "protocol": "tcp"}]),
    );
    check(
        "ports: [\"127.0.0.1:8001:8001/udp\"]",
        "ports",
        json!([{"host_ip": "127.0.0.1", "host": {"port": 8001}, "target": 8001, "protocol": "udp"}]),
    );
    check(
        "ports: [\"127.0.0.1::80\"]",
        "ports",
        json!([{"host_ip": "127.0.0.1", "host": "any", "target": 80, "protocol": "tcp"}]),
    );
    check(
        "ports: [\"::1:6000:6000\", \"[::1]:6001:6001\"]",
        "ports",
        json!([
            {"host_ip": "::1", "host": {"port": 6000}, "target": 6000, "protocol": "tcp"},
            {"host_ip": "::1", "host": {"port": 6001}, "target": 6001, "protocol": "tcp"}
        ]),
    );
    check("ports: [\"80:80\", {target: 80, published: 80}]", "ports", json!([one(80, 80)]));
    check(
        "ports: [{target: 443, published: \"8443-8445\", host_ip: 127.0.0.1, protocol: tcp, name: web, app_protocol: https, mode: host}]",
        "ports",
        json!([{"host_ip": "127.0.0.1", "host": {"range": [8443, 8445]}, "target": 443, "protocol": "tcp", "name": "web", "app_protocol": "https"}]),
    );
    check(
        "expose: [3000, \"90-91/udp\", \"3000/tcp\"]",
        "expose",
        json!([
            {"port": 3000, "protocol": "tcp"}, {"port": 90, "protocol": "udp"}, {"port": 91, "protocol": "udp"}
        ]),
    );
}

#[test]
fn mounts() {
    let volume = |source: Value, target: &str| json!({"source": source, "target": target, "read_only": false});
    let bind = |path: &str, create: bool| json!({"bind": {"path": path, "create": create}});
    let named = |name: &str| json!({"volume": {"name": name, "subpath": null, "nocopy": false}});
    check("volumes: [/anon]", "mounts", json!([volume(json!("anonymous"), "/anon")]));
    check(
        "volumes: [\"vol:/data\", \"v:/v\"]",
        "mounts",
        json!([volume(named("vol"), "/data"), volume(named("v"), "/v")]),
    );
    check(
        "volumes: [\"./x:/y:ro\"]",
        "mounts",
        json!([{"source": bind("$DIR/x", true), "target": "/y", "read_only": true}]),
    );
    check("volumes: [\"~/x:/y:rw,z\"]", "mounts", json!([volume(bind("/home/me/x", true), "/y")]));
    check("volumes: [\"/etc/../x:/y\"]", "mounts", json!([volume(bind("/x", true), "/y")]));
    check(
        "volumes: [\"vol:/d:nocopy\"]",
        "mounts",
        json!([volume(json!({"volume": {"name": "vol", "subpath": null, "nocopy": true}}), "/d")]),
    );
    check(
        "volumes: [{type: bind, source: ./x, target: /y, read_only: true}]",
        "mounts",
        json!([{"source": bind("$DIR/x", false), "target": "/y", "read_only": true}]),
    );
    check(
        "volumes: [{type: bind, source: ./x, target: /y, bind: {create_host_path: true}}]",
        "mounts",
        json!([volume(bind("$DIR/x", true), "/y")]),
    );
    check(
        "volumes: [{type: volume, source: vol, target: /y, volume: {subpath: s}}]",
        "mounts",
        json!([volume(json!({"volume": {"name": "vol", "subpath": "s", "nocopy": false}}), "/y")]),
    );
    check(
        "volumes: [{type: image, source: \"x:1\", target: /y}]",
        "mounts",
        json!([{"source": {"image": {"image": "docker.io/library/x:1", "subpath": null}}, "target": "/y", "read_only": true}]),
    );
    check("volumes: [\"vol:/y\", \"./x:/y\"]", "mounts", json!([volume(bind("$DIR/x", true), "/y")]));
    check(
        "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
        "tmpfs",
        json!([{"target": "/t", "size_bytes": 1 << 20, "mode": 0o700}]),
    );
    check("tmpfs: /run", "tmpfs", json!([{"target": "/run"}]));
    check(
        "tmpfs: [/run, \"/tmp:size=64m,mode=1777,uid=1000\"]",
        "tmpfs",
        json!([{"target": "/run"}, {"target": "/tmp", "size_bytes": 64 << 20, "mode": 0o1777, "options": ["uid=1000"]}]),
    );
    check("shm_size: 2g", "shm_size_bytes", json!(2u64 << 30));
    check("read_only: true", "read_only", json!(true));
    check("secrets: [s]", "secrets", json!([{"source": "s", "target": "/run/secrets/s"}]));
    check(
        "secrets: [{source: s, target: t, uid: \"103\", gid: 104, mode: 0o440}]",
        "secrets",
        json!([{"source": "s", "target": "/run/secrets/t", "uid": 103, "gid": 104, "mode": 0o440}]),
    );
    check("configs: [k]", "configs", json!([{"source": "k", "target": "/k"}]));
    check(
        "configs: [{source: k, target: /etc/k, mode: \"0400\"}]",
        "configs",
        json!([{"source": "k", "target": "/etc/k", "mode": 0o400}]),
    );
}

#[test]
fn dependencies_and_health() {
    let on = |service: &str, condition: &str| json!({"service": service, "condition": condition, "required": true, "restart": false});
    check("depends_on: [b, c]", "depends_on", json!([on("b", "service_started"), on("c", "service_started")]));
    check(
        "depends_on: {b: {condition: service_healthy, restart: true}}",
        "depends_on",
        json!([{"service": "b", "condition": "service_healthy", "required": true, "restart": true}]),
    );
    check(
        "depends_on: {b: {condition: service_completed_successfully}}",
        "depends_on",
        json!([on("b", "service_completed_successfully")]),
    );
    check("depends_on: {nobody: {condition: service_started, required: false}}", "depends_on", Value::Null);
    check("links: [b, \"c:db\"]", "links", json!([{"service": "b", "alias": "b"}, {"service": "c", "alias": "db"}]));
    check("links: [b]", "depends_on", json!([on("b", "service_started")]));
    check("network_mode: \"service:b\"", "depends_on", json!([on("b", "service_started")]));
    check(
        "depends_on: {b: {condition: service_healthy}}, links: [b]",
        "depends_on",
        json!([on("b", "service_healthy")]),
    );
    check(
        "healthcheck: {test: curl -f x || exit 1}",
        "healthcheck",
        json!({"test": ["CMD-SHELL", "curl -f x || exit 1"]}),
    );
    check(
        "healthcheck: {test: [CMD, a, b], interval: 90s, timeout: 10s, retries: 3, start_period: 40s, start_interval: 500ms}",
        "healthcheck",
        json!({"test": ["CMD", "a", "b"], "interval": "1m30s", "timeout": "10s", "retries": 3, "start_period": "40s", "start_interval": "500ms"}),
    );
    check("healthcheck: {disable: true}", "healthcheck", json!({"disabled": true}));
    check("healthcheck: {test: [NONE]}", "healthcheck", json!({"disabled": true}));
}

#[test]
fn networks() {
    check("networks: [n, m]", "networks", json!([{"network": "n"}, {"network": "m"}]));
    check("hostname: web", "networks", json!([{"network": "default"}]));
    check(
        "networks: {default: , n: {aliases: [db, sql], ipv4_address: 10.0.0.3, ipv6_address: \"fd::3\", priority: 5, gw_priority: 1}}",
        "networks",
        json!([
            {"network": "default"},
            {"network": "n", "aliases": ["db", "sql"], "ipv4": "10.0.0.3", "ipv6": "fd::3", "priority": 5, "gateway_priority": 1}
        ]),
    );
    check("network_mode: none", "network_mode", json!("none"));
    check("network_mode: none", "networks", Value::Null);
    check("network_mode: \"container:other\"", "network_mode", json!({"container": "other"}));
    check(
        "extra_hosts: [\"a=1.2.3.4\", \"b:1.2.3.5\", \"c=[::1]\", \"d:::1\", \"e=host-gateway\"]",
        "extra_hosts",
        json!([
            ["a", {"address": "1.2.3.4"}], ["b", {"address": "1.2.3.5"}], ["c", {"address": "::1"}], ["d", {"address": "::1"}], ["e", "host_gateway"]
        ]),
    );
    check(
        "extra_hosts: {a: 1.2.3.4, b: [1.1.1.1, \"::2\"]}",
        "extra_hosts",
        json!([
            ["a", {"address": "1.2.3.4"}], ["b", {"address": "1.1.1.1"}], ["b", {"address": "::2"}]
        ]),
    );
    check("dns: 8.8.8.8", "dns", json!(["8.8.8.8"]));
    check("dns: [8.8.8.8, \"::1\"]", "dns", json!(["8.8.8.8", "::1"]));
    check("dns_search: example.com", "dns_search", json!(["example.com"]));
    check("hostname: web.example", "hostname", json!("web.example"));
    check("domainname: example.com", "domainname", json!("example.com"));
}

#[test]
fn limits_and_rights() {
    check("mem_limit: 50M", "memory_limit_bytes", json!(50 << 20));
    check("mem_limit: 1.5g", "memory_limit_bytes", json!(3u64 << 29));
    check("mem_limit: 0", "memory_limit_bytes", Value::Null);
    check("mem_limit: 64m, deploy: {resources: {limits: {memory: 64M}}}", "memory_limit_bytes", json!(64 << 20));
    check("cpus: \"1.5\"", "cpus", json!(1.5));
    check("cpus: 0.000", "cpus", Value::Null);
    check("deploy: {resources: {limits: {cpus: \"0.5\", memory: 64M, pids: 10}}}", "cpus", json!(0.5));
    check("pids_limit: 10", "pids_limit", json!(10));
    check("pids_limit: -1", "pids_limit", Value::Null);
    check(
        "ulimits: {nofile: 1024, nproc: {soft: 10, hard: -1}, core: -1}",
        "ulimits",
        json!({
            "nofile": {"soft": 1024, "hard": 1024}, "nproc": {"soft": 10, "hard": null}, "core": {"soft": null, "hard": null}
        }),
    );
    check("cap_add: [net_admin, CAP_SYS_PTRACE]", "cap_add", json!(["NET_ADMIN", "SYS_PTRACE"]));
    check("cap_drop: [ALL]", "cap_drop", json!(["ALL"]));
    check("privileged: true", "privileged", json!(true));
    check("security_opt: [\"no-new-privileges:true\"]", "no_new_privileges", json!(true));
    check("security_opt: [\"no-new-privileges:True\"]", "no_new_privileges", json!(true));
    check("security_opt: [no-new-privileges=false]", "no_new_privileges", Value::Null);
    check("sysctls: [net.core.somaxconn=1024]", "sysctls", json!({"net.core.somaxconn": "1024"}));
    check("sysctls: {net.core.somaxconn: 1024}", "sysctls", json!({"net.core.somaxconn": "1024"}));
    check(
        "devices: [\"/dev/a:/dev/b:r\", /dev/c]",
        "devices",
        json!([
            {"source": "/dev/a", "target": "/dev/b", "permissions": "r"}, {"source": "/dev/c", "target": "/dev/c", "permissions": "rwm"}
        ]),
    );
}

#[test]
fn watch_rules() {
    check(
        "develop: {watch: [{action: sync, path: ./web, target: /src, ignore: [node_modules/], initial_sync: true}, {action: rebuild, path: package.json}]}",
        "watch",
        json!([
            {"path": "$DIR/web", "action": {"sync": {"target": "/src"}}, "ignore": ["node_modules/"], "initial_sync": true},
            {"path": "$DIR/package.json", "action": "rebuild"}
        ]),
    );
    check(
        "develop: {watch: [{action: sync+exec, path: ., target: /src, include: \"*.py\", exec: {command: [reload], user: root}}, {action: sync+restart, path: c, target: /c}, {action: restart, path: d}]}",
        "watch",
        json!([
            {"path": "$DIR", "action": {"sync_exec": {"target": "/src", "exec": {"command": ["reload"], "user": "root"}}}, "include": ["*.py"]},
            {"path": "$DIR/c", "action": {"sync_restart": {"target": "/c"}}},
            {"path": "$DIR/d", "action": "restart"}
        ]),
    );
}

#[test]
fn volumes_from_takes_the_mounts_of_another_service() {
    let case = Case::one(
        "services:\n  a: {image: x, volumes_from: [\"b:ro\", c], volumes: [\"./own:/own\"]}\n  \
         b: {image: y, volumes: [\"vol:/data\", \"./b:/own\"]}\n  c: {image: z, volumes_from: [b]}\nvolumes: {vol: }\n",
    );
    assert_eq!(
        case.value("mounts"),
        json!([
            {"source": {"bind": {"path": "$DIR/own", "create": true}}, "target": "/own", "read_only": false},
            {"source": {"volume": {"name": "vol", "subpath": null, "nocopy": false}}, "target": "/data", "read_only": true}
        ])
    );
}

#[test]
fn the_top_level() {
    let case = Case::one(
        "name: my-app\nversion: \"3\"\nx-mine: 1\nservices: {a: {image: x, networks: [n, e], secrets: [f, e], configs: [i]}}\n\
         networks:\n  n: {driver: bridge, internal: true, enable_ipv6: true, labels: [l=1], driver_opts: {o: 1}, ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1, ip_range: 10.0.0.0/28}]}}\n  \
         e: {external: true, name: outside}\n\
         volumes:\n  d:\n  v: {name: \"${V:-named}\", driver: local}\n  e: {external: true}\n  o: {external: {name: old}}\n\
         secrets:\n  f: {file: ./f}\n  e: {environment: TOKEN}\n\
         configs:\n  i: {content: \"a ${V:-b}\"}\n  x: {external: true}\n",
    );
    let mut json = case.json();
    super::forget_places(&mut json);
    assert_eq!(json["name"], "my-app");
    assert_eq!(
        json["networks"],
        json!({
            "n": {"name": "my-app_n", "driver": "bridge", "driver_opts": {"o": "1"}, "internal": true, "ipv6": true,
                  "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1", "ip_range": "10.0.0.0/28"}], "labels": {"l": "1"}},
            "e": {"name": "outside", "external": true}
        })
    );
    assert_eq!(
        json["volumes"],
        json!({
            "d": {"name": "my-app_d"}, "v": {"name": "named", "driver": "local"},
            "e": {"name": "e", "external": true}, "o": {"name": "old", "external": true}
        })
    );
    assert_eq!(
        json["secrets"],
        json!({
            "f": {"name": "my-app_f", "content": {"file": "$DIR/f"}}, "e": {"name": "my-app_e", "content": {"environment": "TOKEN"}}
        })
    );
    assert_eq!(
        json["configs"],
        json!({
            "i": {"name": "my-app_i", "content": {"inline": "a b"}}, "x": {"name": "x", "content": "external"}
        })
    );
}

#[test]
fn anchors_and_merge_keys() {
    let case = Case::one(
        "x-common: &common\n  environment: &env {A: 1, B: 2}\n  image: x\nservices:\n  a:\n    <<: *common\n    environment: {<<: *env, B: 3}\n",
    );
    assert_eq!(case.value("environment"), json!({"A": "1", "B": "3"}));
}
