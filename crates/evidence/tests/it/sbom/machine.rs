//! What this machine has, against what its own tools say of it: nothing is missing, nothing is invented.

use std::{fs, path::Path, process::Command};

use evidence::sbom::Ecosystem;

use super::find;
use crate::support::{Layer, World};

/// The lines of a command's output, sorted; `None` where there is no such command.
fn lines(program: &str, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let Some(output) = output else {
        testkit::skip(format_args!("{program} does not run here"));
        return None;
    };
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    Some(lines)
}

/// `name version` of what was found in an ecosystem.
fn found(layer: Layer, ecosystem: Ecosystem) -> Vec<String> {
    let world = World::new();
    let image = world.image([layer]);
    let found = find(&world, &image);
    assert_eq!(found.warnings, []);
    let of = found.packages.iter().filter(|package| package.ecosystem == ecosystem);
    let mut lines: Vec<String> = of.map(|package| format!("{} {}", package.name, package.version)).collect();
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn debians_packages_are_those_that_dpkg_lists() {
    let format = "${db:Status-Status} ${Package} ${Version}\n";
    let Some(listed) = lines("dpkg-query", &["-W", "-f", format]) else { return };
    let installed: Vec<String> =
        listed.iter().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect();
    let status = fs::read("/var/lib/dpkg/status").unwrap();
    assert_eq!(found(Layer::default().file("var/lib/dpkg/status", status), Ecosystem::Deb), installed);
    assert!(installed.len() > 50);
}

#[test]
fn pythons_distributions_are_those_that_python_lists() {
    const PLACE: &str = "/usr/lib/python3/dist-packages";
    let script = format!(
        "import importlib.metadata as m\nfor d in m.distributions(path=['{PLACE}']): print(d.metadata['Name'], d.version)"
    );
    let Some(listed) = lines("/usr/bin/python3", &["-c", &script]) else { return };
    let mut layer = Layer::default();
    for entry in fs::read_dir(PLACE).into_iter().flatten() {
        let path = entry.unwrap().path();
        for file in [path.clone(), path.join("METADATA"), path.join("PKG-INFO")] {
            if fs::metadata(&file).is_ok_and(|file| file.is_file()) {
                layer = layer.file(name(&file), fs::read(&file).unwrap());
            }
        }
    }
    assert_eq!(found(layer, Ecosystem::Python), listed);
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap().trim_start_matches('/')
}
