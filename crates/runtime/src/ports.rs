//! What listens in a container's network, and connections into it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use crate::sys;

/// State `TCP_LISTEN` in the tables (include/net/tcp_states.h).
const LISTEN: &str = "0A";
/// The tables are made by the kernel for each open connection of the container; one that has more is not waited for.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Within one machine, whoever has not accepted by then does not listen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses on which something in the network of a process listens (proc(5), `/proc/net/tcp`).
pub(crate) fn listening(pid: i32) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = match std::fs::File::open(format!("/proc/{pid}/net/{table}")) {
            Ok(file) => io::read_to_string(io::Read::take(file, TABLE_BYTES_MAX))?,
            // Without IPv6 there is no second table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => continue,
            Err(error) => return Err(error),
        };
        found.extend(text.lines().skip(1).filter_map(listener));
    }
    Ok(found)
}

fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (address, port) = local.split_once(':')?;
    (state == LISTEN).then_some(())?;
    Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Each 32 bits of an address are one number in the machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words: Vec<u32> = hex
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [word] => Some(IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()))),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (slot, word) in bytes.chunks_mut(4).zip([a, b, c, d]) {
                slot.copy_from_slice(&word.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// Connects to an address in the network of a process. The socket stays there; the calling thread stays where it is.
pub(crate) fn connect(pid: i32, address: SocketAddr) -> io::Result<TcpStream> {
    let namespace = |of: &str| std::fs::read_link(Path::new("/proc").join(of).join("ns/net"));
    if namespace(&pid.to_string())? == namespace("self")? {
        return TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    }
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    // A network belongs to a thread, so one that does nothing else goes there, and ends.
    std::thread::scope(|scope| {
        let there = std::thread::Builder::new().name("connect".into()).spawn_scoped(scope, || {
            sys::setns(network.as_fd(), libc::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        })?;
        there.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_read() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000 0 12345 1")
        };
        for (local, state, expected) in [
            ("0100007F:1538", "0A", Some("127.0.0.1:5432")),
            ("00000000:0050", "0A", Some("0.0.0.0:80")),
            ("0100007F:1538", "01", None),
            ("00000000000000000000000000000000:1538", "0A", Some("[::]:5432")),
            ("00000000000000000000000001000000:1538", "0A", Some("[::1]:5432")),
            ("zz:1538", "0A", None),
            ("0100007F", "0A", None),
        ] {
            let found = listener(&line(local, state)).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{local} {state}");
        }
    }
}
