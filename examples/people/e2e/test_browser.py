"""What a browser of the Selenium Grid shows.

Speaks WebDriver (https://www.w3.org/TR/webdriver2), as Selenium's RemoteWebDriver does.
"""

import json
import os
import unittest
from urllib.request import Request, urlopen

from test_people import WEB, add

GRID = os.environ["GRID_URL"]
BROWSER = os.environ["BROWSER"]
# A browser's first start on a busy machine takes long.
WAIT_SECONDS = 120

OPTIONS = {
    # The container is the sandbox: Chromium's own needs rights that containers lack.
    "chrome": {"goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox"]}},
    "firefox": {"moz:firefoxOptions": {"args": ["-headless"]}},
}


def command(method: str, path: str, value: dict | None = None) -> object:
    """One command to the grid, and its answer."""
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    request = Request(f"{GRID}/{path}", body, headers, method=method)
    with urlopen(request, timeout=WAIT_SECONDS) as response:
        return json.load(response)["value"]


class Page(unittest.TestCase):
    """A session of the browser that the environment names."""

    def setUp(self) -> None:
        """The grid gives the session to a node that has the browser."""
        wanted = {"browserName": BROWSER, **OPTIONS[BROWSER]}
        session = command("POST", "session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"session/{session['sessionId']}"
        self.addCleanup(command, "DELETE", self.session)
        capabilities = session["capabilities"]
        print(f"{capabilities['browserName']} {capabilities['browserVersion']}", flush=True)

    def text(self, selector: str) -> str:
        """The text of an element, as it is shown."""
        found = command(
            "POST", f"{self.session}/element", {"using": "css selector", "value": selector}
        )
        (element,) = found.values()
        return command("GET", f"{self.session}/element/{element}/text")

    def test_people_are_shown(self) -> None:
        """Title, heading and list."""
        name = f"Grace <{BROWSER}>"
        add({"name": name})
        command("POST", f"{self.session}/url", {"url": WEB})
        self.assertEqual(command("GET", f"{self.session}/title"), "People")
        self.assertRegex(self.text("h1"), r"^\d+ people$")
        self.assertIn(name, self.text("#people").splitlines())


if __name__ == "__main__":
    unittest.main()
