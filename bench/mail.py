"""What mail costs: emails a second, and the CPU of every process for each of them, by real processes."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from bench.bed import Bed, Office, Size, Spent, bed
from bench.rows import Row
from cli.demo.mail_server import received
from domain.keys import workflow_id
from domain.words import Target
from runtime.folders import CHECKOUT
from runtime.progress import say
from store import mailboxes
from workflows.drain import POKES_A_RUN

MAILBOXES = 10
PER_SECOND = 20.0
MILLISECONDS = 75.0
"""Of CPU, the mail server's apart: the design's bars."""
_ACCEPTED = "SELECT count(*) FROM intents WHERE status = 'accepted'"
_PENDING = "SELECT count(*) FROM intents WHERE status = 'pending'"


async def rows(size: Size) -> list[Row]:
    """Emails that only wait to be sent, the same from their enrollment on, and many in one mailbox without a server."""
    some, many = size.of(50, 300, 1_000), size.of(100, 600, 10_000)
    with tempfile.TemporaryDirectory() as folder, _mail_server(Path(folder) / "log") as (server, port):
        async with bed() as one:
            one.know(server, "mail server")
            smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "security": "none"}
            boxes = [await one.office.mailbox(f"Mailbox {number}", **smtp) for number in range(MAILBOXES)]
            people = await one.office.people(some)
            return [
                *await _sending(one, boxes, people),
                *await _enrolling(one, boxes, people),
                *_once_each(Path(folder) / "log", 2 * some),
                *await _many(one, many),
            ]


async def _sending(one: Bed, boxes: list[UUID], people: list[UUID]) -> list[Row]:
    """They wait in their mailboxes, which are paused until the clock is started."""
    for box in boxes:
        async with one.office.transaction() as tx:
            await mailboxes.pause(tx, box)
    await _enroll(one.office, "Sent", boxes, people)
    await one.until(_PENDING, len(people), "emails written")
    await one.quiet()

    async def resume() -> None:
        for box in boxes:
            async with one.office.transaction() as tx:
                await mailboxes.resume(tx, box)

    return _figures("sent", len(people), await _spent(one, resume, len(people), "emails sent"), bars=True)


async def _enrolling(one: Bed, boxes: list[UUID], people: list[UUID]) -> list[Row]:
    """From the enrollment in a sequence of one email to its end: with the start and the end of a workflow each."""
    spent = await _spent(one, lambda: _enroll(one.office, "Enrolled", boxes, people), len(people), "enrollments mailed")
    return _figures("enrolled", len(people), spent, bars=True)


async def _many(one: Bed, many: int) -> list[Row]:
    """The same without a mail server, in one mailbox whose drain is poked all the while."""
    box = await one.office.mailbox()
    people = await one.office.people(many)
    spent = await _spent(one, lambda: _enroll(one.office, "Many", [box], people), many, "emails in one mailbox")
    lengths = await _histories(one, box)
    return [
        *_figures("one_mailbox", many, spent),
        Row("mail.one_mailbox.continued_as_new", len(lengths) - 1, "times", most=many // POKES_A_RUN),
        Row("mail.one_mailbox.longest_history", max(lengths), "events", most=10_240),
    ]


def _once_each(log: Path, count: int) -> list[Row]:
    times = Counter(mail.message_id for mail in received(log))
    return [Row("mail.twice_or_never", count - len(times) + times.total() - len(times), "emails", most=0)]


def _figures(name: str, count: int, spent: Spent, *, bars: bool = False) -> list[Row]:
    ours = sum(each for process, each in spent.cpu.items() if process != "mail server")
    return [
        Row(f"mail.{name}.per_second", count / spent.seconds, "/s", least=PER_SECOND if bars else None),
        Row(f"mail.{name}.cpu", 1000 * ours / count, "ms of CPU each", most=MILLISECONDS if bars else None),
        *(
            Row(f"mail.{name}.cpu.{process}", 1000 * each / count, "ms of CPU each")
            for process, each in sorted(spent.cpu.items())
        ),
    ]


async def _spent(one: Bed, work: Callable[[], Awaitable[None]], count: int, what: str) -> Spent:
    """Until `count` more emails were accepted."""
    already = await one.value(_ACCEPTED)

    async def whole() -> None:
        await work()
        await one.until(_ACCEPTED, already + count, what, already=already)

    spent = await one.spent(whole)
    each = 1000 * sum(spent.cpu.values()) / count
    say(f"  {count} {what}: {count / spent.seconds:.1f} a second, {each:.0f} ms of CPU each")
    return spent


async def _enroll(office: Office, name: str, boxes: list[UUID], people: list[UUID]) -> None:
    """Into a new sequence of one email, the mailboxes in turn."""
    content = {"subject": "Hello {{ contact.firstName }}", "text": "Hello {{ contact.firstName }}, how are you?"}
    sequence = await office.sequence({"kind": "email", "id": "mail", **content}, name=name)
    for number, box in enumerate(boxes):
        await office.enroll(sequence, people[number :: len(boxes)], box)


@contextmanager
def _mail_server(log: Path) -> Iterator[tuple[int, int]]:
    """The demo's mail server: its process id and its port."""
    command = [sys.executable, "-m", "cli.demo.mail_server", "--log", str(log)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  (it was asked for)
        yield process.pid, json.loads(process.stdout.readline())["port"]
        process.kill()


async def _histories(one: Bed, box: UUID) -> list[int]:
    """How long the history of each run of a mailbox's drain is."""
    client = await one.client()
    id_, found = workflow_id(Target.MAILBOX, box), []
    run = (await client.get_workflow_handle(id_).describe()).run_id
    while run:
        events = (await client.get_workflow_handle(id_, run_id=run).fetch_history()).events
        found.append(len(events))
        run = events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found
