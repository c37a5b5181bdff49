"""How a program that insists on an ordinary user with a name is run by root, or by a user without one."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runtime.trouble import TroubleError

_NOBODY = 65534


@dataclass(frozen=True)
class Identity:
    """Who a child process will be: the launcher to put before its command, and the owner its files need."""

    prefix: tuple[str, ...] = ()
    owner: int | None = None

    def give(self, path: Path) -> None:
        """Make `path` belong to that user."""
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)


@cache
def identity() -> Identity:
    """Return how a child becomes an ordinary user; for one there is nothing to do.

    First choice is a user namespace: the files stay the caller's, who only looks like nobody from
    inside. Containers often forbid it; there root becomes nobody in earnest, keeping the right to reach
    folders that are root's. Raises TroubleError where neither works.
    """
    if os.geteuid() != 0 and _has_name():
        return Identity()
    namespace = ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--")
    if _works(namespace):
        return Identity(namespace)
    nobody = (
        *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"),
    )
    if _works(nobody):
        return Identity(nobody, owner=_NOBODY)
    message = (
        "PostgreSQL runs neither as root nor as a user without an entry in the user database, and this machine "
        "lets nobody become another (`unshare --user` and `setpriv` both fail). Run the command as an ordinary user."
    )
    raise TroubleError(message)


def _has_name() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _works(prefix: tuple[str, ...]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
