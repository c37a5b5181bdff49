"""The town: the people who are written to, and what they do about it.

They learn of a mail from the mail server's own log, as recipients do, and answer as people do:
most never, some at once, some as a machine on their behalf. Who does what is decided by the seed.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import BinaryIO

from cli.demo import answers
from cli.demo.answers import By
from cli.demo.mail_server import Received, mail_of
from cli.demo.office import Outside, forged

_LOOK_EVERY = 0.1
_TWICE = 4
"""Every so many-th letter comes twice, as it does when a server repeats a delivery."""


class Does(StrEnum):
    """What somebody does about a mail."""

    REPLY = "reply"
    OUT_OF_OFFICE = "out_of_office"
    BOUNCE = "bounce"
    ONE_CLICK = "one_click"
    PAGE = "page"
    ENCRYPTED = "encrypted"
    FORGED = "forged"


SHARES: Mapping[Does, float] = {
    Does.REPLY: 0.15,
    Does.OUT_OF_OFFICE: 0.10,
    Does.BOUNCE: 0.05,
    Does.ONE_CLICK: 0.05,
    Does.PAGE: 0.03,
    Does.ENCRYPTED: 0.01,
    Does.FORGED: 0.01,
}
"""Of the people who are written to; the others never answer. What is forged is no answer of theirs."""
_BY: Mapping[Does, Sequence[By]] = {
    Does.REPLY: ("token", "references", "sender"),
    Does.OUT_OF_OFFICE: ("token", "references"),
}


@dataclass(frozen=True)
class Manner:
    """Somebody does this about the `mail`-th mail they get, after so many real seconds."""

    does: Does
    mail: int
    after: float
    by: By = "sender"


def manners(seed: int, people: Sequence[str], shares: Mapping[Does, float] = SHARES) -> dict[str, Manner]:
    """Who of the people, by address, does what; the same for the same seed and people, whatever their order."""
    dice = Random(f"town {seed}")
    drawn = iter(dice.sample(sorted(people), len(people)))
    found = {}
    for does, share in shares.items():
        for number in range(how_many(share, len(people))):
            by = _BY.get(does, ("sender",))
            # A last mail is answered when all is over, so it stops nothing: the first three are. One of each kind
            # answers the first, which comes to everybody, so that each kind is sure to happen.
            mail = dice.choices((1, 2, 3), (3, 3, 2))[0] if number else 1
            found[next(drawn)] = Manner(does, mail, dice.uniform(0, 4), by[number % len(by)])
    return found


def how_many(share: float, people: int) -> int:
    """A share of the people, in heads; at least one."""
    return max(1, round(share * people))


@dataclass(frozen=True)
class Answered:
    """What somebody did, in real time on the clock that the database shares: begun, and answered 2xx.

    `letter` is the id Drumbeat keeps it under, None for a click and for what was refused.
    """

    email: str
    does: Does
    message_id: str
    raw: bytes
    begun: datetime
    acknowledged: datetime
    letter: str | None = None


class Town:
    """Everybody who is written to; `answered` is what they did and were told."""

    def __init__(self, log: Path, outside: Outside, source: tuple[str, str], manners_of: Mapping[str, Manner]) -> None:
        """`source` is the id and the secret their mail servers bring letters with."""
        self._log = log
        self._read = 0
        self._outside = outside
        self._source, self._secret = source
        self._manners = manners_of
        self._got = Counter[str]()
        self._seen: set[str] = set()
        self._planned: list[tuple[float, int, Received, Manner]] = []
        self._letters = 0
        self.answered: list[Answered] = []
        self.repeated = 0

    @property
    def at_rest(self) -> bool:
        """Whether they know of every mail, and nobody is still about to answer."""
        return not self._planned and self._read == (self._log.stat().st_size if self._log.exists() else 0)

    async def live(self, over: asyncio.Event) -> None:
        """Reads mail and answers it, one answer after another, until `over`."""
        clock = asyncio.get_running_loop().time
        while not over.is_set():
            for mail in self._new_mail():
                manner = self._manner(mail)
                if manner is not None:
                    heapq.heappush(self._planned, (clock() + manner.after, len(self._seen), mail, manner))
            while self._planned and self._planned[0][0] <= clock():
                *_, mail, manner = self._planned[0]
                await self._answer(mail, manner)
                heapq.heappop(self._planned)
            await asyncio.sleep(_LOOK_EVERY)

    def _new_mail(self) -> Iterator[Received]:
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            yield from self._whole_lines(log)

    def _whole_lines(self, log: BinaryIO) -> Iterator[Received]:
        for line in log:
            if not line.endswith(b"\n"):
                return  # it is being written
            self._read += len(line)
            yield mail_of(line)

    def _manner(self, mail: Received) -> Manner | None:
        """What is to be done about a mail: each counts once, however often it came."""
        if mail.message_id in self._seen:
            return None
        self._seen.add(mail.message_id)
        (email,) = mail.recipients
        self._got[email] += 1
        manner = self._manners.get(email)
        return manner if manner is not None and manner.mail == self._got[email] else None

    async def _answer(self, mail: Received, manner: Manner) -> None:
        original, raw, letter = mail.parsed(), b"", None
        url = str(original["List-Unsubscribe"]).strip("<>")
        begun = datetime.now(UTC)
        match manner.does:
            case Does.ONE_CLICK:
                await self._outside.one_click(url)
            case Does.PAGE:
                await self._outside.unsubscribe(url)
            case _:
                raw = _letter(original, manner)
                letter = await self._bring(raw, original, manner)
        (email,) = mail.recipients
        now = datetime.now(UTC)
        self.answered.append(Answered(email, manner.does, mail.message_id, raw, begun, now, letter))
        if letter is not None:
            self._letters += 1
            if self._letters % _TWICE == 0:
                await self._bring(raw, original, manner)
                self.repeated += 1

    async def _bring(self, raw: bytes, original: EmailMessage, manner: Manner) -> str | None:
        to = original["Reply-To"] if manner.by == "token" else original["From"]
        secret = forged(self._secret) if manner.does is Does.FORGED else self._secret
        return await self._outside.letter(self._source, secret, raw, str(to.addresses[0].addr_spec))


def _letter(original: EmailMessage, manner: Manner) -> bytes:
    match manner.does:
        case Does.OUT_OF_OFFICE:
            return answers.out_of_office(original, manner.by)
        case Does.BOUNCE:
            return answers.bounce(original)
        case Does.ENCRYPTED:
            return answers.encrypted(original)
        case _:
            return answers.reply(original, "Thank you, but we have decided already.", manner.by)
