//! A service's values to what the engine starts.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use compose::{FileContent, FileGrant, FileSource, HostAddress, HostPort, Mount, MountSource, Project, Service};
use engine::{
    AddressRange, Attachment, BindMount, ContainerSpec, Device, ExecSpec, HOST_GATEWAY, JoinedNetwork, Limits,
    MemoryFile, NetworkMode, OutputSink, Protocol, PublishedPort, Root, Secret, Stdio, Surroundings, Tmpfs, Ulimit,
    VolumeMount,
};

use oci::signal::stop_signal;

use crate::{Purpose, ServiceContext, ServiceError, order::required};

/// What docker gives a container whose image sets no PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Docker's and Compose's default of `stop_grace_period`.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// As docker mounts them.
const TMPFS_MODE: u32 = 0o1777;
/// Compose's default for configs and secrets.
const FILE_MODE: u32 = 0o444;

/// Linux takes 64, a label of the DNS 63 (RFC 1035, 2.3.4).
const HOST_NAME_BYTES_MAX: usize = 63;

/// `[a-z0-9-]`, as host names are.
pub fn container_name(name: &str) -> String {
    let name: String =
        name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = &name[..name.len().min(HOST_NAME_BYTES_MAX)];
    name.trim_matches('-').to_owned()
}

/// The given working directory, else the image's, else `/`.
pub fn workdir(given: Option<&str>, root: &Root) -> String {
    let image = root.config.config.working_dir.as_str();
    given.unwrap_or(if image.is_empty() { "/" } else { image }).to_owned()
}

/// The image's environment, then the file's, then ours; later ones win and keep the place of the former.
pub fn environment(root: &Root, file: &BTreeMap<String, String>, ours: &[(String, String)]) -> Vec<(String, String)> {
    let image = root.config.config.env.iter().filter_map(|entry| entry.split_once('='));
    let mut env: Vec<(String, String)> = image.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in file.iter().chain(ours.iter().map(|(name, value)| (name, value))) {
        match env.iter_mut().find(|(present, _)| present == name) {
            Some(entry) => entry.1 = value.clone(),
            None => env.push((name.clone(), value.clone())),
        }
    }
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".into(), PATH_DEFAULT.into()));
    }
    env
}

/// What links add to a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Linked {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hosts: Vec<(String, String)>,
}

/// Everything of a service's container but its output and its links.
pub(crate) struct Draft {
    pub(crate) spec: ContainerSpec,
    /// What may not be seen in logs.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) signal: i32,
    pub(crate) grace: Duration,
}

impl Draft {
    /// The container with its links, speaking into a sink.
    pub(crate) fn container(&self, root: &Root, linked: &Linked, sink: OutputSink) -> ContainerSpec {
        let mut spec = self.spec.clone();
        spec.root = root.clone();
        for (name, value) in &linked.env {
            // What the user says wins over what a link tells.
            if !spec.env.iter().any(|(present, _)| present == name) {
                spec.env.push((name.clone(), value.clone()));
            }
        }
        spec.attachment.extra_hosts.extend(linked.hosts.iter().cloned());
        spec.stdio = Stdio::Sink(sink);
        spec
    }

    /// A further process as the service's own user, in its environment.
    pub(crate) fn exec(&self) -> ExecSpec {
        ExecSpec {
            args: Vec::new(),
            env: self.spec.env.clone(),
            cwd: self.spec.cwd.clone(),
            user: self.spec.user.clone(),
            stdio: Stdio::Inherit,
            timeout: None,
        }
    }
}

/// Works out how a service is started from the root of its image. `own` is the set of networks and volumes that it belongs
/// to when it is not the run's shared one. `number` counts the containers of a service from 1.
pub(crate) fn draft(
    cx: &ServiceContext<'_>,
    service: &Service,
    root: &Root,
    own: Option<&str>,
    number: u32,
) -> Result<Draft, ServiceError> {
    refuse_unsupported(service)?;
    check_devices(cx, service)?;
    let config = &root.config.config;
    let args: Vec<String> = match (&service.entrypoint, &service.command) {
        (Some(entrypoint), command) => entrypoint.iter().chain(command.iter().flatten()).cloned().collect(),
        (None, Some(command)) => config.entrypoint.iter().flatten().chain(command).cloned().collect(),
        (None, None) => config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect(),
    };
    if args.is_empty() {
        return Err(ServiceError::invalid(service, "its image has no command to start: give `command`"));
    }
    let (mounts, volumes) = mounts(cx, service, own)?;
    let mut files = Vec::new();
    let mut secrets = Vec::new();
    for grant in &service.configs {
        files.push(file(cx, service, grant, cx.project.configs.get(&grant.source), "config")?);
    }
    for grant in &service.secrets {
        let file = file(cx, service, grant, cx.project.secrets.get(&grant.source), "secret")?;
        secrets.push(file.content.clone());
        files.push(file);
    }
    let tmpfs = service.tmpfs.iter().map(|tmpfs| Tmpfs {
        target: tmpfs.target.clone(),
        size_bytes: tmpfs.size_bytes,
        mode: tmpfs.mode.unwrap_or(TMPFS_MODE),
    });
    let ulimits = service.ulimits.iter().map(|(name, limit)| Ulimit {
        name: name.clone(),
        soft: limit.soft.unwrap_or(u64::MAX),
        hard: limit.hard.unwrap_or(u64::MAX),
    });
    let spec = ContainerSpec {
        name: match number {
            1 => container_name(&service.name),
            number => container_name(&format!("{}-{number}", service.name)),
        },
        root: root.clone(),
        args,
        env: environment(root, &service.environment, &[]),
        cwd: workdir(service.working_dir.as_deref(), root),
        user: service.user.clone().unwrap_or_else(|| config.user.clone()),
        mounts,
        network: match service.network_mode {
            Some(compose::NetworkMode::None) => NetworkMode::None,
            _ => NetworkMode::Default,
        },
        attachment: attachment(cx, service, own, number),
        surroundings: Surroundings {
            hostname: service.hostname.clone(),
            volumes,
            tmpfs: tmpfs.collect(),
            shm_size_bytes: service.shm_size_bytes,
            files,
            ulimits: ulimits.collect(),
            cap_add: service.cap_add.clone(),
            cap_drop: service.cap_drop.clone(),
            no_new_privileges: service.no_new_privileges,
            readonly_root: service.read_only,
            devices: service.devices.iter().map(device).collect(),
            sysctls: service.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        },
        limits: Limits { memory_bytes: service.memory_limit_bytes, cpus: service.cpus, pids: service.pids_limit },
        init: service.init.unwrap_or(false),
        stdio: Stdio::Inherit,
    };
    Ok(Draft {
        spec,
        secrets,
        signal: stop_signal(service.stop_signal.as_deref().unwrap_or(&config.stop_signal)),
        grace: service.stop_grace_period.unwrap_or(GRACE_DEFAULT),
    })
}

/// Whether the named services, and those that they cannot do without, can be given what they ask for, as far as their
/// definitions tell: to be known before anything is built or started.
///
/// # Errors
/// The first that cannot.
pub fn check(all: &[Service], names: &[String]) -> Result<(), ServiceError> {
    let required = required(all, names);
    all.iter().filter(|service| required.contains(service.name.as_str())).try_for_each(refuse_unsupported)
}

/// What changes the meaning of a service and cannot be had is refused rather than left out.
fn refuse_unsupported(service: &Service) -> Result<(), ServiceError> {
    let refuse = |message: &str| Err(ServiceError::invalid(service, message));
    match &service.network_mode {
        Some(compose::NetworkMode::Host) => return refuse("the host's network is not given to services of a run"),
        Some(compose::NetworkMode::Service(_) | compose::NetworkMode::Container(_)) => {
            return refuse("sharing the network of another container is not supported yet");
        }
        _ => {}
    }
    if service.privileged || service.pre_start.iter().any(|step| step.privileged) {
        return refuse("`privileged` is not given to services of a run");
    }
    if service.snapshot.is_some() && !service.pre_start.is_empty() {
        return refuse("`snapshot` and `pre_start` exclude each other: let the image's own start initialise it");
    }
    Ok(())
}

/// Devices are the host's: they are there, and its owner agrees.
fn check_devices(cx: &ServiceContext<'_>, service: &Service) -> Result<(), ServiceError> {
    for device in &service.devices {
        let source = &device.source;
        if !source.starts_with('/') {
            let message =
                format!("`{source}` is not the path of a device; devices by other names (CDI) are not supported");
            return Err(ServiceError::invalid(service, message));
        }
        if !cx.devices.allow(source) {
            let message = format!("the device {source} is the host's, and this machine does not allow it to services");
            return Err(ServiceError::invalid(service, message).hint(format!(
                "allow it to all that runs here: write `device={source}` into /etc/seatrial/allow or ~/.config/seatrial/allow"
            )));
        }
        let kind = std::fs::metadata(source).map(|found| found.file_type());
        match kind {
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {}
            Ok(_) => return Err(ServiceError::invalid(service, format!("{source} is not a device"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ServiceError::invalid(service, format!("this machine has no device {source}")));
            }
            Err(error) => return Err(ServiceError::invalid(service, format!("the device {source}: {error}"))),
        }
    }
    Ok(())
}

fn device(device: &compose::Device) -> Device {
    Device { source: PathBuf::from(&device.source), target: device.target.clone(), access: device.permissions.clone() }
}

/// Host paths and volumes. With a snapshot there are no volumes: what the service keeps there has to be part of it.
fn mounts(
    cx: &ServiceContext<'_>,
    service: &Service,
    own: Option<&str>,
) -> Result<(Vec<BindMount>, Vec<VolumeMount>), ServiceError> {
    let (mut binds, mut volumes) = (Vec::new(), Vec::new());
    for mount in &service.mounts {
        let Mount { source, target, read_only, .. } = mount;
        match source {
            MountSource::Bind { path, create } => {
                let source = host_path(cx.directory, path, *create)
                    .map_err(|reason| ServiceError::invalid(service, format!("{}: {reason}", path.display())))?;
                binds.push(BindMount { source, target: target.clone(), readonly: *read_only });
            }
            MountSource::Volume { subpath: Some(_), .. } => {
                return Err(ServiceError::invalid(service, "a directory within a volume is not supported yet"));
            }
            MountSource::Volume { name, .. } if cx.purpose == Purpose::Solution => {
                let outside = cx.project.volumes.get(name).map(|volume| volume.name.clone());
                volumes.push(VolumeMount {
                    name: outside.unwrap_or_else(|| name.clone()),
                    target: target.clone(),
                    readonly: *read_only,
                    is_lasting: true,
                });
            }
            MountSource::Volume { name, .. } if cx.project.volumes.get(name).is_some_and(|volume| volume.external) => {
                let message = format!("volume `{name}` is external, and a run has volumes of its own only");
                return Err(ServiceError::invalid(service, message));
            }
            MountSource::Volume { name, .. } if service.snapshot.is_some() => {
                if let Some(other) = sharer(cx, service, name) {
                    let message = format!("volume `{name}` is shared with {other} and cannot be part of a snapshot");
                    return Err(ServiceError::invalid(service, message));
                }
            }
            MountSource::Volume { name, .. } => volumes.push(VolumeMount {
                name: own.map_or_else(|| name.clone(), |own| format!("{own}/{name}")),
                target: target.clone(),
                readonly: *read_only,
                is_lasting: false,
            }),
            // Each container begins with a fresh root anyway.
            MountSource::Anonymous => {}
            MountSource::Image { .. } => {
                return Err(ServiceError::invalid(service, "files of an image as a volume are not supported yet"));
            }
        }
    }
    Ok((binds, volumes))
}

/// Another service that mounts the same volume.
fn sharer<'a>(cx: &ServiceContext<'a>, service: &Service, volume: &str) -> Option<&'a str> {
    let mounts_it = |other: &&Service| {
        let mut sources = other.mounts.iter().map(|mount| &mount.source);
        sources.any(|source| matches!(source, MountSource::Volume { name, .. } if name == volume))
    };
    let mut others = cx.project.services.iter().filter(|other| other.name != service.name);
    others.find(mounts_it).map(|other| other.name.as_str())
}

/// A path of the repository, links resolved.
fn host_path(directory: &Path, path: &Path, create: bool) -> Result<PathBuf, String> {
    let outside = || "it is outside of the repository".to_owned();
    let directory = directory.canonicalize().map_err(|error| error.to_string())?;
    if create && !path.exists() {
        // Only where the nearest directory that is there belongs to the repository.
        let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()).ok_or_else(outside)?;
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        if !there.starts_with(&directory) || climbs {
            return Err(outside());
        }
        fs_err::create_dir_all(path).map_err(|error| error.to_string())?;
    }
    let found = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        _ => error.to_string(),
    })?;
    if found.starts_with(&directory) { Ok(found) } else { Err(outside()) }
}

fn file(
    cx: &ServiceContext<'_>,
    service: &Service,
    grant: &FileGrant,
    source: Option<&FileSource>,
    kind: &str,
) -> Result<MemoryFile, ServiceError> {
    let invalid = |reason: String| ServiceError::invalid(service, format!("{kind} `{}` {reason}", grant.source));
    let content = match source.map(|source| &source.content) {
        None => return Err(invalid("is not defined".into())),
        Some(FileContent::External) => return Err(invalid("is external, which is not supported".into())),
        Some(FileContent::Inline(text)) => text.clone().into_bytes(),
        Some(FileContent::Environment(name)) => match cx.env.get(name) {
            Some(value) => value.clone().into_bytes(),
            None => return Err(invalid(format!("is to come from the variable {name}, which is not set"))),
        },
        Some(FileContent::File(path)) => {
            let path = host_path(cx.directory, path, false);
            let path = path.map_err(|reason| invalid(format!("cannot be read: {reason}")))?;
            fs_err::read(path).map_err(|error| invalid(format!("cannot be read: {error}")))?
        }
    };
    Ok(MemoryFile {
        target: grant.target.clone(),
        content: Secret::new(content),
        mode: grant.mode.unwrap_or(FILE_MODE),
        uid: grant.uid.unwrap_or(0),
        gid: grant.gid.unwrap_or(0),
    })
}

/// Names in networks. Ports of the host are not taken by a run, so that several go on side by side.
fn attachment(cx: &ServiceContext<'_>, service: &Service, own: Option<&str>, number: u32) -> Attachment {
    let is_solution = cx.purpose == Purpose::Solution;
    let mut aliases: Vec<String> = Vec::new();
    if number > 1 || container_name(&service.name) != service.name {
        aliases.push(service.name.clone());
    }
    if is_solution {
        aliases.push(full_name(cx.project, service, number));
    }
    aliases.extend(service.container_name.iter().chain(&service.hostname).cloned());
    let hosts = service.extra_hosts.iter().map(|(name, address)| {
        let address = match address {
            HostAddress::Address(address) => address.to_string(),
            HostAddress::HostGateway => HOST_GATEWAY.to_owned(),
        };
        (name.clone(), address)
    });
    let mut networks = networks(cx, service, own);
    if let [only] = networks.as_mut_slice()
        && is_shared(only)
    {
        // The network that everybody shares who names none.
        aliases.append(&mut only.aliases);
        networks.clear();
    }
    let ports = service.ports.iter().filter(|_| is_solution).map(published);
    Attachment { networks, aliases, ports: ports.collect(), extra_hosts: hosts.collect() }
}

/// Compose's name of a container.
pub(crate) fn full_name(project: &Project, service: &Service, number: u32) -> String {
    let made = || format!("{}-{}-{number}", project.name, service.name);
    service.container_name.clone().filter(|_| number == 1).unwrap_or_else(made)
}

/// A port of the host for one of the container. Without an address it is open to this machine only.
fn published(port: &compose::PublishedPort) -> PublishedPort {
    let address = port.host_ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
    PublishedPort {
        host_address: port.host_ip,
        host_port: match port.host {
            HostPort::Any => None,
            HostPort::Port(port) => Some(port),
            // The first that is free now; nobody holds it until the container starts.
            HostPort::Range(first, last) => {
                let is_free = |candidate: &u16| TcpListener::bind((address, *candidate)).is_ok();
                Some((first..=last).find(is_free).unwrap_or(first))
            }
        },
        container_port: port.target,
        protocol: match port.protocol {
            compose::Protocol::Tcp => Protocol::Tcp,
            compose::Protocol::Udp => Protocol::Udp,
        },
    }
}

/// Compose's name of the network of services that name none.
const DEFAULT: &str = "default";

/// The network of everybody who names none, as the engine makes it.
pub(crate) fn is_shared(network: &JoinedNetwork) -> bool {
    network.name == DEFAULT
}

/// Networks that a service is in, for it and for those who want to reach it. The first that leads out is its way out.
pub(crate) fn networks(cx: &ServiceContext<'_>, service: &Service, own: Option<&str>) -> Vec<JoinedNetwork> {
    let scoped = |name: &str| own.map_or_else(|| name.to_owned(), |own| format!("{own}/{name}"));
    if service.networks.is_empty() {
        return vec![JoinedNetwork { name: scoped(DEFAULT), ..JoinedNetwork::default() }];
    }
    let mut attachments: Vec<&compose::Attachment> = service.networks.iter().collect();
    attachments.sort_by_key(|joined| std::cmp::Reverse((joined.gateway_priority, joined.priority)));
    let joined = attachments.into_iter().map(|joined| {
        let network = cx.project.networks.get(&joined.network);
        let range = network.and_then(|network| range(cx, &joined.network, network));
        let internal = network.is_some_and(|network| network.internal);
        // One that is not as the engine makes it is another than everybody's.
        let name = match joined.network.as_str() {
            DEFAULT if internal || range.is_some() => format!("services/{DEFAULT}"),
            name => name.to_owned(),
        };
        JoinedNetwork {
            name: scoped(&name),
            aliases: joined.aliases.clone(),
            internal,
            address: joined.ipv4.filter(|_| range.is_some()),
            range,
        }
    });
    joined.collect()
}

/// `ipam`: the first range of IPv4.
fn range(cx: &ServiceContext<'_>, name: &str, network: &compose::Network) -> Option<AddressRange> {
    let subnet = network.subnets.iter().find(|subnet| subnet.ipv4().is_some())?;
    let services = cx.project.services.iter().flat_map(|service| &service.networks);
    Some(AddressRange {
        subnet: subnet.ipv4()?,
        gateway: subnet.gateway.and_then(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        }),
        pool: subnet.ipv4_pool(),
        reserved: services.filter(|joined| joined.network == name).filter_map(|joined| joined.ipv4).collect(),
    })
}
