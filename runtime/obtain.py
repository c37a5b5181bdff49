"""Where the Temporal server comes from, and getting it onto this machine once: `python -m runtime.obtain [UV]`.

In order: the server `TEMPORAL_ADDRESS` names; the program in the cache; a new enough `temporal` on the
PATH; the SDK's own download; a build with Go. `find` tries what is quick, `obtain` all of it. Standard
library only, because the set-up script calls `find` before any package is there. `sql_tool` gets the
program that brings Temporal's schema into a PostgreSQL, which only the few who want that need.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from runtime.folders import CHECKOUT, cache_folder
from runtime.gobuild import SERVER, SQL_TOOL, BuildError, build
from runtime.locks import alone
from runtime.progress import Say, say
from runtime.trouble import TroubleError

SERVER_VERSION = "1.32.2"
"""What is built, and what was measured; where a server is found, any later one is taken too."""
CLI_VERSION = "v1.9.1"
"""The release of the `temporal` command that carries this server."""
_OLDEST = (1, 32)
_DOWNLOAD_SECONDS = 300


class Kind(Enum):
    """How a Temporal server is started."""

    ADDRESS = "address"
    """Not at all: it runs elsewhere."""
    SERVER = "server"
    """The plain server program, told everything by its environment."""
    CLI = "cli"
    """The `temporal` command, by its `server start-dev`."""


@dataclass(frozen=True)
class Found:
    """A Temporal server to use: `where` is an address, or the path of a program."""

    kind: Kind
    where: str


def find(environ: Mapping[str, str], cache: Path, *, tell: Say) -> Found | None:
    """Return the server that can be used without downloading or building; `tell` hears why one was passed over."""
    if address := environ.get("TEMPORAL_ADDRESS"):
        return Found(Kind.ADDRESS, address)
    for path, kind in ((_built(cache), Kind.SERVER), (_downloaded(cache), Kind.CLI)):
        if path.exists():
            return Found(kind, str(path))
    on_path = shutil.which("temporal", path=environ.get("PATH"))
    return _judge(on_path, tell) if on_path else None


def obtain(environ: Mapping[str, str], cache: Path, *, uv: str | None, tell: Say) -> Found:
    """Return the server to use, after downloading or building it if need be.

    Two processes that need it at once do the work once: the second waits. `uv` is the installer's path,
    for a machine without Go. Raises TroubleError that says what to do.
    """
    if found := find(environ, cache, tell=tell):
        return found

    with _draft(cache, tell) as draft:
        if found := find(environ, cache, tell=lambda _: None):
            return found
        if found := _download(environ, draft, cache, tell):
            return found
        tell("Building the Temporal server from its source: 3 to 6 minutes on two cores, this once.")
        try:
            # With most of its packages compiled for the server, the tool takes some seconds more; alone, minutes.
            programs = build([SERVER, SQL_TOOL], environ=environ, scratch=draft, uv=uv, tell=tell)
        except BuildError as error:
            message = (
                f"{error}\n"
                "The Temporal server could not be built. Put the cause right and run the command again; or put a "
                "`temporal` command (https://docs.temporal.io/cli) with server 1.32 or later on the PATH; or name a "
                "running server with TEMPORAL_ADDRESS."
            )
            raise BuildError(message) from error
        programs[SQL_TOOL].replace(_sql_tool(cache))
        programs[SERVER].replace(_built(cache))
    return Found(Kind.SERVER, str(_built(cache)))


def sql_tool(environ: Mapping[str, str], cache: Path, *, uv: str | None, tell: Say) -> Path:
    """Return Temporal's program for schemas, `temporal-sql-tool`, after building it if need be (two minutes).

    `uv` as for `obtain`. Raises BuildError.
    """
    tool = _sql_tool(cache)
    if not tool.exists():
        with _draft(cache, tell) as draft:
            if not tool.exists():
                tell("Building Temporal's schema tool from its source: 2 to 4 minutes on two cores, this once.")
                build([SQL_TOOL], environ=environ, scratch=draft, uv=uv, tell=tell)[SQL_TOOL].replace(tool)
    return tool


@contextmanager
def _draft(cache: Path, tell: Say) -> Iterator[Path]:
    """A folder in the cache for what is not whole yet, and the time to work in it alone."""

    def waiting(pid: str) -> None:
        tell(f"Process {pid} is getting the Temporal server already; waiting for it (up to six minutes) …")

    with alone(cache / "temporal.lock", on_wait=waiting):
        for leftover in cache.glob("temporal-draft-*"):  # of a set-up that was killed
            _remove(leftover)
        draft = Path(tempfile.mkdtemp(prefix="temporal-draft-", dir=cache))
        try:
            yield draft
        finally:
            _remove(draft)


def _built(cache: Path) -> Path:
    return cache / f"temporal-server-{SERVER_VERSION}"


def _sql_tool(cache: Path) -> Path:
    return cache / f"temporal-sql-tool-{SERVER_VERSION}"


def _downloaded(cache: Path) -> Path:
    return cache / f"temporal-cli-{CLI_VERSION}"


def _judge(program: str, tell: Say) -> Found | None:
    """Take a program if its server is new enough; it may be the command or the plain server."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        tell(f"Passing over {program}: it does not run ({error}).")
        return None
    carried = re.search(r"\(Server (\d+)\.(\d+)", answer)
    version = carried or re.search(r"temporal version (\d+)\.(\d+)", answer)
    if version is None:
        tell(f"Passing over {program}: it does not say which server it carries.")
        return None
    if (int(version[1]), int(version[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        tell(f"Passing over {program}: its server is {version[1]}.{version[2]}, older than {oldest}.")
        return None
    return Found(Kind.CLI if carried else Kind.SERVER, program)


def _download(environ: Mapping[str, str], draft: Path, cache: Path, tell: Say) -> Found | None:
    """Let the SDK download the command into the cache; None, with a line told, where that cannot be done."""
    tell("Downloading the Temporal server (60 MB; seconds to a minute) …")
    folder = draft / "download"
    folder.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "runtime.sdk_download", str(folder), CLI_VERSION],
            cwd=CHECKOUT,
            env={**environ, "TMPDIR": str(draft)},
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        tell(f"  Nothing came in {_DOWNLOAD_SECONDS} seconds.")
        return None
    program = done.stdout.strip()
    if done.returncode != 0 or not program:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        tell(f"  Not possible here: {reason[0]}")
        return None
    if _judge(program, tell) is None:
        return None
    Path(program).replace(_downloaded(cache))
    return Found(Kind.CLI, str(_downloaded(cache)))


def _remove(folder: Path) -> None:
    """Delete a folder, read-only ones inside included: Go protects its modules that way."""
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder)


def main() -> None:
    """Obtain the server and say in one line where it is; exit 1 with the reason if there is none."""
    try:
        found = obtain(os.environ, cache_folder(os.environ), uv=next(iter(sys.argv[1:]), None), tell=say)
    except TroubleError as trouble:
        say(str(trouble))
        sys.exit(1)
    say(f"Temporal server: {found.where}")


if __name__ == "__main__":
    main()
