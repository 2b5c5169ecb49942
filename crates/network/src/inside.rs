//! Work in another network namespace. A socket stays in the namespace in which it was made, so a short visit is enough.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread::{Builder, JoinHandle},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Our threads call little and deeply nested nothing.
const STACK_BYTES: usize = 256 * 1024;

/// Does the work on a thread of its own that is in the namespace, and waits for it.
pub(crate) fn visit<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let visitor =
            Builder::new().name("network visit".into()).stack_size(STACK_BYTES).spawn_scoped(scope, || {
                enter(namespace)?;
                work()
            })?;
        visitor.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// A thread that stays in the namespace.
pub(crate) fn stay(
    namespace: &OwnedFd,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let namespace = namespace.try_clone()?;
    thread(name, move || {
        if enter(namespace.as_fd()).is_ok() {
            drop(namespace);
            work();
        }
    })
}

/// A thread with a small stack.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(work)
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Changes a setting below `/proc/sys/net` of the namespace that this thread is in.
pub(crate) fn set(setting: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new("/proc/sys/net").join(setting), value)
}
