//! The same for build checks. Their texts that show an example of their own are left out here.

/// `(code, wrong, right)`: the check finds something in the first Dockerfile, and nothing in the second.
pub const ALL: &[(&str, &str, &str)] = &[
    (
        "ST203",
        "FROM debian:12\nRUN make && \\\n\n    make install\n",
        "FROM debian:12\nRUN make && \\\n    make install\n",
    ),
    ("ST204", "FROM debian:12\nRUN make\nrun make install\n", "FROM debian:12\nRUN make\nRUN make install\n"),
    ("ST205", "FROM debian:12 AS app\nFROM debian:12 AS app\n", "FROM debian:12 AS build\nFROM debian:12 AS app\n"),
    ("ST206", "FROM debian:12 AS scratch\n", "FROM debian:12 AS base\n"),
    ("ST207", "FROM debian:12\nCMD python app.py\n", "FROM debian:12\nCMD [\"python\", \"app.py\"]\n"),
    ("ST208", "FROM debian:12\nMAINTAINER Ann\n", "FROM debian:12\nLABEL org.opencontainers.image.authors=\"Ann\"\n"),
    ("ST209", "FROM debian:${VERSION}\n", "ARG VERSION=12\nFROM debian:${VERSION}\n"),
    ("ST210", "FROM debian:12\nWORKDIR app\n", "FROM debian:12\nWORKDIR /app\n"),
    ("ST211", "FROM scratch\nCOPY $FILE /\n", "FROM scratch\nARG FILE=app\nCOPY $FILE /\n"),
    ("ST212", "FROM debian:12\nCMD [\"a\"]\nCMD [\"b\"]\n", "FROM debian:12\nCMD [\"b\"]\n"),
    ("ST213", "FROM debian:12\nENV MODE fast\n", "FROM debian:12\nENV MODE=fast\n"),
    ("ST214", "FROM --platform=$TARGETPLATFORM debian:12\n", "FROM debian:12\n"),
    (
        "ST215",
        "FROM debian:12\nARG TOKEN\nRUN fetch --token $TOKEN\n",
        "FROM debian:12\nRUN --mount=type=secret,id=token fetch --token-file /run/secrets/token\n",
    ),
    ("ST216", "ARG VERSION\nFROM debian:${VERSION}\n", "ARG VERSION=12\nFROM debian:${VERSION}\n"),
    ("ST217", "FROM --platform=linux/amd64 debian:12\n", "FROM debian:12\n"),
    ("ST220", "FROM debian:12\nEXPOSE 80/TCP\n", "FROM debian:12\nEXPOSE 80/tcp\n"),
    ("ST221", "FROM debian:12\nEXPOSE 8080:80\n", "FROM debian:12\nEXPOSE 80\n"),
    (
        "ST251",
        "FROM python:3\nCOPY . /app\nRUN pip install -r /app/requirements.txt\n",
        "FROM python:3\nCOPY requirements.txt /app/\nRUN pip install -r /app/requirements.txt\nCOPY . /app\n",
    ),
    (
        "ST253",
        "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
        "FROM debian:12\nRUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\n",
    ),
    ("ST254", "FROM debian\n", "FROM debian:12\n"),
    ("ST255", "FROM debian:12\nCMD [\"app\"]\n", "FROM debian:12\nUSER app\nCMD [\"app\"]\n"),
    (
        "ST260",
        "FROM debian:12\nRUN apt-get update\nRUN apt-get install -y curl\n",
        "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
    ),
    (
        "ST261",
        "FROM debian:12\nRUN apt-get update && apt-get install curl\n",
        "FROM debian:12\nRUN apt-get update && apt-get install -y curl\n",
    ),
];
