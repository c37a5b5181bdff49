"""The whole product on real processes, judged by SQL and a mail server's log, while somebody kills it by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import psutil
import pytest

from cli.demo.campaign import ENROLLED
from cli.demo.floors import FLOORS

ROOT = Path(__file__).parent.parent.parent
VICTIMS = {
    "takes first mails": "cli api",
    "Temporal is back": "temporal",
    "worker-1 while it follows up": "cli.demo.mail_server",
    "relay while deals move": "/postgres ",
    "while reminders fire": "cli api",
    "takes second mails": "cli relay",
}
"""After which line of the demo which process is killed on top of the demo's own misfortune."""


@pytest.mark.timeout(420)
def test_the_demo_ends_well_though_its_processes_are_killed_by_hand(tmp_path):
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
    told_by_it = json.loads(answer)
    assert told_by_it["well"] is True
    assert told_by_it["happened"]["contacts enrolled"] == ENROLLED
    assert {name: least for name, least in FLOORS.items() if told_by_it["happened"][name] < least} == {}
    first, *named = told_by_it["figures"]["uncertain"].splitlines()
    assert first == f"{told_by_it['happened']['mails uncertain']}, settled so:"
    assert len(named) == told_by_it["happened"]["mails uncertain"]
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
