//! Capabilities by name and number (capabilities(7)).

use std::{fmt, str::FromStr};

macro_rules! capabilities {
    ($($name:ident = $text:literal,)*) => {
        /// A Linux capability; its value is the kernel's number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum Cap { $($name,)* }

        impl Cap {
            const NAMES: &'static [(&'static str, Cap)] = &[$(($text, Cap::$name),)*];
        }
    };
}

// In the order of the kernel's numbers, from 0.
capabilities! {
    Chown = "CHOWN", DacOverride = "DAC_OVERRIDE", DacReadSearch = "DAC_READ_SEARCH", Fowner = "FOWNER",
    Fsetid = "FSETID", Kill = "KILL", Setgid = "SETGID", Setuid = "SETUID", Setpcap = "SETPCAP",
    LinuxImmutable = "LINUX_IMMUTABLE", NetBindService = "NET_BIND_SERVICE", NetBroadcast = "NET_BROADCAST",
    NetAdmin = "NET_ADMIN", NetRaw = "NET_RAW", IpcLock = "IPC_LOCK", IpcOwner = "IPC_OWNER",
    SysModule = "SYS_MODULE", SysRawio = "SYS_RAWIO", SysChroot = "SYS_CHROOT", SysPtrace = "SYS_PTRACE",
    SysPacct = "SYS_PACCT", SysAdmin = "SYS_ADMIN", SysBoot = "SYS_BOOT", SysNice = "SYS_NICE",
    SysResource = "SYS_RESOURCE", SysTime = "SYS_TIME", SysTtyConfig = "SYS_TTY_CONFIG", Mknod = "MKNOD",
    Lease = "LEASE", AuditWrite = "AUDIT_WRITE", AuditControl = "AUDIT_CONTROL", Setfcap = "SETFCAP",
    MacOverride = "MAC_OVERRIDE", MacAdmin = "MAC_ADMIN", Syslog = "SYSLOG", WakeAlarm = "WAKE_ALARM",
    BlockSuspend = "BLOCK_SUSPEND", AuditRead = "AUDIT_READ", Perfmon = "PERFMON", Bpf = "BPF",
    CheckpointRestore = "CHECKPOINT_RESTORE",
}

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability `{0}`")]
pub struct UnknownCapability(pub String);

/// A set of capabilities as the kernel's bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapSet(u64);

impl CapSet {
    /// Docker's fourteen (moby `oci/caps/defaults.go`).
    pub(crate) const DEFAULT: CapSet = CapSet(
        Cap::Chown.bit()
            | Cap::DacOverride.bit()
            | Cap::Fsetid.bit()
            | Cap::Fowner.bit()
            | Cap::Mknod.bit()
            | Cap::NetRaw.bit()
            | Cap::Setgid.bit()
            | Cap::Setuid.bit()
            | Cap::Setfcap.bit()
            | Cap::Setpcap.bit()
            | Cap::NetBindService.bit()
            | Cap::SysChroot.bit()
            | Cap::Kill.bit()
            | Cap::AuditWrite.bit(),
    );
    const ALL: CapSet = CapSet((1 << (Cap::CheckpointRestore as u8 + 1)) - 1);

    pub(crate) const fn only(cap: Cap) -> CapSet {
        CapSet(cap.bit())
    }

    /// The default set with `add` added and `drop` taken away, as docker's `--cap-add` and `--cap-drop`: names with or
    /// without `CAP_`, in any case, or `ALL`. A capability both added and dropped is added.
    pub(crate) fn adjusted(add: &[String], drop: &[String]) -> Result<CapSet, UnknownCapability> {
        let parse_all = |names: &[String]| -> Result<(bool, u64), UnknownCapability> {
            let mut all = false;
            let mut bits = 0;
            for name in names {
                if name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all") {
                    all = true;
                } else {
                    bits |= name.parse::<Cap>()?.bit();
                }
            }
            Ok((all, bits))
        };
        let (add_all, added) = parse_all(add)?;
        let (drop_all, dropped) = parse_all(drop)?;
        let bits = match (add_all, drop_all) {
            (true, _) => CapSet::ALL.0 & !dropped,
            (false, true) => added,
            (false, false) => (CapSet::DEFAULT.0 & !dropped) | added,
        };
        Ok(CapSet(bits))
    }

    pub(crate) fn from_oci(set: &oci_spec::runtime::Capabilities) -> Result<CapSet, UnknownCapability> {
        let mut bits = 0;
        for cap in set {
            bits |= cap.to_string().parse::<Cap>()?.bit();
        }
        Ok(CapSet(bits))
    }

    pub(crate) fn to_oci(self) -> oci_spec::runtime::Capabilities {
        Cap::NAMES
            .iter()
            .filter(|(_, cap)| self.contains(*cap))
            .filter_map(|(name, _)| oci_spec::runtime::Capability::from_str(name).ok())
            .collect()
    }

    pub(crate) fn contains(self, cap: Cap) -> bool {
        self.0 & cap.bit() != 0
    }

    pub(crate) const fn from_bits(bits: u64) -> CapSet {
        CapSet(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl Cap {
    const fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

impl FromStr for Cap {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Cap, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Cap::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, cap)| *cap)
            .ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CAP_")?;
        f.write_str(Cap::NAMES[*self as usize].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(Cap::Setfcap as u8, 31);
        assert_eq!(Cap::CheckpointRestore as u8, 40);
        assert_eq!(CapSet::DEFAULT.bits(), 0xa804_25fb);
    }

    #[test]
    fn names_may_be_spelled_in_docker_ways() {
        let set = CapSet::adjusted(&["cap_net_admin".into()], &["ALL".into()]);
        assert_eq!(set, Ok(CapSet::only(Cap::NetAdmin)));
        assert!(CapSet::adjusted(&["NONSENSE".into()], &[]).is_err());
    }

    #[test]
    fn every_capability_survives_the_bundle() {
        assert_eq!(CapSet::from_oci(&CapSet::ALL.to_oci()), Ok(CapSet::ALL));
    }
}
