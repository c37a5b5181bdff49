"""What waiting costs: enrollments asleep for days, by thousands; the same at each size is the point.

Bytes are what the files have grown by: the execution with its indexes and dead rows, and its event. The address that
is kept of its person from then on, once however often they are enrolled, is told beside them.
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from bench import job, textbook
from bench.bed import Bed, Eyes, Size, bed, paced, percentile, task, until, wait
from bench.latency import DUE, LATENESS
from bench.rows import Row
from runtime.progress import say

SCALE = 60
BYTES = 1024.0
"""The design's bar for one in our tables."""
PROBES = 100
_SIZES = """
SELECT c.relname AS name, pg_table_size(c.oid)::bigint AS heap, pg_indexes_size(c.oid)::bigint AS indexes
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY($1)
"""
_HOLD = ["executions", "events", "effects"]
"""The tables in which something stays of each; queues are emptied, and their room is used again."""
_PERSON = "addresses"
"""In which something stays of each person."""
_FLAT = {
    "bytes": "bytes each",
    "bytes.temporal": "bytes each",
    "cpu": "ms of CPU each",
    "wake_p50_ms": "ms",
}
"""What is to be the same for one, however many there are."""
_ASLEEP = "SELECT count(*) FROM executions WHERE step = 'long' AND waits IS NOT NULL"


async def rows(size: Size) -> list[Row]:
    found: list[Row] = []
    points = size.of([100, 300], [500, 2_000], [1_000, 10_000, 100_000])
    async with bed(scale=SCALE) as one:
        box = await one.office.mailbox()
        long = await one.office.sequence(wait("long", 1000, "days"), name="Long")
        await _probed(one, box, "warm-up")
        asleep, theirs = 0, await _textbook(one, points[0])
        for point in points:
            found += await _point(one, long, box, point - asleep, point, theirs)
            found += await _probed(one, box, str(point))
            asleep = point
    return [*found, *_told(found, points, theirs)]


async def _point(one: Bed, sequence: UUID, box: UUID, more: int, point: int, theirs: float) -> list[Row]:
    """So many more of them, told a piece."""
    people = await one.office.people(more)
    await one.value("CHECKPOINT")
    before, stored, already = await _sizes(one), _store(one), await one.value(_ASLEEP)

    async def work() -> None:
        await one.office.enroll(sequence, people, box)
        await one.until(_ASLEEP, already + more, "asleep", already=already)
        await one.quiet()  # each has its workflow, too

    spent = await one.spent(work)
    after, stored_after, memory = await _sizes(one), _store(one), one.memory()
    grown = {name: (after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in after}
    heap, indexes = (sum(grown[name][part] for name in _HOLD) / more for part in (0, 1))
    temporal = (stored_after - stored) / more
    rate = more / spent.seconds
    say(f"  {point} asleep: {heap:.0f} + {indexes:.0f} bytes each, {temporal:.0f} in Temporal, {rate:.1f} a second")
    name = f"sleepers.{point}"
    return [
        Row(f"{name}.bytes", heap + indexes, "bytes each"),
        Row(f"{name}.bytes.heap", heap, "bytes each"),
        Row(f"{name}.bytes.indexes", indexes, "bytes each"),
        *(Row(f"{name}.bytes.{table}", sum(each) / more, "bytes each") for table, each in sorted(grown.items())),
        Row.less(f"{name}.bytes.temporal", temporal, "bytes each", theirs),
        *(Row(f"{name}.memory.{process}", used / 1e6, "MB") for process, used in sorted(memory.items())),
        Row(f"{name}.put_to_sleep", rate, "/s"),
        Row(f"{name}.cpu", 1000 * sum(spent.cpu.values()) / more, "ms of CPU each"),
    ]


async def _probed(one: Bed, box: UUID, point: str) -> list[Row]:
    """How late others wake while these sleep."""
    sequence = await one.office.sequence(wait("wait", 1), task("probe"), name=f"Probe {point}")
    people = await one.office.people(PROBES)

    async def enroll(number: int) -> None:
        await one.office.enroll(sequence, [people[number]], box)

    await paced(DUE, PROBES, enroll)
    over = "SELECT count(*) FROM executions WHERE definition_id = $1 AND status = 'ended'"
    await one.until(over, PROBES, "woken", sequence)
    late = [row["ms"] for row in await one.rows(LATENESS, "probe", 1, sequence)]
    say(f"  they wake {percentile(late, 0.5):.0f} ms late, {percentile(late, 0.99):.0f} at most")
    name = f"sleepers.{point}"
    return [Row(f"{name}.wake_p{share * 100:.0f}_ms", percentile(late, share), "ms") for share in (0.5, 0.99)]


def _told(found: list[Row], points: list[int], theirs: float) -> list[Row]:
    """The last point's figures; and against the first's: where one costs more among many, the ratio is below 1."""
    values = {row.name: row.value for row in found}
    first, last = points[0], points[-1]

    def at(name: str, point: int = last) -> float:
        return values[f"sleepers.{point}.{name}"]

    return [
        Row("sleeper.bytes", at("bytes"), "bytes each", most=BYTES, note=f"{last:,} asleep, indexes included"),
        Row("sleeper.bytes.heap", at("bytes.heap"), "bytes each"),
        Row("sleeper.bytes.indexes", at("bytes.indexes"), "bytes each"),
        Row("sleeper.bytes.address", at(f"bytes.{_PERSON}"), "bytes each", note="once a person"),
        Row.less("sleeper.bytes.temporal", at("bytes.temporal"), "bytes each", theirs, note="baseline: textbook"),
        Row("sleeper.wake_p99_ms", at("wake_p99_ms"), "ms", note=f"with {last:,} asleep"),
        *(
            Row.less(f"sleeper.flat.{name}", at(name), unit, at(name, first), note=f"{last:,} against {first:,}")
            for name, unit in _FLAT.items()
        ),
    ]


async def _textbook(one: Bed, count: int) -> float:
    """Bytes in Temporal's store of a textbook's workflow in its first timer."""
    await one.stack.postgres.create_database("textbook")
    url = one.stack.postgres.admin_url("textbook")
    await job.make_tables(url)
    async with one.beside("textbook", "bench.textbook", url):
        before, client = _store(one), await one.client()
        await textbook.start(client, [textbook.Job(number, 86_400.0) for number in range(count)])
        async with Eyes.on(url) as eyes:
            await until(lambda: eyes.value(job.DONE, 0), count, "textbook workflows asleep")
        return (_store(one) - before) / count


async def _sizes(one: Bed) -> Mapping[str, tuple[int, int]]:
    return {row["name"]: (row["heap"], row["indexes"]) for row in await one.rows(_SIZES, [*_HOLD, _PERSON])}


def _store(one: Bed) -> int:
    """Bytes of Temporal's own files, the log of what is not yet in its place included."""
    return sum(path.stat().st_size for path in Path(one.folder / "home" / "temporal").glob("*.db*"))
