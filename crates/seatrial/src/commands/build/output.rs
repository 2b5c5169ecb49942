//! `--output`, `--push`: where an image goes beside the store, and in which form.

mod fields;
mod parse;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use oci::{Descriptor, Platform, Reference, media_type};
use runtime::Privilege;
use store::{
    ArchiveFormat, Beside, Image, KeptBeside, ManifestOptions, SaveOptions, Scope, SealedIndex, SealedManifest, Stop,
    Store, StoreError,
};

use super::{annotations::Annotations, attest::Said, flags::BuildArgs};
use crate::{
    commands::{
        save::write_file,
        sign::Signable,
        transfer::{Pushed, refuse_unpublishable},
    },
    context::Context,
    failure::Failure,
    terminal::{self, text},
};

pub(crate) use fields::Fields;
pub(crate) use parse::{compression, level};

/// One place, as asked for by `--output`, `--push` or the command's defaults.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// The store, and the registry of each name.
    Image(ImageOutput),
    /// An archive or layout.
    Archive(ArchiveOutput),
    /// The files of the image in a directory.
    Local { directory: PathBuf, is_split: bool, prefix: String },
    /// The files of the image as a tar; without a path, stdout. `prefix` begins the names of attestations.
    Tar { path: Option<PathBuf>, prefix: String },
    /// The build cache only.
    CacheOnly,
}

/// `type=image`, `type=registry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ImageOutput {
    /// Instead of the names that `--tag` gives.
    names: Vec<Reference>,
    push: bool,
    by_digest: bool,
    form: Form,
}

/// `type=docker`, `type=oci`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ArchiveOutput {
    kind: Archive,
    names: Vec<Reference>,
    /// Stdout without one.
    path: Option<PathBuf>,
    form: Form,
}

/// Forms of an archive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Archive {
    Docker,
    Oci,
    OciDirectory,
}

/// How manifest and layers are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Form {
    manifest: ManifestOptions,
    annotations: Annotations,
    /// Something of it was asked for.
    is_explicit: bool,
}

impl Form {
    fn options(&self, platform: &Platform) -> ManifestOptions {
        ManifestOptions { annotations: self.annotations.manifest(platform), ..self.manifest.clone() }
    }

    /// As [`Form::options`], with what comes of the build itself.
    fn delivered(&self, part: &Part) -> ManifestOptions {
        let mut options = self.options(&part.image.config.platform());
        options.annotations.extend(part.inline.clone());
        options
    }

    /// The index of images for several platforms, or around what is said of them.
    fn index(
        &self,
        store: &Store,
        parts: &[(Image, SealedManifest)],
        besides: &[Beside],
    ) -> Result<SealedIndex, StoreError> {
        store.index_with(parts, besides, self.annotations.index(), &|platform, descriptor| {
            descriptor.annotations = self.annotations.manifest_descriptor(platform);
        })
    }
}

/// The image of one platform.
pub(super) struct Part {
    pub(super) image: Image,
    /// The annotation with the image's own steps (`--cache-to type=inline`).
    pub(super) inline: Option<(String, String)>,
    /// What is said of it in its index (`--attest`).
    pub(super) said: Option<Said>,
}

impl Part {
    /// What is said of a manifest of the image, for an index.
    pub(super) fn beside(
        &self,
        store: &Store,
        scope: Option<&Scope>,
        sealed: &SealedManifest,
    ) -> anyhow::Result<Option<Beside>> {
        let (Some(said), Some(scope)) = (&self.said, scope) else { return Ok(None) };
        said.beside(store, scope, &sealed.digest).map(Some)
    }

    /// What is said of the image's files, as files beside them.
    fn files_said(&self, to: &Delivery<'_>, prefix: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let Some(said) = &self.said else { return Ok(Vec::new()) };
        let files = to.store.file_digests(&self.image, to.stop).context("cannot read the image's files")?;
        Ok(said.files(&files).into_iter().map(|(name, bytes)| (format!("{prefix}{name}"), bytes)).collect())
    }
}

/// What outputs work with.
pub(super) struct Delivery<'a> {
    pub(super) context: &'a Context,
    pub(super) store: &'a Store,
    /// One for each platform.
    pub(super) parts: &'a [Part],
    /// Of `--tag`.
    pub(super) names: &'a [Reference],
    pub(super) stop: Stop<'a>,
    /// Says something that the user should know.
    pub(super) warn: &'a dyn Fn(String),
    pub(super) push: &'a dyn Fn(&Reference, &SealedManifest) -> anyhow::Result<Pushed>,
    pub(super) push_index: &'a dyn Fn(&Reference, &SealedIndex) -> anyhow::Result<Pushed>,
    /// Keeps what is said in indexes until it is pushed; only where something is.
    pub(super) scope: Option<&'a Scope>,
    /// Signs what is in a repository: each of these manifests, and the statements about it.
    pub(super) sign: Option<&'a Sign<'a>>,
}

/// See [`Delivery::sign`].
pub(super) type Sign<'a> = dyn Fn(&Reference, &[Signable]) -> anyhow::Result<()> + 'a;

impl Output {
    /// All places that the flags name.
    pub(super) fn all(args: &BuildArgs, context: &Context) -> Result<Vec<Output>, Failure> {
        let annotations = Annotations::parse(&args.annotation)?;
        let is_for_several = args.platforms()?.len() > 1;
        let mut outputs = Vec::new();
        for given in &args.output {
            outputs.push(parse::output(given, &context.settings.cwd, &annotations)?);
        }
        let images = outputs.iter_mut().filter_map(|output| match output {
            Output::Image(image) => Some(image),
            _ => None,
        });
        // As buildx: `--push` has the images of `--output` pushed, or adds one.
        let mut has_image = false;
        images.for_each(|image| {
            image.push |= args.push;
            has_image = true;
        });
        if !has_image && (args.push || args.load || !args.annotation.is_empty()) {
            let form = Form { is_explicit: !args.annotation.is_empty(), annotations, ..Form::default() };
            outputs.push(Output::Image(ImageOutput { push: args.push, form, ..ImageOutput::default() }));
        }
        let is_nameless = |output: &Output| match output {
            Output::Image(image) => image.push && image.names.is_empty() && args.tag.is_empty(),
            _ => false,
        };
        if outputs.iter().any(is_nameless) {
            return Err(Failure::usage("an image needs a name to be pushed").hint("name it: `--tag REGISTRY/NAME:TAG`"));
        }
        let has_attestations = args.attestations()?.is_any();
        if has_attestations {
            outputs.iter_mut().for_each(Output::use_oci_types);
            let is_named = !args.tag.is_empty() || outputs.iter().any(|output| !output.names().is_empty());
            let is_kept = |output: &Output| match output {
                Output::Image(_) => is_named,
                Output::Local { .. } | Output::Tar { .. } => true,
                other => other.has_index(),
            };
            if outputs.is_empty() && !is_named {
                return Err(Failure::usage("attestations are kept with the name of an image, and this one has none")
                    .hint("name it (`--tag NAME`): they go along when it is pushed"));
            }
            if !outputs.is_empty() && !outputs.iter().any(is_kept) {
                return Err(Failure::usage("no output of this build can hold attestations").hint(
                    "write the image as OCI (`--output type=oci,dest=FILE`), or name it and push it (`--push`)",
                ));
            }
        }
        if args.sign_key.is_some() && !outputs.iter().any(|output| matches!(output, Output::Image(to) if to.push)) {
            return Err(Failure::usage("`--sign-key` signs what is pushed, and nothing is").hint("add `--push`"));
        }
        if is_for_several {
            outputs.iter().try_for_each(Output::refuse_several)?;
        } else if !has_attestations {
            outputs.iter().filter_map(Output::form).try_for_each(|form| form.annotations.refuse_index())?;
        }
        let is_stdout = |output: &&Output| match output {
            Output::Archive(archive) => archive.path.is_none(),
            Output::Tar { path, .. } => path.is_none(),
            _ => false,
        };
        if outputs.iter().filter(is_stdout).count() > 1 {
            return Err(Failure::usage("only one output can go to stdout"));
        }
        Ok(outputs)
    }

    /// The manifest that this output makes of an image; `None` when it needs none.
    pub(super) fn manifest(&self, platform: &Platform) -> Option<ManifestOptions> {
        match self {
            Output::Image(image) if image.push || image.form.is_explicit => Some(image.form.options(platform)),
            Output::Archive(archive) if archive.kind != Archive::Docker => Some(archive.form.options(platform)),
            _ => None,
        }
    }

    /// The index that this output makes of images, and of what is said of them; `None` when it makes none.
    pub(super) fn index(
        &self,
        store: &Store,
        parts: &[(Image, SealedManifest)],
        besides: &[Beside],
    ) -> Option<Result<SealedIndex, StoreError>> {
        self.form().map(|form| form.index(store, parts, besides))
    }

    /// Whether what is said of an image goes along.
    pub(super) fn has_index(&self) -> bool {
        match self {
            Output::Image(image) => image.push,
            Output::Archive(archive) => archive.kind != Archive::Docker,
            _ => false,
        }
    }

    /// Docker's own types know no statements; BuildKit does the same.
    fn use_oci_types(&mut self) {
        match self {
            Output::Image(image) => image.form.manifest.docker_types = false,
            Output::Archive(archive) => archive.form.manifest.docker_types = false,
            _ => {}
        }
    }

    fn form(&self) -> Option<&Form> {
        match self {
            Output::Image(image) => Some(&image.form),
            Output::Archive(archive) => Some(&archive.form),
            _ => None,
        }
    }

    /// Forms that hold the image of one platform only.
    fn refuse_several(&self) -> Result<(), Failure> {
        let (kind, instead) = match self {
            Output::Archive(archive) if archive.kind == Archive::Docker => ("docker", "oci"),
            Output::Tar { .. } => ("tar", "local"),
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("`--output type={kind}` holds one platform, and several are built"))
            .hint(format!("use `--output type={instead},dest=…`, or build one platform at a time")))
    }

    /// Names that the image gets in the store by this output.
    pub(super) fn names(&self) -> &[Reference] {
        match self {
            Output::Image(image) => &image.names,
            _ => &[],
        }
    }

    /// Writes the image there; gives what was pushed, as `NAME@DIGEST`.
    pub(super) fn write(&self, to: &Delivery<'_>) -> anyhow::Result<Vec<String>> {
        match self {
            Output::Image(image) => return image.write(to),
            Output::Archive(archive) => archive.write(to)?,
            Output::Local { directory, is_split, prefix } => {
                let is_split = *is_split || to.parts.len() > 1;
                to.parts.iter().try_for_each(|part| export(to, part, directory, is_split, prefix))?;
            }
            Output::Tar { path, prefix } => {
                let part = &to.parts[0];
                let said = part.files_said(to, prefix)?;
                let write = |out: &mut dyn std::io::Write| {
                    let exported = to.store.export_tar(&part.image, &said, out, to.stop);
                    exported.context("cannot export the image's files")
                };
                to_file_or_stdout(path.as_deref(), write)?;
            }
            Output::CacheOnly => {}
        }
        Ok(Vec::new())
    }
}

impl ImageOutput {
    fn write(&self, to: &Delivery<'_>) -> anyhow::Result<Vec<String>> {
        for part in to.parts.iter().filter(|part| self.form.is_explicit || part.inline.is_some()) {
            to.store.prefer_manifest(&part.image.id, &self.form.delivered(part))?;
        }
        let mut pushed = Vec::new();
        if !self.push {
            return Ok(pushed);
        }
        let names = if self.names.is_empty() { to.names } else { &self.names };
        let mut sealed = Vec::new();
        for part in to.parts {
            names.iter().try_for_each(|name| refuse_unpublishable(name, &part.image))?;
            let manifest = to.store.manifest_or_stop(&part.image, &self.form.delivered(part), to.stop)?;
            sealed.push((part.image.clone(), manifest));
        }
        let besides = to.besides(&sealed)?;
        let is_one = sealed.len() == 1 && besides.is_empty();
        let index = if is_one { None } else { Some(self.form.index(to.store, &sealed, &besides)?) };
        let digest = index.as_ref().map_or(&sealed[0].1.digest, |index| &index.digest);
        let push = |target: &Reference| match &index {
            Some(index) => (to.push_index)(target, index),
            None => (to.push)(target, &sealed[0].1),
        };
        for name in names {
            let by_digest = name.with_digest(digest.clone());
            if let Some(sign) = to.sign {
                // Before the name, so that whoever comes by it finds the signatures.
                push(&by_digest)?;
                sign(&by_digest, &to.signables(&sealed, index.as_ref()))?;
            }
            let done = push(if self.by_digest { &by_digest } else { name })?;
            pushed.push(format!("{}@{}", name.repository(), done.digest));
        }
        Ok(pushed)
    }
}

/// What names keep beside the images, so that a later push of a name takes it along: of the manifests that it sends.
pub(super) fn kept_beside(outputs: &[Output], to: &Delivery<'_>) -> anyhow::Result<Vec<KeptBeside>> {
    let form = outputs.iter().find_map(|output| match output {
        Output::Image(image) => Some(image.form.clone()),
        _ => None,
    });
    let form = form.unwrap_or_default();
    let mut all = Vec::new();
    for part in to.parts.iter().filter(|part| part.said.is_some()) {
        let options = form.delivered(part);
        let sealed = to.store.manifest_or_stop(&part.image, &options, to.stop)?;
        let beside = part.beside(to.store, to.scope, &sealed)?;
        all.extend(beside.map(|beside| KeptBeside { image: part.image.id.clone(), options, beside }));
    }
    Ok(all)
}

impl Delivery<'_> {
    /// What is said of these manifests of the parts, for their index.
    fn besides(&self, sealed: &[(Image, SealedManifest)]) -> anyhow::Result<Vec<Beside>> {
        let parts = self.parts.iter().zip(sealed);
        let besides = parts.map(|(part, (_, sealed))| part.beside(self.store, self.scope, sealed));
        besides.filter_map(Result::transpose).collect()
    }

    /// What a key signs: the image of each platform with what is said of it, and the index around them.
    fn signables(&self, sealed: &[(Image, SealedManifest)], index: Option<&SealedIndex>) -> Vec<Signable> {
        let images = self.parts.iter().zip(sealed).map(|(part, (_, sealed))| Signable {
            subject: Descriptor::of(
                sealed.manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST),
                &sealed.bytes,
            ),
            statements: part.said.as_ref().map(|said| said.statements(&sealed.digest)).unwrap_or_default(),
        });
        let index = index.map(|index| Signable {
            subject: Descriptor::of(index.index.media_type.as_deref().unwrap_or(media_type::INDEX), &index.bytes),
            statements: Vec::new(),
        });
        images.chain(index).collect()
    }
}

impl ArchiveOutput {
    fn write(&self, to: &Delivery<'_>) -> anyhow::Result<()> {
        let names = if self.names.is_empty() { to.names } else { &self.names };
        let nameless = names.is_empty().then_some(None);
        let mut images: Vec<(Option<Reference>, Image)> = Vec::new();
        for name in names.iter().map(Some).chain(nameless) {
            images.extend(to.parts.iter().map(|part| (name.cloned(), part.image.clone())));
        }
        let annotations = &self.form.annotations;
        let mut options = SaveOptions {
            index_annotations: annotations.index(),
            index_descriptor_annotations: annotations.index_descriptor(),
            nameless_are_one: true,
            ..SaveOptions::default()
        };
        for part in to.parts {
            let (platform, manifest) = (part.image.config.platform(), self.form.delivered(part));
            if self.kind != Archive::Docker {
                // The part that takes long, and can be stopped.
                let sealed = to.store.manifest_or_stop(&part.image, &manifest, to.stop)?;
                options.besides.extend(part.beside(to.store, to.scope, &sealed)?);
            }
            let descriptor = annotations.manifest_descriptor(&platform);
            options.platforms.push((platform, manifest, descriptor));
        }
        let format = match (self.kind, &self.path) {
            (Archive::OciDirectory, Some(path)) => {
                return to
                    .store
                    .save_layout_dir(&images, &options, path)
                    .with_context(|| format!("cannot write {}", path.display()));
            }
            (Archive::Docker, _) => ArchiveFormat::Docker,
            _ => ArchiveFormat::Oci,
        };
        to_file_or_stdout(self.path.as_deref(), |out| {
            to.store.save(&images, format, &options, out).context("cannot write the archive")
        })
    }
}

/// Writes the image's files into a directory, and what is said of them beside them.
fn export(to: &Delivery<'_>, part: &Part, directory: &Path, is_split: bool, prefix: &str) -> anyhow::Result<()> {
    let image = &part.image;
    let platform = image.config.platform().to_string().replace('/', "_");
    let directory = if is_split { directory.join(platform) } else { directory.to_owned() };
    // An ordinary user cannot give files away; in his namespace the image's owners are ids that mean nothing outside.
    let keep_owners = matches!(to.context.privilege(), Privilege::Root { .. });
    let report = to
        .store
        .export_directory(image, &directory, keep_owners, to.stop)
        .with_context(|| format!("cannot write the image's files to {}", directory.display()))?;
    for (name, bytes) in part.files_said(to, prefix)? {
        write_private(&directory.join(name), &bytes)?;
    }
    let many = |number: u64, word: &str| text::count(usize::try_from(number).unwrap_or(usize::MAX), word);
    if report.special > 0 {
        (to.warn)(format!(
            "{} left out of {}; `--output type=tar` has them",
            many(report.special, "device node or socket was"),
            directory.display()
        ));
    }
    if report.set_ids > 0 {
        (to.warn)(format!(
            "{} without its set-id bit in {}, where it would be effective; `--output type=tar` keeps it",
            many(report.set_ids, "program stands"),
            directory.display()
        ));
    }
    Ok(())
}

/// Whole or not at all, in place of what has the name; for its owner, as BuildKit writes attestations.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".seatrial-").tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn to_file_or_stdout(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn std::io::Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match path {
        Some(path) => write_file(path, write).with_context(|| format!("cannot write {}", path.display())),
        None => {
            let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            write(&mut out)?;
            out.flush().context("cannot write to stdout")
        }
    }
}

/// Stdout takes no archive when it is a terminal.
fn refuse_terminal(path: Option<&PathBuf>, kind: &str) -> Result<(), Failure> {
    if path.is_none() && terminal::streams().stdout_is_terminal {
        return Err(Failure::usage("an archive is nothing for a terminal")
            .hint(format!("name a file: `--output type={kind},dest=FILE`")));
    }
    Ok(())
}
