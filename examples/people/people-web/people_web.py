"""A page of all people, whom it asks the API for; Redis counts how often it was seen."""

import html
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import redis

API_URL = os.environ.get("API_URL", "http://people-api:8080")
CACHE = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://cache"))

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>People</title></head>
<body>
<h1>{count} people</h1>
<ul id="people">
{people}
</ul>
<p id="visits">Seen {visits} times.</p>
</body>
</html>
"""


def page() -> str:
    """The page, right now."""
    with urlopen(f"{API_URL}/people", timeout=5) as response:
        people = json.load(response)
    items = "\n".join(f"<li>{html.escape(person['name'])}</li>" for person in people)
    return PAGE.format(count=len(people), people=items, visits=CACHE.incr("visits"))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """``/`` is the page; ``/health`` tells whether what it needs is there."""
        if self.path == "/":
            self.answer("text/html; charset=utf-8", page())
        elif self.path == "/health":
            with urlopen(f"{API_URL}/health", timeout=5) as response:
                healthy = response.status == 200 and CACHE.ping()
            self.answer("text/plain", "healthy" if healthy else "unhealthy")
        else:
            self.send_error(404)

    def answer(self, kind: str, text: str) -> None:
        """Status 200."""
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port = int(os.environ.get("PORT", "3000"))
    print(f"serving on port {port}", flush=True)
    ThreadingHTTPServer(("", port), Handler).serve_forever()
