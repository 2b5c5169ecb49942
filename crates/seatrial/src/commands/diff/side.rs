//! The two that are compared: images of the store, of runs, of archives, or of registries, of which as little is fetched as is
//! needed: manifest and config first, what is said beside it, and layers only when somebody asks for what is in them.

use anyhow::Context as _;
use evidence::{Collected, Statement};
use oci::{Digest, ImageConfig, Manifest, Reference};
use store::{Image, Scope, Store};

use super::DiffArgs;
use crate::{
    commands::{
        copy::place::Place,
        logs::{find_run, is_run},
        named,
        obtain::{Wanted, obtain},
        record::RunRecord,
        run::prepare,
    },
    context::Context,
    failure::Failure,
    terminal,
};

/// One of the two.
pub(super) struct Side {
    /// As the user calls it.
    pub(super) name: String,
    /// Digest of the config.
    pub(super) id: Digest,
    /// How it is run.
    pub(super) config: ImageConfig,
    /// Where the store has its layers.
    pub(super) image: Option<Image>,
    /// Where it was found in a registry.
    pub(super) remote: Option<Remote>,
    /// The commit that its run noted.
    pub(super) commit_of_run: Option<String>,
}

/// An image as its registry tells of it.
pub(super) struct Remote {
    /// By digest.
    pub(super) place: Reference,
    pub(super) manifest: Manifest,
    /// What is said beside it. Nothing of it is believed to be more than what somebody says.
    pub(super) said: Vec<Statement>,
}

/// Where and how images are looked for.
pub(super) struct Finder<'a> {
    pub(super) args: &'a DiffArgs,
    pub(super) store: &'a Store,
    pub(super) scope: &'a Scope,
    pub(super) context: &'a Context,
}

impl Finder<'_> {
    /// The image that is meant: of the store, of a run, of an archive, which is read into the store without a name, or of its
    /// registry.
    pub(super) fn side(&self, wanted: &str) -> anyhow::Result<Side> {
        if let Some(name) = wanted.strip_prefix("docker://") {
            return self.remote(wanted, &name.parse::<Reference>()?);
        }
        let missing = match named::find(self.store, wanted) {
            Ok((_, image)) => return Ok(self.local(wanted, image)),
            Err(error) => error,
        };
        if is_run(wanted) {
            return self.of_run(wanted);
        }
        if let Ok(digest) = wanted.parse::<Digest>() {
            return self.of_digest(wanted, digest).unwrap_or_else(|| {
                let missing = Failure::refused(format!("there is no image of the digest {wanted} here"));
                Err(missing.hint(format!("name its repository: `registry.example/team/app@{wanted}`")).into())
            });
        }
        let is_archive = wanted.parse::<Place>().is_ok_and(|place| !matches!(place, Place::Registry(_)));
        if is_archive || self.context.settings.cwd.join(wanted).exists() {
            return Ok(self.local(wanted, self.bring(wanted)?));
        }
        match wanted.parse::<Reference>() {
            Ok(reference) if names_registry(wanted, &reference) => self.remote(wanted, &reference),
            _ => Err(missing),
        }
    }

    fn local(&self, name: &str, image: Image) -> Side {
        let commit_of_run = self.commit_of_run(&image.id);
        let (id, config) = (image.id.clone(), image.config.clone());
        Side { name: name.to_owned(), id, config, image: Some(image), remote: None, commit_of_run }
    }

    fn of_run(&self, wanted: &str) -> anyhow::Result<Side> {
        let run = find_run(self.store, wanted)?;
        let record = RunRecord::read(&run);
        let Some(id) = record.as_ref().and_then(|record| record.image.clone()) else {
            return Err(Failure::refused(format!("run {} left no image", run.number)).into());
        };
        let (_, image) = named::find(self.store, &id)?;
        let side = self.local(&format!("run {}", run.number), image);
        Ok(Side { commit_of_run: record.and_then(|record| record.commit).or(side.commit_of_run), ..side })
    }

    /// What the digest of a manifest means: an image that was pulled or sealed here, else one of the pipeline's repository.
    fn of_digest(&self, wanted: &str, digest: Digest) -> Option<anyhow::Result<Side>> {
        let images = self.store.images().unwrap_or_default();
        if let Some(found) = images.into_iter().find(|found| found.manifest_digest.as_ref() == Some(&digest)) {
            return Some(Ok(self.local(wanted, found.image)));
        }
        pipeline::find_file(&self.context.settings.cwd)?;
        let plan = match prepare(self.context, None, None) {
            Ok(prepared) => prepared.plan,
            Err(failure) => return Some(Err(failure.into())),
        };
        let published = plan.publish.as_ref().and_then(|publish| publish.repositories.first().cloned());
        let repository = published.or_else(|| plan.image_is_given.then(|| plan.image.clone()))?;
        Some(self.remote(wanted, &repository.with_digest(digest)))
    }

    /// The commit of the newest run that gave an image.
    fn commit_of_run(&self, id: &Digest) -> Option<String> {
        /// Runs that are looked through, the newest first; older ones are rarely what somebody compares.
        const RUNS_MAX: usize = 200;
        let id = id.to_string();
        let runs = self.store.runs().ok()?;
        let mut records = runs.iter().rev().take(RUNS_MAX).filter_map(RunRecord::read);
        records.find(|record| record.image.as_ref() == Some(&id)).and_then(|record| record.commit)
    }

    /// Manifest, config, and what is said beside them; no layer.
    fn remote(&self, wanted: &str, reference: &Reference) -> anyhow::Result<Side> {
        let client = self.context.client(&self.args.engine.insecure_registry);
        let reference = named::with_default_tag(reference);
        let platform = self.args.platform.clone().unwrap_or_else(oci::Platform::host);
        let (place, manifest, bytes, collected) = self.context.block_on_cancellable(async {
            let (resolved, manifest) = client.fetch_image_manifest(&reference, &platform).await?;
            let config = client.fetch_small_blob(&reference, &manifest.config).await?;
            let collected = evidence::collect(&client, &reference, Some(&platform)).await;
            Ok((reference.with_digest(resolved.descriptor.digest), manifest, config, collected))
        })?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not an image: its config cannot be read", reference.familiar()))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let message = format!("{} is no image that can be compared", reference.familiar());
            return Err(Failure::refused(format!("{message}: its config lists other layers than its manifest")).into());
        }
        let said = match collected {
            Ok(collected) => statements(&collected),
            Err(error) => {
                let message = crate::failure::chain(&error).join(": ");
                terminal::warning(&format!("what is said of {} is not known: {message}", reference.familiar()));
                Vec::new()
            }
        };
        let id = manifest.config.digest.clone();
        let image = self.store.image(&id).ok().flatten();
        let remote = Some(Remote { place, manifest, said });
        Ok(Side { name: wanted.to_owned(), commit_of_run: self.commit_of_run(&id), id, config, image, remote })
    }

    /// Brings the layers of an image that is in a registry only.
    pub(super) fn fetch_layers(&self, side: &mut Side) -> anyhow::Result<()> {
        if let (None, Some(remote)) = (&side.image, &side.remote) {
            side.image = Some(self.bring(&format!("docker://{}", remote.place))?);
        }
        Ok(())
    }

    fn bring(&self, wanted: &str) -> anyhow::Result<Image> {
        let wanted = Wanted {
            name: wanted,
            platform: self.args.platform.as_ref(),
            progress: self.args.progress,
            insecure_registries: &self.args.engine.insecure_registry,
        };
        Ok(obtain(&wanted, self.store, self.scope, self.context)?.1)
    }
}

/// What speaks of the very image (or its index) that it is attached to.
fn statements(collected: &Collected) -> Vec<Statement> {
    let readable = collected.found.iter().filter_map(|found| Some((found, found.statement().ok()?)));
    let own = readable.filter(|(found, statement)| statement.speaks_of(&found.attached_to));
    own.map(|(_, statement)| statement.clone()).collect()
}

/// Whether a name says in which registry it is. Without that it is more likely a slip than an image of docker.io.
fn names_registry(text: &str, reference: &Reference) -> bool {
    let host = text.split_once('/').map(|(host, _)| host);
    host.is_some_and(|host| host.contains(['.', ':'])) && reference.domain() != "localhost"
}
