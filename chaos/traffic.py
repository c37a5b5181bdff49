"""The traffic: an organization at work over HTTP, by a plan, and the town that its mail goes to."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from chaos import documents
from chaos.documents import RULES, SEQUENCES
from chaos.plan import OWNERS, Act, Plan, Planned, person, plan, visitor
from chaos.told import Asked, Kept, Stretch, Told
from cli.demo import campaign
from cli.demo.office import GaveUp, Office, Outside, forged
from cli.demo.town import Does, Town, manners

SCALE = 21_600
"""A day in four seconds: the sequences are written for it."""
_SHARES = {
    Does.REPLY: 0.25,
    Does.OUT_OF_OFFICE: 0.10,
    Does.BOUNCE: 0.10,
    Does.ONE_CLICK: 0.08,
    Does.PAGE: 0.06,
    Does.ENCRYPTED: 0.04,
    Does.FORGED: 0.04,
}
"""Of those who get mail, who answer it how: livelier than a real town, so that stops are many."""
_SLOW_PACE = {"spacing": 0.25, "perMinute": 120}
"""Of one mailbox, so that limits are met."""


class Traffic:
    """One organization's life for some seconds, the same for the same seed; `told` is what it was answered."""

    def __init__(
        self, office: Office, outside: Outside, *, seed: int, seconds: float, mail_log: Path, busy: float = 1.0
    ) -> None:
        self.told = Told()
        self.told.repeats = office.repeats
        self._office, self._outside = office, outside
        self._seed, self._mail_log = seed, mail_log
        self._plan: Plan = plan(seed, seconds, busy)
        self._town: Town
        self._in_the_background: list[asyncio.Task[None]] = []
        self._lived = False
        self._owners: list[str] = []
        self._mailboxes: list[str] = []
        self._sequences: dict[str, str] = {}
        self._rules: dict[str, str] = {}
        self._versions: defaultdict[str, int] = defaultdict(lambda: 1)
        self._source: tuple[str, str]
        self._began: tuple[datetime, float]
        # Whoever needs a record waits here until it has its id, or None where it came to nothing.
        self._ids: defaultdict[str, asyncio.Future[str | None]] = defaultdict(asyncio.Future)
        # What is done to one record is done one after another, in the order of the plan.
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def at_rest(self) -> bool:
        """Whether all that was planned is done, and nobody in the town is still about to answer."""
        return self._lived and self._town.at_rest

    # --- before

    async def set_up(self, mail_port: int) -> None:
        """People, mailboxes, sequences, rules and sources. Raises `GaveUp`."""
        office = self._office
        manager = await office.post("/users", {"email": "manager@example.com", "name": "Morgan", "role": "manager"})
        self._began = (datetime.fromisoformat(manager["user"]["createdAt"]), time.monotonic())
        for number in range(OWNERS):
            owner = {"email": f"rep-{number}@example.com", "name": f"Rep {number}", "role": "rep"}
            made = await office.post("/users", {**owner, "managerId": manager["user"]["id"]})
            self._owners.append(made["user"]["id"])
        await office.put("/sending/postal-address", {"postalAddress": "Northwind Ltd\n1 Harbour Road\nOslo"})
        owners = {f"Rep {number}": id_ for number, id_ in enumerate(self._owners)}
        self._mailboxes = await campaign.make_mailboxes(office, owners, mail_port)
        await office.patch(f"/mailboxes/{self._mailboxes[-1]}", 1, {"pace": _SLOW_PACE})
        for number, name in enumerate(SEQUENCES):
            self._sequences[name] = await campaign.active(office, "sequence", name, documents.sequence(number, 1))
        for number, name in enumerate(RULES):
            document = documents.rule(number, 1, self._sequences)
            self._rules[name] = await campaign.active(office, "rule", name, document)
        forms = await office.post("/sources", {"name": "Web forms"})
        self._source = (forms["source"]["path"], forms["secret"])
        letters = await office.post("/sources", {"name": "Inbound mail"})
        source = (letters["source"]["id"], letters["secret"])
        self._town = Town(self._mail_log, self._outside, source, manners(self._seed, self._plan.emails, _SHARES))
        self.told.answered = self._town.answered

    # --- while it lives

    async def live(self, over: asyncio.Event) -> None:
        """Returns when all that was planned was done and answered; the town and the desk go on until `over`."""
        self._in_the_background = [
            asyncio.create_task(self._again_and_again(over, self._town.live)),
            asyncio.create_task(self._again_and_again(over, self._mind_the_desk)),
        ]
        acts = asyncio.create_task(self._act())
        await asyncio.wait((acts, *self._in_the_background), return_when=asyncio.FIRST_COMPLETED)
        for one in self._in_the_background:
            if one.done():
                one.result()  # a mistake of its own; what it was refused is told
        await acts
        self._lived = True

    async def gone(self) -> None:
        """Returns when the town and the desk have heard that it is `over`."""
        await asyncio.gather(*self._in_the_background)

    async def _again_and_again(
        self, over: asyncio.Event, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
    ) -> None:
        while not over.is_set():
            try:
                await work(over)
            except GaveUp as gave_up:
                self.told.gave_up.append(str(gave_up))

    async def _mind_the_desk(self, over: asyncio.Event) -> None:
        await campaign.mind_the_desk(self._office, self._mail_log, self.told.desk, over)

    async def _act(self) -> None:
        did: Mapping[Act, Callable[[Planned], Awaitable[None]]] = {
            Act.CONTACT: self._contact,
            Act.DEAL: self._deal,
            Act.WEBHOOK: self._webhook,
            Act.FORGE: self._forge,
            Act.ENROLL: self._enroll,
            Act.MOVE: self._move,
            Act.EDIT_CONTACT: self._edit_contact,
            Act.EDIT_DEAL: self._edit_deal,
            Act.STOP: self._stop,
            Act.PAUSE_ENROLLMENT: self._pause_enrollment,
            Act.PAUSE_SEQUENCE: self._pause_sequence,
            Act.PAUSE_MAILBOX: self._pause_mailbox,
            Act.STOP_SENDING: self._stop_sending,
            Act.PUBLISH_SEQUENCE: self._publish_sequence,
            Act.PUBLISH_RULE: self._publish_rule,
            Act.COMPLETE_TASK: self._complete_task,
            Act.REMIND: self._remind,
            Act.SNOOZE: self._snooze,
            Act.CANCEL_REMINDER: self._cancel_reminder,
        }
        began = time.monotonic()
        async with asyncio.TaskGroup() as acts:
            for planned in self._plan.acts:
                await asyncio.sleep(max(0.0, began + planned.second - time.monotonic()))
                acts.create_task(self._try(did[planned.act], planned))

    async def _try(self, act: Callable[[Planned], Awaitable[None]], planned: Planned) -> None:
        try:
            await act(planned)
        except GaveUp as gave_up:
            self.told.gave_up.append(f"{planned.act}: {gave_up}")
        finally:
            # Nobody waits for what will not come.
            for name in _makes(planned):
                if not self._ids[name].done():
                    self._ids[name].set_result(None)

    # --- records

    async def _contact(self, planned: Planned) -> None:
        number = planned.who
        body = {
            "email": person(number),
            "firstName": f"Person {number}",
            "ownerId": self._owners[planned.said["owner"]],
        }
        id_ = await self._create("contact", body)
        self._ids[f"contact {number}"].set_result(id_)

    async def _deal(self, planned: Planned) -> None:
        contact = await self._ids[f"contact {planned.who}"]
        if contact is None:
            return
        body = {"title": f"Deal {planned.who}", "contactId": contact, **planned.said}
        self._ids[f"deal {planned.who}"].set_result(await self._create("deal", body))

    async def _create(self, noun: str, body: Mapping[str, Any]) -> str | None:
        begun = datetime.now(UTC)
        answer = await self._ask(f"create {noun}", "POST", f"/{noun}s", body)
        if answer is None:
            return None
        id_: str = answer[noun]["id"]
        self._keep(noun, id_, begun, body)
        return id_

    async def _edit_contact(self, planned: Planned) -> None:
        await self._edit("contact", planned, "PATCH", "", planned.said)

    async def _edit_deal(self, planned: Planned) -> None:
        await self._edit("deal", planned, "PATCH", "", planned.said)

    async def _move(self, planned: Planned) -> None:
        await self._edit("deal", planned, "PUT", "/stage", planned.said)

    async def _edit(self, noun: str, planned: Planned, method: str, path: str, said: Mapping[str, Any]) -> None:
        name = f"{noun} {planned.who}"
        async with self._turns[name]:
            id_ = await self._ids[name]
            if id_ is not None:
                begun, at = datetime.now(UTC), f"/{noun}s/{id_}{path}"
                self.told.asked.append(Asked(id_, f"/api/v1{at}", said))
                if await self._ask(planned.act, method, at, said) is not None:
                    self._keep(planned.act, id_, begun, said)

    # --- what comes from outside

    async def _webhook(self, planned: Planned) -> None:
        """Twice at the same moment, where it is doubled."""
        await asyncio.gather(*(self._post(planned) for _ in range(planned.said["posts"])))

    async def _post(self, planned: Planned) -> None:
        name = f"Visit {planned.who}.{planned.said['number']}"
        message = f"msg_{planned.who}_{planned.said['number']}"
        begun = datetime.now(UTC)
        path, secret = self._source
        body = _visit(visitor(planned.who), name, self._owners[planned.who % OWNERS])
        status = await self._outside.webhook(path, secret, message, body)
        if status == httpx2.codes.OK:
            self._keep("webhook", message, begun, {"email": visitor(planned.who), "firstName": name})
        else:
            self.told.gave_up.append(f"webhook {message}: {status}")

    async def _forge(self, planned: Planned) -> None:
        path, secret = self._source
        email = f"forged-{planned.who}@example.org"
        self.told.forged.append(email)
        status = await self._outside.webhook(path, forged(secret), f"forged_{planned.who}", _visit(email, "F", None))
        if status == httpx2.codes.OK:
            self._keep("forged", email, datetime.now(UTC), {})
        else:
            self.told.refused[f"{planned.act} {status}"] += 1

    # --- enrollments

    async def _enroll(self, planned: Planned) -> None:
        number = planned.said["sequence"]
        sequence = self._sequences[SEQUENCES[number]]
        asked: dict[str, int] = {}
        for who in (planned.who, *planned.said["others"]):
            known = self._ids[f"contact {who}"]
            # Somebody planned for later is not waited for, but for the one it is about.
            id_ = await known if who == planned.who or known.done() else None
            if id_ is not None:
                asked[id_] = who
        if not asked:
            return
        begun = datetime.now(UTC)
        answer = await self._ask(planned.act, "POST", f"/sequences/{sequence}/enrollments", {"contacts": [*asked]})
        for result in answer["results"] if answer else ():
            contact, id_ = result["contactId"], result["enrollmentId"]
            if id_ is None:
                self.told.refused[f"{planned.act} {result['reason']}"] += 1
                continue
            self._keep("enrollment", id_, begun, {"sequence": sequence, "contact": contact})
            made = self._ids[f"enrollment {number} {asked[contact]}"]
            if not made.done():
                made.set_result(id_)

    async def _stop(self, planned: Planned) -> None:
        id_ = await self._ids[f"enrollment {planned.said['sequence']} {planned.who}"]
        begun = datetime.now(UTC)
        if id_ is not None and await self._command("stop", f"/enrollments/{id_}/stop", {"note": "They called."}):
            self._keep("stop", id_, begun)

    async def _pause_enrollment(self, planned: Planned) -> None:
        id_ = await self._ids[f"enrollment {planned.said['sequence']} {planned.who}"]
        if id_ is not None:
            path = f"/enrollments/{id_}"
            await self._still("enrollment", id_, planned, f"{path}/pause", f"{path}/resume")

    # --- the whole kept still

    async def _pause_mailbox(self, planned: Planned) -> None:
        id_ = self._mailboxes[planned.who]
        async with self._turns[id_]:
            await self._still("mailbox", id_, planned, f"/mailboxes/{id_}/pause", f"/mailboxes/{id_}/resume")

    async def _stop_sending(self, planned: Planned) -> None:
        async with self._turns["sending"]:
            await self._still("sending", "", planned, "/sending/stop", "/sending/resume")

    async def _still(self, scope: str, id_: str, planned: Planned, pause: str, resume: str) -> None:
        """Keeps something still for a while; an end by other means while it is meets the resumption with a conflict."""
        if not await self._command(f"pause {scope}", pause):
            return
        since = datetime.now(UTC)
        await asyncio.sleep(planned.said["lasts"])
        until = datetime.now(UTC)
        self.told.still.append(Stretch(scope, id_, since, until))
        await self._command(f"resume {scope}", resume)

    async def _pause_sequence(self, planned: Planned) -> None:
        id_ = self._sequences[SEQUENCES[planned.who]]
        async with self._turns[id_]:
            if not await self._change(planned.act, f"/sequences/{id_}", "sequence", "pause"):
                return
            since = datetime.now(UTC)
            await asyncio.sleep(planned.said["lasts"])
            until = datetime.now(UTC)
            self.told.still.append(Stretch("sequence", id_, since, until))
            await self._change("resume sequence", f"/sequences/{id_}", "sequence", "activate")

    async def _publish_sequence(self, planned: Planned) -> None:
        id_ = self._sequences[SEQUENCES[planned.who]]
        await self._publish(planned.act, "sequence", id_, lambda version: documents.sequence(planned.who, version))

    async def _publish_rule(self, planned: Planned) -> None:
        id_ = self._rules[RULES[planned.who]]
        await self._publish(
            planned.act, "rule", id_, lambda version: documents.rule(planned.who, version, self._sequences)
        )

    async def _publish(self, act: Act, noun: str, id_: str, document: Callable[[int], Mapping[str, Any]]) -> None:
        """Writes the next version and switches it on, while people are inside."""
        async with self._turns[id_]:
            self._versions[id_] += 1
            begun = datetime.now(UTC)
            body = document(self._versions[id_])
            path = f"/{noun}s/{id_}"
            revision = (await self._office.get(path))[noun]["revision"]
            answer = await self._ask(act, "PUT", f"{path}/document", body, revision=revision)
            if answer is None:  # done before its answer was lost, unless somebody else was at it
                answer = await self._office.get(path)
            number = answer[noun]["versions"][-1]["number"]
            if await self._change(act, path, noun, "activate", {"version": number}):
                self._keep("publish", id_, begun, {"version": number, "document": body})

    async def _change(self, act: str, path: str, noun: str, command: str, body: object = None) -> bool:
        revision = (await self._office.get(path))[noun]["revision"]
        return await self._ask(act, "POST", f"{path}/{command}", body, revision=revision) is not None

    # --- tasks and reminders

    async def _complete_task(self, planned: Planned) -> None:
        page = await self._office.get("/activities", type="task", limit=100)
        task = _one_of([one for one in page["activities"] if one["completedAt"] is None], planned)
        begun = datetime.now(UTC)
        if task is not None and await self._command(planned.act, f"/tasks/{task['id']}/complete"):
            self._keep("completion", task["id"], begun)

    async def _remind(self, planned: Planned) -> None:
        body: dict[str, object] = {
            "title": f"Reminder {planned.said['number']}",
            "dueAt": self._in(planned.said["hours"]),
            "ownerId": self._owners[planned.who],
        }
        if planned.said["number"] % 2:
            body["escalateAfter"] = {"amount": 6, "unit": "hours"}
        self._ids[f"reminder {planned.said['number']}"].set_result(await self._create("reminder", body))

    async def _snooze(self, planned: Planned) -> None:
        page = await self._office.get("/reminders", limit=100)
        drawn = _one_of([one for one in page["reminders"] if one["dueAt"] is not None], planned)
        if drawn is not None:
            reminder = str(drawn["id"])
            async with self._turns[reminder]:
                begun, until = datetime.now(UTC), self._in(planned.said["hours"])
                if await self._command(planned.act, f"/reminders/{reminder}/snooze", {"until": until}):
                    self._keep("snooze", reminder, begun, {"until": until})

    async def _cancel_reminder(self, planned: Planned) -> None:
        reminder = await self._ids[f"reminder {planned.said['number']}"]
        if reminder is not None:
            async with self._turns[reminder]:
                begun = datetime.now(UTC)
                if await self._command(planned.act, f"/reminders/{reminder}/cancel"):
                    self._keep("cancellation", reminder, begun)

    def _in(self, hours: float) -> str:
        """That many hours of business time from now."""
        business, real = self._began
        passed = timedelta(seconds=(time.monotonic() - real) * SCALE)
        return (business + passed + timedelta(hours=hours)).isoformat()

    # --- asking

    async def _command(self, act: str, path: str, body: object = None) -> bool:
        return await self._ask(act, "POST", path, body) is not None

    async def _ask(self, act: str, method: str, path: str, body: object = None, *, revision: int | None = None) -> Any:  # noqa: ANN401  (JSON)
        """What it is answered; None where it is refused, which is counted."""
        answer = await self._office.ask(method, path, body, revision=revision)
        if answer.is_success:
            return answer.json()
        self.told.refused[f"{act} {answer.json()['code']}"] += 1
        return None

    def _keep(self, kind: str, subject: str, begun: datetime, said: Mapping[str, Any] | None = None) -> None:
        self.told.kept.append(Kept(kind, subject, begun, datetime.now(UTC), said or {}))


def _makes(planned: Planned) -> list[str]:
    """The names of what others wait for."""
    match planned.act:
        case Act.CONTACT | Act.DEAL:
            return [f"{planned.act} {planned.who}"]
        case Act.REMIND:
            return [f"reminder {planned.said['number']}"]
        case Act.ENROLL:
            return [f"enrollment {planned.said['sequence']} {planned.who}"]
        case _:
            return []


def _visit(email: str, name: str, owner: str | None) -> dict[str, Any]:
    return {
        "type": "contact.upsert",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": {"email": email, "firstName": name, "leadSource": "partner", "ownerId": owner},
    }


def _one_of(found: list[dict[str, Any]], planned: Planned) -> dict[str, Any] | None:
    return found[int(planned.said["which"] * len(found))] if found else None
