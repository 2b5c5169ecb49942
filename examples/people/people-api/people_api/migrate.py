"""Migrations: ``python3 -m people_api.migrate up`` or ``down``.

Each is a pair of files in ``migrations``, ``NUMBER_name.up.sql`` and ``NUMBER_name.down.sql``.
"""

import sys
from pathlib import Path

from psycopg2.extensions import connection as Connection

from people_api import database

DIRECTORY = Path(__file__).parent / "migrations"


def up(connection: Connection, target: int | None = None) -> list[str]:
    """Runs what is missing, up to ``target``; on a database that is up to date, nothing."""
    done = versions(connection)
    pending = [path for path in steps("up") if number(path) not in done]
    return run(connection, [path for path in pending if target is None or number(path) <= target])


def down(connection: Connection, target: int = 0) -> list[str]:
    """Takes back what was done after ``target``, newest first."""
    done = versions(connection)
    undone = [path for path in reversed(steps("down")) if number(path) in done]
    return run(connection, [path for path in undone if number(path) > target])


def versions(connection: Connection) -> list[int]:
    """Numbers of the migrations that the database has."""
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY)")
        cursor.execute("SELECT number FROM migrations ORDER BY number")
        return [row[0] for row in cursor]


def run(connection: Connection, paths: list[Path]) -> list[str]:
    """Each step together with the note of it is one transaction."""
    for path in paths:
        print(f"migration {path.name}", flush=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(path.read_text())
            if path.name.endswith(".up.sql"):
                cursor.execute("INSERT INTO migrations VALUES (%s)", [number(path)])
            else:
                cursor.execute("DELETE FROM migrations WHERE number = %s", [number(path)])
    return [path.name for path in paths]


def steps(direction: str) -> list[Path]:
    """The files of one direction by number."""
    return sorted(DIRECTORY.glob(f"*.{direction}.sql"), key=number)


def number(path: Path) -> int:
    """``2`` of ``2_email.up.sql``."""
    return int(path.name.split("_")[0])


if __name__ == "__main__":
    commands = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("usage: python3 -m people_api.migrate up|down")
    commands[sys.argv[1]](database.wait_and_connect())
