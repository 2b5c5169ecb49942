//! An image's history says how a layer was made in the words of whatever built it; here it becomes an instruction again.

/// What the classic builder of docker writes before an instruction that makes no layer.
const NOP: &str = "/bin/sh -c #(nop) ";
/// What it writes before a command.
const SHELL: &str = "/bin/sh -c ";
/// What BuildKit writes behind everything.
const BUILDKIT: &str = " # buildkit";

/// The instruction as it may have been written, from the `created_by` of a history entry (image-spec, "history").
pub fn readable_instruction(created_by: &str) -> String {
    let text = created_by.trim();
    let text = text.strip_suffix(BUILDKIT).unwrap_or(text);
    if let Some(instruction) = text.strip_prefix(NOP.trim_end()) {
        return instruction.trim().to_owned();
    }
    // `RUN |2 A=1 B=2 /bin/sh -c command`, also without RUN.
    let (run, rest) = match text.strip_prefix("RUN ") {
        Some(rest) => ("RUN ", rest),
        None => ("", text),
    };
    let rest = without_arguments(rest);
    match rest.strip_prefix(SHELL) {
        Some(command) => format!("RUN {}", command.trim_start()),
        None if rest.len() != text.len() && run.is_empty() => format!("RUN {rest}"),
        None => format!("{run}{rest}"),
    }
}

/// Without the build arguments that a command could see. A value may hold blanks, so only the shell that follows tells
/// for sure where they end.
fn without_arguments(text: &str) -> &str {
    let Some(rest) = text.strip_prefix('|') else { return text };
    let Some((count, rest)) = rest.split_once(' ') else { return text };
    let Ok(count) = count.parse::<usize>() else { return text };
    if let Some(at) = rest.find(SHELL) {
        return &rest[at..];
    }
    let mut rest = rest;
    for _ in 0..count {
        match rest.split_once(' ') {
            Some((argument, after)) if argument.contains('=') => rest = after,
            _ => break,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::readable_instruction;

    #[test]
    fn history_of_every_builder_becomes_an_instruction() {
        for (history, expected) in [
            ("/bin/sh -c #(nop)  CMD [\"bash\"]", "CMD [\"bash\"]"),
            ("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /"),
            ("/bin/sh -c apt-get update", "RUN apt-get update"),
            ("RUN /bin/sh -c pip install x # buildkit", "RUN pip install x"),
            ("RUN |1 V=1 /bin/sh -c echo $V # buildkit", "RUN echo $V"),
            ("|2 A=1 B=two words /bin/sh -c echo", "RUN echo"),
            ("RUN |1 MODE=fast echo $MODE > /mode", "RUN echo $MODE > /mode"),
            ("COPY src /src # buildkit", "COPY src /src"),
            ("ENV A=1", "ENV A=1"),
            ("", ""),
        ] {
            assert_eq!(readable_instruction(history), expected, "{history}");
        }
    }
}
