"""One calm story for the run: the traffic of `make chaos` on a stack of its own, with nothing that fails."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from chaos.judge import judge, left_to_come
from chaos.told import Told
from chaos.traffic import SCALE, Traffic
from cli.demo import campaign, mail_judge, play
from cli.demo.judge import Tables, Verdict
from cli.demo.office import Office, Outside
from runtime.attaching import temporal_server
from runtime.folders import CHECKOUT
from runtime.processes import DATABASE, Stack
from tests.driving import until

SEED = 7
SECONDS = 12.0
SETTLES = 120.0


@dataclass(frozen=True)
class Story:
    """What is left of a story: its tables, the mail server's log, what people were told, and how it was judged."""

    url: str
    log: Path
    told: Told
    temporal: tuple[str, str]
    verdicts: Sequence[Verdict]


@pytest_asyncio.fixture(scope="session")
async def story(tmp_path_factory) -> AsyncIterator[Story]:
    folder = tmp_path_factory.mktemp("calm")
    stack = Stack(
        folder / "home",
        temporal_server(),
        scale=SCALE,
        postgres_options={**mail_judge.POSTGRES_OPTIONS, "fsync": "off"},
        command=("env", f"DRUMBEAT_INBOUND_DOMAIN={campaign.INBOUND_DOMAIN}", sys.executable, "-m", "cli"),
        tell=lambda _: None,
    )
    log = folder / "mail.jsonl"
    with mail_server(log) as port:
        async with stack:
            lived_through = await lived(stack, log, port)
            # Nobody else is at the tables while they are tampered with.
            for name in stack.names:
                await stack.kill_service(name)
            yield lived_through


async def lived(stack: Stack, log: Path, mail_port: int) -> Story:
    office = Office(stack.api_url, await play._organization(stack))
    outside = Outside(stack.api_url)
    traffic = Traffic(office, outside, seed=SEED, seconds=SECONDS, mail_log=log)
    await traffic.set_up(mail_port)
    over = asyncio.Event()
    await traffic.live(over)
    url = stack.postgres.admin_url(DATABASE)
    tables = Tables(url)

    async def settled():
        return traffic.at_rest and await left_to_come(tables) == 0

    await until(settled, "the end of the story", SETTLES)
    over.set()
    await traffic.gone()
    await office.close()
    await outside.close()
    environment = stack.environment()
    temporal = environment["TEMPORAL_ADDRESS"], environment["TEMPORAL_NAMESPACE"]
    return Story(url, log, traffic.told, temporal, await judge(tables, log, traffic.told, temporal))


@contextmanager
def mail_server(log: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "cli.demo.mail_server", "--log", str(log)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"]
        process.kill()
