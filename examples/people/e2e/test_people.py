"""What a person sees who uses the solution from outside, without a browser."""

import html
import json
import os
import re
import unittest
import uuid
from urllib.error import HTTPError
from urllib.request import Request, urlopen

API = os.environ["API_URL"]
WEB = os.environ["WEB_URL"]


def get(url: str) -> str:
    """The body."""
    with urlopen(url, timeout=10) as response:
        return response.read().decode()


def add(person: dict) -> dict:
    """Gives the API one more person."""
    headers = {"Content-Type": "application/json"}
    request = Request(f"{API}/people", json.dumps(person).encode(), headers)
    with urlopen(request, timeout=10) as response:
        return json.load(response)


class People(unittest.TestCase):
    """API, page, database and counter together."""

    def test_who_is_added_is_on_the_page(self) -> None:
        """Through API and database to the page, as text."""
        name = f"<Ada & {uuid.uuid4().hex}>"
        add({"name": name, "email": "ada@example.org"})
        people = json.loads(get(f"{API}/people"))
        self.assertIn({"name": name, "email": "ada@example.org"}, people)
        self.assertIn(html.escape(name), get(WEB))

    def test_nobody_without_a_name(self) -> None:
        """Status 400."""
        with self.assertRaises(HTTPError) as caught:
            add({"email": "nobody@example.org"})
        self.assertEqual(caught.exception.code, 400)

    def test_visits_are_counted(self) -> None:
        """One more than before."""
        first, second = (int(re.search(r"Seen (\d+) times", get(WEB))[1]) for _ in range(2))
        self.assertGreater(second, first)


if __name__ == "__main__":
    unittest.main()
