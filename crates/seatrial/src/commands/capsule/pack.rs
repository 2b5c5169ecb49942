//! Writing a capsule: a tar in zstd, with nothing in it that looks like a secret of the environment.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use engine::{Masks, Secret};
use events::{Event, Record, Verdict};
use serde_json::Value;
use store::{RunDir, Store};

use super::{
    Capsule, Content, DESCRIPTION, Image, PATCH, UNTRACKED, VERSION,
    found::{Built, Images, Source},
};
use crate::commands::{record::RunRecord, save::write_file};

/// Fast, and logs become small all the same.
const ZSTD_LEVEL: i32 = 3;
/// Parts of a variable's name that make its value a secret.
const SECRET_WORDS: [&str; 8] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "APIKEY", "API_KEY", "PRIVATE"];
const MASK: &str = "***";

/// Bytes of the file.
pub(super) fn write(
    path: &Path,
    store: &Store,
    run: &RunDir,
    record: RunRecord,
    source: Source,
) -> anyhow::Result<u64> {
    let (stages, masks) = stages(run);
    let capsule = Capsule {
        version: VERSION,
        made_by: format!("seatrial {}", env!("CARGO_PKG_VERSION")),
        machine: machine(),
        failed: failed(run)?,
        content: content(store, run),
        run: record,
        source,
        stages,
        replay: format!("seatrial replay {}", path.file_name().unwrap_or_default().to_string_lossy()),
    };
    write_file(path, |out| {
        let mut tar = tar::Builder::new(zstd::Encoder::new(out, ZSTD_LEVEL)?);
        let hide = |bytes: Vec<u8>| masks.as_ref().map_or(bytes.clone(), |masks| masks.mask(&bytes));
        append(&mut tar, DESCRIPTION, &serde_json::to_vec_pretty(&capsule)?)?;
        for name in files_below(&run.path)? {
            let bytes = fs_err::read(run.path.join(&name))?;
            // Sources are taken as they are: a patch that is masked does not apply.
            let is_source = name.starts_with(UNTRACKED) || name == Path::new(PATCH);
            append(&mut tar, &name.to_string_lossy(), &if is_source { bytes } else { hide(bytes) })?;
        }
        tar.into_inner()?.finish()?.flush()?;
        Ok(())
    })?;
    Ok(fs_err::metadata(path)?.len())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, bytes)
}

/// Logs, events, reports and sources of the run's directory, relative to it, in order.
fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = ["log", "reports", UNTRACKED].map(PathBuf::from).into();
    files.extend(["events.jsonl", PATCH].map(PathBuf::from).into_iter().filter(|name| directory.join(name).is_file()));
    while let Some(below) = open.pop() {
        let Ok(entries) = std::fs::read_dir(directory.join(&below)) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = below.join(entry.file_name());
            match entry.file_type()? {
                kind if kind.is_dir() => open.push(name),
                kind if kind.is_file() => files.push(name),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Containers of the run by stage, with values that look secret masked; and what to mask elsewhere.
fn stages(run: &RunDir) -> (BTreeMap<String, Value>, Option<Arc<Masks>>) {
    let mut stages = BTreeMap::new();
    let mut secrets = Vec::new();
    let names = fs_err::read_dir(run.path.join("stage")).into_iter().flatten().flatten();
    for entry in names {
        let stage = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(record) = pipeline::stage_record(run, &stage) else { continue };
        let env: Vec<(String, String)> = record
            .env
            .into_iter()
            .map(|(name, value)| {
                if !is_secret(&name) || value.is_empty() {
                    return (name, value);
                }
                secrets.push(Secret::new(value.into_bytes()));
                (name, MASK.to_owned())
            })
            .collect();
        let value = serde_json::json!({
            "args": record.args, "env": env, "cwd": record.cwd, "user": record.user,
            "mounts": record.mounts.iter().map(|(_, target, readonly)| (target, readonly)).collect::<Vec<_>>(),
        });
        stages.insert(record.stage, value);
    }
    (stages, Masks::new(&secrets).map(Arc::new))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) || name.ends_with("_KEY")
}

/// Stages that said no, in the order of their ends.
fn failed(run: &RunDir) -> anyhow::Result<Vec<String>> {
    let text = fs_err::read_to_string(run.path.join("events.jsonl")).context("the run has no events")?;
    let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    let failed = records.filter_map(|record| match record.event {
        Event::StageFinished { stage, verdict: Verdict::Failed, .. } => Some(stage),
        _ => None,
    });
    Ok(failed.collect())
}

/// What a run built and used, by digests.
pub(super) fn content(store: &Store, run: &RunDir) -> Content {
    let Images { built, mut used } = Images::read(run);
    let mut content = Content::default();
    for (name, built) in built {
        let Some(image) = image(store, built) else { continue };
        match name {
            Some(name) => drop(content.images.insert(name, image)),
            None => content.image = Some(image),
        }
    }
    for one in &mut used {
        let id = one.id.parse::<oci::Digest>().ok();
        one.manifest = id.and_then(|id| store.pulled_manifest(&id)).map(|manifest| manifest.to_string());
    }
    content.used = used;
    content
}

/// The image's digests, worked out now when the run did not wait for them; `None` when it is gone.
fn image(store: &Store, built: Built) -> Option<Image> {
    let mut config = built.config.clone();
    config.rootfs.diff_ids =
        built.layers.iter().map(|layer| Some(store.diff_id(layer, built.epoch()).ok()?.0)).collect::<Option<_>>()?;
    let id = oci::Digest::of(&oci::to_json(&config)).to_string();
    let layers = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    Some(Image { id, layers, bases: built.bases })
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {} {}", std::env::consts::ARCH, std::env::consts::OS, kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        for (name, secret) in
            [("NPM_TOKEN", true), ("db_password", true), ("SIGNING_KEY", true), ("KEYBOARD", false), ("PATH", false)]
        {
            assert_eq!(is_secret(name), secret, "{name}");
        }
    }
}
