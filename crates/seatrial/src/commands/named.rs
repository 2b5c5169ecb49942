//! Finding the image that a user names: a reference, or the beginning of an id.

use anyhow::Context as _;
use oci::Reference;
use store::{Image, NamedImage, Store};

use crate::failure::Failure;

/// Shorter ids would be guesses.
const ID_DIGITS_MIN: usize = 4;

/// The image of this name or id, and the reference if it was named by one.
pub(crate) fn find(store: &Store, name: &str) -> anyhow::Result<(Option<Reference>, Image)> {
    let reference = name.parse::<Reference>();
    if let Ok(reference) = &reference
        && let Some(image) =
            store.resolve(&with_default_tag(reference)).with_context(|| format!("cannot look up {name}"))?
    {
        return Ok((Some(with_default_tag(reference)), image));
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() >= ID_DIGITS_MIN
        && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && let Some(image) = store.resolve_id(hex).with_context(|| format!("cannot look up {name}"))?
    {
        return Ok((None, image));
    }
    reference?;
    Err(missing(store, name).into())
}

/// The same with all images of the name, the one that runs here first.
pub(crate) fn find_all(store: &Store, name: &str) -> anyhow::Result<(Option<Reference>, Vec<Image>)> {
    let (reference, image) = find(store, name)?;
    let mut images = vec![image];
    if let Some(reference) = &reference {
        images = store.resolve_all(reference).with_context(|| format!("cannot look up {name}"))?;
    }
    Ok((reference, images))
}

/// `latest` where neither tag nor digest is given.
pub(crate) fn with_default_tag(reference: &Reference) -> Reference {
    match (reference.tag(), reference.digest()) {
        (None, None) => reference.with_tag("latest"),
        _ => reference.clone(),
    }
}

fn missing(store: &Store, name: &str) -> Failure {
    let failure = Failure::refused(format!("there is no image `{name}` here"));
    let known: Vec<String> = store
        .images()
        .unwrap_or_default()
        .iter()
        .flat_map(|image| image.references.iter().map(Reference::familiar))
        .collect();
    // Another tag of the same repository is the likeliest slip of all.
    let repository =
        |name: &str| name.rsplit_once(':').map_or_else(|| name.to_owned(), |(repository, _)| repository.to_owned());
    let same = known.iter().find(|other| repository(other) == repository(name)).map(String::as_str);
    match same.or_else(|| dockerfile::nearest(name, known.iter().map(String::as_str))) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => {
            failure.hint(format!("see what is here with `seatrial images`, or fetch it with `seatrial pull {name}`"))
        }
    }
}

/// All images with their names, newest first.
pub(crate) fn all(store: &Store) -> anyhow::Result<Vec<NamedImage>> {
    let mut images = store.images().context("cannot list images")?;
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.references.cmp(&b.references)));
    Ok(images)
}
