"""What grows: mixed traffic in time-lapse, and every ten seconds the memory, the connections, the files, the tables.

`make bench ARGS="soak --minutes 60"`. The slope of each over the last quarter, by least squares, says what levels off.
"""

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import httpx2
import psutil
from rich.console import Console
from rich.table import Column, Table

from bench.bed import Bed, bed, task, wait
from bench.chart import lines
from domain.link_tokens import subkey
from runtime.progress import say
from store import letters
from store.retention import KEPT, OF_HISTORY
from store.transaction import Origin

SCALE = 21_600
"""Six hours are a second, a day four: the history begins to go after 27 minutes, some ten later each time."""
_HISTORY_DAYS = 400
EVERY = 10.0
LEVEL = 0.02
"""What grows by less than this share of its mean over the last quarter counts as level: a measurement is no finer."""
_MAILBOXES = 4
_PER_SECOND = 2.0
"""Rounds of the traffic: a contact, a deal that moves, every other time an enrollment, sometimes an answer."""
_SIZES = """
SELECT c.relname AS name, pg_total_relation_size(c.oid)::bigint AS bytes
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
"""
_CONNECTIONS = "SELECT usename AS name, count(*) AS n FROM pg_stat_activity WHERE usename LIKE 'drumbeat%' GROUP BY 1"
_QUEUES = "SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM wakes) AS wakes"

Series = dict[str, list[tuple[float, float]]]


async def main(minutes: float, results: Path) -> None:
    """Writes soak.json and soak.svg, and tells the slopes."""
    async with bed(scale=SCALE, settings={"DRUMBEAT_HISTORY_DAYS": str(_HISTORY_DAYS)}) as one:
        traffic = _Traffic(one)
        await traffic.prepare()
        going = asyncio.ensure_future(traffic.run())
        try:
            series = await _watch(one, minutes, going)
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        say(f"  {traffic.rounds} rounds, {traffic.refused} requests refused")
    told = {name: _slope(points) for name, points in sorted(series.items())}
    head = {"minutes": minutes, "rounds": traffic.rounds, "refused": traffic.refused}
    (results / "soak.json").write_text(json.dumps({**head, "slopes": told, "series": series}, indent=1) + "\n")
    shown = {name: points for name, points in series.items() if not name.startswith("table") or told[name]["perMinute"]}
    (results / "soak.svg").write_text(lines(shown, f"{minutes:g} minutes of mixed traffic"))
    _show(told)


async def _watch(one: Bed, minutes: float, going: "asyncio.Future[None]") -> Series:
    """Samples until the time is over; raises what ended the traffic."""
    series: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    started = time.monotonic()
    while (passed := time.monotonic() - started) < 60 * minutes:
        for name, value in (await _sample(one)).items():
            series[name].append((passed / 60, value))
        await asyncio.wait([going], timeout=EVERY)
        if going.done():
            going.result()
    return dict(series)


async def _sample(one: Bed) -> dict[str, float]:
    found: dict[str, float] = {f"memory.{name}": used for name, used in one.memory().items()}
    for name, family in one.processes().items():
        handles = 0
        for process in family:
            try:
                handles += process.num_fds()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        found[f"files.{name}"] = handles
    found |= {f"connections.{row['name']}": row["n"] for row in await one.rows(_CONNECTIONS)}
    found |= {f"table.{row['name']}": row["bytes"] for row in await one.rows(_SIZES)}
    found |= {f"queue.{name}": count for name, count in dict((await one.rows(_QUEUES))[0]).items()}
    found["temporal.store"] = sum(path.stat().st_size for path in (one.folder / "home" / "temporal").glob("*.db*"))
    return found


def _slope(points: Sequence[tuple[float, float]]) -> dict[str, object]:
    """Of the last quarter, per minute."""
    last = points[len(points) * 3 // 4 :]
    count = len(last)
    minute, mean = sum(x for x, _ in last) / count, sum(y for _, y in last) / count
    spread = sum((x - minute) ** 2 for x, _ in last)
    slope = sum((x - minute) * (y - mean) for x, y in last) / spread if spread else 0.0
    grown = slope * (last[-1][0] - last[0][0])
    return {"perMinute": round(slope, 3), "last": last[-1][1], "level": grown <= LEVEL * max(mean, 1)}


def _show(told: Mapping[str, Mapping[str, object]]) -> None:
    table = Table(Column("what", no_wrap=True), "last", "a minute", "level", "kept for a while only")
    kept = {one.table.name for one in KEPT} | OF_HISTORY
    for name, slope in told.items():
        if slope["last"]:
            of, _, noun = name.partition(".")
            bounded = "" if of != "table" else "yes" if noun in kept else "no"
            figures = (f"{slope['last']:,}", f"{slope['perMinute']:,}")
            table.add_row(name, *figures, "yes" if slope["level"] else "grows", bounded)
    Console(stderr=True).print(table)


class _Traffic:
    """What a small office does, quickly."""

    def __init__(self, one: Bed) -> None:
        self._bed = one
        self.rounds = self.refused = 0
        self._people: list[UUID] = []

    async def prepare(self) -> None:
        office = self._bed.office
        self._boxes = [await office.mailbox(f"Outbox {number}") for number in range(_MAILBOXES)]
        mail = {"kind": "email", "subject": "Hello", "text": "How are you?"}
        self._sequence = await office.sequence(
            {**mail, "id": "first"}, wait("a", 8, "hours"), {**mail, "id": "second"}, wait("b", 1, "days"),
            {**mail, "id": "third"}, task("call"),
        )  # fmt: skip
        await office.rule(task("greet"), wait("pause", 2, "hours"), task("ask"))
        self._headers = {"Authorization": f"Bearer {await office.key()}"}
        self._link_key = subkey(base64.b64decode(self._bed.stack.environment()["DRUMBEAT_MASTER_KEY"]))

    async def run(self) -> None:
        """Until cancelled."""
        url = self._bed.stack.api_url
        async with httpx2.AsyncClient(base_url=url, headers=self._headers, trust_env=False, timeout=30) as http:
            started = time.monotonic()
            while True:
                await asyncio.sleep(started + self.rounds / _PER_SECOND - time.monotonic())
                await self._round(http)
                self.rounds += 1

    async def _round(self, http: httpx2.AsyncClient) -> None:
        number = self.rounds
        body = {"email": f"soak{number}@example.com", "firstName": "Jo"}
        contact = (await self._send(http, "POST", "/contacts", body)).get("contact", {}).get("id")
        if contact is None:
            return
        deal = await self._send(
            http, "POST", "/deals", {"title": f"Deal {number}", "contactId": contact, "valueCents": 100_000}
        )
        if "deal" in deal:
            await self._send(http, "PUT", f"/deals/{deal['deal']['id']}/stage", {"stage": "proposal"})
        self._people.append(UUID(contact))
        if number % 2 == 0:
            asked = {"contacts": [contact], "mailboxId": str(self._boxes[number // 2 % _MAILBOXES])}
            await self._send(http, "POST", f"/sequences/{self._sequence}/enrollments", asked)
        if number % 10 == 9:  # noqa: PLR2004  (every tenth time)
            await self._answer(max(0, number - 20))
        await http.get("/api/v1/enrollments", params={"limit": 20})

    async def _send(
        self, http: httpx2.AsyncClient, method: str, path: str, body: Mapping[str, object]
    ) -> dict[str, dict[str, str]]:
        key = {"Idempotency-Key": f"soak-{self.rounds}"} if method == "POST" else {}
        answer = await http.request(method, f"/api/v1{path}", json=body, headers=key)
        if not answer.is_success:
            self.refused += 1
            return {}
        return dict(answer.json())

    async def _answer(self, number: int) -> None:
        """A letter of two kilobytes from somebody."""
        head = f"From: soak{number}@example.com\r\nTo: sal@example.com\r\nSubject: Re: Hello\r\n"
        raw = f"{head}Message-ID: <{self.rounds}@example.net>\r\n\r\nYes, gladly.\r\n{'> ' * 1000}\r\n".encode()
        came = letters.envelope(raw, recipients=["sal@example.com"], source=None, link_key=self._link_key)
        office = self._bed.office
        async with office.database.transaction(office.org, Origin("recipient")) as tx:
            await letters.receive(tx, came)
