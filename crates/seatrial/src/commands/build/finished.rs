//! What a build gives: an image for each platform that was asked for, and what outputs need of them.

use std::collections::BTreeMap;

use engine::{BuildRequest, Built};
use engine_embedded::Embedded;
use events::Event;
use oci::{Digest, Platform};
use store::{Image, ManifestOptions, Scope, SealedIndex, SealedManifest, Stop, Store};

use super::{
    BuildFailed,
    attest::Speaker,
    output::{Output, Part},
};
use crate::terminal::views::Views;

/// A finished build.
pub(super) struct Finished {
    /// At least one; the one that this machine runs first.
    pub(super) made: Vec<Made>,
    /// Of several platforms, where their manifests were made.
    pub(super) index: Option<SealedIndex>,
}

/// The image of one platform.
pub(super) struct Made {
    pub(super) image: Image,
    /// Made only when something asks for it: compressing layers is most of the work of a build that pushes nothing.
    pub(super) sealed: Option<SealedManifest>,
    pub(super) built: Built,
}

/// How it is to be finished.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) outputs: &'a [Output],
    /// The digest is asked for, whether an output needs it or not.
    pub(super) is_read: bool,
    /// The images carry their own steps.
    pub(super) inline_cache: bool,
    /// What is said of the images in their index, and until when that is kept.
    pub(super) speaker: Option<&'a Speaker<'a>>,
    pub(super) scope: Option<&'a Scope>,
    /// An index around one image has a place.
    pub(super) is_index_kept: bool,
    pub(super) stop: Stop<'a>,
}

impl Finished {
    /// Builds what is asked for, several platforms side by side. When one fails the others are finished first: their steps
    /// are taken from the cache the next time.
    pub(super) fn build(
        engine: &Embedded,
        store: &Store,
        requests: &[BuildRequest],
        views: &Views,
        wanted: Wanted<'_>,
    ) -> Result<(Self, Vec<Part>), BuildFailed> {
        let all: Result<Vec<(Made, Part)>, BuildFailed> = match requests {
            [request] => Made::build(engine, store, request, views, wanted).map(|made| vec![made]),
            requests => std::thread::scope(|threads| {
                let building: Vec<_> = requests
                    .iter()
                    .map(|request| threads.spawn(move || Made::build(engine, store, request, views, wanted)))
                    .collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                building.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
            }),
        };
        let mut all = all?;
        let host = Platform::host();
        all.sort_by_key(|(made, _)| !made.image.config.platform().runs_on(&host));
        let (made, parts): (Vec<Made>, Vec<Part>) = all.into_iter().unzip();
        let index = Self::index(store, &made, &parts, wanted)?;
        Ok((Self { made, index }, parts))
    }

    fn index(
        store: &Store,
        made: &[Made],
        parts: &[Part],
        wanted: Wanted<'_>,
    ) -> Result<Option<SealedIndex>, BuildFailed> {
        let sealed = made.iter().filter_map(|made| Some((made.image.clone(), made.sealed.clone()?)));
        let sealed: Vec<(Image, SealedManifest)> = sealed.collect();
        if sealed.len() < made.len() {
            return Ok(None);
        }
        let mut besides = Vec::new();
        for (part, (_, sealed)) in parts.iter().zip(&sealed).filter(|_| wanted.is_index_kept) {
            besides.extend(part.beside(store, wanted.scope, sealed).map_err(BuildFailed::Other)?);
        }
        if sealed.len() < 2 && besides.is_empty() {
            return Ok(None);
        }
        let asked = wanted.outputs.iter().find_map(|output| output.index(store, &sealed, &besides));
        let index = asked.unwrap_or_else(|| store.index_with(&sealed, &besides, BTreeMap::new(), &|_, _| ()));
        index.map(Some).map_err(|error| BuildFailed::Other(error.into()))
    }

    /// The image that this machine runs, or the first one.
    pub(super) fn first(&self) -> &Made {
        &self.made[0]
    }

    /// What a registry knows it by, where that is known.
    pub(super) fn digest(&self) -> Option<Digest> {
        match &self.index {
            Some(index) => Some(index.digest.clone()),
            None if self.made.len() > 1 => None,
            None => self.first().sealed.as_ref().map(|sealed| sealed.digest.clone()),
        }
    }

    /// What names it whole: the image's id, or of several the digest of their index.
    pub(super) fn id(&self) -> Digest {
        let index = self.index.as_ref().filter(|_| self.made.len() > 1);
        index.map_or_else(|| self.first().image.id.clone(), |index| index.digest.clone())
    }

    pub(super) fn images(&self) -> Vec<Image> {
        self.made.iter().map(|made| made.image.clone()).collect()
    }
}

impl Made {
    fn build(
        engine: &Embedded,
        store: &Store,
        request: &BuildRequest,
        views: &Views,
        wanted: Wanted<'_>,
    ) -> Result<(Self, Part), BuildFailed> {
        let fail = |error: engine::EngineError| BuildFailed::Build(error.into());
        let stop = wanted.stop;
        let built = engine.build_blocking(request, views.sink()).map_err(BuildFailed::Build)?;
        let asked = wanted.outputs.iter().find_map(|output| output.manifest(&request.platform));
        let is_needed = wanted.is_read || wanted.speaker.is_some();
        let Some(options) = asked.or_else(|| is_needed.then(ManifestOptions::default)) else {
            let image = engine.image_blocking(&built, stop).map_err(fail)?;
            let part = Part { image: image.clone(), inline: None, said: None };
            return Ok((Self { image, sealed: None, built }, part));
        };
        let (image, sealed) = engine.seal_as(&built, &options, stop).map_err(fail)?;
        let mut made = Self { image, sealed: Some(sealed), built };
        let mut inline = None;
        if wanted.inline_cache {
            inline = Some(made.add_inline_cache(engine, store, options, stop)?);
        }
        if let Some(sealed) = &made.sealed {
            views.sink().emit(Event::ImageSealed { digest: sealed.digest.clone(), size_bytes: sealed.size_bytes });
        }
        let mut said = None;
        if let (Some(speaker), Some(sealed)) = (wanted.speaker, &made.sealed) {
            let say = speaker.say(store, request, &made.built, (&made.image, &sealed.digest), stop);
            said = Some(say.map_err(BuildFailed::Other)?);
        }
        let part = Part { image: made.image.clone(), inline, said };
        Ok((made, part))
    }

    /// Seals the image once more with its own steps in the manifest, and gives the annotation that holds them.
    fn add_inline_cache(
        &mut self,
        engine: &Embedded,
        store: &Store,
        mut options: ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<(String, String), BuildFailed> {
        let other = |error: store::StoreError| BuildFailed::Other(error.into());
        let layers = (&options).into();
        let (name, value) = engine.inline_cache(&self.image.layers, self.image.epoch, layers, stop).map_err(other)?;
        options.annotations.insert(name.clone(), value.clone());
        self.sealed = Some(store.manifest_or_stop(&self.image, &options, stop).map_err(other)?);
        Ok((name, value))
    }
}
