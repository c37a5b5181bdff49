import httpx2
import pytest

from api.app import create_app
from store.transaction import Database


async def ask(database, path, **options):
    app = create_app(database, bytes(32), **options)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://drumbeat") as client:
        return await client.get(path)


@pytest.fixture
async def nowhere():
    database = Database.connect("postgresql://drumbeat_app:x@127.0.0.1:1/none")
    yield database
    await database.close()


async def test_a_process_without_its_database_lives_but_is_not_ready(nowhere):
    assert (await ask(nowhere, "/livez")).json() == {"live": True}
    answer = await ask(nowhere, "/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "DB_ERROR")


async def test_a_process_with_the_schema_it_needs_is_ready(office):
    answer = await office.nobody.get("http://drumbeat/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


async def test_a_process_of_another_schema_is_not_ready(base):
    answer = await ask(base.app, "/readyz", revision="9999")
    assert (answer.status_code, answer.json()["code"]) == (503, "SCHEMA_MISMATCH")
    assert "9999" in answer.json()["detail"]


async def test_a_database_that_was_never_migrated_is_not_ready(empty_database, base):
    admin_url, _, _ = empty_database
    database = Database.connect(admin_url)
    answer = await ask(database, "/readyz", revision="0001")
    await database.close()
    assert answer.status_code == 503
