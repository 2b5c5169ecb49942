//! `seatrial explain`: the long text behind a code or a rule.

use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A code such as ST104, or the name of a rule; without one, all are listed
    topic: Option<String>,
}

/// One thing that can be explained.
struct Topic {
    code: &'static str,
    name: &'static str,
    text: &'static str,
}

fn topics() -> Vec<Topic> {
    let codes = dockerfile::codes::ALL.iter().chain(pipeline::codes::ALL);
    let codes = codes.map(|&(code, name, text)| Topic { code, name, text });
    let rules = dockerfile::lint::RULES.iter().map(|rule| Topic { code: rule.code, name: rule.name, text: rule.docs });
    let mut topics: Vec<Topic> = codes.chain(rules).collect();
    topics.sort_by_key(|topic| topic.code);
    topics
}

/// Prints the explanation of a code or rule.
pub(crate) fn run(args: &ExplainArgs, _: &Context) -> anyhow::Result<Exit> {
    let topics = topics();
    let Some(wanted) = &args.topic else {
        let rows: Vec<Vec<String>> =
            topics.iter().map(|topic| vec![topic.code.to_owned(), topic.name.to_owned()]).collect();
        terminal::result(&terminal::table::render(&["CODE", "SAYS"], &rows));
        return Ok(Exit::Passed);
    };
    let is_wanted = |topic: &&Topic| topic.code.eq_ignore_ascii_case(wanted) || topic.name.eq_ignore_ascii_case(wanted);
    let found: Vec<&Topic> = topics.iter().filter(is_wanted).collect();
    if found.is_empty() {
        let names = topics.iter().flat_map(|topic| [topic.code, topic.name]);
        let failure = Failure::usage(format!("there is nothing called `{wanted}` to explain"));
        return Err(match dockerfile::nearest(wanted, names) {
            Some(near) => failure.hint(format!("did you mean `seatrial explain {near}`?")),
            None => failure.hint("see all codes with `seatrial explain`"),
        }
        .into());
    }
    let texts: Vec<String> =
        found.iter().map(|topic| format!("{}: {}\n\n{}\n", topic.code, topic.name, topic.text.trim_end())).collect();
    terminal::result(&texts.join("\n"));
    Ok(Exit::Passed)
}
