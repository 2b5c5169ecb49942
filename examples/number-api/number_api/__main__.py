"""Starts the service: ``python -m number_api``."""

import os

from aiohttp import web

from number_api.service import create_app


def main() -> None:
    """Serves until a signal ends it."""
    port = int(os.environ.get("PORT", "8080"))
    web.run_app(create_app(), port=port, print=None)


if __name__ == "__main__":
    main()
