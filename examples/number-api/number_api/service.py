"""HTTP endpoints: ``/random``, ``/even`` and ``/health``."""

from collections.abc import Callable

from aiohttp import web

from number_api.numbers import InvalidRange, even_number, random_number

DEFAULT_LOW = 0
DEFAULT_HIGH = 100


def create_app() -> web.Application:
    """The application with all its routes."""
    app = web.Application()
    app.router.add_get("/random", random_endpoint)
    app.router.add_get("/even", even_endpoint)
    app.router.add_get("/health", health_endpoint)
    return app


async def random_endpoint(request: web.Request) -> web.Response:
    """``GET /random?low=0&high=100``"""
    return answer(request, random_number)


async def even_endpoint(request: web.Request) -> web.Response:
    """``GET /even?low=0&high=100``"""
    return answer(request, even_number)


async def health_endpoint(_request: web.Request) -> web.Response:
    """``GET /health``: says that the service answers."""
    return web.json_response({"status": "ok"})


def answer(request: web.Request, choose: Callable[[int, int], int]) -> web.Response:
    """Reads the range, chooses a number, and tells mistakes with status 400."""
    try:
        low = int(request.query.get("low", DEFAULT_LOW))
        high = int(request.query.get("high", DEFAULT_HIGH))
        number = choose(low, high)
    except InvalidRange as error:
        return web.json_response({"error": str(error)}, status=400)
    except ValueError:
        return web.json_response({"error": "low and high must be whole numbers"}, status=400)
    return web.json_response({"number": number})
