//! The only place that prints. Results go to stdout; progress and messages go to stderr.

pub(crate) mod containers;
pub(crate) mod diagnostics;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod model;
pub(crate) mod plain;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod views;

use std::{
    io::{IsTerminal, Write},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::failure::Failure;

/// What the two output streams are able to do; judged once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// stderr is a terminal that understands cursor movement.
    pub(crate) stderr_is_terminal: bool,
    /// Colours on stderr.
    pub(crate) stderr_colours: bool,
    /// stdout is a terminal.
    pub(crate) stdout_is_terminal: bool,
    /// Colours on stdout.
    pub(crate) stdout_colours: bool,
}

/// The streams of this process, by `NO_COLOR`, `CLICOLOR_FORCE`, `TERM` and what they are connected to.
pub(crate) fn streams() -> Streams {
    static STREAMS: OnceLock<Streams> = OnceLock::new();
    *STREAMS.get_or_init(|| {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let stderr = std::io::stderr().is_terminal();
        let stdout = std::io::stdout().is_terminal();
        let colours = |is_terminal: bool| {
            if set("NO_COLOR").is_some() {
                false
            } else if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
                true
            } else {
                is_terminal && !dumb
            }
        };
        Streams {
            stderr_is_terminal: stderr && !dumb,
            stderr_colours: colours(stderr),
            stdout_is_terminal: stdout,
            stdout_colours: colours(stdout),
        }
    })
}

/// Colours by meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// Colours, or none.
    pub(crate) fn new(on: bool) -> Self {
        Self { on }
    }

    /// What stderr takes.
    pub(crate) fn stderr() -> Self {
        Self::new(streams().stderr_colours)
    }

    /// Whether colours are on.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Good news.
    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Bad news.
    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// Something to look at.
    pub(crate) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What matters.
    pub(crate) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(crate) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// A way on.
    pub(crate) fn hint(self, text: &str) -> String {
        self.wrap("36", text)
    }
}

/// Set when stdout's reader has gone; further results are dropped in silence, as other tools do on SIGPIPE.
static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Writes a result (with its own line ends) to stdout.
pub(crate) fn result(text: &str) {
    result_bytes(text.as_bytes());
}

/// Writes result bytes to stdout.
pub(crate) fn result_bytes(bytes: &[u8]) {
    if STDOUT_CLOSED.load(Ordering::Relaxed) {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        STDOUT_CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Writes a result line to stdout.
pub(crate) fn result_line(line: &str) {
    result(&format!("{line}\n"));
}

/// The live part at the bottom of the terminal, which messages must not tear.
pub(crate) struct Screen {
    /// Lines of the live block as last drawn, without colours being counted.
    block: Vec<String>,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen { block: Vec::new() });

fn screen() -> std::sync::MutexGuard<'static, Screen> {
    // A panic while drawing leaves nothing that the next drawing could not mend.
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Screen {
    /// Control text that moves to the block's first line. Lines may have wrapped since the terminal became narrower.
    fn rewind(&self, width: usize) -> String {
        let rows: usize =
            self.block.iter().map(|line| text::width(line).saturating_sub(1).checked_div(width).unwrap_or(0) + 1).sum();
        if rows == 0 { String::new() } else { format!("\x1b[{rows}A\r") }
    }
}

/// Replaces the live block; an empty one removes it.
pub(crate) fn draw(block: Vec<String>, width: usize) {
    let mut screen = screen();
    if screen.block == block {
        return;
    }
    let mut out = screen.rewind(width);
    for line in &block {
        out.push_str(line);
        out.push_str("\x1b[K\n");
    }
    if block.len() < screen.block.len() {
        out.push_str("\x1b[J");
    }
    write_stderr(&out);
    screen.block = block;
}

/// Writes the last state of the live block as ordinary lines that stay.
pub(crate) fn settle(lines: &[String], width: usize) {
    let mut screen = screen();
    let mut out = screen.rewind(width);
    if !out.is_empty() {
        out.push_str("\x1b[J");
    }
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
    screen.block.clear();
    write_stderr(&out);
}

/// Writes a message (with its own line ends) to stderr, above the live block if there is one.
pub(crate) fn message(text: &str) {
    let neutral = neutral(text);
    let text: &str = &neutral;
    let screen = screen();
    if screen.block.is_empty() {
        return write_stderr(text);
    }
    let width = text::terminal_size().1;
    let mut out = screen.rewind(width);
    out.push_str("\x1b[J");
    out.push_str(text);
    for line in &screen.block {
        out.push_str(line);
        out.push_str("\x1b[K\n");
    }
    write_stderr(&out);
}

/// GitHub, Azure and TeamCity read commands such as `##[error]` anywhere in a line; no word from outside may be one.
fn neutral(text: &str) -> std::borrow::Cow<'_, str> {
    static IS_CI: OnceLock<bool> = OnceLock::new();
    let is_ci =
        || ["CI", "GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION"].iter().any(|name| std::env::var_os(name).is_some());
    if text.contains("##") && *IS_CI.get_or_init(is_ci) {
        return text.replace("##", "# #").into();
    }
    text.into()
}

/// Writes a message line to stderr.
pub(crate) fn message_line(line: &str) {
    message(&format!("{line}\n"));
}

/// Tells something that the user should know.
pub(crate) fn warning(text: &str) {
    message_line(&format!("{} {}", Palette::stderr().warn("warning:"), text::one_line(text)));
}

/// One write for one thought, so that lines of several threads do not mix. Nobody is left to hear of its failure.
fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows a failure: block or message, causes, hints.
pub(crate) fn failure(failure: &Failure) {
    let palette = Palette::stderr();
    let mut out = String::new();
    match &failure.block {
        Some(block) => {
            out.push_str(block.trim_end());
            out.push('\n');
        }
        None => {
            out.push_str(&format!("{} {}\n", palette.bad("error:"), text::multi_line(&failure.message)));
            if let Some(events::Place { file, line, column }) = failure.place.as_deref() {
                out.push_str(&format!(" {} {}:{line}:{column}\n", palette.hint("-->"), text::one_line(file)));
            }
            for cause in &failure.causes {
                out.push_str(&format!("  {} {}\n", palette.strong("cause:"), text::multi_line(cause)));
            }
        }
    }
    out.push_str(&hints(&failure.hints, palette));
    message(&out);
}

/// Hints under a blank line.
pub(crate) fn hints(hints: &[String], palette: Palette) -> String {
    let mut out = String::new();
    for (index, hint) in hints.iter().enumerate() {
        if index == 0 {
            out.push('\n');
        }
        out.push_str(&format!("{} {hint}\n", palette.hint("hint:")));
    }
    out
}

/// A message with the place that it speaks of.
pub(crate) fn with_place(message: &str, place: Option<&events::Place>) -> String {
    match place {
        Some(place) => format!("{}:{}: {message}", place.file, place.line),
        None => message.to_owned(),
    }
}
