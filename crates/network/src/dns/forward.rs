//! Questions for others, passed on as they are to the host's name servers, from the host's own network.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::{Book, PACKET_MAX, PORT};

/// As resolv.conf(5) has it: a name server that has not answered after this is passed over.
const PATIENCE: Duration = Duration::from_secs(5);
/// As resolv.conf(5) has it: no more are looked at (`MAXNS`).
const RESOLVERS_MAX: usize = 3;

/// The host's name servers now; they change when a laptop moves.
fn host_resolvers() -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(RESOLVERS_MAX)
        .collect()
}

/// The `search` line of the host's resolv.conf, for containers' own: names without dots are completed as on the host.
pub(crate) fn host_search() -> String {
    search(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// As resolv.conf(5) has it: the last `search` or `domain` counts.
fn search(text: &str) -> String {
    let domains = |line: &str| {
        let mut words = line.split_whitespace();
        let is_search = matches!(words.next(), Some("search" | "domain"));
        // The root alone completes nothing.
        let legal =
            |word: &&str| *word != "." && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        is_search.then(|| words.filter(legal).collect::<Vec<_>>().join(" "))
    };
    match text.lines().filter_map(domains).next_back() {
        Some(domains) if !domains.is_empty() => format!("search {domains}\n"),
        _ => String::new(),
    }
}

fn resolvers(book: &Book) -> Vec<SocketAddr> {
    book.resolvers.clone().unwrap_or_else(host_resolvers)
}

pub(super) fn by_packet(question: &[u8], book: &Book) -> Option<Vec<u8>> {
    resolvers(book).into_iter().find_map(|resolver| packet_of(resolver, question).ok())
}

fn packet_of(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(resolver)?;
    socket.send(question)?;
    let end = Instant::now() + PATIENCE;
    let mut answer = vec![0; PACKET_MAX];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut answer)?;
        // The same number: an answer to this question.
        if answer[..length].get(0..2) == question.get(0..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

pub(super) fn by_connection(question: &[u8], book: &Book) -> Option<Vec<u8>> {
    let ask = |resolver: SocketAddr| {
        let mut connection = TcpStream::connect_timeout(&resolver, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        send(&mut connection, question)?;
        receive(&mut connection)
    };
    resolvers(book).into_iter().find_map(|resolver| ask(resolver).ok())
}

/// A message after its length (RFC 1035, 4.2.2).
pub(super) fn receive(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut message)?;
    Ok(message)
}

pub(super) fn send(connection: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    connection.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_the_host_are_read() {
        let text =
            "# nameserver 9.9.9.9\nsearch a b\n nameserver\t192.0.2.1 # x\nnameserver ::1\nnameserver fe80::1%eth0\n";
        assert_eq!(parse(text), ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    #[test]
    fn the_last_search_list_of_the_host_counts() {
        assert_eq!(search("domain a.example\nsearch b.example ${x} c\nnameserver 1.1.1.1\n"), "search b.example c\n");
        for none in ["", "search .\n", "nameserver 1.1.1.1\n", "search a\nsearch\n"] {
            assert_eq!(search(none), "", "{none}");
        }
    }
}
