//! Hostile output: long lines, no newline, binary bytes, marks.

use std::sync::{Arc, Mutex};

use events::{Record, Subscriber};

use super::*;

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Subscriber for Heard {
    fn event(&self, record: &Record) {
        self.0.lock().expect("no panic").push(record.event.clone());
    }
}

fn inner(steps: usize, mark: Option<&str>) -> (Inner, Arc<Heard>, tempfile::TempDir) {
    let heard = Arc::new(Heard::default());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let mut inner = Inner {
        events: EventSink::new(vec![Arc::clone(&heard) as Arc<dyn Subscriber>]),
        stage: "unit".into(),
        file: Some(std::fs::File::create(&path).expect("made")),
        path,
        written_bytes: 0,
        lost_bytes: 0,
        line: Vec::new(),
        is_continued: false,
        tail: VecDeque::new(),
        lines: 0,
        steps: (0..steps).map(|n| StepText { text: n.to_string(), place: None }).collect(),
        mark: mark.map(|nonce| [&[MARK], nonce.as_bytes()].concat()),
        begun: 0,
        step_id: 0,
        step_start: Instant::now(),
        is_finished: false,
        masker: None,
    };
    if inner.mark.is_none() {
        inner.begin_step();
    }
    (inner, heard, dir)
}

fn story(heard: &Heard) -> Vec<String> {
    let events = heard.0.lock().expect("no panic");
    events
        .iter()
        .map(|event| match event {
            Event::StepStarted { text, .. } => format!("+{text}"),
            Event::StepLog { line, .. } => line.clone(),
            Event::StepFinished { exit_code, .. } => format!("={exit_code}"),
            Event::Warning { message, .. } => format!("!{message}"),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn marks_divide_the_output_into_steps() {
    let (mut inner, heard, _dir) = inner(3, Some("n0nce"));
    for piece in ["\x1en0", "nce\none\ntwo", "\x1en0nce\n", "\x1eother\nthree\n"] {
        inner.take(piece.as_bytes());
    }
    inner.finish(2);
    assert_eq!(story(&heard), ["+0", "one", "two", "=0", "+1", "\u{1e}other", "three", "=2"]);
    assert_eq!(fs_err::read(&inner.path).expect("there"), b"one\ntwo\n\x1eother\nthree\n");
    assert_eq!(inner.begun, 2);
}

#[test]
fn lines_are_bounded_and_binary_bytes_harmless() {
    let (mut inner, heard, _dir) = inner(1, None);
    inner.take(&vec![b'x'; LINE_BYTES_MAX + 10]);
    inner.take(b"\n\xff\xfe\r\nlast");
    inner.finish(0);
    let story = story(&heard);
    assert_eq!(story.iter().map(String::len).collect::<Vec<_>>(), [2, LINE_BYTES_MAX, 10, 6, 4, 2]);
    assert_eq!(story[3], "\u{fffd}\u{fffd}");
    // The file has the very bytes.
    assert_eq!(fs_err::metadata(&inner.path).expect("there").len(), LINE_BYTES_MAX as u64 + 10 + 1 + 4 + 4);
}

#[test]
fn the_tail_is_short_and_counts_what_came_before() {
    let (mut inner, _heard, _dir) = inner(1, None);
    for n in 0..100 {
        inner.take(format!("line {n}\n").as_bytes());
    }
    inner.finish(1);
    assert_eq!((inner.tail.len(), inner.lines), (TAIL_LINES_MAX, 100));
    assert_eq!(inner.tail.back().map(String::as_str), Some("line 99"));
}

#[test]
fn a_log_beyond_the_limit_is_cut_with_a_mark_and_the_tail_goes_on() {
    let (mut inner, heard, _dir) = inner(1, None);
    inner.written_bytes = LOG_BYTES_MAX - 3;
    inner.take(b"ab\ncd\nef\n");
    inner.finish(1);
    let text = fs_err::read_to_string(&inner.path).expect("there");
    assert_eq!(text, "ab\n\n[seatrial: log cut here, 6 B more were left out]\n");
    assert_eq!(inner.tail, ["ab", "cd", "ef"]);
    assert!(story(&heard).iter().any(|line| line.starts_with("!the log of unit is cut")));
    assert_eq!(story(&heard).iter().filter(|line| *line == "cd").count(), 0);
}
