//! pasta or slirp4netns: a program that takes packets from the namespace and makes the host's ordinary connections of them.
//! No rights on the host are needed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    net::Ipv4Addr,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{DEVICE, Holder, INSTALL, NoWayOut, Uplink, WayOut, find_program, host_address, surroundings};
use crate::{inside, link, netlink::Socket, networks::Options, stop::Stop, subnet::Subnet};

/// A running program, which ends with this, and with the process.
#[derive(Debug)]
pub(super) struct Program {
    process: OwnedFd,
    /// Started it, and waits for it.
    thread: Option<JoinHandle<()>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Both take milliseconds; a machine under heavy load takes longer.
const START_MAX: Duration = Duration::from_secs(20);
const TUN: &str = "/dev/net/tun";

/// The programs that would work here.
pub(super) fn available() -> Result<Vec<WayOut>, NoWayOut> {
    let installed = [(WayOut::Pasta, "pasta"), (WayOut::Slirp, "slirp4netns")];
    let mut found: Vec<WayOut> =
        installed.into_iter().filter(|(_, name)| find_program(name).is_some()).map(|(way, _)| way).collect();
    if found.len() > 1 && !pasta_is_recent() {
        found.reverse();
    }
    if found.is_empty() {
        return Err(NoWayOut::new("neither pasta nor slirp4netns is installed", INSTALL));
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(found),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run `chmod 0666 /dev/net/tun` as root",
                _ => "run `modprobe tun` as root; in a container, start it with `--device /dev/net/tun`",
            };
            Err(NoWayOut::new(format!("{TUN} cannot be opened ({error})"), remedy))
        }
    }
}

/// Releases of 2023, as in Debian 12, lose the end of some connections: one side has closed, and the other waits for good.
const PASTA_YEAR_MIN: u16 = 2024;

/// Whether the installed pasta is one that is to be preferred. One that does not know its version is not: Debian 12's.
fn pasta_is_recent() -> bool {
    let output = Command::new("pasta").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.is_ok_and(|output| year_of(&String::from_utf8_lossy(&output.stdout)) >= Some(PASTA_YEAR_MIN))
}

/// The year in `pasta 2024_02_20.1e6f92b` or `pasta 0.0~git20240220.1e6f92b-1`: its releases are dates.
fn year_of(version: &str) -> Option<u16> {
    let line = version.lines().next()?.replace('_', "");
    let dates = line.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 8);
    dates.filter_map(|date| date[..4].parse().ok()).find(|year| (2000..3000).contains(year))
}

pub(super) fn make(namespace: &OwnedFd, options: &Options) -> Result<Uplink, NoWayOut> {
    let mut failure = None;
    for way in available()? {
        match run(way, namespace, options) {
            Ok(uplink) => return Ok(uplink),
            Err(error) => failure = Some(NoWayOut::new(format!("{way} failed: {error}"), "see its manual page")),
        }
    }
    Err(failure.unwrap_or_else(|| NoWayOut::new("no program was found", INSTALL)))
}

fn run(way: WayOut, namespace: &OwnedFd, options: &Options) -> io::Result<Uplink> {
    let (known, mtu) = surroundings().map_err(io::Error::other)?;
    let taken = || io::Error::other("the host uses all addresses from 10.229.0.0 to 10.229.255.255");
    // Inside only, so that runs may use the same.
    let range = (0..=255).filter_map(|third| Subnet::of(Ipv4Addr::new(10, 229, third, 0), 24));
    let range = range.into_iter().find(|range| range.is_free(&known)).ok_or_else(taken)?;
    std::fs::create_dir_all(&options.dir)?;
    let place = NamespaceFile::mount(namespace, options.dir.join("namespace"))?;
    let (program, gateway) = match way {
        WayOut::Slirp => (slirp(range, &place.0, options)?, range.address(SLIRP_GATEWAY)),
        _ => (pasta(range, &place.0, mtu, options)?, range.address(1)),
    };
    let socket = inside::visit(namespace.as_fd(), Socket::route)?;
    let devices = link::devices(&socket).map_err(io::Error::other)?;
    let device = devices.iter().find(|device| device.name == DEVICE);
    let device = device.ok_or_else(|| io::Error::other("it made no device"))?.index;
    drop(place);
    Ok(Uplink { way, gateway, device, host: host_address(), _holder: Holder::Program(program) })
}

fn pasta(range: Subnet, namespace: &Path, mtu: Option<u32>, options: &Options) -> io::Result<Program> {
    // It writes its number into this file when everything stands.
    let ready = options.dir.join("ready");
    drop(std::fs::remove_file(&ready));
    mknodat(CWD, &ready, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Both directions, so that neither side waits for the other to open it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let told = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&ready)?;
    let mut command = Command::new(find_program("pasta").unwrap_or_else(|| "pasta".into()));
    // Own addresses: with the host's, containers could not reach the host. Nothing leads to the host's loopback
    // (`--no-map-gw`), no ports are forwarded, its quit at the end of the file is not needed since we end it.
    command
        .args(["--quiet", "--foreground", "--config-net", "--ipv4-only", "--no-map-gw", "--no-netns-quit"])
        .args(["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"])
        .args(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"])
        // Otherwise it would become `nobody` for root, and forget whose end is to be its own.
        .args(["--runas", "0", "--ns-ifname", DEVICE])
        .args(["--address", &range.address(2).to_string(), "--gateway", &range.address(1).to_string()])
        .args(["--netmask", &range.prefix().to_string()])
        .args(["--mtu", &mtu.unwrap_or(1500).to_string()]);
    command.arg("--netns").arg(namespace).arg("--pid").arg(&ready);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let outcome =
        launch(command, options, move |child, stop| await_word(child, stop, &told, |word| word.ends_with(b"\n")));
    drop(std::fs::remove_file(&ready));
    outcome
}

/// Its own number in the range (slirp4netns(1), "--cidr").
const SLIRP_GATEWAY: u32 = 2;

fn slirp(range: Subnet, namespace: &Path, options: &Options) -> io::Result<Program> {
    let mut command = Command::new(find_program("slirp4netns").unwrap_or_else(|| "slirp4netns".into()));
    command
        .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--disable-dns", "--netns-type=path"])
        // Ready is told where it complains; it ends when its input does.
        .args(["--ready-fd=2", "--exit-fd=0"])
        .arg(format!("--cidr={range}"))
        .arg(namespace)
        .arg(DEVICE);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    launch(command, options, |child, stop| {
        let told = child.stderr.as_ref().map(|stderr| stderr.as_fd().try_clone_to_owned()).transpose()?;
        let told = File::from(told.ok_or(io::ErrorKind::BrokenPipe)?);
        await_word(child, stop, &told, |word| word.ends_with(b"1"))
    })
}

/// Starts the program on a thread of its own, which lives as long as it does: the program is killed with that thread.
fn launch(
    mut command: Command,
    options: &Options,
    await_ready: impl FnOnce(&mut Child, &OwnedFd) -> io::Result<()> + Send + 'static,
) -> io::Result<Program> {
    (options.prepare_child)(&mut command);
    let (tell, told) = mpsc::channel();
    let thread = inside::thread("way out program", move || {
        let started = command.spawn().and_then(|mut child| {
            let pid = Pid::from_child(&child);
            let process = pidfd_open(pid, PidfdFlags::empty())?;
            match await_ready(&mut child, &process) {
                Ok(()) => Ok((child, process)),
                Err(error) => {
                    drop(child.kill());
                    drop(child.wait());
                    Err(error)
                }
            }
        });
        match started {
            Ok((mut child, process)) => {
                drop(tell.send(Ok(process)));
                // Its pipes are kept until then, and its complaints are nobody's.
                let (_input, _complaints) = (child.stdin.take(), child.stderr.take());
                drop(child.wait());
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    let process = told.recv().map_err(io::Error::other)??;
    Ok(Program { process, thread: Some(thread) })
}

/// Reads until the word is complete; what the program says when it ends before is the error.
fn await_word(child: &mut Child, process: &OwnedFd, told: &File, is_word: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    // Nobody stops us, but the wait for several descriptors is there.
    let stop = Stop::new()?;
    let mut word = Vec::new();
    loop {
        let ready = stop.wait(&[told.as_fd(), process.as_fd()], Some(START_MAX)).unwrap_or_default();
        match ready[..] {
            [true, _] => {
                let mut bytes = [0; 512];
                let mut file = told;
                let length = file.read(&mut bytes)?;
                word.extend_from_slice(&bytes[..length]);
                if is_word(&word) {
                    return Ok(());
                }
                if length > 0 {
                    continue;
                }
            }
            [false, true] => {}
            _ => return Err(io::ErrorKind::TimedOut.into()),
        }
        // It has ended, or closed its side.
        drop(child.kill());
        if let Some(mut complaints) = child.stderr.take() {
            drop(complaints.read_to_end(&mut word));
        }
        let text = String::from_utf8_lossy(&word).into_owned();
        // Without a system log, pasta complains about that first.
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.contains("to syslog"));
        return Err(io::Error::other(line.unwrap_or("it ended at once").to_owned()));
    }
}

/// A namespace as a file, in our own mount namespace: the programs want a path, and may not look into other processes.
struct NamespaceFile(PathBuf);

impl NamespaceFile {
    fn mount(namespace: &OwnedFd, path: PathBuf) -> io::Result<NamespaceFile> {
        File::create(&path)?;
        rustix::mount::mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &path)?;
        Ok(NamespaceFile(path))
    }
}

impl Drop for NamespaceFile {
    fn drop(&mut self) {
        // What stays goes with our mount namespace, and with the directory.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        drop(std::fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_year_of_pasta_is_read() {
        for (version, year) in [
            ("pasta 2024_02_20.1e6f92b\nCopyright Red Hat 2020\n", Some(2024)),
            ("pasta 0.0~git20230309.7c7625d-1\n", Some(2023)),
            ("pasta 0^20240510.g7288448-1.fc40.x86_64\n", Some(2024)),
            ("pasta unknown version\nCopyright Red Hat 20240101\n", None),
            ("", None),
        ] {
            assert_eq!(year_of(version), year, "{version}");
        }
    }
}
