//! Every key that Compose's schema has: it arrives in the project, or is told to do nothing, at its place.
//!
//! The lists follow `schema/compose-spec.json` of the Compose specification.

use serde_json::Value;

use crate::Case;

/// What Seatrial makes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Its value is in the project, and nothing is said.
    Read,
    /// A warning that points at it.
    Warned,
    /// An error that points at it.
    Refused,
}
use Fate::{Read, Refused, Warned};

/// A key, a value for it, and what becomes of it.
type Key = (&'static str, &'static str, Fate);

/// Keys of `services.NAME`.
const SERVICE: &[Key] = &[
    ("annotations", "{a: b}", Read),
    ("attach", "false", Read),
    ("blkio_config", "{weight: 300}", Warned),
    ("build", ".", Read),
    ("cap_add", "[NET_ADMIN]", Read),
    ("cap_drop", "[ALL]", Read),
    ("cgroup", "host", Warned),
    ("cgroup_parent", "m", Warned),
    ("command", "[x]", Read),
    ("configs", "[c]", Read),
    ("container_name", "name", Read),
    ("cpu_count", "2", Warned),
    ("cpu_percent", "50", Warned),
    ("cpu_period", "10ms", Warned),
    ("cpu_quota", "5ms", Warned),
    ("cpu_rt_period", "400ms", Warned),
    ("cpu_rt_runtime", "95ms", Warned),
    ("cpu_shares", "73", Warned),
    ("cpus", "0.5", Read),
    ("cpuset", "0-1", Warned),
    ("credential_spec", "{file: x}", Warned),
    ("depends_on", "[b]", Read),
    ("deploy", "{replicas: 2}", Read),
    ("develop", "{watch: [{path: ., action: rebuild}]}", Read),
    ("device_cgroup_rules", "[\"c 1:3 mr\"]", Warned),
    ("devices", "[/dev/fuse]", Read),
    ("dns", "1.1.1.1", Warned),
    ("dns_opt", "[use-vc]", Warned),
    ("dns_search", "example", Warned),
    ("domainname", "example", Warned),
    ("entrypoint", "[x]", Read),
    ("env_file", "env", Read),
    ("environment", "{A: b}", Read),
    ("expose", "[80]", Read),
    ("extends", "b", Read),
    ("external_links", "[x]", Warned),
    ("extra_hosts", "[\"h=1.2.3.4\"]", Read),
    ("gpus", "all", Warned),
    ("group_add", "[mail]", Warned),
    ("healthcheck", "{test: \"true\"}", Read),
    ("hostname", "h", Read),
    ("image", "y", Read),
    ("init", "true", Read),
    ("ipc", "host", Warned),
    ("isolation", "default", Warned),
    ("label_file", "env", Read),
    ("labels", "{a: b}", Read),
    ("links", "[b]", Read),
    ("logging", "{driver: none}", Warned),
    ("mac_address", "\"02:42:ac:11:65:43\"", Warned),
    ("mem_limit", "64m", Read),
    ("mem_reservation", "64m", Warned),
    ("mem_swappiness", "10", Warned),
    ("memswap_limit", "64m", Warned),
    ("models", "[m]", Warned),
    ("network_mode", "none", Read),
    ("networks", "[n]", Read),
    ("oom_kill_disable", "true", Warned),
    ("oom_score_adj", "5", Warned),
    ("pid", "host", Warned),
    ("pids_limit", "10", Read),
    ("platform", "linux/arm64", Read),
    ("ports", "[80]", Read),
    ("post_start", "[{command: x}]", Warned),
    ("pre_start", "[{command: x}]", Read),
    ("pre_stop", "[{command: x}]", Warned),
    ("privileged", "true", Warned),
    ("profiles", "[pp]", Read),
    ("provider", "{type: x}", Refused),
    ("pull_policy", "never", Read),
    ("pull_refresh_after", "1h", Warned),
    ("read_only", "true", Read),
    ("restart", "always", Read),
    ("runtime", "runc", Warned),
    ("scale", "2", Read),
    ("secrets", "[s]", Read),
    ("security_opt", "[\"no-new-privileges:true\"]", Read),
    ("shm_size", "1m", Read),
    ("stdin_open", "true", Warned),
    ("stop_grace_period", "3s", Read),
    ("stop_signal", "SIGINT", Read),
    ("storage_opt", "{size: 1G}", Warned),
    ("sysctls", "{net.core.somaxconn: 77}", Read),
    ("tmpfs", "/run", Read),
    ("tty", "true", Warned),
    ("ulimits", "{nofile: 10}", Read),
    ("use_api_socket", "true", Warned),
    ("user", "me", Read),
    ("userns_mode", "host", Warned),
    ("uts", "host", Warned),
    ("volumes", "[\"v:/v\"]", Read),
    ("volumes_from", "[b]", Read),
    ("working_dir", "/w", Read),
];

/// Keys of maps below a service; the key under test stands at `@`.
const BELOW: &[(&str, &str, &[Key])] = &[
    (
        "build: {context: ., @}",
        "",
        &[
            ("additional_contexts", "{o: .}", Read),
            ("args", "{A: b}", Read),
            ("cache_from", "[x]", Warned),
            ("cache_to", "[x]", Warned),
            ("dockerfile", "D", Read),
            ("dockerfile_inline", "FROM x", Read),
            ("entitlements", "[network.host]", Warned),
            ("extra_hosts", "[\"h=1.2.3.4\"]", Read),
            ("isolation", "default", Warned),
            ("labels", "{a: b}", Read),
            ("network", "none", Read),
            ("no_cache", "true", Read),
            ("no_cache_filter", "[x]", Warned),
            ("platforms", "[linux/amd64, linux/arm64]", Warned),
            ("privileged", "true", Warned),
            ("provenance", "true", Warned),
            ("pull", "true", Read),
            ("sbom", "true", Warned),
            ("secrets", "[s]", Read),
            ("shm_size", "1m", Warned),
            ("ssh", "[default]", Warned),
            ("tags", "[t]", Warned),
            ("target", "t", Read),
            ("ulimits", "{nofile: 10}", Warned),
        ],
    ),
    (
        "deploy: {@}",
        "",
        &[
            ("endpoint_mode", "vip", Warned),
            ("labels", "{a: b}", Warned),
            ("mode", "global", Warned),
            ("placement", "{constraints: [x]}", Warned),
            ("replicas", "2", Read),
            ("resources", "{limits: {memory: 64m}}", Read),
            ("restart_policy", "{condition: any}", Read),
            ("rollback_config", "{parallelism: 1}", Warned),
            ("update_config", "{parallelism: 1}", Warned),
        ],
    ),
    ("deploy: {resources: {@}}", "", &[("limits", "{cpus: 1}", Read), ("reservations", "{cpus: 1}", Warned)]),
    (
        "deploy: {restart_policy: {@}}",
        "",
        &[
            ("condition", "on-failure", Read),
            ("delay", "1s", Warned),
            ("max_attempts", "3", Read),
            ("window", "1s", Warned),
        ],
    ),
    (
        "networks: {n: {@}}",
        "",
        &[
            ("aliases", "[x]", Read),
            ("driver_opts", "{a: b}", Warned),
            ("gw_priority", "1", Read),
            ("interface_name", "eth9", Warned),
            ("ipv4_address", "172.16.238.9", Read),
            ("ipv6_address", "\"2001:db8::9\"", Warned),
            ("link_local_ips", "[169.254.1.1]", Warned),
            ("mac_address", "\"02:42:ac:11:65:43\"", Warned),
            ("priority", "1", Read),
        ],
    ),
    (
        "healthcheck: {test: x, @}",
        "",
        &[
            ("disable", "true", Read),
            ("interval", "1s", Read),
            ("retries", "2", Read),
            ("start_interval", "1s", Read),
            ("start_period", "1s", Read),
            ("timeout", "1s", Read),
        ],
    ),
    (
        "volumes: [{type: bind, source: ., target: /t, bind: {@}}]",
        "",
        &[
            ("create_host_path", "true", Read),
            ("propagation", "shared", Warned),
            ("recursive", "disabled", Warned),
            ("selinux", "z", Warned),
        ],
    ),
    (
        "volumes: [{type: volume, source: v, target: /t, volume: {@}}]",
        "",
        &[("labels", "{a: b}", Warned), ("nocopy", "true", Warned), ("subpath", "x", Read)],
    ),
    ("volumes: [{type: tmpfs, target: /t, tmpfs: {@}}]", "", &[("mode", "0700", Read), ("size", "1m", Read)]),
    (
        "networks: [m]",
        "networks: {m: {@}}",
        &[
            ("attachable", "true", Warned),
            ("driver", "overlay", Warned),
            ("driver_opts", "{a: b}", Warned),
            ("enable_ipv4", "true", Warned),
            ("enable_ipv6", "true", Warned),
            ("external", "true", Warned),
            ("internal", "true", Read),
            ("ipam", "{config: [{subnet: 10.9.0.0/24}]}", Read),
            ("labels", "{a: b}", Read),
            ("name", "other", Read),
        ],
    ),
    (
        "networks: [m]",
        "networks: {m: {ipam: {@}}}",
        &[("config", "[{subnet: 10.9.0.0/24}]", Read), ("driver", "x", Warned), ("options", "{a: b}", Warned)],
    ),
    (
        "volumes: [\"w:/w\"]",
        "volumes: {w: {@}}",
        &[
            ("driver", "nfs", Warned),
            ("driver_opts", "{type: nfs}", Warned),
            ("external", "true", Read),
            ("labels", "{a: b}", Read),
            ("name", "other", Read),
        ],
    ),
];

/// A project whose service `a` has these keys, and what goes with it. `sections` may add to those of the top level.
fn project(keys: &str, sections: &str) -> String {
    let own = sections.split_once(':').map(|(section, _)| section);
    let rest =
        [("networks", "networks: {n: {ipam: {config: [{subnet: 172.16.238.0/24}]}}}"), ("volumes", "volumes: {v: {}}")];
    let rest: Vec<&str> = rest.iter().filter(|(section, _)| own != Some(*section)).map(|(_, text)| *text).collect();
    format!(
        "services:\n  a: {{{keys}}}\n  b: {{image: x, user: u, volumes: [\"/opt:/b\"]}}\nconfigs: {{c: {{content: x}}}}\n\
         secrets: {{s: {{environment: S}}}}\n{}\n{sections}\n",
        rest.join("\n")
    )
}

#[track_caller]
fn check(key: &str, fate: Fate, with: &str, without: &str) {
    let load = |text: &str| Case::new(&[("compose.yaml", text), ("env", "E=f\n")]).profiles(&["pp"]);
    let findings = load(with).findings();
    let found = with.find(&format!("{key}:")).expect("the key stands in the file");
    let (line, column) = dockerfile::line_column(with, found);
    let place = format!(" {line}:{column}+{}", key.len());
    match fate {
        Read => {
            assert_eq!(findings, "", "{key}\n{with}");
            let value = |text: &str| -> Value {
                let mut value = load(text).json();
                crate::forget_places(&mut value);
                value
            };
            assert_ne!(value(with), value(without), "`{key}` changes nothing, and nothing is said\n{with}");
        }
        Warned => assert!(
            findings.lines().any(|line| line.starts_with("warning ST3") && line.contains(&place)),
            "`{key}` is not warned of at{place}: {findings}\n{with}"
        ),
        // At its value.
        Refused => assert!(findings.contains(&format!("ST303 {line}:")), "{findings}"),
    }
}

#[test]
fn every_key_of_a_service_is_read_or_warned_of() {
    for (key, value, fate) in SERVICE {
        let image = if *key == "image" { "" } else { "image: x, " };
        check(key, *fate, &project(&format!("{image}{key}: {value}"), ""), &project("image: x", ""));
    }
}

#[test]
fn every_key_below_is_read_or_warned_of() {
    for (service, sections, keys) in BELOW {
        for (key, value, fate) in *keys {
            let text = |entry: &str| {
                project(&format!("image: x, {}", service.replace('@', entry)), &sections.replace('@', entry))
            };
            check(key, *fate, &text(&format!("{key}: {value}")), &text(""));
        }
    }
}
