"""The whole product on real processes, judged by SQL, while somebody kills it by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
VICTIMS = {
    "worker-1 while it follows up": "cli api",
    "relay while deals move": "/postgres ",
    "Temporal is back": "temporal",
    "while reminders fire": "cli api",
}
"""After which line of the demo which process is killed on top of the demo's own misfortune."""


@pytest.mark.timeout(300)
def test_the_demo_ends_well_though_api_database_and_temporal_are_killed_by_hand(tmp_path):
    environment = {**os.environ, "DRUMBEAT_HOME": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", "--seed", "7"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        told = []
        killed = 0
        assert demo.stderr is not None
        assert demo.stdout is not None
        for line in demo.stderr:
            told.append(line)
            for sign, victim in VICTIMS.items():
                if sign in line:
                    kill(demo.pid, victim)
                    killed += 1
        answer = demo.stdout.read()
    assert demo.returncode == 0, "".join(told)
    assert json.loads(answer)["well"] is True
    assert killed == len(VICTIMS)
    left = [command_line(each) for each in psutil.process_iter() if str(tmp_path) in command_line(each)]
    assert not left, "the demo leaves nothing running"


def kill(supervisor: int, victim: str) -> None:
    """Kills the first living child whose command line has `victim` in it."""
    process = next(each for each in psutil.Process(supervisor).children() if victim in command_line(each))
    process.send_signal(SIGKILL)


def command_line(process: psutil.Process) -> str:
    """Empty for one that is gone, or killed a moment ago."""
    try:
        return " ".join([*process.cmdline(), ""])
    except psutil.Error:
        return ""
