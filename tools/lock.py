"""The pinned requirements: `lock.py` works them out anew, `lock.py --check` says whether they still fit.

Every file under `requirements/` pins versions and hashes and names no download address, so that any
index or mirror serves. The check needs no network; it runs in the project's environment.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.folders import CHECKOUT, cache_folder
from runtime.progress import say
from tools.installer import REQUIREMENTS, environment, installer

_COMPILE = ("pip", "compile", "--quiet", "--no-header", "--universal", "--python-version", "3.11")
_FORM = ("--generate-hashes", "--no-emit-index-url")
_GROUPS = ("dev", "embedded")
_SOURCES = {
    "app.txt": ("pyproject.toml",),
    "dev.txt": ("pyproject.toml", *(part for group in _GROUPS for part in ("--group", group))),
    "go.txt": ("requirements/go.in",),
    "uv.txt": ("requirements/uv.in",),
}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")


def compile_all(options: list[str]) -> None:
    """Work the pins out anew, keeping what still fits; `--upgrade` among the options takes newer ones."""
    cache = cache_folder(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    for name, source in _SOURCES.items():
        command = [str(installer(cache)), *_COMPILE, *_FORM, *source, "-o", f"requirements/{name}", *options]
        subprocess.run(command, cwd=CHECKOUT, env=environment(cache), check=True)


def problems() -> list[str]:
    """Return a sentence for everything that does not fit together."""
    # Here only: compiling runs before the environment is there.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    core = project["project"]["dependencies"]
    groups = [entry for group in _GROUPS for entry in project["dependency-groups"][group]]
    wanted = {"app.txt": core, "dev.txt": [*core, *groups]}
    for name in ("go", "uv"):
        lines = (REQUIREMENTS / f"{name}.in").read_text().splitlines()
        wanted[f"{name}.txt"] = [line for line in lines if not line.startswith("#")]

    found = []
    pins: dict[str, dict[str, str]] = {name: {} for name in wanted}
    for name, requirements in wanted.items():
        for block in re.split(r"\n(?=\S)", (REQUIREMENTS / name).read_text().rstrip("\n")):
            pin = _PIN.match(block)
            if pin is None:
                found.append(f"requirements/{name} holds something that is no pin: {block.splitlines()[0]}")
                continue
            pins[name][canonicalize_name(pin[1])] = pin[2]
            if "--hash=sha256:" not in block:
                found.append(f"requirements/{name} pins {pin[1]} without a hash.")
        for requirement in map(Requirement, requirements):
            version = pins[name].get(canonicalize_name(requirement.name))
            if version is None:
                found.append(f"requirements/{name} lacks {requirement.name}, which is asked for.")
            elif not requirement.specifier.contains(version, prereleases=True):
                found.append(f"requirements/{name} pins {requirement.name} {version}, and {requirement} is asked for.")
    found += [
        f"requirements/app.txt and dev.txt pin different versions of {package}."
        for package, version in pins["app.txt"].items()
        if pins["dev.txt"].get(package) != version
    ]
    return found


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        compile_all(sys.argv[1:])
    elif wrong := problems():
        say("\n".join([*wrong, "Run `make lock`."]))
        sys.exit(1)
