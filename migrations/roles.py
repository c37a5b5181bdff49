"""The database roles: one that owns, and two that log in, own nothing and bypass nothing."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

OWNER = "drumbeat_owner"
APP = "drumbeat_app"
RELAY = "drumbeat_relay"

_SETTINGS = {
    # A frozen process that holds row locks is cut off, so that another may go on.
    "idle_in_transaction_session_timeout": "5s",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
}


async def ensure_roles(connection: AsyncConnection, passwords: dict[str, str]) -> None:
    """Creates what is missing and sets the passwords; the caller's role must be able to make roles.

    `passwords` has one entry for `APP` and one for `RELAY`.
    """
    for role in (OWNER, APP, RELAY):
        known = await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
        if known is None:
            await connection.execute(text(f"CREATE ROLE {role} NOLOGIN NOBYPASSRLS"))
    await connection.execute(text(f"GRANT {OWNER} TO CURRENT_USER"))
    await connection.execute(text(f"GRANT CREATE, USAGE ON SCHEMA public TO {OWNER}"))
    for role, password in passwords.items():
        statement = await connection.scalar(
            text("SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', CAST(:r AS text), CAST(:p AS text))"),
            {"r": role, "p": password},
        )
        await connection.exec_driver_sql(str(statement))
        for name, value in _SETTINGS.items():
            await connection.execute(text(f"ALTER ROLE {role} SET {name} = '{value}'"))
