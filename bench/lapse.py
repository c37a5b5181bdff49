"""How late steps are in time-lapse, where a day is four seconds: in business hours."""

from bench.bed import Size, bed, paced, percentile, task, wait
from bench.rows import Row

SCALE = 21_600
HOURS = 4.0
"""The design's bar, which is two thirds of a real second."""
PER_SECOND = 5.0
_LATE = """
SELECT extract(epoch FROM s.at - e.at)::float / 3600 - CASE s.step WHEN 'one' THEN 24 ELSE 72 END AS hours
FROM effects s JOIN executions x ON x.id = s.execution_id JOIN events e ON e.id = x.event_id
WHERE s.step IN ('one', 'two')
"""
_OVER = "SELECT count(*) FROM executions WHERE status = 'ended'"


async def rows(size: Size) -> list[Row]:
    count = size.of(20, 100, 600)
    async with bed(scale=SCALE) as one:
        await one.office.rule(wait("first", 24, "hours"), task("one"), wait("second", 48, "hours"), task("two"))

        async def create(_: int) -> None:
            await one.office.people(1, heard=True)

        rate = await paced(PER_SECOND, count, create)
        await one.until(_OVER, count, "runs")
        late = [row["hours"] for row in await one.rows(_LATE)]
    return [
        Row("lapse.lateness_p50_hours", percentile(late, 0.5), "business hours"),
        Row(
            "lapse.lateness_p99_hours",
            percentile(late, 0.99),
            "business hours",
            most=HOURS,
            note=f"{len(late)} steps of {count} runs begun at {rate:.1f} a second",
        ),
    ]
