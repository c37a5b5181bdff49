"""A minute of the storm over the whole product, on real processes, judged from outside; two scenarios in short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chaos.schedule import WEIGHTS, schedule

ROOT = Path(__file__).parent.parent.parent
SEED = 52
"""Of whose first minute it is certain that it has a fault of every kind."""
IN_SHORT = ("temporals-store-away", "full-disks")
"""The scenarios that need the most around them; the others are for `make chaos`."""
NOT_HERE = ("this machine lets nobody mount any", "this scenario needs the plain server")


def test_the_minute_has_every_kind_of_fault():
    assert {fault.kind for fault in schedule(SEED, 60)} == set(WEIGHTS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "asked",
    [["--minutes", "1"], *(["--minutes", "0.25", "--scenario", name] for name in IN_SHORT)],
    ids=lambda it: it[-1],
)
def test_a_storm_loses_nothing_doubles_nothing_and_sends_nothing_after_a_stop(asked, tmp_path):
    environment = {**os.environ, "DRUMBEAT_HOME": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"}
    environment.pop("TEMPORAL_ADDRESS", None)
    storm = subprocess.run(
        [sys.executable, "-m", "chaos", "--seed", str(SEED), *asked],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    for reason in NOT_HERE:
        if reason in storm.stderr:
            pytest.skip(reason)
    assert storm.returncode == 0, storm.stderr
    answer = json.loads(storm.stdout)
    assert answer["well"] is True
    assert answer["seed"] == SEED
    left = [
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(each.info.get("cmdline") or [])
    ]
    assert not left, "it leaves nothing running"
    assert not list((tmp_path / "chaos").iterdir()), "nor, where all is well, anything to look at"


def test_a_storm_kills_no_server_that_is_somebody_elses(tmp_path):
    environment = {**os.environ, "DRUMBEAT_HOME": str(tmp_path), "TEMPORAL_ADDRESS": "temporal.example.com:7233"}
    command = [sys.executable, "-m", "chaos", "--minutes", "1"]
    storm = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert storm.returncode == 1
    assert storm.stderr == "TEMPORAL_ADDRESS names a server; a storm needs one of its own, to kill.\n"
    assert not list(tmp_path.iterdir())
