//! Docker's link variables, by which images of that time find their neighbours.
//!
//! Source: moby, `daemon/links/links.go`; docker documentation, "Legacy container links".

use std::net::IpAddr;

use compose::{ExposedPort, Protocol};

/// A container that others are linked to.
#[derive(Clone, Debug)]
pub struct LinkTarget {
    /// Where it is reached.
    pub address: IpAddr,
    /// Its exposed ports, in any order.
    pub ports: Vec<ExposedPort>,
    /// Its environment.
    pub env: Vec<(String, String)>,
}

/// The variables that tell the container `parent` of a linked one under `alias`.
pub fn links(parent: &str, alias: &str, target: &LinkTarget) -> Vec<(String, String)> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports = target.ports.clone();
    // TCP comes first; the lowest of it is the port that stands for the container.
    ports.sort_by_key(|port| (port.protocol, port.port));
    ports.dedup();
    let url = |port: &ExposedPort| match target.address {
        IpAddr::V4(address) => format!("{}://{address}:{}", word(port.protocol), port.port),
        IpAddr::V6(address) => format!("{}://[{address}]:{}", word(port.protocol), port.port),
    };
    let name = |port: &ExposedPort, rest: &str| {
        format!("{prefix}_PORT_{}_{}{rest}", port.port, word(port.protocol).to_uppercase())
    };
    let mut env = Vec::new();
    env.extend(ports.first().map(|port| (format!("{prefix}_PORT"), url(port))));
    for port in &ports {
        env.push((name(port, ""), url(port)));
        env.push((name(port, "_ADDR"), target.address.to_string()));
        env.push((name(port, "_PORT"), port.port.to_string()));
        env.push((name(port, "_PROTO"), word(port.protocol).to_owned()));
    }
    let follows = |a: &ExposedPort, b: &ExposedPort| a.protocol == b.protocol && a.port.checked_add(1) == Some(b.port);
    for range in ports.chunk_by(follows).filter(|range| range.len() > 1) {
        let (first, last) = (&range[0], &range[range.len() - 1]);
        env.push((name(first, "_START"), url(first)));
        env.push((name(first, "_PORT_START"), first.port.to_string()));
        env.push((name(first, "_END"), url(last)));
        env.push((name(first, "_PORT_END"), last.port.to_string()));
    }
    env.push((format!("{prefix}_NAME"), format!("/{parent}/{alias}")));
    // Docker leaves these two out: they speak of the other image's own files.
    let told = target.env.iter().filter(|(name, _)| name != "HOME" && name != "PATH");
    env.extend(told.map(|(name, value)| (format!("{prefix}_ENV_{name}"), value.clone())));
    env
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(alias: &str, ports: &[(u16, Protocol)], env: &[(&str, &str)]) -> String {
        let target = LinkTarget {
            address: IpAddr::from([172, 17, 0, 5]),
            ports: ports.iter().map(|(port, protocol)| ExposedPort { port: *port, protocol: *protocol }).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let lines: Vec<String> =
            links("web2", alias, &target).into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        lines.concat()
    }

    /// The example of docker's documentation.
    #[test]
    fn a_database_is_told_as_docker_tells_it() {
        assert_eq!(
            told("db", &[(5432, Protocol::Tcp)], &[("POSTGRES_DB", "app"), ("PATH", "/bin"), ("HOME", "/root")]),
            "DB_PORT=tcp://172.17.0.5:5432\n\
             DB_PORT_5432_TCP=tcp://172.17.0.5:5432\n\
             DB_PORT_5432_TCP_ADDR=172.17.0.5\n\
             DB_PORT_5432_TCP_PORT=5432\n\
             DB_PORT_5432_TCP_PROTO=tcp\n\
             DB_NAME=/web2/db\n\
             DB_ENV_POSTGRES_DB=app\n"
        );
    }

    /// moby, `TestLinkPortRangeEnv`.
    #[test]
    fn ranges_are_told_by_their_ends() {
        let text = told("my-db", &[(6381, Protocol::Tcp), (6379, Protocol::Tcp), (6380, Protocol::Tcp)], &[]);
        for line in [
            "MY_DB_PORT=tcp://172.17.0.5:6379",
            "MY_DB_PORT_6379_TCP_START=tcp://172.17.0.5:6379",
            "MY_DB_PORT_6379_TCP_PORT_START=6379",
            "MY_DB_PORT_6379_TCP_END=tcp://172.17.0.5:6381",
            "MY_DB_PORT_6379_TCP_PORT_END=6381",
            "MY_DB_PORT_6381_TCP_ADDR=172.17.0.5",
            "MY_DB_NAME=/web2/my-db",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn tcp_stands_for_the_container() {
        let text = told("dns", &[(53, Protocol::Udp), (8053, Protocol::Tcp)], &[]);
        assert!(text.starts_with("DNS_PORT=tcp://172.17.0.5:8053\n"), "{text}");
        assert!(text.contains("DNS_PORT_53_UDP_PROTO=udp\n"), "{text}");
        assert_eq!(told("quiet", &[], &[]), "QUIET_NAME=/web2/quiet\n");
    }
}
