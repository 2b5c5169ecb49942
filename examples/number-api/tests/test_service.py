"""The endpoints, over HTTP."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from number_api.service import create_app


@pytest.fixture
async def client():
    async with TestClient(TestServer(create_app())) as client:
        yield client


async def test_random_gives_a_number_of_the_range(client: TestClient) -> None:
    response = await client.get("/random", params={"low": "5", "high": "7"})
    assert response.status == 200
    assert (await response.json())["number"] in (5, 6, 7)


async def test_even_gives_an_even_number(client: TestClient) -> None:
    response = await client.get("/even")
    assert response.status == 200
    assert (await response.json())["number"] % 2 == 0


@pytest.mark.parametrize("query", ["low=x", "low=3&high=3", "low=9&high=1"])
async def test_mistakes_are_told_with_status_400(client: TestClient, query: str) -> None:
    response = await client.get(f"/even?{query}")
    assert response.status == 400
    assert "error" in await response.json()


async def test_health_says_ok(client: TestClient) -> None:
    response = await client.get("/health")
    assert (response.status, await response.json()) == (200, {"status": "ok"})
