"""Sets a checkout up: the locked Python environment in `.venv`, and a Temporal server in the cache.

Standard library only, for any Python 3.11 to 3.14; `setup.sh` finds one. A second run finds all in place
and takes a fraction of a second. A set-up killed half-way heals in the next; two at once take turns.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.folders import CHECKOUT, cache_folder
from runtime.locks import alone
from runtime.obtain import find
from runtime.progress import say
from runtime.trouble import TroubleError
from tools.installer import REQUIREMENTS, environment, installer

_VENV = CHECKOUT / ".venv"
_PYTHON = _VENV / "bin" / "python"
# Written last: an environment without it, or with another's, is not whole.
_STAMP = _VENV / "requirements.sha256"
_WANTED = REQUIREMENTS / "dev.txt"


def main() -> None:
    """Set up what is missing; exit 1 with whole sentences where that cannot be done."""
    if sys.platform != "linux":
        say("Drumbeat's own set-up is for Linux. Elsewhere, run it with Docker: docker compose up.")
        sys.exit(1)
    cache = cache_folder(os.environ)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not _environment_is_whole():
            _make_environment(cache)
        # Quietly: why a program was passed over is told where something is done about it.
        if find(os.environ, cache, tell=lambda _: None) is None:
            _obtain_temporal(cache)
    except TroubleError as trouble:
        say(str(trouble))
        sys.exit(1)
    except OSError as error:
        say(f"The set-up cannot write where it has to: {error}. DRUMBEAT_CACHE names another cache folder.")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Stopped; run it again to go on.")
        sys.exit(130)


def _digest() -> str:
    return hashlib.sha256(_WANTED.read_bytes()).hexdigest()


def _environment_is_whole() -> bool:
    # A link to a Python that was removed does not exist.
    return _PYTHON.exists() and _STAMP.exists() and _STAMP.read_text() == _digest()


def _make_environment(cache: Path) -> None:
    def waiting(pid: str) -> None:
        say(f"Process {pid} is setting this checkout up already; waiting for it (a minute or two) …")

    with alone(CHECKOUT / ".drumbeat" / "setup.lock", on_wait=waiting):
        if _environment_is_whole():
            return
        uv = str(installer(cache))
        say("Installing the Python packages into .venv (150 MB to fetch; ten seconds to two minutes) …")
        if not (_STAMP.exists() and _PYTHON.exists()):
            # Killed half-way, or not ours: what is in it cannot be trusted.
            shutil.rmtree(_VENV, ignore_errors=True)
            _run(cache, uv, "venv", "--no-project", "--python", sys.executable, str(_VENV))
        _STAMP.unlink(missing_ok=True)
        # Compiled once here rather than by each service at its first start, all of them at the same time.
        sync = ("pip", "sync", "--compile-bytecode", "--require-hashes", "--python", str(_PYTHON))
        _run(cache, uv, *sync, str(_WANTED))
        _STAMP.write_text(_digest())


def _obtain_temporal(cache: Path) -> None:
    command = [str(_PYTHON), "-m", "runtime.obtain", str(installer(cache))]
    if subprocess.run(command, cwd=CHECKOUT, check=False).returncode != 0:
        sys.exit(1)


def _run(cache: Path, uv: str, *arguments: str) -> None:
    # Outside the checkout, whose cooldown is for choosing versions and would refuse an index without dates.
    done = subprocess.run([uv, "--quiet", *arguments], cwd=cache, env=environment(cache), check=False)
    if done.returncode != 0:
        message = "The Python packages could not be installed; uv says why above. Put that right and run it again."
        raise TroubleError(message)


if __name__ == "__main__":
    main()
