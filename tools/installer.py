"""The installer, uv: the user's own if it is recent, else one in the cache. Standard library only."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from runtime.folders import CHECKOUT
from runtime.locks import alone
from runtime.progress import say
from runtime.trouble import TroubleError

REQUIREMENTS = CHECKOUT / "requirements"
# The first to understand a cooldown in days, which pyproject.toml asks for.
_OLDEST = (0, 10)
_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def installer(cache: Path) -> Path:
    """Return the path of uv, installing it into the cache if need be; raise TroubleError where that fails."""
    if (on_path := shutil.which("uv")) and _recent(on_path):
        return Path(on_path)
    requirement = REQUIREMENTS / "uv.txt"
    version = re.search(r"^uv==(\S+)", requirement.read_text(), re.MULTILINE)
    if version is None:
        message = f"{requirement} does not pin uv."
        raise TroubleError(message)
    program = cache / f"uv-{version[1]}"
    if program.exists():
        return program
    with alone(cache / "uv.lock", on_wait=lambda pid: say(f"Waiting for process {pid}, which installs uv …")):
        if not program.exists():
            say("Fetching the installer, uv (20 MB; a few seconds) …")
            with tempfile.TemporaryDirectory(prefix="uv-draft-", dir=cache) as draft:
                _install(requirement, Path(draft)).replace(program)
    return program


def environment(cache: Path) -> dict[str, str]:
    """Return the environment for uv: it fetches no Python, and writes to our cache unless told another."""
    # Behind a proxy of the company's the machine knows certificates that the installer does not bring.
    own = {"UV_SYSTEM_CERTS": "true"} if _SYSTEM_CERTIFICATES.exists() else {}
    return {"UV_CACHE_DIR": str(cache / "packages"), **own, **os.environ, "UV_PYTHON_DOWNLOADS": "never"}


def _recent(program: str) -> bool:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"uv (\d+)\.(\d+)", answer)
    return version is not None and (int(version[1]), int(version[2])) >= _OLDEST


def _install(requirement: Path, draft: Path) -> Path:
    """Install with this Python's pip, or with that of a throw-away environment: distributions lack one or the other."""
    options = [
        *("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input", "--no-cache-dir"),
        *("--root-user-action=ignore", "--require-hashes", "-r", str(requirement), "--target", str(draft / "target")),
    ]
    python = sys.executable
    if not _succeeds([python, "-m", "pip", "--version"]):
        python = str(draft / "environment" / "bin" / "python")
        if not _succeeds([sys.executable, "-m", "venv", str(draft / "environment")]):
            message = (
                f"{sys.executable} has neither pip nor venv. Install one (Debian and Ubuntu: `apt install "
                "python3-venv`), or install uv (https://docs.astral.sh/uv/), and run the command again."
            )
            raise TroubleError(message)
    if subprocess.run([python, *options], check=False).returncode != 0:
        message = "uv could not be installed; pip says why above. Run the command again when that is put right."
        raise TroubleError(message)
    return draft / "target" / "bin" / "uv"


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
