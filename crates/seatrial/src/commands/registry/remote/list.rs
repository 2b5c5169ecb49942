//! `seatrial registry ls HOST[/REPOSITORY]`.

use ::registry::Client;
use oci::{Descriptor, Reference, media_type};
use serde_json::json;

use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    terminal::{
        self,
        table::{self, Format},
    },
};

/// Flags of `seatrial registry ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// `HOST` for its repositories, `HOST/REPOSITORY` for its tags
    #[arg(value_name = "HOST[/REPOSITORY]")]
    what: String,
    /// Only names: nothing is asked about each tag
    #[arg(short, long)]
    quiet: bool,
    /// Also the tags by which runs claim build numbers (`_build.…`)
    #[arg(short, long)]
    all: bool,
    /// `json` for a line each, or a template such as `{{.Tag}} {{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Lists.
pub(crate) fn run(args: &ListArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let client = context.client(&args.engine.insecure_registry);
    match is_host(&args.what) {
        true => repositories(&client, args, &format, context),
        false => tags(&client, args, &format, context),
    }
}

/// A name without a slash is a host if it looks like one: `localhost`, `a.example`, `a:5000`; else a repository of docker.io.
fn is_host(what: &str) -> bool {
    let host = what.strip_suffix('/').unwrap_or(what);
    !host.contains('/') && (host == "localhost" || host.contains(['.', ':']))
}

fn repositories(client: &Client, args: &ListArgs, format: &Format, context: &Context) -> anyhow::Result<Exit> {
    let host = args.what.trim_end_matches('/');
    let found = context.block_on_cancellable(async { Ok(client.list_repositories(host).await?) })?;
    for path in found {
        let name = format!("{host}/{path}");
        let line = format.line(&json!({ "Name": name, "Repository": path }))?;
        terminal::result_line(&line.unwrap_or(name));
    }
    Ok(Exit::Passed)
}

fn tags(client: &Client, args: &ListArgs, format: &Format, context: &Context) -> anyhow::Result<Exit> {
    let repository: Reference = args.what.parse()?;
    let reads_more = ["Digest", "Type", "Size"].iter().any(|field| format.reads(field));
    let wants_more = !args.quiet && (*format == Format::Table || reads_more);
    let found: Vec<(String, Option<Descriptor>)> = context.block_on_cancellable(async {
        let mut tags = client.list_tags(&repository).await?;
        tags.retain(|tag| args.all || !pipeline::is_claim_tag(tag));
        if !wants_more {
            return Ok(tags.into_iter().map(|tag| (tag, None)).collect());
        }
        Ok(client.resolve_tags(&repository, tags).await?)
    })?;
    if !args.quiet && *format == Format::Table {
        let row = |(tag, found): &(String, Option<Descriptor>)| match found {
            Some(found) => vec![tag.clone(), kind(found).to_owned(), found.digest.to_string()],
            None => vec![tag.clone()],
        };
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        terminal::result(&table::render(&["TAG", "KIND", "DIGEST"], &rows));
        return Ok(Exit::Passed);
    }
    for (tag, found) in found {
        let value = json!({
            "Name": format!("{}:{tag}", repository.familiar()),
            "Tag": tag,
            "Digest": found.as_ref().map(|found| &found.digest),
            "Type": found.as_ref().map(|found| &found.media_type),
            "Size": found.as_ref().map(|found| found.size),
        });
        terminal::result_line(&format.line(&value)?.filter(|_| !args.quiet).unwrap_or(tag));
    }
    Ok(Exit::Passed)
}

fn kind(found: &Descriptor) -> &'static str {
    if media_type::is_index(&found.media_type) { "index" } else { "manifest" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_repositories_are_told_apart() {
        for (what, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("a.example", true),
            ("a.example/", true),
            ("alpine", false),
            ("a.example/app", false),
            ("library/alpine", false),
        ] {
            assert_eq!(is_host(what), expected, "{what}");
        }
    }
}
