//! For each code something wrong and the same put right, for `seatrial explain CODE`.

/// `(code, wrong, right)`: Dockerfiles, or the instructions of one that matter; a command line or a `.dockerignore`
/// where these are at fault.
pub const ALL: &[(&str, &str, &str)] = &[
    ("ST101", "# nothing but a comment\n", "FROM scratch\nCOPY app /app\n"),
    ("ST102", "FROM debian:12\nRNU make\n", "FROM debian:12\nRUN make\n"),
    ("ST103", "RUN make\nFROM debian:12\n", "FROM debian:12\nRUN make\n"),
    ("ST104", "FROM debian:12\nCOPY ../shared/lib /lib\n", "FROM debian:12\nCOPY lib /lib\n"),
    ("ST105", "FROM debian:12\nCOPY --owner=app app /app\n", "FROM debian:12\nCOPY --chown=app app /app\n"),
    ("ST106", "FROM debian:12\nCOPY --chmod=644 --chmod=600 a /a\n", "FROM debian:12\nCOPY --chmod=600 a /a\n"),
    ("ST107", "FROM debian:12\nCOPY --link=yes a /a\n", "FROM debian:12\nCOPY --link=true a /a\n"),
    ("ST108", "FROM debian:12\nCOPY app\n", "FROM debian:12\nCOPY app /app\n"),
    ("ST109", "FROM debian:12\nRUN <<EOF\necho hello\n", "FROM debian:12\nRUN <<EOF\necho hello\nEOF\n"),
    ("ST110", "# escape=x\nFROM debian:12\n", "# escape=`\nFROM debian:12\n"),
    ("ST111", "FROM debian:12 AS 1st\n", "FROM debian:12 AS first\n"),
    ("ST112", "FROM debian:12\nONBUILD FROM debian:11\n", "FROM debian:12\nONBUILD COPY . /src\n"),
    ("ST113", "FROM debian:12\nSHELL /bin/bash -c\n", "FROM debian:12\nSHELL [\"/bin/bash\", \"-c\"]\n"),
    ("ST114", "FROM debian:12\nLABEL a=1 b\n", "FROM debian:12\nLABEL a=1 b=2\n"),
    (
        "ST115",
        "FROM debian:12\nHEALTHCHECK --interval=5 CMD true\n",
        "FROM debian:12\nHEALTHCHECK --interval=5s CMD true\n",
    ),
    (
        "ST116",
        "FROM debian:12\nRUN --mount=type=cash,target=/root/.cache make\n",
        "FROM debian:12\nRUN --mount=type=cache,target=/root/.cache make\n",
    ),
    ("ST117", "FROM debian:12\nCMD ['python', 'app.py']\n", "FROM debian:12\nCMD [\"python\", \"app.py\"]\n"),
    ("ST118", "FROM debian:12\nENV HOME=${USER\n", "FROM debian:12\nENV HOME=${USER}\n"),
    (
        "ST120",
        "FROM debian:12 AS build\nFROM debian:12\nCOPY --from=biuld /app /app\n",
        "FROM debian:12 AS build\nFROM debian:12\nCOPY --from=build /app /app\n",
    ),
    (
        "ST121",
        "FROM debian:12 AS app\nCOPY --from=build /app /app\nFROM debian:12 AS build\n",
        "FROM debian:12 AS build\nFROM debian:12 AS app\nCOPY --from=build /app /app\n",
    ),
    ("ST122", "FROM debain:12\n", "FROM debian:12\n"),
    (
        "ST123",
        "ARG MODE=rwx\nFROM debian:12\nARG MODE\nCOPY --chmod=$MODE a /a\n",
        "FROM debian:12\nCOPY --chmod=755 a /a\n",
    ),
    ("ST124", "FROM debian:12\nCOPY --chown=app a /a\n", "FROM debian:12\nRUN useradd app\nCOPY --chown=app a /a\n"),
    ("ST125", "FROM debian:12\nRUN mkdir /etc\n", "FROM debian:12\nRUN mkdir -p /etc\n"),
    ("ST126", "a[b\n", "a[bc]\n"),
    (
        "ST128",
        "FROM debian:12\nADD https://example.com/app-1.2.tar /\n",
        "FROM debian:12\nADD https://example.com/app-1.2.tar.gz /\n",
    ),
    ("ST130", "FROM debian:12\nRUN touch /srv/.wh.log\n", "FROM debian:12\nRUN touch /srv/wh.log\n"),
    (
        "ST140",
        "# seatrial build .\nFROM debian:12\nRUN --mount=type=secret,id=token,required=true fetch\n",
        "# seatrial build --secret id=token,src=token.txt .\nFROM debian:12\nRUN --mount=type=secret,id=token,required=true fetch\n",
    ),
    (
        "ST141",
        "# seatrial build .\nFROM debian:12\nRUN --security=insecure mount\n",
        "# seatrial build --allow security.insecure .\nFROM debian:12\nRUN --security=insecure mount\n",
    ),
    ("ST127", "FROM debian:12\nRUN --device=vendor.com/gpu=all make\n", "FROM debian:12\nRUN make\n"),
];

/// Wrong and right of a code.
pub fn of(code: &str) -> Option<(&'static str, &'static str)> {
    let mut all = ALL.iter().chain(super::rules::ALL);
    all.find(|(known, ..)| known.eq_ignore_ascii_case(code)).map(|&(_, wrong, right)| (wrong, right))
}
