"""What mail costs: emails a second, and the CPU of every process for each of them, by real processes."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import text
from temporalio.client import Client

from cli.demo.mail_server import received
from domain.documents import SequenceDocument
from domain.due import Calendar
from domain.keys import workflow_id
from domain.words import Kind, Role, Target
from runtime.attaching import temporal_server
from runtime.folders import CHECKOUT
from runtime.processes import Stack
from runtime.progress import counted, say
from store import contacts, definitions, enrollments, identity, mailboxes, sending
from store.enrollments import Asked
from store.transaction import Database, Origin, Transaction

MAILBOXES = 10
SOME = 1_000
"""Emails over the mailboxes with a mail server."""
MANY = 10_000
"""Emails in the one mailbox without."""
PER_SECOND = 20.0
MILLISECONDS = 75.0
"""Of CPU, the mail server's apart: the design's bars."""
_PATIENCE = 3600.0
_TICK = os.sysconf("SC_CLK_TCK")


async def rows() -> list[dict[str, object]]:
    """Emails that only wait to be sent, the same from their enrollment on, and ten thousand in one mailbox."""
    with tempfile.TemporaryDirectory() as folder, _mail_server(Path(folder) / "log") as (server, port):
        async with (
            Stack(Path(folder) / "home", temporal_server(), tell=lambda _: None) as stack,
            _office(stack) as office,
        ):
            processes = {stack.service(name).pid: name.partition("-")[0] for name in stack.names}
            measure = _Measure(office, {**processes, server: "mail server"})
            smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "security": "none"}
            boxes = [await office.mailbox(f"Mailbox {number}", **smtp) for number in range(MAILBOXES)]
            people = await office.people(SOME)
            return [
                *await _sending(measure, boxes, people),
                *await _enrolling(measure, boxes, people),
                *_once_each(Path(folder) / "log", 2 * SOME),
                *await _many(measure, stack),
            ]


async def _sending(measure: "_Measure", boxes: list[UUID], people: list[UUID]) -> list[dict[str, object]]:
    """They wait in their mailboxes, which are paused until the clock is started."""
    office = measure.office
    for box in boxes:
        async with office.transaction() as tx:
            await mailboxes.pause(tx, box)
    await office.enroll("Sent", boxes, people)
    await _until(lambda: office.count("pending"), SOME, "emails written")
    await office.quiet()

    async def resume() -> None:
        for box in boxes:
            async with office.transaction() as tx:
                await mailboxes.resume(tx, box)

    seconds, cpu = await measure.of(resume, SOME, "emails sent")
    return _figures("sent", SOME, seconds, cpu, bars=True)


async def _enrolling(measure: "_Measure", boxes: list[UUID], people: list[UUID]) -> list[dict[str, object]]:
    """From the enrollment in a sequence of one email to its end: with the start and the end of a workflow each."""
    office = measure.office
    seconds, cpu = await measure.of(lambda: office.enroll("Enrolled", boxes, people), SOME, "enrollments mailed")
    return _figures("enrolled", SOME, seconds, cpu)


async def _many(measure: "_Measure", stack: Stack) -> list[dict[str, object]]:
    """The same without a mail server, in one mailbox whose drain is poked all the while."""
    office = measure.office
    box = await office.mailbox("Outbox", transport="outbox")
    people = await office.people(MANY)
    seconds, cpu = await measure.of(lambda: office.enroll("Many", [box], people), MANY, "emails in one mailbox")
    lengths = await _histories(stack, box)
    return [
        *_figures("one_mailbox", MANY, seconds, cpu),
        {"name": "mail.one_mailbox.continued_as_new", "value": len(lengths) - 1, "unit": "times"},
        {"name": "mail.one_mailbox.longest_history", "value": max(lengths), "unit": "events", "most": 10_240},
    ]


def _once_each(log: Path, count: int) -> list[dict[str, object]]:
    times = Counter(mail.message_id for mail in received(log))
    return [{"name": "mail.twice_or_never", "value": count - len(times) + times.total() - len(times), "unit": "emails",
             "most": 0}]  # fmt: skip


def _figures(
    name: str, count: int, seconds: float, cpu: Mapping[str, float], *, bars: bool = False
) -> list[dict[str, object]]:
    ours = sum(each for process, each in cpu.items() if process != "mail server")
    return [
        {"name": f"mail.{name}.per_second", "value": round(count / seconds, 1), "unit": "/s"}
        | ({"least": PER_SECOND} if bars else {}),
        {"name": f"mail.{name}.cpu", "value": round(1000 * ours / count, 1), "unit": "ms each"}
        | ({"most": MILLISECONDS} if bars else {}),
        *(
            {"name": f"mail.{name}.cpu.{process}", "value": round(1000 * each / count, 1), "unit": "ms each"}
            for process, each in sorted(cpu.items())
        ),
    ]


class _Measure:
    """The time of a piece of work, and the CPU of each process by name; this process's own is nobody's."""

    def __init__(self, office: "_Office", names: Mapping[int, str]) -> None:
        self.office = office
        self._names = names

    async def of(self, work: Callable[[], Awaitable[None]], count: int, what: str) -> tuple[float, dict[str, float]]:
        """Until `count` more emails were accepted and nothing is left in any queue."""
        already = await self.office.count("accepted")
        before, started = self._cpu(), time.monotonic()
        working = asyncio.ensure_future(work())
        await _until(lambda: self.office.count("accepted"), count, what, already)
        await working
        seconds = time.monotonic() - started
        await self.office.quiet()
        after = self._cpu()
        cpu = {name: after[name] - before[name] for name in after}
        say(f"{count} {what}: {count / seconds:.1f} a second, {1000 * sum(cpu.values()) / count:.0f} ms of CPU each")
        return seconds, cpu

    def _cpu(self) -> dict[str, float]:
        """Seconds of each child of this process with all that it has started."""
        parents, used, called = {}, {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name, _, fields = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            numbers = fields.split()
            pid = int(folder.name)
            parents[pid], called[pid] = int(numbers[1]), name
            used[pid] = sum(int(number) for number in numbers[11:15]) / _TICK
        found: dict[str, float] = {}
        for pid, seconds in used.items():
            root = pid
            while parents.get(root, 0) not in (0, os.getpid()):
                root = parents[root]
            if parents.get(root) == os.getpid():
                name = self._names.get(root, called[root])
                found[name] = found.get(name, 0.0) + seconds
        return found


class _Office:
    """One organization of the stack, by the verbs of the store."""

    def __init__(self, database: Database, org: UUID, admin: UUID) -> None:
        self._database, self._org, self._admin = database, org, admin
        self._numbers = 0

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._database.transaction(self._org, Origin("user", self._admin))

    async def mailbox(self, name: str, **values: object) -> UUID:
        async with self.transaction() as tx:
            row = {"name": name, "from_name": "Sal", "from_email": "sal@example.com", **values}
            made: UUID = (await mailboxes.create(tx, row, None, bytes(32))).id
        return made

    async def people(self, count: int) -> list[UUID]:
        """Contacts of whom no rule hears."""
        made: list[UUID] = []
        with counted(count, "contacts", say) as another:
            while len(made) < count:
                async with self.transaction() as tx:
                    for _ in range(min(500, count - len(made))):
                        self._numbers += 1
                        row = {"email": f"p{self._numbers}@example.com", "first_name": "Jo"}
                        made.append((await contacts.create(tx.unheard(), row)).id)
                        another()
        return made

    async def enroll(self, name: str, boxes: list[UUID], people: list[UUID]) -> None:
        """Into a new sequence of one email, the mailboxes in turn."""
        content = {"subject": "Hello {{ contact.firstName }}", "text": "Hello {{ contact.firstName }}, how are you?"}
        document = SequenceDocument.model_validate({"steps": [{"kind": "email", "id": "mail", **content}]})
        async with self.transaction() as tx:
            await sending.set_postal_address(tx, "1 Main Street, Springfield")
            sequence = (await definitions.create(tx, name, document)).id
            await definitions.activate(tx, sequence, None, expected=None, kind=Kind.SEQUENCE)
        for number, box in enumerate(boxes):
            mine = people[number :: len(boxes)]
            for start in range(0, len(mine), 500):
                async with self.transaction() as tx:
                    asked = [Asked(one) for one in mine[start : start + 500]]
                    for one in await enrollments.enroll(tx, sequence, asked, mailbox=box):
                        if one.enrollment is None:
                            raise RuntimeError(f"not enrolled: {one.reason}")

    async def count(self, status: str) -> int:
        return await self._value("SELECT count(*) FROM intents WHERE status = :status", status=status)

    async def quiet(self) -> None:
        """Until nothing is left to match or to poke."""
        queues = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM wakes)"
        while await self._value(queues):  # noqa: ASYNC110  (the queues are in the database)
            await asyncio.sleep(0.2)

    async def _value(self, query: str, **values: object) -> int:
        async with self.transaction() as tx:
            return int((await tx.execute(text(query), values)).scalar_one())


@asynccontextmanager
async def _office(stack: Stack) -> AsyncIterator[_Office]:
    database = Database.connect(stack.environment()["DRUMBEAT_DATABASE_URL"])
    org = await identity.create_organization(database, "Acme", "acme", Calendar(zone="Europe/Berlin"))
    async with database.transaction(org) as tx:
        admin = (await identity.create_user(tx, "ada@example.com", "Ada", Role.ADMIN)).id
    yield _Office(database, org, admin)
    await database.close()


@contextmanager
def _mail_server(log: Path) -> Iterator[tuple[int, int]]:
    """The demo's mail server: its process id and its port."""
    command = [sys.executable, "-m", "cli.demo.mail_server", "--log", str(log)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  (it was asked for)
        yield process.pid, json.loads(process.stdout.readline())["port"]
        process.kill()


async def _until(count: Callable[[], Awaitable[int]], wanted: int, what: str, already: int = 0) -> None:
    deadline, done = time.monotonic() + _PATIENCE, 0
    with counted(wanted, what, say) as another:
        while done < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{done} of {wanted} {what} in {_PATIENCE:.0f} s")
            await asyncio.sleep(0.2)
            for _ in range(await count() - already - done):
                done += 1
                another()


async def _histories(stack: Stack, box: UUID) -> list[int]:
    """How long the history of each run of a mailbox's drain is."""
    environment = stack.environment()
    client = await Client.connect(environment["TEMPORAL_ADDRESS"], namespace=environment["TEMPORAL_NAMESPACE"])
    id_, found = workflow_id(Target.MAILBOX, box), []
    run = (await client.get_workflow_handle(id_).describe()).run_id
    while run:
        events = (await client.get_workflow_handle(id_, run_id=run).fetch_history()).events
        found.append(len(events))
        run = events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found


if __name__ == "__main__":
    from runtime.ending import end

    for _row in asyncio.run(rows()):
        print(json.dumps(_row))  # noqa: T201  (its answer)
    end(0)
