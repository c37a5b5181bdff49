"""`migrate`: roles, schema and clock, the same for the embedded database and for production."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from migrations.roles import APP, RELAY, ensure_roles
from runtime.trouble import TroubleError

_FOLDER = Path(__file__).parent.parent / "migrations"
FASTEST = 21_600
"""The largest time-lapse: a day in four seconds."""


class ClockError(TroubleError):
    """The database keeps another time than was asked for; what it was made with stays."""


async def migrate(admin_url: str, app_url: str, relay_url: str, *, scale: float = 1, test: bool = False) -> str:
    """Brings a database to the newest schema, as often as it is called; the revision it has now.

    The role in `admin_url` makes roles and schema. The passwords of the two login roles are those
    in their URLs. `scale` (business seconds in a real one, 1 to 21,600) and `test` are written
    when the database is made and never change: raises `ClockError` where they differ.
    """
    engine = create_async_engine(_driver(admin_url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            # Two at once wait here for each other.
            await connection.execute(text("SELECT pg_advisory_xact_lock(7214100581)"))
            await ensure_roles(connection, {APP: _password(app_url), RELAY: _password(relay_url)})
            await connection.run_sync(_upgrade, "head")
            await connection.execute(text(f"GRANT SELECT ON alembic_version TO {APP}, {RELAY}"))
            await _set_clock(connection, scale, test=test)
    finally:
        await engine.dispose()
    return head()


async def downgrade(admin_url: str, revision: str = "base") -> None:
    """Takes the schema back; what the newer revisions held is lost."""
    engine = create_async_engine(_driver(admin_url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_downgrade, revision)
    finally:
        await engine.dispose()


def head() -> str:
    """The revision this code needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None  # noqa: S101  (the folder holds at least one revision)
    return found


async def _set_clock(connection: AsyncConnection, scale: float, *, test: bool) -> None:
    clock = (await connection.execute(text("SELECT scale, test FROM clock"))).one_or_none()
    if clock is None:
        await connection.execute(
            text("INSERT INTO clock (scale, test) VALUES (:scale, :test)"),
            {"scale": scale, "test": test},
        )
    elif (clock.scale, clock.test) != (scale, test):
        message = (
            f"This database was made with scale {clock.scale:g}{' as a test' if clock.test else ''}, and keeps it. "
            "Use another data folder or database for another."
        )
        raise ClockError(message)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(_config(connection), revision)


def _downgrade(connection: Connection, revision: str) -> None:
    command.downgrade(_config(connection), revision)


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")
