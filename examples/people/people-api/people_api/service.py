"""``GET /people``, ``POST /people`` with ``{"name": …, "email": …}``, and ``GET /health``."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from people_api import database

BODY_MAX_BYTES = 10_000


def serve(port: int) -> None:
    """Answers until the process ends."""
    print(f"serving on port {port}", flush=True)
    ThreadingHTTPServer(("", port), Handler).serve_forever()


def all_people() -> list[dict]:
    """Everybody, in the order in which they came."""
    with database.transaction() as cursor:
        cursor.execute("SELECT name, email FROM people ORDER BY id")
        return [{"name": name, "email": email} for name, email in cursor]


def add_person(name: str, email: str) -> None:
    """One more."""
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO people (name, email) VALUES (%s, %s)", [name, email])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """``/people`` and ``/health``, which is as healthy as the database is."""
        if self.path == "/people":
            self.answer(200, all_people())
        elif self.path == "/health":
            self.answer(200, {"people": len(all_people())})
        else:
            self.answer(404, {"error": "there is /people and /health"})

    def do_POST(self) -> None:
        """``/people``"""
        if self.path != "/people":
            self.answer(404, {"error": "there is /people"})
            return
        try:
            length = min(int(self.headers["Content-Length"]), BODY_MAX_BYTES)
            person = json.loads(self.rfile.read(length))
            name, email = str(person["name"]), str(person.get("email", ""))
        except (TypeError, ValueError, KeyError, AttributeError):
            self.answer(400, {"error": 'expected {"name": …, "email": …}'})
            return
        add_person(name, email)
        self.answer(201, {"name": name, "email": email})

    def answer(self, status: int, value: object) -> None:
        """JSON."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
