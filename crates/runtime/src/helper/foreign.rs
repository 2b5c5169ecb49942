//! Containers by runc or crun.

use crate::protocol::{Channel, ExecRequest, Failure, StartRequest, Step};
use std::{io, os::fd::OwnedFd};

pub(super) fn start(_: &Channel, _: &StartRequest, _: Vec<OwnedFd>) -> Result<(), Failure> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS)).step("use another runtime")
}

pub(super) fn exec(_: &Channel, _: &ExecRequest, _: Vec<OwnedFd>) -> Result<(), Failure> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS)).step("use another runtime")
}
