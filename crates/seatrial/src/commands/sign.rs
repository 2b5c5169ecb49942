//! Whom a publishing run signs as.

use std::collections::BTreeMap;

use pipeline::{OpenSigner, Plan};

use super::keys;
use crate::{context::Context, failure::Failure, settings};

/// In the file of what this machine permits: programs that a pipeline file names as keys.
const PROGRAMS: &str = "sign.exec";

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
        Ok(OpenSigner::new(move || keys::open_quietly(&source, &directory)))
    }
}
