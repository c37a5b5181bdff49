"""What the outside world was told: every answer, with its instants on the client's clock."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cli.demo.campaign import Campaign
from cli.demo.town import Answered


@dataclass(frozen=True)
class Kept:
    """Something that was answered 2xx: what it is called, the id of what it is about, and what was said of it."""

    kind: str
    subject: str
    begun: datetime
    acknowledged: datetime
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A change that was asked for, and the path it was asked at."""

    subject: str
    path: str
    said: Mapping[str, Any]


@dataclass(frozen=True)
class Stretch:
    """A time in which a person kept something still: from the answer to the pause to the request to go on.

    `scope` is `enrollment`, `sequence`, `mailbox` or `sending`; `subject` its id.
    """

    scope: str
    subject: str
    since: datetime
    until: datetime


@dataclass
class Told:
    """What must be true, since somebody was told so. Those about one subject are in the order they were done."""

    kept: list[Kept] = field(default_factory=list)
    still: list[Stretch] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """How often what was refused, by the reason's code, such as `stop ILLEGAL_TRANSITION`."""
    asked: list[Asked] = field(default_factory=list)
    """Every change of a record that was asked for, answered or not."""
    repeats: Counter[str] = field(default_factory=Counter)
    """How often which path was asked again, since no answer came: what was asked first may still be under way then."""
    gave_up: list[str] = field(default_factory=list)
    """Requests that nobody answered in time, or in a way nobody expected."""
    forged: list[str] = field(default_factory=list)
    """The addresses that forged webhooks tried to bring in."""
    answered: list[Answered] = field(default_factory=list)
    """What the town did about the mail it got."""
    desk: Campaign = field(default_factory=Campaign)

    def of(self, kind: str) -> list[Kept]:
        return [one for one in self.kept if one.kind == kind]
