"""Which stack a command is about: the one the environment names, else the embedded one that runs."""

import os

from runtime.processes import running_environment
from runtime.settings import EmbeddedSettings
from runtime.trouble import TroubleError


class NothingRuns(TroubleError):  # noqa: N818  (it is a state, said in words)
    """No database is named and no embedded stack runs on the home folder."""


def attach() -> None:
    """Gives this process the environment of the running embedded stack, unless it names a database.

    Raises `NothingRuns`.
    """
    if os.environ.get("DRUMBEAT_DATABASE_URL"):
        return
    home = EmbeddedSettings().home
    found = running_environment(home)
    if found is None:
        message = f"Nothing runs on {home}. Start it with `make up`, or set DRUMBEAT_DATABASE_URL."
        raise NothingRuns(message)
    os.environ.update(found)
