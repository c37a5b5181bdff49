"""How services are sent through the storm's own ways, with its own clocks and releases."""

import subprocess
import sys
import time

import pytest

from chaos import wrong_clock
from chaos.proxy import Address
from chaos.routes import Routes
from runtime.processes import Launch
from runtime.settings import inherited

ENVIRONMENT = {
    "DRUMBEAT_DATABASE_URL": "postgresql://app:a%40b@127.0.0.1:5001/drumbeat",
    "DRUMBEAT_RELAY_DATABASE_URL": "postgresql://relay:b@127.0.0.1:5001/drumbeat",
    "TEMPORAL_ADDRESS": "127.0.0.1:7001",
}
LAUNCH = Launch([sys.executable, "-m", "cli", "worker"], ENVIRONMENT)


async def test_each_service_goes_through_proxies_of_its_own():
    async with Routes({"DRUMBEAT_INBOUND_DOMAIN": "reply.example.com"}) as routes:
        ways = {name: routes.route(name, LAUNCH) for name in ("api", "relay-2", "worker-1", "worker-2")}
        database = {name: way.environment["DRUMBEAT_DATABASE_URL"] for name, way in ways.items()}
        assert len(set(database.values())) == 4
        port = routes.proxies["worker-1-postgres"].port
        assert database["worker-1"] == f"postgresql://app:a%40b@127.0.0.1:{port}/drumbeat"
        assert routes.proxies["worker-1-postgres"].target == Address("127.0.0.1", 5001)
        relay = routes.proxies["relay-2-temporal"]
        assert ways["relay-2"].environment["TEMPORAL_ADDRESS"] == f"127.0.0.1:{relay.port}"
        assert relay.target == Address("127.0.0.1", 7001)
        assert (
            str(routes.proxies["relay-2-postgres"].port) in ways["relay-2"].environment["DRUMBEAT_RELAY_DATABASE_URL"]
        )
        assert {way.environment["DRUMBEAT_INBOUND_DOMAIN"] for way in ways.values()} == {"reply.example.com"}


async def test_a_release_and_a_wrong_clock_are_of_one_service():
    async with Routes({}) as routes:
        routes.releases["worker-1"] = "altered"
        routes.clocks["worker-1"] = -300
        assert routes.route("worker-1", LAUNCH).command[1:] == ["-m", "chaos.release", "altered", "worker"]
        assert routes.route("relay-1", LAUNCH).command[1:] == ["-m", "cli", "relay"]
        assert routes.route("worker-1", LAUNCH).environment["FAKETIME"] == "-300s"
        assert "FAKETIME" not in routes.route("worker-2", LAUNCH).environment


def test_a_wrong_clock_is_wrong_about_the_time_of_day_only():
    if not wrong_clock.available():
        pytest.skip("libfaketime cannot be loaded on this machine")
    told = subprocess.run(
        [sys.executable, "-c", "import os, time; print(os.getpid(), time.time(), time.monotonic())"],
        env={**inherited(), **wrong_clock.off_by(300)},
        capture_output=True,
        text=True,
        check=True,
    )
    pid, wall, monotonic = told.stdout.split()
    wrong_clock.forget(int(pid))
    assert 290 < float(wall) - time.time() < 301
    assert abs(float(monotonic) - time.monotonic()) < 10
