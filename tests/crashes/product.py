"""The product as real processes over a database of their own; whichever dies is started again at once."""

import asyncio
import base64
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from chaos.told import Told
from cli.demo.campaign import Settled
from cli.demo.mail_server import Received, mail_of
from cli.demo.office import Office, Outside
from domain.keys import workflow_id
from domain.words import Target
from runtime.children import port_is_free
from runtime.postgres import Postgres
from tests.crashes.nursery import Nursery, Order
from tests.crashes.points import BEFORE, Fault, passed

SERVICES = ("api", "relay", "worker")
MASTER_KEY = bytes(range(32))
QUIET_SECONDS = 120.0
"""The longest the product may be at something; a busy machine is slow. What only the sweep found is told apart."""

_LEFT = """
  SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM wakes)
    + (SELECT count(*) FROM executions WHERE status = 'open' AND held_since IS NULL AND due_at <= business_now())
    + (SELECT count(*) FROM reminders WHERE due_at <= business_now())
    + (SELECT count(*) FROM intents WHERE status IN ('claimed', 'uncertain')
         OR status = 'pending' AND due_at <= business_now())
    + (SELECT count(*) FROM letters WHERE status = 'received') AS left
"""
_DUE = """
  SELECT org_id, kind, id, due_at FROM executions WHERE status = 'open' AND held_since IS NULL AND due_at IS NOT NULL
  UNION ALL SELECT org_id, 'reminder', id, due_at FROM reminders WHERE due_at IS NOT NULL
  UNION ALL SELECT org_id, 'mailbox', destination_id, due_at FROM intents WHERE status = 'pending'
"""


class Broken(Exception):  # noqa: N818  (what a scenario ends with)
    """The product did not come to rest, or a process ended that nobody had killed."""


@dataclass(frozen=True)
class Ground:
    """What all scenarios stand on: one database server, one Temporal server, one mail server, one nursery."""

    postgres: Postgres
    temporal: Mapping[str, str]
    mail_log: Path
    mail_port: int
    client: Client
    nursery: Nursery
    folder: Path

    def urls(self, database: str) -> tuple[str, str, str]:
        """The admin's, the app's and the relay's way into a database."""
        return (
            self.postgres.admin_url(database),
            self.postgres.url("drumbeat_app", "app-password", database),
            self.postgres.url("drumbeat_relay", "relay-password", database),
        )


@dataclass
class Product:
    """One database and its processes; `told` is what its people did and were told."""

    ground: Ground
    name: str
    token: str
    fault: Fault | None = None
    url: str = field(init=False)
    told: Told = field(default_factory=Told)
    untimed: list[str] = field(default_factory=list)
    """What waited for a time without a workflow: nobody would have come, and the clock's mover hides that."""
    struck: bool = False
    """Whether the fault was reached."""
    records: dict[str, list[Path]] = field(default_factory=lambda: {service: [] for service in SERVICES})

    def __post_init__(self) -> None:
        self._port = _port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._queue = f"walk-{secrets.token_hex(4)}"
        self._folder = self.ground.folder / self.name
        self._folder.mkdir()
        self._pids: dict[str, int] = {}
        self._trouble: list[str] = []
        self._stopping = False
        self._database: asyncpg.Connection = None
        self._turn = asyncio.Lock()
        self.office = Office(self.url, self.token)
        self.outside = Outside(self.url)

    # --- processes

    async def start(self, *services: str) -> None:
        self._database = await asyncpg.connect(self.ground.urls(self.name)[0])
        # A mailbox is the only row with a workflow that a copy has from the start: each copy needs its own.
        await self.rows("UPDATE destinations SET id = gen_random_uuid()")
        self._watching = [asyncio.create_task(self._watch(service)) for service in services or SERVICES]

    async def stop(self) -> None:
        self._stopping = True
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for pid in self._pids.values():
            await self.ground.nursery.kill(pid)
        await self.office.close()
        await self.outside.close()
        await self._database.close()

    async def _watch(self, service: str) -> None:
        """Keeps a service running; only the fault may end it, and that once."""
        fault = self.fault if self.fault and self.fault.service == service else None
        while True:
            pid = self._pids[service] = await self.ground.nursery.fork(self._order(service, fault))
            code = await self.ground.nursery.ended(pid)
            if fault is None or code != -9:
                self._trouble.append(f"{service} ended with {code}\n{self._logs()}")
                return
            self.struck, fault = True, None
            if service == "worker":
                await self._pass_deadlines()

    def _order(self, service: str, fault: Fault | None) -> Order:
        _, app, relay = self.ground.urls(self.name)
        records = self.records[service]
        records.append(self._folder / f"{service}-{len(records)}.points")
        environment = {
            "DRUMBEAT_DATABASE_URL": app,
            "DRUMBEAT_RELAY_DATABASE_URL": relay,
            "DRUMBEAT_MASTER_KEY": base64.b64encode(MASTER_KEY).decode(),
            "DRUMBEAT_API_PORT": str(self._port),
            "DRUMBEAT_INBOUND_DOMAIN": "reply.example.com",
            "DRUMBEAT_TASK_QUEUE": self._queue,
            **self.ground.temporal,
        }
        return Order(service, environment, str(self._folder / f"{service}.log"), str(records[-1]), fault)

    async def _pass_deadlines(self) -> None:
        """A claim lasts 45 seconds; those of a sender that is dead are over now, as its clock could have been moved."""
        await self.rows("UPDATE intents SET deadline = clock_timestamp() WHERE status = 'claimed'")

    # --- looking and driving

    async def rows(self, query: str, *values: object) -> list[Mapping[str, Any]]:
        """As the superuser sees them; what changes rows goes this way, too."""
        async with self._turn:
            return [dict(row) for row in await self._database.fetch(query, *values)]

    def received(self) -> list[Received]:
        """What the mail server keeps for this scenario's people."""
        ours = f"@{self.domain}".encode()
        lines = self.ground.mail_log.read_bytes().split(b"\n")[:-1]
        return [mail_of(line) for line in lines if ours in line]

    @property
    def domain(self) -> str:
        return f"{self.name.replace('_', '-')}.example.net"

    def _at_work(self) -> bool:
        """Whether a process is between the two sides of a point."""
        for records in self.records.values():
            sides = Counter(point.endswith(BEFORE) for record in records[-1:] for point in passed(record))
            if sides[True] != sides[False]:
                return True
        return False

    def _logs(self) -> str:
        """The last of what each process has logged."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(self._folder.glob("*.log")))

    async def quiet(self) -> None:
        """Returns when nothing is left to do now; whoever sits at the desk settles what asks a person meanwhile."""
        deadline, calm = time.monotonic() + QUIET_SECONDS, 0
        while calm < 2:
            if self._trouble:
                raise Broken(self._trouble[0])
            still = not self._at_work() and (await self.rows(_LEFT))[0]["left"] == 0
            calm = calm + 1 if still else 0
            if time.monotonic() > deadline:
                raise Broken(f"not quiet within {QUIET_SECONDS:.0f} s: {await self._told()}\n{self._logs()}")
            if not still:
                await self._settle()
            await asyncio.sleep(0.03)

    async def _told(self) -> str:
        found = {
            name: [str(row) for row in await self.rows(query)][:3]
            for name, query in {
                "outbox": "SELECT event_id, attempts, error FROM outbox",
                "wakes": "SELECT kind, target_id, error FROM wakes",
                "executions": "SELECT kind, status, step, due_at, awaits FROM executions WHERE status <> 'ended'",
                "reminders": "SELECT status, due_at FROM reminders WHERE due_at <= business_now()",
                "intents": "SELECT step, status, reason, detail FROM intents WHERE status NOT IN ('accepted', 'held')",
                "letters": "SELECT status FROM letters WHERE status = 'received'",
            }.items()
        }
        return "; ".join(f"{name}: {', '.join(rows)}" for name, rows in found.items() if rows) or "a process is at work"

    async def _settle(self) -> None:
        """A person looks into the mail server's log, and says of each uncertain message whether it has left."""
        for row in await self.rows("SELECT id, message_id FROM intents WHERE status = 'uncertain'"):
            sent = any(mail.message_id == row["message_id"] for mail in self.received())
            taken = await self.office.attempt(f"/messages/{row['id']}/settle", {"sent": sent})
            self.told.desk.settled.append(Settled(str(row["id"]), sent, taken))

    async def to_the_next(self) -> bool:
        """Moves the clock to what is due next, and whatever else within the hour, and pokes it; False if nothing is."""
        due = sorted(await self.rows(_DUE), key=lambda row: row["due_at"])
        if not due:
            return False
        self.untimed += [str(row) for row in due if row["kind"] != "mailbox" and not await self._is_timed(row)]
        together = [row for row in due if row["due_at"] < due[0]["due_at"] + timedelta(hours=1)]
        await self.rows(
            "SELECT advance_clock(greatest($1 - business_now(), '0') + interval '1 second')", together[-1]["due_at"]
        )
        columns = [[row[name] for row in together] for name in ("org_id", "kind", "id")]
        await self.rows(
            "INSERT INTO wakes (org_id, kind, target_id) SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[])",
            *columns,
        )
        await self.quiet()
        return True

    async def _is_timed(self, row: Mapping[str, Any]) -> bool:
        handle = self.ground.client.get_workflow_handle(workflow_id(Target(row["kind"]), row["id"]))
        try:
            return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False

    async def reached(self, seconds: float) -> None:
        """Waits for the fault a little, since what a process does last leaves no trace in the tables."""
        deadline = time.monotonic() + seconds
        while self.fault and not self.struck and time.monotonic() < deadline:  # noqa: ASYNC110  (a process)
            await asyncio.sleep(0.02)
        await self.quiet()


@asynccontextmanager
async def running(
    ground: Ground, name: str, template: str, token: str, fault: Fault | None = None
) -> AsyncIterator[Product]:
    """The product over a copy of a database, until the block ends; then the copy goes, too."""
    await ground.postgres.create_database(name, template=template)
    product = Product(ground, name, token, fault)
    await product.start()
    try:
        yield product
    finally:
        await product.stop()
        await ground.postgres.drop_database(name)


def _port() -> int:
    """Below those that outgoing connections take, so that it is still free when the API has been killed."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311  (no secret)
        if port_is_free(port):
            return port
