"""How a migration runs SQL."""

from alembic import op


def run(*scripts: str) -> None:
    """Runs whole scripts inside the migration's transaction.

    The driver prepares what it is given, and a prepared statement is one statement; its own
    `execute` without arguments takes a script of many.
    """
    for script in scripts:
        adapted = op.get_bind().connection.dbapi_connection
        assert adapted is not None  # noqa: S101  (a migration always runs on a live connection)
        adapted.run_async(lambda driver, text=script: driver.execute(text))
