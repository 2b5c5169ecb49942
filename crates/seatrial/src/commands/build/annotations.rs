//! `--annotation` and the annotations of an output: for which document each is meant.

use std::collections::BTreeMap;

use oci::Platform;

use crate::failure::Failure;

/// Which document carries an annotation (buildx, "--annotation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Manifest,
    Index,
    ManifestDescriptor,
    IndexDescriptor,
}

/// Annotations as they were asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Annotations(Vec<(Place, Option<Platform>, String, String)>);

impl Annotations {
    /// `[TYPE[PLATFORM][,TYPE…]:]KEY=VALUE` each.
    pub(super) fn parse(given: &[String]) -> Result<Self, Failure> {
        let mut annotations = Self::default();
        for text in given {
            let wrong = || Failure::usage(format!("`--annotation {text}` is not [TYPE:]KEY=VALUE"));
            let (key, value) = text.split_once('=').ok_or_else(wrong)?;
            let (types, key) = key.split_once(':').map_or(("manifest", key), |(types, key)| (types, key));
            if key.is_empty() {
                return Err(wrong());
            }
            for kind in types.split(',') {
                annotations.add(kind, key, value)?;
            }
        }
        Ok(annotations)
    }

    /// One annotation of `--output`: `annotation.KEY`, `annotation-TYPE[PLATFORM].KEY`; `name` is without `annotation`.
    pub(super) fn add_named(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let wrong = || Failure::usage(format!("`--output`: there is no option `annotation{name}`"));
        let (kind, key) = match name.strip_prefix('.') {
            Some(key) => ("manifest", key),
            None => name.strip_prefix('-').and_then(|rest| rest.split_once('.')).ok_or_else(wrong)?,
        };
        self.add(kind, key, value)
    }

    fn add(&mut self, kind: &str, key: &str, value: &str) -> Result<(), Failure> {
        let (name, platform) = match kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
            Some((name, platform)) => {
                let platform: Result<Platform, _> = platform.parse();
                (name, Some(platform.map_err(|error| Failure::usage("an annotation is wrong").because(&error))?))
            }
            None => (kind, None),
        };
        let place = match name {
            "manifest" => Place::Manifest,
            "index" => Place::Index,
            "manifest-descriptor" => Place::ManifestDescriptor,
            "index-descriptor" => Place::IndexDescriptor,
            other => {
                return Err(Failure::usage(format!("there is no annotation type `{other}`"))
                    .hint("types are manifest, index, manifest-descriptor and index-descriptor"));
            }
        };
        self.0.push((place, platform, key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// These over others.
    pub(super) fn over(&self, below: &Self) -> Self {
        Self(below.0.iter().chain(&self.0).cloned().collect())
    }

    /// Of an image's manifest.
    pub(super) fn manifest(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.of(Place::Manifest, platform)
    }

    /// Of the index of several platforms' images.
    pub(super) fn index(&self) -> BTreeMap<String, String> {
        self.of(Place::Index, &Platform::host())
    }

    /// Of the descriptor that names such an index.
    pub(super) fn index_descriptor(&self) -> BTreeMap<String, String> {
        self.of(Place::IndexDescriptor, &Platform::host())
    }

    /// Of the descriptor that names an image's manifest.
    pub(super) fn manifest_descriptor(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.of(Place::ManifestDescriptor, platform)
    }

    fn of(&self, place: Place, platform: &Platform) -> BTreeMap<String, String> {
        let is_meant = |for_platform: &Option<Platform>| for_platform.as_ref().is_none_or(|wanted| wanted == platform);
        let wanted = self.0.iter().filter(|(at, wanted, ..)| *at == place && is_meant(wanted));
        wanted.map(|(.., key, value)| (key.clone(), value.clone())).collect()
    }

    /// An image of one platform has no index, so nothing could carry these.
    pub(super) fn refuse_index(&self) -> Result<(), Failure> {
        match self.0.iter().find(|(place, ..)| matches!(place, Place::Index | Place::IndexDescriptor)) {
            None => Ok(()),
            Some((.., key, _)) => Err(Failure::usage(format!(
                "the annotation `{key}` is for an index, and an image of one platform has none"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_their_document() {
        let given = ["a=1", "manifest[linux/arm64]:b=2", "manifest,manifest-descriptor:c=x:y=z"].map(str::to_owned);
        let annotations = Annotations::parse(&given).unwrap();
        let on = |platform: &str| annotations.manifest(&platform.parse().unwrap()).into_iter().collect::<Vec<_>>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(on("linux/amd64"), [pair("a", "1"), pair("c", "x:y=z")]);
        assert_eq!(on("linux/arm64"), [pair("a", "1"), pair("b", "2"), pair("c", "x:y=z")]);
        let descriptor = annotations.manifest_descriptor(&"linux/amd64".parse().unwrap());
        assert_eq!(descriptor.into_iter().collect::<Vec<_>>(), [pair("c", "x:y=z")]);
        assert!(Annotations::parse(&["label:a=b".into()]).is_err());
        assert!(Annotations::parse(&["index:a=b".into()]).unwrap().refuse_index().is_err());
    }
}
