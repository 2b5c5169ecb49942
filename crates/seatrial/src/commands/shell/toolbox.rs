//! A shell and tools for images that have none.

use base::{TOOLBOX, Toolbox};
use engine::{BindMount, ContainerSpec, Root};
use store::{SnapshotId, Store};

use super::Lend;
use crate::{failure::Failure, terminal};

/// Mounts a toolbox and extends PATH by it, if that is wanted; without a command its shell is started.
pub(super) fn lend(when: Lend, command: &[String], store: &Store, spec: &mut ContainerSpec) -> anyhow::Result<()> {
    let lack = match when {
        Lend::Never => return Ok(()),
        Lend::Always => None,
        Lend::Auto => match lack(command, store, spec)? {
            None => return Ok(()),
            lack => lack,
        },
    };
    let toolbox = match base::toolbox(store.root()) {
        Ok(toolbox) => toolbox,
        // The program's own error is the better one where the toolbox was nobody's wish.
        Err(_) if when == Lend::Auto && !command.is_empty() => return Ok(()),
        Err(error) => {
            let what = lack
                .map_or_else(|| "there is no toolbox".to_owned(), |lack| format!("{lack}, and there is no toolbox"));
            return Err(Failure::surroundings(what)
                .because(&error)
                .hint("install a static busybox here (Debian: `apt install busybox-static`)")
                .into());
        }
    };
    if let Some(lack) = lack {
        terminal::message_line(&format!("{lack}: {TOOLBOX} lends {}", toolbox.made_of));
    }
    mount(toolbox, command, store, spec);
    Ok(())
}

/// What the image does not have, in words.
fn lack(command: &[String], store: &Store, spec: &ContainerSpec) -> anyhow::Result<Option<String>> {
    match command.first() {
        None if has(store, &spec.root, "/bin/sh")? => Ok(None),
        None => Ok(Some("the image has no shell".into())),
        // A path says exactly what is meant.
        Some(program) if program.contains('/') => Ok(None),
        Some(program) => {
            for directory in path_of(spec).split(':').filter(|directory| directory.starts_with('/')) {
                if has(store, &spec.root, &format!("{directory}/{program}"))? {
                    return Ok(None);
                }
            }
            // An image with a shell answers for itself: what it lacks is what people want to know.
            if has(store, &spec.root, "/bin/sh")? {
                Ok(None)
            } else {
                Ok(Some(format!("the image has no `{program}`")))
            }
        }
    }
}

fn has(store: &Store, root: &Root, path: &str) -> anyhow::Result<bool> {
    // An empty root has no snapshot.
    let Ok(top) = SnapshotId::try_from(root.id.clone()) else { return Ok(false) };
    Ok(store.open_in(&top, path)?.is_some())
}

fn path_of(spec: &ContainerSpec) -> String {
    spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone()).unwrap_or_default()
}

/// Puts the toolbox into the container: its tools come last, after the image's own.
fn mount(toolbox: Toolbox, command: &[String], store: &Store, spec: &mut ContainerSpec) {
    let path = [path_of(spec), toolbox.bin].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
    spec.env.retain(|(name, _)| name != "PATH");
    spec.env.push(("PATH".into(), path));
    if command.is_empty() && !has(store, &spec.root, "/bin/sh").unwrap_or(false) {
        spec.args = vec![toolbox.shell];
    }
    spec.mounts.push(BindMount { source: toolbox.path, target: TOOLBOX.into(), readonly: true });
}
