//! `registry webhooks`: what waits to be delivered and what failed, with the last answers; and failed deliveries once more.

use std::time::SystemTime;

use ::registry::{Delivery, HookState};

use super::Place;
use crate::{
    context::Context,
    exit::Exit,
    terminal::{
        self,
        table::{self, Format},
        text,
    },
};

/// Flags of `seatrial registry webhooks`.
#[derive(Debug, clap::Args)]
pub(crate) struct WebhooksArgs {
    #[command(flatten)]
    place: Place,
    /// Send this failed delivery once more, or `all` of them
    #[arg(long, value_name = "ID")]
    redeliver: Option<String>,
    /// `json` for a line each, or a template such as `{{.name}}`
    #[arg(long)]
    format: Option<String>,
}

/// Lists deliveries, or sends them again.
pub(super) fn run(args: &WebhooksArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let (directory, _) = args.place.existing(context)?;
    if let Some(id) = &args.redeliver {
        let id = Some(id.as_str()).filter(|id| *id != "all");
        let count = ::registry::redeliver(&directory, id)?;
        terminal::message_line(&format!("sending {} again", text::count(count, "failed notice")));
        return Ok(Exit::Passed);
    }
    let states = ::registry::webhooks(&directory)?;
    if format != Format::Table {
        for state in &states {
            terminal::result_line(&format.line(&serde_json::to_value(state)?)?.unwrap_or_default());
        }
        return Ok(Exit::Passed);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let rows: Vec<Vec<String>> = states.iter().flat_map(|state| rows(state, now)).collect();
    if rows.is_empty() {
        terminal::message_line("nothing was told to a webhook yet");
        return Ok(Exit::Passed);
    }
    let headings = ["WEBHOOK", "STATE", "ID", "EVENT", "SINCE", "ATTEMPTS", "LAST ANSWER"];
    terminal::result_line(table::render(&headings, &rows).trim_end());
    Ok(Exit::Passed)
}

fn rows(state: &HookState, now_ms: u64) -> Vec<Vec<String>> {
    let ago = |at_ms: u64| text::ago(std::time::Duration::from_millis(now_ms.saturating_sub(at_ms)));
    let row = |word: &str, delivery: &Delivery| {
        let answer = delivery.answer.as_ref().map_or_else(String::new, |answer| {
            let said = text::one_line(&answer.text);
            match answer.status {
                Some(status) => format!("{status} {said}, {}", ago(answer.at_ms)),
                None => format!("{said}, {}", ago(answer.at_ms)),
            }
        });
        let (id, what) = (delivery.id.clone(), text::one_line(&delivery.summary));
        vec![
            state.name.clone(),
            word.to_owned(),
            id,
            what,
            ago(delivery.created_ms),
            delivery.attempts.to_string(),
            answer,
        ]
    };
    let failed = state.failed.iter().map(|delivery| row("failed", delivery));
    let pending = state.pending.iter().map(|delivery| row("pending", delivery));
    failed.chain(pending).chain(state.last.iter().map(|delivery| row("delivered", delivery))).collect()
}
