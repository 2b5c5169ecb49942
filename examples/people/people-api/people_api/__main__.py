"""Waits for the database, brings its tables up to date, serves."""

import os
import signal
import sys

from people_api import database, migrate, service


def main() -> None:
    """Runs until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection = database.wait_and_connect()
    migrate.up(connection)
    connection.close()
    service.serve(int(os.environ.get("PORT", "8080")))


if __name__ == "__main__":
    main()
