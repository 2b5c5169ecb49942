//! Devices of the host that a container is given.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
};

use oci_spec::{
    OciSpecError,
    runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType},
};
use serde::{Deserialize, Serialize};

use crate::{error::StartError, spec::Device};

/// A device as it was found on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevicePlan {
    pub(crate) source: PathBuf,
    pub(crate) is_block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits of the host's node.
    pub(crate) mode: u32,
    /// Owner of the host's node, as a number that holds in the container too.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Some of `rwm`.
    pub(crate) access: String,
}

/// What a failure was about.
pub(crate) const STEP: &str = "give the container the device";

impl DevicePlan {
    /// Looks at the host's node; links to it are followed.
    pub(crate) fn find(device: &Device) -> Result<Self, StartError> {
        let refuse = |source| StartError::setup_at(STEP, &device.source, source);
        let invalid = |text: &str| refuse(io::Error::new(io::ErrorKind::InvalidInput, text));
        if device.access.is_empty() || !device.access.chars().all(|c| "rwm".contains(c)) {
            return Err(invalid("its permissions are some of `rwm`"));
        }
        let found = std::fs::metadata(&device.source).map_err(refuse)?;
        let kind = found.file_type();
        if !kind.is_char_device() && !kind.is_block_device() {
            return Err(invalid("it is not a device"));
        }
        Ok(Self::of(device, &found))
    }

    fn of(device: &Device, found: &Metadata) -> Self {
        let number = found.rdev();
        Self {
            source: device.source.clone(),
            is_block: found.file_type().is_block_device(),
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            access: device.access.clone(),
        }
    }

    /// What a control group has to deny, as version 1 writes it (`devices.deny`); `None`: nothing. Nodes of other devices
    /// that a container makes never work, so that `m` needs no rule.
    pub(crate) fn denied(&self) -> Option<String> {
        let denied: String = "rw".chars().filter(|c| !self.access.contains(*c)).collect();
        let kind = if self.is_block { 'b' } else { 'c' };
        (!denied.is_empty()).then(|| format!("{kind} {}:{} {denied}", self.major, self.minor))
    }

    fn kind(&self) -> LinuxDeviceType {
        if self.is_block { LinuxDeviceType::B } else { LinuxDeviceType::C }
    }

    /// For another runtime, which makes the node.
    pub(crate) fn to_oci(&self, target: &str) -> Result<LinuxDevice, OciSpecError> {
        LinuxDeviceBuilder::default()
            .path(target)
            .typ(self.kind())
            .major(i64::from(self.major))
            .minor(i64::from(self.minor))
            .file_mode(self.mode)
            .uid(self.uid)
            .gid(self.gid)
            .build()
    }

    /// For another runtime, whose control groups begin with nothing allowed.
    pub(crate) fn rule(&self) -> Result<LinuxDeviceCgroup, OciSpecError> {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(self.kind())
            .major(i64::from(self.major))
            .minor(i64::from(self.minor))
            .access(self.access.clone())
            .build()
    }
}
