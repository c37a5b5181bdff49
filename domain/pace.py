"""Pace: when a mailbox may send its next message, and which of its limits says so.

Spacing and caps count real time, since they are promises to a provider; hours are business
time, like every other instant that people plan with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from domain.due import WEEKDAYS, Weekday, Zone

_CAP = Field(ge=1, le=100_000)
_CLOCK = Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


class Hours(_Document):
    """A stretch of some weekdays, from `opens` up to but without `closes`, within one day."""

    weekdays: Annotated[list[Weekday], Field(min_length=1, max_length=7)]
    opens: Annotated[str, _CLOCK]
    closes: Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]

    @model_validator(mode="after")
    def _forward(self) -> "Hours":
        if self.opens >= self.closes:
            msg = "'opens' must be before 'closes'"
            raise ValueError(msg)
        return self


class Pace(_Document):
    """A mailbox's limits; without any it sends as fast as its server takes it.

    `spacing` is at least so many seconds between two sends. The caps hold over any stretch of
    their length, not by the calendar. `hours` are in `zone`, else the organization's.
    """

    per_minute: Annotated[int, _CAP] | None = None
    per_hour: Annotated[int, _CAP] | None = None
    per_day: Annotated[int, _CAP] | None = None
    spacing: Annotated[float, Field(ge=0, le=3600)] = 0
    hours: Annotated[list[Hours], Field(max_length=21)] = []
    zone: Zone | None = None

    def caps(self) -> Mapping[str, tuple[int, timedelta]]:
        """The caps that are set: how many in how long."""
        lengths = {"per_minute": timedelta(minutes=1), "per_hour": timedelta(hours=1), "per_day": timedelta(days=1)}
        found = ((name, getattr(self, name), length) for name, length in lengths.items())
        return {name: (most, length) for name, most, length in found if most is not None}


@dataclass(frozen=True)
class Go:
    """It may send now."""


@dataclass(frozen=True)
class NotYet:
    """`seconds` of real time until it may; `limit` is the one that says so, `why` in words."""

    seconds: float
    limit: str
    why: str


def next_send(
    pace: Pace,
    zone: str,
    *,
    now: datetime,
    real_now: datetime,
    scale: float,
    last: datetime | None,
    nth: Mapping[str, datetime | None],
) -> Go | NotYet:
    """Whether a mailbox may send now, or how long until.

    `now` is business time, `real_now` real; `last` is the real instant of the latest claim, and
    `nth[cap]` that of the claim which leaves the cap's window next: the N-th latest for a cap of N,
    None where there were fewer. The longest of all waits is the answer.
    """
    waits = [_until_open(pace, zone, now, scale)]
    if last is not None and pace.spacing:
        waits.append(_wait(last + timedelta(seconds=pace.spacing) - real_now, "spacing", f"{pace.spacing:g} s apart"))
    for name, (most, length) in pace.caps().items():
        leaves = nth.get(name)
        if leaves is not None:
            waits.append(_wait(leaves + length - real_now, name, f"{most} {name.replace('_', ' ')} have left"))
    found = [wait for wait in waits if wait is not None]
    return max(found, key=lambda wait: wait.seconds) if found else Go()


def _wait(left: timedelta, limit: str, why: str) -> NotYet | None:
    seconds = left.total_seconds()
    return NotYet(seconds, limit, why) if seconds > 0 else None


def _until_open(pace: Pace, organization_zone: str, now: datetime, scale: float) -> NotYet | None:
    if not pace.hours:
        return None
    name = pace.zone or organization_zone
    opens = next_opening(pace.hours, name, now)
    if opens <= now:
        return None
    day = opens.astimezone(ZoneInfo(name))
    why = f"opens {WEEKDAYS[day.weekday()]} {day:%H:%M} in {name}"
    return NotYet((opens - now).total_seconds() / scale, "hours", why)


def next_opening(hours: list[Hours], zone_name: str, now: datetime) -> datetime:
    """The first instant at or after `now` that lies inside the hours, in UTC."""
    zone = ZoneInfo(zone_name)
    today = now.astimezone(zone).date()
    candidates = []
    for ahead in range(16):  # this week's may be over, and next week's lie in hours that a zone skips
        day = today + timedelta(days=ahead)
        for window in hours:
            if WEEKDAYS[day.weekday()] in window.weekdays:
                midnight = datetime.combine(day, time.min, tzinfo=zone)
                opens = midnight.replace(hour=int(window.opens[:2]), minute=int(window.opens[3:])).astimezone(UTC)
                closes = _closes(midnight, window)
                if max(opens, now) < closes:
                    candidates.append(max(opens, now))
        if candidates:
            break
    return min(candidates)


def _closes(midnight: datetime, window: Hours) -> datetime:
    if window.closes == "24:00":
        return (midnight + timedelta(days=1)).astimezone(UTC)
    return midnight.replace(hour=int(window.closes[:2]), minute=int(window.closes[3:])).astimezone(UTC)
