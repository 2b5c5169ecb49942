//! The commands in the text of a RUN, seen roughly: enough to tell which package managers are called, and how.
//!
//! This is no shell: quotes are not matched up and variables are not known. What is found is only ever a reason to warn.

/// One simple command: the program's name without directories, and its words.
#[derive(Clone, Debug)]
pub(super) struct Call<'t> {
    pub(super) program: &'t str,
    words: Vec<&'t str>,
    /// The command as written.
    pub(super) text: &'t str,
}

impl<'t> Call<'t> {
    /// Words that are no flags, in order.
    pub(super) fn plain(&self) -> impl Iterator<Item = &'t str> {
        self.words.iter().copied().filter(|word| !word.starts_with('-'))
    }

    /// Words that are flags.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'t str> {
        self.words.iter().copied().filter(|word| word.starts_with('-'))
    }

    /// Whether the program is one of these, and its first words (flags left out) are one of those sequences.
    pub(super) fn is(&self, programs: &[&str], actions: &[&str]) -> bool {
        let is_action = |action: &&str| {
            let mut words = self.plain();
            action.split(' ').all(|part| words.next() == Some(part))
        };
        programs.contains(&self.program) && actions.iter().any(is_action)
    }
}

/// The simple commands of a shell text, in order.
pub(super) fn calls(text: &str) -> impl Iterator<Item = Call<'_>> {
    text.split([';', '&', '|', '(', ')', '{', '}', '\n', '`']).filter_map(call)
}

/// Words before a command that are not the command.
const BEFORE: [&str; 14] =
    ["!", "command", "do", "elif", "else", "env", "exec", "if", "nice", "sudo", "then", "time", "until", "while"];

fn call(text: &str) -> Option<Call<'_>> {
    let is_assignment = |word: &str| {
        word.split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|ch| ch.is_ascii_alphanumeric() || ch == '_'))
    };
    let unquoted = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    let mut words = unquoted.skip_while(|word| BEFORE.contains(word) || is_assignment(word) || word.starts_with('-'));
    let mut program = words.next()?;
    let mut words: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
    if program.rsplit('/').next().is_some_and(|name| name.starts_with("python")) && words.first() == Some(&"-m") {
        program = words.get(1)?;
        words.drain(..2);
    }
    let program = program.rsplit('/').next().filter(|name| !name.is_empty())?;
    Some(Call { program, words, text: text.trim() })
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn commands_are_found() {
        let text = "set -e; if ! sudo -E DEBIAN_FRONTEND=x /usr/bin/apt-get -qq update; then (python3 -m pip install 'a b'); fi \
                    && FOO=1 npm --loglevel warn ci # npm test\necho apt-get install";
        let found: Vec<String> = calls(text)
            .map(|call| format!("{} {}", call.program, call.plain().collect::<Vec<_>>().join(" ")))
            .collect();
        let expected = ["set ", "apt-get update", "pip install a b", "fi ", "npm warn ci", "echo apt-get install"];
        assert_eq!(found, expected);
        let call = calls("uv  pip -q install x").next().unwrap();
        assert!(call.is(&["uv"], &["sync", "pip install"]));
        assert!(!call.is(&["uv"], &["pip sync"]) && !call.is(&["pip"], &["pip install"]));
        assert_eq!((call.text, call.flags().count()), ("uv  pip -q install x", 1));
        assert_eq!(calls(" ;; && ( ) ").count(), 0);
    }
}
