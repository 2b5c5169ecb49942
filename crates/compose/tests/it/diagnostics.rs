//! Mistakes and where they are shown; the table is the specification.

use crate::Case;

#[track_caller]
fn check(text: &str, expected: &str) {
    let case = Case::one(text).env(&[("SET", "value")]);
    assert_eq!(case.findings(), expected, "\n{text}");
}

/// `services: {a: {image: x, KEYS}}`; columns begin at 27.
#[track_caller]
fn a(keys: &str, expected: &str) {
    check(&format!("services: {{a: {{image: x, {keys}}}}}"), expected);
}

#[test]
fn keys() {
    check("sevices: {}", "ST302 1:1+7 a Compose file has no key `sevices` (did you mean `services`?)");
    a("prots: [80]", "ST302 1:26+5 a service has no key `prots` (did you mean `ports`?)");
    a("env: {A: 1}", "ST302 1:26+3 a service has no key `env` (did you mean `environment`?)");
    a("ready: {port: 80}", "ST302 1:26+5 a service has no key `ready`");
    a("build: {file: D}", "ST302 1:34+4 `build` has no key `file` (did you mean `dockerfile`?)");
    a("healthcheck: {tset: x}", "ST302 1:40+4 `healthcheck` has no key `tset` (did you mean `test`?)");
    a(
        "network_mode: \"container:x\"",
        "warning ST303 1:26+12 sharing the network of another container is not supported yet, so that this service cannot be started",
    );
    a("security_opt: [\"seccomp=unconfined\"]", "warning ST340 1:41+20 `seccomp=unconfined` has no effect here");
    a("pid: host", "warning ST340 1:26+3 `pid` has no effect here");
    a(
        "gpus: all, cpuset: 0-3",
        "warning ST340 1:26+4 `gpus` has no effect here\nwarning ST340 1:37+6 `cpuset` has no effect here",
    );
    a("build: {context: ., ssh: [default]}", "warning ST340 1:46+3 `ssh` has no effect here");
    a("deploy: {placement: {constraints: [a]}}", "warning ST340 1:35+9 `placement` has no effect here");
    check("models: {m: {model: x}}", "warning ST340 1:1+6 `models` has no effect here");
    check(
        "services: {a: {provider: {type: cloud}}}",
        "ST303 1:26+13 services of a `provider` are made by other programs, which Seatrial does not start",
    );
    check("services: {a: {image: x}}\nservices: {}", "ST304 2:1+8 `services` is given twice (first given in line 1)");
}

#[test]
fn types() {
    check("services: [a]", "ST305 1:11+3 expected a map from names to services, found a list");
    check("services: {a: x}", "ST305 1:15+1 expected a map with keys such as `image`, found a text");
    a("ports: 80", "ST305 1:33+2 expected a list of ports, found a number");
    a("init: maybe", "ST305 1:32+5 expected `true` or `false`, found a text");
    a("command: {a: b}", "ST305 1:35+6 expected a command: a text or a list, found a map");
    a("cpus: many", "ST305 1:32+4 expected a number of processors, such as 1.5, found a text");
    a("environment: x", "ST305 1:39+1 expected a map, or a list of `NAME=value`, found a text");
    a("volumes: {a: /b}", "ST305 1:35+7 expected a list of volumes, found a map");
    check("include: x.yaml", "ST305 1:10+6 expected a list of files, found a text");
    check("- a", "ST305 1:1+3 expected a map with keys such as `services`, found a list");
}

#[test]
fn values() {
    a("ports: [\"99999:80\"]", "ST306 1:34+10 99999 is not a port: there are 1 to 65535");
    a("ports: [0]", "ST306 1:34+1 0 is not a port: there are 1 to 65535");
    a(
        "ports: [\"x:80\"]",
        "ST306 1:34+6 `x` is not a port (write it like `8080:80`, `127.0.0.1:8080:80/udp` or `3000-3005`)",
    );
    a("ports: [\"1-3:5-6\"]", "ST306 1:34+9 3 ports of the host do not fit 2 of the container");
    a("ports: [\"5:1-2\"]", "ST306 1:34+7 1 ports of the host do not fit 2 of the container");
    a("ports: [\"3-1\"]", "ST306 1:34+5 the range `3-1` runs backwards");
    a("ports: [\"80/sctp\"]", "ST306 1:34+9 `sctp` is not a protocol; there are `tcp` and `udp`");
    a("ports: [\"1.2.3:80:80\"]", "ST306 1:34+13 `1.2.3` is not an IP address");
    a("ports: [{published: 80}]", "ST307 1:34+15 a port needs `target`");
    a(
        "expose: [80-x]",
        "ST306 1:35+4 `80-x` is not a port (write it like `8080:80`, `127.0.0.1:8080:80/udp` or `3000-3005`)",
    );
    a("mem_limit: lots", "ST306 1:37+4 `lots` is not a size (write it like `64m` or `1.5g`)");
    a("mem_limit: 1m", "ST306 1:37+2 a container needs 6 MiB at least");
    a("stop_grace_period: 3", "ST306 1:45+1 `3` has no unit (write `3s` for seconds)");
    a(
        "restart: alway",
        "ST306 1:35+5 `alway` is not a restart policy; there are `no`, `always`, `on-failure[:ATTEMPTS]` and `unless-stopped` (did you mean `always`?)",
    );
    a(
        "pull_policy: alwys",
        "ST306 1:39+5 `alwys` is not a pull policy; there are `always`, `never`, `missing`, `build`, `daily`, `weekly` and `every_12h` (did you mean `always`?)",
    );
    a("stop_signal: SIGTREM", "ST306 1:39+7 `SIGTREM` is not a signal (did you mean `SIGTERM`?)");
    a("cap_add: [NET_ADMN]", "ST306 1:36+8 `NET_ADMN` is not a capability (did you mean `NET_ADMIN`?)");
    a("ulimits: {nofiles: 1}", "ST306 1:36+7 `nofiles` is not the name of a limit (did you mean `nofile`?)");
    a("ulimits: {nofile: {soft: 1}}", "ST307 1:44+9 this limit needs `soft` and `hard`");
    a("ulimits: {nofile: {soft: 2, hard: 1}}", "ST306 1:44+18 the soft limit is above the hard one");
    a("healthcheck: {test: [curl, x]}", "ST306 1:46+9 the list has to begin with `CMD`, `CMD-SHELL` or `NONE`");
    a(
        "healthcheck: {interval: soon}",
        "ST306 1:50+4 `soon` is not a duration (write it like `2s`, `1m30s` or `500ms`)",
    );
    a("volumes: [\"./a:b\"]", "ST306 1:36+7 `b` is not an absolute path");
    a("volumes: [\"./a:ro\"]", "ST306 1:36+8 `ro` is not an absolute path (the target is missing)");
    a("volumes: [\"./a:/b:or\"]", "ST306 1:36+11 `or` is not an option; there are `ro`, `rw` and `nocopy`");
    a(
        "volumes: [{type: bnid, source: a, target: /b}]",
        "ST306 1:43+4 `bnid` is not a type of volume; there are `bind`, `volume`, `tmpfs`, `image` (did you mean `bind`?)",
    );
    a("volumes: [{type: bind, target: /b}]", "ST307 1:36+24 this type of volume needs `source`");
    a("tmpfs: run", "ST306 1:33+3 `run` is not an absolute path");
    a(
        "network_mode: hots",
        "ST306 1:40+4 `hots` is not a network mode; there are `none`, `host`, `bridge`, `service:NAME` and `container:NAME` (did you mean `host`?)",
    );
    a("extra_hosts: [a]", "ST306 1:40+1 expected `name=address`");
    a("extra_hosts: [\"a=b\"]", "ST306 1:40+5 `b` is neither an IP address nor `host-gateway`");
    a("dns: one", "warning ST340 1:26+3 `dns` has no effect here\nST306 1:31+3 `one` is not an IP address");
    a("hostname: -a", "ST306 1:36+2 `-a` is not a host name");
    a("command: \"a '\"", "ST306 1:35+5 a quote is not closed");
    a("command: a && b", "warning ST348 1:35+6 the command ends before `&`: no shell reads it");
    a(
        "container_name: q",
        "ST306 1:42+1 `q` is not the name of a container (two or more letters, digits, `_`, `.` and `-`)",
    );
    a(
        "profiles: [\"-\"]",
        "ST306 1:37+3 `-` is not the name of a profile (two or more letters, digits, `_`, `.` and `-`)",
    );
    a(
        "platform: linux/",
        "ST306 1:36+6 `linux/` is not a platform (expected `os/architecture[/variant]`, such as `linux/arm64`)",
    );
    a(
        "develop: {watch: [{path: ., action: snyc}]}",
        "ST306 1:62+4 `snyc` is not an action; there are `rebuild`, `restart`, `sync`, `sync+restart`, `sync+exec` (did you mean `sync`?)",
    );
    a("develop: {watch: [{path: ., action: sync}]}", "ST307 1:62+4 this action needs `target`");
    a("pre_start: [{user: a}]", "ST307 1:38+9 this step needs `command`");
    a("secrets: [{target: a}]", "ST307 1:36+11 this entry needs `source`");
    check(
        "services: {a: {image: UPPER}}",
        "ST306 1:23+5 `UPPER` is not an image reference: repository names are lower-case",
    );
    check(
        "services: {\"a b\": {image: x}}",
        "ST306 1:12+5 `a b` is not a name: there may be letters, digits, `-`, `_` and `.`",
    );
    check("name: A_B\nservices: {a: {image: x}}", "ST306 1:7+3 `A_B` is not the name of a project");
    check(
        "networks: {n: {ipam: {config: [{subnet: 10.0.0.0/33}]}}}",
        "ST306 1:41+11 `10.0.0.0/33` is not an address range (write it like `172.16.238.0/24`)",
    );
}

#[test]
fn contradictions() {
    check("services: {a: {}}", "ST346 1:12+1 service `a` needs `image` or `build`");
    check("services: {a: }", "ST346 1:12+1 service `a` needs `image` or `build`");
    a(
        "network_mode: none, networks: [n]",
        "ST345 1:56+3 `network_mode` and `networks` exclude each other\nST344 1:57+1 network `n` is not defined",
    );
    a(
        "network_mode: host, ports: [80]",
        "warning ST303 1:26+12 the host's network is not given to services, so that this service cannot be started\nST345 1:53+4 with `network_mode: host` there is nothing to publish",
    );
    a(
        "mem_limit: 8m, deploy: {resources: {limits: {memory: 9m}}}",
        "ST345 1:79+2 `mem_limit` and `deploy.resources.limits.memory` have different values",
    );
    a("scale: 2, deploy: {replicas: 3}", "ST345 1:55+1 `scale` and `deploy.replicas` have different values");
    a("scale: 2, container_name: abc", "ST345 1:52+3 several containers cannot have one `container_name`");
    a(
        "build: {dockerfile: a, dockerfile_inline: b}",
        "ST345 1:68+1 `dockerfile` and `dockerfile_inline` exclude each other",
    );
    check("volumes: {v: {external: true, driver: x}}", "ST345 1:39+1 `driver` and `external` exclude each other");
    check("secrets: {v: {}}", "ST307 1:11+1 a secret needs one of `file`, `environment`, `external`");
    check("configs: {v: {file: a, content: b}}", "ST345 1:33+1 a config has one content only");
    check(
        "services: {a: {image: x, container_name: abc}, b: {image: x, container_name: abc}}",
        "ST345 1:78+3 service `a` has the same `container_name`",
    );
}

#[test]
fn kernel_parameters_of_the_host() {
    a(
        "sysctls: {vm.swappiness: 1}",
        "ST306 1:36+13 `vm.swappiness` is a parameter of the whole host, not of a container",
    );
    a(
        "sysctls: [kernel.shmax=1]",
        "ST306 1:36+14 `kernel.shmax` is a parameter of the whole host, not of a container (did you mean `kernel.shmmax`?)",
    );
    a(
        "network_mode: host, sysctls: {net.core.somaxconn: 7, kernel.sem: 1 2 3 4}",
        "warning ST303 1:26+12 the host's network is not given to services, so that this service cannot be started\n\
         ST345 1:56+18 `net.core.somaxconn` is the host's with `network_mode: host`",
    );
}

#[test]
fn fixed_addresses() {
    let with = |address: &str, network: &str, expected: &str| {
        let service = format!("services: {{a: {{image: x, networks: {{n: {{ipv4_address: {address}}}}}}}}}\n");
        check(&format!("{service}networks: {{n: {{{network}}}}}"), expected);
    };
    let range = "ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.254}]}";
    with("10.9.0.7", range, "");
    with("10.9.1.7", range, "ST345 1:55+8 10.9.1.7 does not lie in 10.9.0.0/24, the range of network `n`");
    with("10.9.0.254", range, "ST345 1:55+10 10.9.0.254 is the gateway of network `n`");
    with("10.9.0.7", "", "ST345 1:55+8 network `n` has no range of addresses that 10.9.0.7 could lie in");
    check(
        "networks: {n: {ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: 2001:db8::/64}]}}}",
        "warning ST340 1:55+23 this range has no effect here: a network has one of IPv4 addresses",
    );
}

#[test]
fn policies_that_do_nothing() {
    let warned = |what: &str| format!("warning ST340 1:26+11 {what}");
    a("pull_policy: daily", &warned("this period has no effect here: the image is pulled when it is missing"));
    a("pull_policy: build", &warned("`build` has no effect here: there is no `build` that says how"));
    a("pull_policy: always, build: .", &warned("`always` has no effect here: the image is built"));
    a("pull_policy: never, build: .", "");
}

#[test]
fn names_that_are_not_there() {
    check(
        "services: {web: {image: x, depends_on: [bd]}, db: {image: y}}",
        "ST342 1:41+2 service `bd` does not exist (did you mean `db`?)",
    );
    a("depends_on: {b: {condition: service_startd}}", "ST306 1:54+14 `service_startd` is not a condition; there are `service_started`, `service_healthy`, `service_completed_successfully` (did you mean `service_started`?)\nST342 1:39+1 service `b` does not exist".lines().rev().collect::<Vec<_>>().join("\n").as_str());
    a("links: [\"z:q\"]", "ST342 1:34+5 service `z` does not exist");
    a(
        "network_mode: \"service:q\"",
        "warning ST303 1:26+12 sharing the network of another container is not supported yet, so that this service cannot be started\nST342 1:40+11 service `q` does not exist",
    );
    a("networks: [front]", "ST344 1:37+5 network `front` is not defined");
    check(
        "services: {a: {image: x, networks: {frnt: }}}\nnetworks: {front: }",
        "ST344 1:37+4 network `frnt` is not defined (did you mean `front`?)",
    );
    a("volumes: [\"data:/d\"]", "ST344 1:36+9 volume `data` is not defined");
    a("volumes: [{type: volume, source: data, target: /d}]", "ST344 1:36+40 volume `data` is not defined");
    a("secrets: [s]", "ST344 1:36+1 secret `s` is not defined");
    a("configs: [{source: s}]", "ST344 1:36+11 config `s` is not defined");
    a("env_file: nope.env", "ST310 1:36+8 `nope.env` does not exist");
    a("env_file: [{path: nope.env, required: false}]", "");
    a("extends: {file: nope.yaml, service: b}", "ST310 1:42+9 `nope.yaml` does not exist");
}

#[test]
fn cycles() {
    a("depends_on: [a]", "ST343 1:39+1 service `a` waits for itself: a → a");
    check(
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, links: [c]}\n  c: {image: x, depends_on: {a: }}\n",
        "ST343 4:30+1 service `a` waits for itself: a → b → c → a",
    );
    a("extends: a", "ST343 1:35+1 service `a` extends itself");
    check(
        "services:\n  a: {image: x, extends: b}\n  b: {extends: {service: a}}\n",
        "ST343 2:26+1 service `a` extends itself\nST343 3:16+12 service `b` extends itself",
    );
}

#[test]
fn profiles() {
    let text = "services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [dbg]}}";
    check(text, "ST342 1:39+1 service `b` belongs to the profile `dbg`, which is not active");
    assert_eq!(Case::one(text).profiles(&["dbg"]).findings(), "");
    check("services: {a: {image: x, profiles: [dbg], depends_on: [nobody]}}", "");
}

#[test]
fn templates() {
    a("user: \"${UNSET}\"", "warning ST313 1:32+10 `UNSET` is not set: nothing stands for it");
    a("user: \"${UNSET:?say who}\"", "ST313 1:32+19 `${UNSET}` has no value: say who");
    // Nothing is known of what it would have been.
    a("environment: [\"A=${UNSET:?say who}\"]", "ST313 1:40+21 `${UNSET}` has no value: say who");
    a("user: \"${UNSET?say $SET}\"", "ST313 1:32+19 `${UNSET}` has no value: say value");
    a("user: \"${SET\"", "ST312 1:32+7 `${` has no `}`");
    a("user: \"a $ b\"", "ST312 1:32+7 a `$` alone means nothing; write `$$` for a dollar sign");
    a("user: \"${a.b}\"", "ST312 1:32+8 `a.b` is not the name of a variable");
    a("user: \"$$HOME\"", "");
    check("x-a: \"${\"\nservices: {a: {image: x}}", "");
}

#[test]
fn yaml() {
    a("user: !secret x", "ST300 1:40+1 the tag `!secret` means nothing here");
    assert!(Case::one("services: {a: [").findings().starts_with("ST300 1:"));
    assert!(Case::one("a: 1\n---\nb: 2").findings().starts_with("ST300 2:1"));
}
