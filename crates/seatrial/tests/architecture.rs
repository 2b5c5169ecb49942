//! The walls of the house: who may use whom is written in `ARCHITECTURE.md`, and nothing else is true.
//! `UPDATE=1 cargo test -p seatrial --test architecture` writes the list anew, for a decision to be reviewed.

use std::{collections::BTreeMap, path::Path, process::Command};

const BEGIN: &str = "<!-- edges:begin -->\n";
const END: &str = "<!-- edges:end -->";

#[test]
fn the_edges_between_crates_are_those_of_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join("ARCHITECTURE.md");
    let text = fs_err::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("ARCHITECTURE.md has the mark of the list's beginning");
    let (written, tail) = rest.split_once(END).expect("ARCHITECTURE.md has the mark of the list's end");
    let actual = table(&edges(&root));
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs_err::write(&file, format!("{head}{BEGIN}{actual}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(
        written, actual,
        "a crate uses another one than ARCHITECTURE.md says; if that is meant, write the list with \
         `UPDATE=1 cargo test -p seatrial --test architecture` and say in the commit why"
    );
}

#[test]
fn libraries_do_not_know_the_binary_and_the_vocabulary_knows_nobody() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let edges = edges(&root);
    for (from, to) in &edges {
        assert!(!to.contains(&"seatrial".to_owned()), "{from} uses the binary");
        assert!(!to.contains(&"testkit".to_owned()) || from == "seatrial", "{from} uses the tests' world");
    }
    for vocabulary in ["oci", "dockerfile"] {
        assert_eq!(edges[vocabulary], Vec::<String>::new(), "{vocabulary} knows nobody");
    }
}

/// Workspace crate → the workspace crates that it uses, without those of tests only.
fn edges(root: &Path) -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut edges = BTreeMap::new();
    for package in packages {
        let mut uses: Vec<String> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && !dependency["path"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .filter(|name| names.contains(&name.as_str()))
            .collect();
        uses.sort();
        edges.insert(package["name"].as_str().unwrap().to_owned(), uses);
    }
    edges
}

fn table(edges: &BTreeMap<String, Vec<String>>) -> String {
    let mut out = String::from("\n| Crate | Uses |\n|---|---|\n");
    for (from, to) in edges {
        let to: Vec<String> = to.iter().map(|name| format!("`{name}`")).collect();
        out += &format!("| `{from}` | {} |\n", if to.is_empty() { "—".into() } else { to.join(", ") });
    }
    out + "\n"
}
