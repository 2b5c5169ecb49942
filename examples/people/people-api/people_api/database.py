"""Connections to the database that ``DATABASE_URL`` names."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

WAIT_MAX_SECONDS = 60
WAIT_STEP_SECONDS = 0.2


def connect() -> Connection:
    """A connection of one's own."""
    return psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=5)


@contextmanager
def transaction() -> Iterator[Cursor]:
    """One transaction on a connection that is closed afterwards."""
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        yield cursor


def wait_and_connect() -> Connection:
    """The same, once the database answers."""
    deadline = time.monotonic() + WAIT_MAX_SECONDS
    while True:
        try:
            return connect()
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            print(f"waiting for the database: {error}", flush=True)
            time.sleep(WAIT_STEP_SECONDS)
