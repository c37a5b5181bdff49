"""What the relay costs where it finishes runs itself: runs a second, and the CPU of its process and of PostgreSQL."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import psutil
from uuid_utils.compat import uuid7

from domain.documents import RuleDocument
from domain.due import Calendar
from domain.words import Role
from runtime.migrating import migrate
from runtime.postgres import Postgres
from store import deals, definitions, identity
from store.transaction import Database, Origin, Transaction
from triggers.relay import BATCH, Relay

RUNS = 4_000
PER_SECOND = 1_000.0
"""Runs finished by one relay: the design's bar, set-based."""
_RULE = RuleDocument.model_validate(
    {
        "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
        "steps": [
            {"kind": "act", "id": "task", "action": {"type": "create_task", "title": "Call about the proposal"}},
            {"kind": "act", "id": "set", "action": {"type": "set_field", "field": "deal.currency", "value": "EUR"}},
            {"kind": "act", "id": "tell", "action": {"type": "notify", "title": "A deal moved"}},
        ],
    }
)


async def rows(runs: int = RUNS) -> list[dict[str, object]]:
    """Three-step runs from their event to their end, with the events they make matched and deleted as well."""
    found: list[dict[str, object]] = []
    async with _office() as office:
        ways = {"each": _Each(office.crossing, office.app), "set_based": Relay(office.crossing, office.app)}
        for relay in ways.values():  # once, so that statements and plans are those of a relay that is at work
            await office.move(4 * BATCH)
            await _relayed(relay)
        await office.analyze()
        for name, relay in ways.items():
            count = runs if name == "set_based" else runs // 4
            await office.move(count)
            seconds, mine, theirs = await _relayed(relay)
            bar = {"least": PER_SECOND} if name == "set_based" else {}
            if unfinished := await office.unfinished():
                raise RuntimeError(f"{unfinished} runs and events are not finished")
            found.append(
                {"name": f"first_attempt.{name}.per_second", "value": round(count / seconds, 1), "unit": "/s"} | bar
            )
            for process, used in (("relay", mine), ("postgres", theirs)):
                each = {"value": round(1000 * used / count, 3), "unit": "ms each"}
                found.append({"name": f"first_attempt.{name}.cpu.{process}", **each})
    return found


class _Each(Relay):
    """One that tries every run in a savepoint of its own, as it does where a batch has failed."""

    async def _attempt(self, tx: Transaction, runs: Sequence[UUID]) -> list[UUID]:
        waiting: list[UUID] = []
        for run in runs:
            waiting += await super()._attempt(tx, [run])
        return waiting


class _Office:
    """An organization with the rule, in a PostgreSQL of its own."""

    def __init__(self, crossing: Database, app: Database, admin: Database, org: UUID, rep: UUID) -> None:
        self.crossing, self.app = crossing, app
        self._admin, self._org, self._rep = admin, org, rep
        self._numbers = 0

    async def move(self, count: int) -> None:
        """Events of that many new deals that enter the stage, waiting in the outbox."""
        for start in range(0, count, 500):
            async with self.app.transaction(self._org, Origin("user", self._rep)) as tx:
                drafts = [self._deal() for _ in range(min(500, count - start))]
                made = await deals.create_many(tx.unheard(), drafts)
                await deals.move_stages(tx, [deals.Move(deal, "proposal") for deal in made])

    def _deal(self) -> dict[str, object]:
        self._numbers += 1
        return {
            "id": uuid7(),
            "external_id": str(self._numbers),
            "title": f"Deal {self._numbers}",
            "pipeline": "default",
            "stage": "lead",
            "owner_id": self._rep,
            "value_cents": 1000,
            "currency": "USD",
            "expected_close_date": None,
        }

    async def unfinished(self) -> int:
        """What the relay has left: runs that have not ended, events that were not matched."""
        left = "SELECT (SELECT count(*) FROM executions WHERE status <> 'ended') + (SELECT count(*) FROM outbox)"
        async with self._admin.crossing() as connection:
            return int((await connection.exec_driver_sql(left)).scalar_one())

    async def analyze(self) -> None:
        """As autovacuum does of itself within a minute."""
        async with self._admin.crossing() as connection:
            await connection.exec_driver_sql("ANALYZE")


@asynccontextmanager
async def _office() -> AsyncIterator[_Office]:
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder) / "postgres")
        await server.start()
        try:
            await server.create_database("drumbeat")
            ways = [server.url(f"drumbeat_{role}", "password", "drumbeat") for role in ("app", "relay")]
            await migrate(server.admin_url("drumbeat"), *ways)
            app, crossing, admin = (Database.connect(way) for way in (*ways, server.admin_url("drumbeat")))
            org = await identity.create_organization(app, "Acme", "acme", Calendar(zone="Europe/Berlin"))
            async with app.transaction(org) as tx:
                rep = (await identity.create_user(tx, "ada@example.com", "Ada", Role.ADMIN)).id
                rule = (await definitions.create(tx, "Rule", _RULE)).id
                await definitions.activate(tx, rule, None, expected=None)
            yield _Office(crossing, app, admin, org, rep)
            for database in (app, crossing, admin):
                await database.close()
        finally:
            await server.stop()


async def _relayed(relay: Relay) -> tuple[float, float, float]:
    """Until the outbox is empty: seconds, and seconds of CPU of this process and of PostgreSQL."""
    started, mine, theirs = time.monotonic(), time.process_time(), _postgres()
    while await relay.once():
        pass
    return time.monotonic() - started, time.process_time() - mine, _postgres() - theirs


def _postgres() -> float:
    """Seconds of CPU of all that this process has started."""
    return sum(sum(child.cpu_times()[:4]) for child in psutil.Process().children(recursive=True))


if __name__ == "__main__":
    from runtime.ending import end

    for _row in asyncio.run(rows(*(int(count) for count in sys.argv[1:]))):
        print(json.dumps(_row))  # noqa: T201  (its answer)
    end(0)
