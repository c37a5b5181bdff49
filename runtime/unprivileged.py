"""How root runs a program that refuses to run as root."""

import os
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
    """Return how a child becomes an ordinary user; for an ordinary user there is nothing to do.

    First choice is a user namespace: root keeps owning the files and only looks like nobody from
    inside. Containers often forbid it; there the child becomes nobody in earnest, keeping the right to
    reach folders that are root's. Raises TroubleError where neither works.
    """
    if os.geteuid() != 0:
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
        "PostgreSQL does not run as root, and this machine lets root become no one else "
        "(neither `unshare --user` nor `setpriv` works). Run the command as an ordinary user."
    )
    raise TroubleError(message)


def _works(prefix: tuple[str, ...]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
