//! Who signs, and `seatrial sign`: signatures of what a registry has.

use std::collections::BTreeMap;

use evidence::{
    Attachment, Bundle, Resource, Signer, Statement, collect_kinds, images_of, predicate, promotion::attach,
};
use oci::{Descriptor, ManifestOrIndex, Reference};
use pipeline::{OpenSigner, Plan};
use registry::Client;

use super::{keys, named};
use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    settings,
    terminal::{self, text},
};

/// In the file of what this machine permits: programs that a pipeline file names as keys.
const PROGRAMS: &str = "sign.exec";
/// Manifests and indexes are short.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Flags of `seatrial sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct SignImageArgs {
    /// Name of the image in its registry; of several platforms, the index and each image that it lists
    image: Reference,
    /// Private key: a file, `env://NAME`, or `exec://PROGRAM`
    #[arg(short, long, value_name = "KEY")]
    key: String,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Signs an image where it is.
pub(crate) fn run(args: &SignImageArgs, context: &Context) -> anyhow::Result<Exit> {
    let image = named::with_default_tag(&args.image);
    let signer = open(Some(&args.key), context)?.expect("a key is named");
    let client = context.client(&args.engine.insecure_registry);
    let (root, signed) = context.block_on_cancellable(async {
        let resolved = client.fetch_manifest(&image, MANIFEST_BYTES_MAX).await?;
        let root = image.with_digest(resolved.descriptor.digest.clone());
        let listed = match &resolved.document {
            ManifestOrIndex::Index(index) => images_of(index),
            ManifestOrIndex::Manifest(_) => Vec::new(),
        };
        // Images first: whoever sees the index signed finds them signed as well.
        let subjects = listed.into_iter().chain([resolved.descriptor]);
        let signables: Vec<Signable> = subjects.map(|subject| Signable { subject, statements: Vec::new() }).collect();
        let signed = attach_all(&client, &root, &signables, &signer).await?;
        anyhow::Ok((root, (signed, signables.len())))
    })?;
    let (new, all) = signed;
    let known = if new < all { format!(", {} already", all - new) } else { String::new() };
    let words = format!("{} signed by {}{known}", text::count(new, "manifest"), signer.public().fingerprint());
    terminal::message_line(&words);
    terminal::result_line(&root.to_string());
    Ok(Exit::Passed)
}

/// A manifest in a registry, and what the key says of it beside that it stands for it.
pub(super) struct Signable {
    pub(super) subject: Descriptor,
    pub(super) statements: Vec<Statement>,
}

/// Signs all of it in one repository; gives how many manifests had no signature by this key.
pub(super) async fn attach_all(
    client: &Client,
    repository: &Reference,
    signables: &[Signable],
    signer: &Signer,
) -> anyhow::Result<usize> {
    let keys = [signer.public().clone()];
    let mut new = 0;
    for Signable { subject, statements } in signables {
        let place = repository.with_digest(subject.digest.clone());
        let said = statements.iter().filter(|_| !signer.is_repeatable()).map(|said| said.predicate_type.as_str());
        let kinds: Vec<&str> = [predicate::SIGNATURE].into_iter().chain(said).collect();
        let known = collect_kinds(client, &place, &kinds).await?;
        let known = known.iter().filter_map(|found| found.check(&subject.digest, &keys).ok());
        let known: Vec<&Statement> = known.map(|trusted| trusted.statement).collect();
        let is_signed = known.iter().any(|known| known.predicate_type == predicate::SIGNATURE);
        let signature = Statement::signature(Resource::image(&repository.repository(), &subject.digest));
        let signature = (!is_signed).then_some(&signature);
        new += usize::from(!is_signed);
        for statement in statements.iter().filter(|said| !known.contains(said)).chain(signature) {
            // A key service may take a while to answer.
            let bundle = tokio::task::block_in_place(|| Bundle::sign(statement, signer));
            let bundle = bundle.map_err(|error| keys::signing_failure(&error))?;
            attach(client, &place, &Attachment::new(&bundle, statement, subject)).await?;
        }
    }
    Ok(new)
}

/// Opens a key that the user names.
pub(super) fn open(key: Option<&str>, context: &Context) -> Result<Option<Signer>, Failure> {
    let Some(key) = key else { return Ok(None) };
    let signer = keys::open(&keys::source(key)?, &context.settings.cwd);
    signer.map(Some).map_err(|error| keys::signing_failure(&error))
}

/// Flags of what publishes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SignArgs {
    /// Private key that signs what is said of the published image: a file, `env://NAME`, or `exec://PROGRAM` [default: the pipeline file's]
    #[arg(long, value_name = "KEY")]
    sign_key: Option<String>,
}

impl SignArgs {
    /// How keys are opened, for each image that is to be signed: the flag's for all of them, else each one's own.
    pub(super) fn signers(
        &self,
        plan: &Plan,
        context: &Context,
    ) -> Result<BTreeMap<Option<String>, OpenSigner>, Failure> {
        let mut signers = BTreeMap::new();
        for part in plan.parts() {
            let own = part.publish.as_ref().and_then(|publish| publish.sign.as_ref()).map(|sign| &sign.key);
            if let Some(key) = self.sign_key.as_ref().or(own) {
                signers.insert(part.entry.clone(), self.open(key, context)?);
            }
        }
        Ok(signers)
    }

    fn open(&self, key: &str, context: &Context) -> Result<OpenSigner, Failure> {
        let source = keys::source(key)?;
        let is_ours = self.sign_key.is_some();
        let is_allowed =
            || settings::locally_allowed(&|name| std::env::var_os(name)).iter().any(|line| line == PROGRAMS);
        if matches!(source, evidence::KeySource::Program(_)) && !is_ours && !is_allowed() {
            return Err(Failure::usage(format!("`publish.sign` starts a program ({source}), which this machine does not allow"))
                .hint(format!(
                    "allow it to all pipelines that run here: write `{PROGRAMS}` into /etc/seatrial/allow or ~/.config/seatrial/allow"
                ))
                .hint(format!("or say it yourself: `--sign-key '{source}'`")));
        }
        let directory = context.settings.cwd.clone();
        let (place, from) = (source.clone(), directory.clone());
        let opened = OpenSigner::new(move || keys::open_quietly(&source, &directory));
        Ok(opened.looked_at_by(move || keys::look(&place, &from)))
    }
}
