//! Which process has a port of the host.

use std::fs;

use super::Transport;

/// Its name and number; `None` when it is not ours to see.
pub(super) fn of(port: u16, transport: Transport) -> Option<String> {
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| inodes_of(&fs::read_to_string(table).unwrap_or_default(), port, transport))
        .collect();
    let holds = |pid: &str| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| inodes.iter().any(|inode| link.as_os_str() == format!("socket:[{inode}]").as_str()))
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pid = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).find(|pid| holds(pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

/// Sockets that listen on the port, from a table of proc(5).
fn inodes_of(table: &str, port: u16, transport: Transport) -> Vec<String> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let is_it = u16::from_str_radix(local.rsplit_once(':')?.1, 16) == Ok(port);
        (is_it && (transport == Transport::Udp || state == LISTEN)).then(|| inode.to_owned())
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = of(listener.local_addr().unwrap().port(), Transport::Tcp).unwrap();
        assert!(found.contains(&format!("process {}", std::process::id())), "{found}");
    }
}
