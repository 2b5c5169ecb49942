//! A container as an OCI runtime-spec bundle: `config.json` and the generated files beside it.

use crate::{
    caps::CapSet,
    cgroup::{Bounds, CPU_PERIOD_US},
    devices::DevicePlan,
    enter::{self, Privilege},
    error::StartError,
    protocol::{IdMode, MountPlan, MountSource, NetworkPlan, RootfsPlan, StartRequest, StdioPlan},
    rlimits, seccomp,
    spec::{ContainerSpec, FileContent, Limits, MountKind, Network, ProcessSpec, Rootfs, Stdio},
    sysctls,
};
use oci_spec::{
    OciSpecError,
    runtime::{
        BoxBuilder, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxNamespace,
        LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount,
        MountBuilder, PosixRlimit, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Read},
    path::Path,
};

/// The bundle's file (runtime-spec, "Filesystem Bundle").
pub(crate) const CONFIG: &str = "config.json";
/// Where a foreign runtime finds the root file system, relative to the bundle.
pub(crate) const ROOTFS: &str = "rootfs";
/// Where a foreign runtime finds the sources of mounts: this, a dash and their index.
pub(crate) const SOURCE: &str = "source";

/// 64 MiB, as in docker.
const SHM_SIZE_BYTES: u64 = 64 * 1024 * 1024;
/// Bound for `/etc/resolv.conf` of the host; a resolver reads far less.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

/// What in `/proc` and `/sys` tells too much (moby, `oci/defaults.go`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What in `/proc` changes the host (moby, `oci/defaults.go`).
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the helper is to do. For a foreign runtime the bundle is written into the scratch directory as well.
pub(crate) fn request(spec: &ContainerSpec) -> Result<StartRequest, StartError> {
    check(spec)?;
    let ids = match enter::privilege() {
        Privilege::Root { .. } if spec.privileged => IdMode::Plain,
        _ if spec.foreign_runtime.is_some() && enter::uid_map_is_whole() => IdMode::Plain,
        Privilege::Root { idmapped: true } => IdMode::Shifted,
        Privilege::Root { idmapped: false } => IdMode::Plain,
        Privilege::Subordinate { .. } | Privilege::SingleId => IdMode::Inherited,
        Privilege::None { reason } => {
            return Err(StartError::Setup {
                step: "start containers".to_owned(),
                path: None,
                remedy: Some(reason.clone()),
                source: io::Error::from_raw_os_error(libc::EPERM),
            });
        }
    };
    if spec.foreign_runtime.is_some() {
        std::fs::create_dir_all(&spec.dir)
            .map_err(|source| StartError::setup_at("make the scratch directory", &spec.dir, source))?;
    }
    let mut request = StartRequest {
        id: spec.id.clone(),
        spec: Spec::default(),
        dir: spec.dir.clone(),
        rootfs: match &spec.rootfs {
            Rootfs::Overlay(overlay) => RootfsPlan::Overlay(overlay.clone()),
            Rootfs::Dir(dir) => RootfsPlan::Dir(dir.clone()),
        },
        mounts: mounts(spec)?,
        init: spec.init,
        user: spec.process.user.clone(),
        stdio: plan_stdio(&spec.process.stdio),
        ids,
        network: match spec.network {
            Network::Host => NetworkPlan::Host,
            Network::None => NetworkPlan::Own,
            Network::Private(_) => NetworkPlan::Joined,
        },
        shm_size_bytes: spec.shm_size_bytes.unwrap_or(SHM_SIZE_BYTES),
        cgroup_parent: spec.cgroup_parent.clone(),
        privileged: spec.privileged,
        foreign_runtime: spec.foreign_runtime.clone(),
    };
    let describe = |error| StartError::setup("describe the container", error);
    request.spec = config(spec, &request).map_err(|error| describe(io::Error::other(error)))?;
    if spec.foreign_runtime.is_some() {
        let bytes = serde_json::to_vec(&request.spec).map_err(|error| describe(error.into()))?;
        write_file(&spec.dir.join(CONFIG), &bytes)?;
    }
    Ok(request)
}

/// A process in the words of the runtime spec. The user, which may be a name, stands in `username`.
pub(crate) fn process(spec: &ProcessSpec, limits: &Limits) -> Result<Process, StartError> {
    let caps = CapSet::adjusted(&spec.cap_add, &spec.cap_drop).map_err(|error| {
        StartError::setup("set the capabilities", io::Error::new(io::ErrorKind::InvalidInput, error))
    })?;
    if !spec.cwd.starts_with('/') {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the working directory must be absolute");
        return Err(StartError::setup_at("enter the working directory", &spec.cwd, error));
    }
    let rlimits = rlimits::to_oci(limits)?;
    oci_process(spec, rlimits, caps).map_err(|error| StartError::setup("describe the process", io::Error::other(error)))
}

/// The bounds that stand in a request.
pub(crate) fn bounds(request: &StartRequest) -> Bounds {
    let denied_devices = devices(request).filter_map(|(_, device)| device.denied()).collect();
    let Some(resources) = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else {
        return Bounds { denied_devices, ..Bounds::default() };
    };
    let positive = |number: i64| u64::try_from(number).ok();
    Bounds {
        memory_bytes: resources.memory().as_ref().and_then(|memory| memory.limit()).and_then(positive),
        cpu_quota_us: resources.cpu().as_ref().and_then(|cpu| cpu.quota()).and_then(positive),
        pids: resources.pids().as_ref().and_then(|pids| positive(pids.limit())),
        denied_devices,
    }
}

pub(crate) fn plan_stdio(stdio: &Stdio) -> StdioPlan {
    match stdio {
        Stdio::Null => StdioPlan::Null,
        Stdio::Pipe { stdin } => StdioPlan::Pipe { stdin: stdin.is_some() },
        Stdio::Terminal { rows, cols } => StdioPlan::Terminal { rows: *rows, cols: *cols },
        Stdio::Inherit | Stdio::Descriptors(_) => StdioPlan::Inherit,
    }
}

fn check(spec: &ContainerSpec) -> Result<(), StartError> {
    let refuse = |what: &str, value: &str| {
        let text = format!("{what} `{value}`");
        Err(StartError::setup("use the container description", io::Error::new(io::ErrorKind::InvalidInput, text)))
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if spec.id.is_empty() || spec.id.len() > 64 || !spec.id.bytes().all(plain) {
        return refuse("not an id of [a-z0-9-]:", &spec.id);
    }
    if spec.hostname.len() > 64 || spec.hostname.bytes().any(|byte| byte.is_ascii_whitespace() || byte == 0) {
        return refuse("not a host name:", &spec.hostname);
    }
    for (address, name) in &spec.extra_hosts {
        if address.parse::<std::net::IpAddr>().is_err() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("not a line for /etc/hosts:", &format!("{address} {name}"));
        }
    }
    if let Some(parent) = &spec.cgroup_parent
        && (parent.split('/').any(|part| part == "..") || parent.contains('\0'))
    {
        return refuse("not a parent of control groups:", parent);
    }
    let targets = spec.mounts.iter().map(|mount| &mount.target);
    for target in targets.chain(spec.devices.iter().map(|device| &device.target)) {
        if !target.starts_with('/') || target.contains('\0') {
            return refuse("not an absolute mount target:", target);
        }
    }
    sysctls::check(&spec.sysctls, !matches!(spec.network, Network::Host))
}

/// The generated files, then the caller's mounts; a generated file makes way for a mount of the caller's on its place.
fn mounts(spec: &ContainerSpec) -> Result<Vec<MountPlan>, StartError> {
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    if !spec.hostname.is_empty() {
        match &spec.network {
            Network::Private(private) => {
                for address in private.addresses() {
                    let _ = writeln!(hosts, "{address}\t{}", spec.hostname);
                }
            }
            Network::None | Network::Host => drop(writeln!(hosts, "127.0.1.1\t{}", spec.hostname)),
        }
    }
    for (address, name) in &spec.extra_hosts {
        let _ = writeln!(hosts, "{address}\t{name}");
    }
    let mut resolv_conf = Vec::new();
    if let Network::Private(private) = &spec.network {
        resolv_conf = private.resolv_conf().into_bytes();
    } else if let Ok(file) = std::fs::File::open("/etc/resolv.conf") {
        drop(file.take(RESOLV_CONF_MAX).read_to_end(&mut resolv_conf));
    }
    let hostname = format!("{}\n", spec.hostname);
    let generated = [("hosts", hosts.into_bytes()), ("hostname", hostname.into_bytes()), ("resolv.conf", resolv_conf)];
    let mut plans = Vec::with_capacity(generated.len() + spec.mounts.len());
    for (name, content) in generated {
        let target = format!("/etc/{name}");
        if spec.mounts.iter().any(|mount| mount.target == target) {
            continue;
        }
        let source = if spec.foreign_runtime.is_some() {
            let path = spec.dir.join(name);
            write_file(&path, &content)?;
            MountSource::Bind(path)
        } else {
            MountSource::File { content: FileContent(content), mode: 0o644, uid: 0, gid: 0 }
        };
        plans.push(MountPlan { target, source, readonly: false, optional: true });
    }
    plans.extend(spec.mounts.iter().map(|mount| MountPlan {
        target: mount.target.clone(),
        source: match &mount.kind {
            MountKind::Bind(path) => MountSource::Bind(path.clone()),
            MountKind::Tmpfs { size_bytes, mode } => MountSource::Tmpfs { size_bytes: *size_bytes, mode: *mode },
            MountKind::File { content, mode, uid, gid } => {
                MountSource::File { content: content.clone(), mode: *mode, uid: *uid, gid: *gid }
            }
            MountKind::Overlay { overlay, subpath } => {
                MountSource::Overlay { overlay: overlay.clone(), subpath: subpath.clone() }
            }
        },
        readonly: mount.readonly,
        optional: false,
    }));
    for device in &spec.devices {
        let source = MountSource::Device(DevicePlan::find(device)?);
        plans.push(MountPlan { target: device.target.clone(), source, readonly: false, optional: false });
    }
    Ok(plans)
}

/// Devices of a request with their places.
fn devices(request: &StartRequest) -> impl Iterator<Item = (&str, &DevicePlan)> {
    request.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Device(device) => Some((mount.target.as_str(), device)),
        _ => None,
    })
}

/// Readable for all, whatever the umask: users of the container read it.
fn write_file(path: &Path, content: &[u8]) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt;
    const STEP: &str = "write into the scratch directory";
    std::fs::write(path, content).map_err(|source| StartError::setup_at(STEP, path, source))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|source| StartError::setup_at(STEP, path, source))
}

fn config(spec: &ContainerSpec, request: &StartRequest) -> Result<Spec, Box<dyn std::error::Error + Send + Sync>> {
    let mut namespaces = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    // Another runtime stays in the namespace that its helper makes, where somebody can still join it.
    if request.network == NetworkPlan::Own || (request.network.is_own() && spec.foreign_runtime.is_none()) {
        namespaces.push(LinuxNamespaceType::Network);
    }
    if request.ids == IdMode::Shifted {
        namespaces.push(LinuxNamespaceType::User);
    }
    let namespaces: Result<Vec<LinuxNamespace>, OciSpecError> =
        namespaces.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect();
    let mut linux = LinuxBuilder::default().namespaces(namespaces?).resources(resources(spec, request)?);
    if !spec.sysctls.is_empty() {
        linux = linux.sysctl(spec.sysctls.iter().cloned().collect::<HashMap<_, _>>());
    }
    // An ordinary user can make no nodes: the host's own are mounted.
    let made = devices(request).filter(|_| request.ids != IdMode::Inherited);
    let nodes = made.map(|(target, device)| device.to_oci(target)).collect::<Result<Vec<_>, _>>()?;
    if !nodes.is_empty() {
        linux = linux.devices(nodes);
    }
    linux = if spec.privileged {
        linux.masked_paths(Vec::new()).readonly_paths(Vec::new())
    } else {
        linux.masked_paths(MASKED_PATHS.map(str::to_owned)).readonly_paths(READONLY_PATHS.map(str::to_owned))
    };
    let process = process(&spec.process, &spec.limits)?;
    if spec.foreign_runtime.is_some() {
        // Ours makes its own filter, in a thousandth of the time.
        if !spec.privileged {
            let caps = CapSet::adjusted(&spec.process.cap_add, &spec.process.cap_drop)?;
            linux = linux.seccomp(seccomp::to_oci(caps)?);
        }
        if request.ids == IdMode::Inherited {
            // With a path or limits it would insist on control groups, which an ordinary user rarely may make.
            linux = linux.resources(LinuxResources::default());
        } else {
            let parent = spec.cgroup_parent.as_deref().unwrap_or("").trim_matches('/');
            linux = linux.cgroups_path(Path::new("/").join(parent).join(format!("seatrial-{}", spec.id)));
        }
    }
    let root = RootBuilder::default().path(ROOTFS).readonly(spec.readonly_rootfs).build()?;
    Ok(SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process)
        .hostname(spec.hostname.clone())
        .mounts(oci_mounts(request)?)
        .linux(linux.build()?)
        .build()?)
}

fn oci_process(spec: &ProcessSpec, rlimits: Vec<PosixRlimit>, caps: CapSet) -> Result<Process, OciSpecError> {
    let set = caps.to_oci();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set)
        .inheritable(oci_spec::runtime::Capabilities::new())
        .ambient(oci_spec::runtime::Capabilities::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(matches!(spec.stdio, Stdio::Terminal { .. }))
        .user(UserBuilder::default().uid(0u32).gid(0u32).username(spec.user.clone()).build()?)
        .args(spec.args.clone())
        .env(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        .cwd(&spec.cwd)
        .capabilities(capabilities)
        .rlimits(rlimits)
        .no_new_privileges(spec.no_new_privileges);
    if let Stdio::Terminal { rows, cols } = spec.stdio {
        process = process.console_size(BoxBuilder::default().height(rows).width(cols).build()?);
    }
    process.build()
}

fn resources(spec: &ContainerSpec, request: &StartRequest) -> Result<LinuxResources, OciSpecError> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(bytes) = spec.limits.memory_bytes {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(signed(bytes)).swap(signed(bytes)).build()?);
    }
    if let Some(cpus) = spec.limits.cpus {
        // The kernel refuses quotas below one millisecond.
        let quota = ((cpus * CPU_PERIOD_US as f64) as i64).max(1000);
        resources = resources.cpu(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_US).build()?);
    }
    if let Some(pids) = spec.limits.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(signed(pids)).build()?);
    }
    let rules = devices(request).map(|(_, device)| device.rule()).collect::<Result<Vec<_>, _>>()?;
    if !rules.is_empty() {
        resources = resources.devices(rules);
    }
    resources.build()
}

/// What every container has, then the mounts of the request.
fn oci_mounts(request: &StartRequest) -> Result<Vec<Mount>, OciSpecError> {
    let shm = format!("size={}", request.shm_size_bytes);
    let sys = if request.network.is_own() { "sysfs" } else { "bind" };
    let sys_options: &[&str] = match (request.network.is_own(), request.privileged) {
        (true, false) => &["ro", "nosuid", "noexec", "nodev"],
        (true, true) => &["nosuid", "noexec", "nodev"],
        (false, false) => &["rbind", "ro", "nosuid", "noexec", "nodev"],
        (false, true) => &["rbind", "nosuid", "noexec", "nodev"],
    };
    let standard: [(&str, &str, &str, &[&str]); 6] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", sys, if request.network.is_own() { "sysfs" } else { "/sys" }, sys_options),
    ];
    let mount = |target: &str, kind: &str, source: &str, options: Vec<String>| {
        MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
    };
    let mut mounts = Vec::with_capacity(standard.len() + request.mounts.len());
    for (target, kind, source, options) in standard {
        mounts.push(mount(target, kind, source, options.iter().map(|option| (*option).to_owned()).collect())?);
    }
    for (index, plan) in request.mounts.iter().enumerate() {
        let mode = if plan.readonly { "ro" } else { "rw" }.to_owned();
        let mut options = vec![mode, "nosuid".to_owned(), "nodev".to_owned()];
        mounts.push(match &plan.source {
            MountSource::Device(_) if request.ids != IdMode::Inherited => continue,
            MountSource::Device(device) => {
                let options = ["bind", "nosuid", "noexec"].map(str::to_owned).to_vec();
                mount(&plan.target, "bind", &device.source.to_string_lossy(), options)?
            }
            MountSource::Tmpfs { size_bytes, mode } => {
                options.push(format!("mode={mode:o}"));
                options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
                mount(&plan.target, "tmpfs", "tmpfs", options)?
            }
            MountSource::Bind(_) | MountSource::File { .. } | MountSource::Overlay { .. } => {
                options.push("rbind".to_owned());
                let source = request.dir.join(format!("{SOURCE}-{index}"));
                mount(&plan.target, "bind", &source.to_string_lossy(), options)?
            }
        });
    }
    Ok(mounts)
}
