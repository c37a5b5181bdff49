"""What accepting a fact costs: requests a second beside a bare handler that makes two inserts.

Both servers are one process of uvicorn on the same PostgreSQL and take turns, so that what else the machine does falls
on both. A ratio is of a pair of turns, one after the other; the median of the pairs is told.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGTERM
from statistics import median, quantiles
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
from uuid_utils.compat import uuid7

from bench import bare
from bench.rows import Row
from domain.documents import RuleDocument
from domain.due import Calendar
from domain.words import Role
from runtime.attaching import temporal_server
from runtime.children import free_ports
from runtime.folders import CHECKOUT
from runtime.processes import Stack
from runtime.progress import say
from store import contacts, deals, definitions, identity
from store.transaction import Database, Origin

KINDS = ("stage_change", "webhook", "contact")
CONNECTIONS = 16
SECONDS = 4.0
ROUNDS = 5
BACKLOG = 100
"""Facts that must still wait for the relay when a measure with busy workers ends, or they were not busy."""
_DEALS = 6_400
_MILLISECONDS = 1000


async def rows(*, kinds: Sequence[str] = KINDS, rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Row]:
    """Each request with relay and workers stopped, then with both at work on what the first part left in the outbox."""
    with tempfile.TemporaryDirectory() as folder:
        async with Stack(Path(folder) / "home", temporal_server(), tell=lambda _: None) as stack:
            for name in ("relay", "worker-1"):
                await stack.kill_service(name, SIGTERM)
            async with _bench(stack) as bench:
                found = [row for kind in kinds for row in (await bench.measure(kind, rounds, seconds)).rows(kind)]
                for name in ("relay", "worker-1"):
                    await stack.start_service(name)
                for kind in kinds:
                    busy = await bench.measure(kind, rounds, seconds)
                    if await bench.waiting() < BACKLOG:
                        say("The relay had nothing left to do before the end: the last figures are not of a busy one.")
                    found += busy.rows(f"{kind}.busy")
                return found


@dataclass
class _Turns:
    """What was found in the turns of each server: requests, seconds and CPU seconds by process, and times."""

    per_second: dict[str, list[float]] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, server: str, answer: Mapping[str, Any], cpu: Mapping[str, float]) -> None:
        self.per_second.setdefault(server, []).append(len(answer["times"]) / answer["seconds"])
        self.times.setdefault(server, []).extend(answer["times"])
        used = self.cpu.setdefault(server, {})
        for process, each in cpu.items():
            used[process] = used.get(process, 0.0) + each

    def ratio(self, server: str) -> float:
        return median(ours / bare for ours, bare in zip(self.per_second["api"], self.per_second[server], strict=True))

    def milliseconds(self, server: str, percentile: int) -> float:
        return _MILLISECONDS * quantiles(self.times[server], n=100)[percentile - 1]

    def cpu_each(self, server: str) -> dict[str, float]:
        return {name: _MILLISECONDS * used / len(self.times[server]) for name, used in self.cpu[server].items()}

    def rows(self, name: str) -> list[Row]:
        ours = median(self.per_second["api"])
        bare, no_reset = (ours / self.ratio(server) for server in ("bare", "bare_no_reset"))
        p50, p99 = (self.milliseconds("api", percentile) for percentile in (50, 99))
        bare_p50, bare_p99 = (self.milliseconds("bare", percentile) for percentile in (50, 99))
        theirs = self.cpu_each("bare")
        return [
            Row.more(f"accept.{name}", ours, "requests/s", bare, least=bare),
            Row.more(f"accept.{name}_no_reset", ours, "requests/s", no_reset),
            Row.less(f"accept.{name}.p50_ms", p50, "ms", bare_p50),
            Row.less(f"accept.{name}.p99_ms", p99, "ms", bare_p99, most=2 * bare_p99),
            *(
                Row.less(f"accept.{name}.cpu.{process}", each, "ms each", theirs[process])
                for process, each in self.cpu_each("api").items()
            ),
        ]


@dataclass
class _Bench:
    """The two servers and the client between them."""

    admin: asyncpg.Connection
    client: subprocess.Popen[str]
    ports: dict[str, int]
    pids: Mapping[str, int]
    database: int
    jobs: Mapping[str, Mapping[str, Any]]
    turns: int = 0

    async def measure(self, kind: str, rounds: int, seconds: float) -> _Turns:
        found = _Turns()
        for server in self.ports:  # to warm up
            await self._turn(server, kind, min(1.0, seconds), _Turns())
        for number in range(rounds):
            order = list(self.ports) if number % 2 == 0 else list(reversed(self.ports))
            for server in order:
                await self._turn(server, kind, seconds, found)
        say(f"{kind}: {_said(found)}")
        return found

    async def waiting(self) -> int:
        return int(await self.admin.fetchval("SELECT count(*) FROM outbox"))

    async def _turn(self, server: str, kind: str, seconds: float, found: _Turns) -> None:
        self.turns += 1
        job = {
            "kind": kind, "port": self.ports[server], "seconds": seconds, "connections": CONNECTIONS,
            "round": self.turns, **self.jobs[kind if server == "api" else f"bare_{kind}"],
        }  # fmt: skip
        before = self._cpu(server)
        answer = await asyncio.to_thread(self._ask, job)
        after = self._cpu(server)
        if answer["odd"]:
            raise RuntimeError(f"{len(answer['odd'])} odd answers of {server}, the first: {answer['odd'][0]}")
        found.add(server, answer, {name: after[name] - before[name] for name in after} | {"client": answer["cpu"]})

    def _ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        assert self.client.stdin is not None  # noqa: S101  (both were asked for)
        assert self.client.stdout is not None  # noqa: S101  (both were asked for)
        self.client.stdin.write(json.dumps(job) + "\n")
        self.client.stdin.flush()
        return dict(json.loads(self.client.stdout.readline()))

    def _cpu(self, server: str) -> dict[str, float]:
        """What the server took that is measured, PostgreSQL, and the engine: the relay, workers and Temporal."""
        postgres = psutil.Process(self.database)
        database = (postgres, *postgres.children(recursive=True))
        apart = {*self.pids.values(), self.client.pid, *(process.pid for process in database)}
        engine = (process for process in psutil.Process().children(recursive=True) if process.pid not in apart)
        return {
            "server": _seconds(psutil.Process(self.pids[server])),
            "postgres": sum(_seconds(process) for process in database),
            "engine": sum(_seconds(process) for process in engine),
        }


def _seconds(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # Connections of the past are in the postmaster's account.
    return float(used.user + used.system + used.children_user + used.children_system)


def _said(found: _Turns) -> str:
    rates = ", ".join(f"{server} {median(each):.0f}/s" for server, each in found.per_second.items())
    cpu = ", ".join(f"{name} {each:.2f}" for name, each in found.cpu_each("api").items())
    theirs = ", ".join(f"{name} {each:.2f}" for name, each in found.cpu_each("bare").items())
    return (
        f"{rates}; ratio {found.ratio('bare'):.2f} ({found.ratio('bare_no_reset'):.2f} without reset);"
        f" p50 {found.milliseconds('api', 50):.1f} (bare {found.milliseconds('bare', 50):.1f}),"
        f" p99 {found.milliseconds('api', 99):.1f} (bare {found.milliseconds('bare', 99):.1f}) ms;"
        f" CPU ms each: {cpu} (bare {theirs})"
    )


@asynccontextmanager
async def _bench(stack: Stack) -> AsyncIterator[_Bench]:
    await stack.postgres.create_database("bare")
    url = stack.postgres.admin_url("bare")
    made = await asyncpg.connect(url)
    await made.execute(bare.TABLES)
    await made.close()
    ports = dict(zip(("bare", "bare_no_reset"), free_ports(2), strict=True))
    pids = {"api": stack.service("api").pid}
    admin = await asyncpg.connect(stack.environment()["DRUMBEAT_ADMIN_DATABASE_URL"])
    with ExitStack() as processes:
        for name, port in ports.items():
            options = ["--no-reset"] if name == "bare_no_reset" else []
            pids[name] = _start(processes, "bench.bare", url, str(port), *options).pid
            await _answers(port)
        api = int(stack.api_url.rpartition(":")[2])
        client = _start(processes, "bench.load")
        yield _Bench(admin, client, {"api": api, **ports}, pids, _postmaster(), await _jobs(stack))
    await admin.close()


def _postmaster() -> int:
    """The process all others of the server were started by."""
    servers = {one.pid: one for one in psutil.Process().children(recursive=True) if one.name() == "postgres"}
    (root,) = (pid for pid, one in servers.items() if one.ppid() not in servers)
    return root


def _start(processes: ExitStack, module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes.callback(process.wait)
    processes.callback(process.kill)
    return process


async def _answers(port: int) -> None:
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError("the bare server does not answer")


async def _jobs(stack: Stack) -> dict[str, dict[str, Any]]:
    """An organization with a key, a source and deals, and rules that hear every fact; what to ask of each server."""
    environment = stack.environment()
    database = Database.connect(environment["DRUMBEAT_DATABASE_URL"])
    org = await identity.create_organization(database, "Acme", "acme", Calendar(zone="Europe/Berlin"))
    async with database.transaction(org) as tx:
        admin = (await identity.create_user(tx, "ada@example.com", "Ada", Role.ADMIN)).id
        _, token = await identity.create_key(tx, admin, "bench", Role.REP)
    async with database.transaction(org, Origin("user", admin)) as tx:
        source, secret = await identity.create_source(tx, "Bench", b64decode(environment["DRUMBEAT_MASTER_KEY"]))
        person = await contacts.create(tx.unheard(), {"email": "deals@example.com", "owner_id": admin})
        rows = [_deal(number, person.id, admin) for number in range(_DEALS)]
        made = await deals.create_many(tx.unheard(), rows)
        for name, trigger in _TRIGGERS.items():
            rule = await definitions.create(tx, name, _rule(trigger))
            await definitions.activate(tx, rule.id, None, expected=None)
    await database.close()
    theirs: dict[str, Any] = {"headers": "", "deals": [str(uuid4()) for _ in range(_DEALS)], "secret": "00" * 32}
    ours = {
        "headers": f"Authorization: Bearer {token}\r\n", "deals": [str(deal) for deal in made],
        "secret": b64decode(secret.removeprefix("whsec_")).hex(),
    }  # fmt: skip
    return {
        "contact": {**ours, "path": "/api/v1/contacts"},
        "stage_change": {**ours, "path": "/api/v1/deals/{}/stage"},
        "webhook": {**ours, "path": f"/webhooks/{source.id}"},
        "bare_contact": {**theirs, "path": "/contacts"},
        "bare_stage_change": {**theirs, "path": "/deals/{}/stage"},
        "bare_webhook": {**theirs, "path": f"/webhooks/{uuid4()}"},
    }


def _deal(number: int, contact: UUID, owner: UUID) -> dict[str, Any]:
    return {
        "id": uuid7(), "external_id": str(number), "title": f"Deal {number}", "pipeline": "default", "stage": "lead",
        "contact_id": contact, "owner_id": owner, "value_cents": 0, "currency": "USD", "expected_close_date": None,
    }  # fmt: skip


_TRIGGERS: dict[str, dict[str, Any]] = {
    "Moved": {"on": "deal.stage_changed", "to": ["proposal"]},
    "Made": {"on": "contact.created"},
}


def _rule(trigger: Mapping[str, Any]) -> RuleDocument:
    """A task at once, and a wait, which needs a worker."""
    task = {"kind": "act", "id": "task", "action": {"type": "create_task", "title": "Call"}}
    wait = {"kind": "wait", "id": "wait", "wait": {"for": {"amount": 3, "unit": "days"}}}
    return RuleDocument.model_validate({"trigger": trigger, "steps": [task, wait, {**task, "id": "again"}]})


if __name__ == "__main__":
    from runtime.ending import end

    _parser = argparse.ArgumentParser()
    _parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    _parser.add_argument("--rounds", type=int, default=ROUNDS)
    _parser.add_argument("--seconds", type=float, default=SECONDS)
    _given = _parser.parse_args()
    for _row in asyncio.run(rows(kinds=_given.kinds, rounds=_given.rounds, seconds=_given.seconds)):
        print(json.dumps(_row.document()))  # noqa: T201  (its answer)
    end(0)
