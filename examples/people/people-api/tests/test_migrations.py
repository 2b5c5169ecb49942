"""Migrations on a fresh database, on one with data, and back."""

import os
import unittest
import uuid

import psycopg2

from people_api import migrate


class Migrations(unittest.TestCase):
    """Each test has a database of its own."""

    def setUp(self) -> None:
        """An empty one."""
        server = psycopg2.connect(os.environ["DATABASE_URL"])
        self.addCleanup(server.close)
        server.autocommit = True
        name = f"test_{uuid.uuid4().hex}"
        server.cursor().execute(f"CREATE DATABASE {name}")
        self.addCleanup(server.cursor().execute, f"DROP DATABASE {name}")
        self.connection = psycopg2.connect(os.environ["DATABASE_URL"], dbname=name)
        self.addCleanup(self.connection.close)

    def ask(self, sql: str) -> list[tuple]:
        """Rows."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def test_a_fresh_database(self) -> None:
        """Everything runs, once."""
        self.assertEqual(migrate.up(self.connection), ["1_people.up.sql", "2_email.up.sql"])
        self.assertEqual(migrate.up(self.connection), [])
        self.assertEqual(self.ask("SELECT name, email FROM people"), [])

    def test_an_existing_database(self) -> None:
        """Who was there before the second migration is there after it."""
        migrate.up(self.connection, target=1)
        self.ask("INSERT INTO people (name) VALUES ('Ada') RETURNING id")
        self.assertEqual(migrate.up(self.connection), ["2_email.up.sql"])
        self.assertEqual(self.ask("SELECT name, email FROM people"), [("Ada", "")])

    def test_back(self) -> None:
        """Down to the first migration keeps the people, down to nothing leaves no table."""
        migrate.up(self.connection)
        self.ask("INSERT INTO people (name) VALUES ('Ada') RETURNING id")
        self.assertEqual(migrate.down(self.connection, target=1), ["2_email.down.sql"])
        self.assertEqual(self.ask("SELECT name FROM people"), [("Ada",)])
        migrate.down(self.connection)
        self.assertEqual(self.ask("SELECT to_regclass('people')"), [(None,)])


if __name__ == "__main__":
    unittest.main()
