"""Where things live on this machine. Standard library only: the set-up script reads it before any package is there."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return the data folder of the embedded stack: `DRUMBEAT_HOME`, else `.drumbeat` in the checkout."""
    return Path(environ.get("DRUMBEAT_HOME") or CHECKOUT / ".drumbeat").absolute()


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for what is slow to get and can be got again.

    `DRUMBEAT_CACHE`, else `drumbeat` in the user's cache folder. A user without a home that can be
    written to (a service account, a bare container) gets one inside the checkout.
    """
    if chosen := environ.get("DRUMBEAT_CACHE"):
        return Path(chosen).absolute()
    if shared := environ.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "drumbeat"
    with contextlib.suppress(RuntimeError):  # neither HOME nor an entry in the user database
        home = Path(environ.get("HOME") or Path("~").expanduser())
        cache = home / ".cache" / "drumbeat"
        nearest = next(folder for folder in cache.parents if folder.exists())
        if home.is_absolute() and nearest.is_dir() and os.access(nearest, os.W_OK):
            return cache
    return CHECKOUT / ".drumbeat" / "cache"
