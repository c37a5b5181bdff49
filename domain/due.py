"""When a wait is over: an anchor plus a wait, with the chain of reasons.

Amounts in minutes and hours are elapsed time. Days, weeks, months and business days keep the
clock time of the anchor in the calendar's zone, so "3 days" from 9:00 is 9:00 across a change
of summer time. A clock time the zone skips that day moves on by the length of the gap (2:30
becomes 3:30); of one that comes twice `until` takes the first that is not over.
"""

from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LATEST = datetime(9999, 12, 1, tzinfo=UTC)
"""The answer where the calendar ends: nothing waits so long, and nothing may fail for it."""

_NAMED = 10
"""Days passed over that a reason names; the others are counted."""


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"Factory", "localtime"})  # no places: they differ by machine


def _known_zone(name: str) -> str:
    if name not in _zones():
        msg = f"'{name}' is not a time zone; use a name such as 'Europe/Berlin'"
        raise ValueError(msg)
    return name


def _as_zone(value: object, known: ValidatorFunctionWrapHandler) -> object:
    """Of what is neither word nor zone, only why it is no zone."""
    try:
        return known(value)
    except ValidationError as error:
        raise ValueError(error.errors()[-1]["msg"].removeprefix("Value error, ")) from None


Zone = Annotated[str, AfterValidator(_known_zone)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


class Amount(_Document):
    amount: Annotated[int, Field(ge=0, le=1000)]
    unit: Literal["minutes", "hours", "days", "weeks", "months", "business_days"]


class Until(_Document):
    """The first such clock time at or after the instant it is applied to."""

    at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    weekdays: Annotated[list[Weekday], Field(min_length=1, max_length=7)] | None = None
    zone: Annotated[Literal["organization", "contact"] | Zone, WrapValidator(_as_zone)] = "organization"


class Wait(_Document):
    """`for` moves from the anchor; `until` then moves on to a clock time."""

    for_: Annotated[Amount | None, Field(alias="for")] = None
    until: Until | None = None

    @model_validator(mode="after")
    def _something(self) -> "Wait":
        if self.for_ is None and self.until is None:
            msg = "a wait needs 'for', 'until' or both"
            raise ValueError(msg)
        return self


class Calendar(_Document):
    """An organization's working time; `contact_zone` is the contact's own zone where it is known."""

    zone: Zone = "UTC"
    workdays: Annotated[list[Weekday], Field(min_length=1)] = list(WEEKDAYS[:5])
    holidays: list[date] = []
    contact_zone: Zone | None = None


class Shift(BaseModel):
    """One link of the chain: which rule moved the instant, to when, and why."""

    rule: str
    at: datetime
    why: str


class Due(BaseModel):
    anchor: datetime
    at: datetime
    chain: list[Shift]


def due(anchor: datetime, wait: Wait, calendar: Calendar, paused: timedelta = timedelta(0)) -> Due:
    """`anchor` is aware; the answer is in UTC and never before the anchor.

    `paused` is for how long nothing was to move since the anchor: it extends the amount, not the clock time.
    """
    at, chain = anchor.astimezone(UTC), []
    try:
        if wait.for_ is not None:
            at, why = _add(at, wait.for_, calendar)
            chain.append(Shift(rule=wait.for_.unit, at=at, why=why))
            if paused:
                at += paused
                chain.append(Shift(rule="pauses", at=at, why=f"kept still for {_length(paused)} meanwhile"))
        if wait.until is not None:
            at, why = _next_clock_time(at, wait.until, calendar)
            chain.append(Shift(rule="until", at=at, why=why))
    except OverflowError:
        at = max(at, LATEST)
        chain.append(Shift(rule="latest", at=at, why="the calendar ends before this wait does"))
    return Due(anchor=anchor, at=at, chain=chain)


def _length(stretch: timedelta) -> str:
    minutes = round(stretch.total_seconds() / 60)
    days, hours = divmod(minutes // 60, 24)
    parts = ((days, "days"), (hours, "hours"), (minutes % 60, "minutes"))
    return " ".join(f"{number} {name}" for number, name in parts if number) or "less than a minute"


def kept_still(pauses: Sequence[tuple[datetime, datetime | None]], since: datetime, now: datetime) -> timedelta:
    """For how long of the time from `since` to `now` any of the pauses held; one without an end holds still."""
    whole, reached = timedelta(0), since
    for begins, ends in sorted(pauses, key=lambda pause: pause[0]):
        upto = min(ends or now, now)
        whole += max(upto - max(begins, reached), timedelta(0))
        reached = max(reached, upto)
    return whole


def _add(anchor: datetime, wait: Amount, calendar: Calendar) -> tuple[datetime, str]:
    elapsed = {"minutes": timedelta(minutes=1), "hours": timedelta(hours=1)}.get(wait.unit)
    if elapsed is not None:
        return anchor + wait.amount * elapsed, f"{wait.amount} {wait.unit} after the anchor"
    zone = ZoneInfo(calendar.zone)
    local = anchor.astimezone(zone)
    day, why = _DAYS[wait.unit](local.date(), wait.amount, calendar)
    return _instant(day, local.time(), zone), f"{why}, same clock time in {calendar.zone}"


def _plain_days(day: date, amount: int, _: Calendar) -> tuple[date, str]:
    return day + timedelta(days=amount), f"{amount} days"


def _weeks(day: date, amount: int, _: Calendar) -> tuple[date, str]:
    return day + timedelta(weeks=amount), f"{amount} weeks"


def _months(day: date, amount: int, _: Calendar) -> tuple[date, str]:
    """The 31st of a shorter month is its last day."""
    year, month = divmod(day.year * 12 + day.month - 1 + amount, 12)
    if year > MAXYEAR:
        raise OverflowError
    last = monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)), f"{amount} months"


def _business_days(day: date, amount: int, calendar: Calendar) -> tuple[date, str]:
    """The n-th working day after the anchor's day; 0 is that day or the first working day after it."""
    holidays = frozenset(calendar.holidays)
    passed: list[date] = []
    left = amount
    # Ends: each week has a workday, and each holiday takes away one at most.
    while left or not _works(day, calendar, holidays):
        day += timedelta(days=1)
        if not _works(day, calendar, holidays):
            passed.append(day)
        elif left:
            left -= 1
    named = [one.isoformat() for one in passed[:_NAMED]]
    more = f" and {len(passed) - _NAMED} more" if len(passed) > _NAMED else ""
    skipped = f", passing over {', '.join(named)}{more}" if passed else ""
    return day, f"{amount} business days{skipped}"


_DAYS: dict[str, Callable[[date, int, Calendar], tuple[date, str]]] = {
    "days": _plain_days,
    "weeks": _weeks,
    "months": _months,
    "business_days": _business_days,
}


def _works(day: date, calendar: Calendar, holidays: frozenset[date]) -> bool:
    return WEEKDAYS[day.weekday()] in calendar.workdays and day not in holidays


def _next_clock_time(at: datetime, until: Until, calendar: Calendar) -> tuple[datetime, str]:
    name, source = _zone(until, calendar)
    zone = ZoneInfo(name)
    clock = time.fromisoformat(until.at)
    days = until.weekdays or list(WEEKDAYS)
    day = at.astimezone(zone).date()
    while True:
        first, second = _instant(day, clock, zone), _instant(day, clock.replace(fold=1), zone)
        candidate = first if first >= at else second
        if candidate >= at and WEEKDAYS[day.weekday()] in days:
            break
        day += timedelta(days=1)
    return candidate, f"{WEEKDAYS[day.weekday()]} {until.at} in {name} ({source})"


def _zone(until: Until, calendar: Calendar) -> tuple[str, str]:
    """The zone and the rule that chose it."""
    if until.zone == "contact" and calendar.contact_zone is not None:
        return calendar.contact_zone, "the contact's zone"
    if until.zone == "contact":
        return calendar.zone, "the organization's zone, the contact's is not known"
    if until.zone == "organization":
        return calendar.zone, "the organization's zone"
    return until.zone, "the zone named by the step"


def _instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """UTC of a local clock time; inside a gap the reading before it, so the wall shows a later time.

    A clock time with `fold` is the second of two where the day has two, else the only one.
    """
    local = datetime.combine(day, clock, tzinfo=zone)
    return max(local.replace(fold=0).astimezone(UTC), local.astimezone(UTC))
