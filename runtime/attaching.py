"""What is already on this machine: the stack a command is about, and the Temporal server to start."""

import os
import shutil
from pathlib import Path

from runtime import obtain
from runtime.processes import running_environment
from runtime.progress import say
from runtime.settings import EmbeddedSettings
from runtime.trouble import TroubleError


class NothingHere(TroubleError):  # noqa: N818  (it is a state, said in words)
    """What a command needs is not there; the text says how to get it."""


def attach() -> None:
    """Gives this process the environment of the running embedded stack, unless it names a database.

    Raises `NothingHere`.
    """
    if os.environ.get("DRUMBEAT_DATABASE_URL"):
        return
    home = EmbeddedSettings().home
    found = running_environment(home)
    if found is None:
        message = f"Nothing runs on {home}. Start it with `make up`, or set DRUMBEAT_DATABASE_URL."
        raise NothingHere(message)
    os.environ.update(found)


def temporal_server() -> obtain.Found:
    """The server that `make setup` got. Raises `NothingHere`."""
    found = obtain.find(os.environ, EmbeddedSettings().cache, tell=say)
    if found is None:
        message = "There is no Temporal server on this machine yet. `make setup` gets it."
        raise NothingHere(message)
    return found


def temporal_sql_tool() -> Path:
    """Temporal's program for schemas, built now if it is not here yet. Raises `BuildError`."""
    cache = EmbeddedSettings().cache
    # Set-up has left the installer here, unless it found the user's own.
    uv = next(map(str, cache.glob("uv-[0-9]*")), None) or shutil.which("uv")
    return obtain.sql_tool(os.environ, cache, uv=uv, tell=say)
