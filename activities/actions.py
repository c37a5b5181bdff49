"""What a step may do: one function an action, registered by the model of its document.

Each takes many scenes at once, one execution each: of a workflow's advance there is one, of the
relay's first attempt a batch. It calls the same verbs as the API and is idempotent under the
step's effect key: what it makes has an id derived from that key.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel
from pydantic.alias_generators import to_snake

from domain.documents import (
    CreateTask,
    Enroll,
    MoveStage,
    Notify,
    Person,
    Remind,
    SendEmail,
    SetField,
    TakeOut,
    writable,
)
from domain.due import Amount, Calendar, Wait, due
from domain.keys import EffectKey
from domain.words import Kind, NotEnrolled, StuckReason
from store import (
    activities,
    addresses,
    companies,
    contacts,
    deals,
    enrollments,
    identity,
    intents,
    mailboxes,
    notifications,
    reminders,
    templates,
)
from store.errors import IllegalTransition, NotFound, Refused, UnknownStage
from store.events import Change, Changed, Draft, Record
from store.facts import Subject
from store.transaction import Origin, Transaction

A = TypeVar("A", bound=BaseModel)
P = TypeVar("P")


class Unable(Exception):  # noqa: N818  (it is an outcome: the execution becomes stuck)
    """The step cannot be done until a person mends something; nothing of it was done."""

    def __init__(self, reason: StuckReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Scene(Generic[A]):
    """One execution at an action, and all that it works with.

    `anchor` is the planned instant of the step, `mailbox` the execution's own.
    """

    action: A
    key: EffectKey
    origin: Origin
    subject: Subject
    calendar: Calendar
    anchor: datetime
    mailbox: UUID | None = None

    def record(self, root: str) -> UUID:
        """Raises `Unable` where there is none."""
        record = self.subject.facts.get(root)
        if record is None:
            raise Unable(StuckReason.RECORD_MISSING, f"there is no {root} to write to")
        return UUID(record["id"])

    def after(self, amount: Amount | None) -> datetime | None:
        return due(self.anchor, Wait.model_validate({"for": amount}), self.calendar).at if amount else None


@dataclass(frozen=True)
class Did:
    """What an action made, and what it saw when it did; `changed` are records as it has written them, by root."""

    saw: Mapping[str, Any]
    made_kind: Kind | None = None
    made_id: UUID | None = None
    changed: Mapping[str, Record] = field(default_factory=dict)


Outcomes = list[Did | Unable]
"""One for each scene, in order; nothing was done in a scene that was unable."""
Performer = Callable[[Transaction, Sequence[Scene[Any]]], Awaitable[Outcomes]]
_ACTIONS: dict[type[BaseModel], Performer] = {}


def performs(
    model: type[A],
) -> Callable[
    [Callable[[Transaction, Sequence[Scene[A]]], Awaitable[Outcomes]]],
    Callable[[Transaction, Sequence[Scene[A]]], Awaitable[Outcomes]],
]:
    """Registers the function that performs an action in many scenes at once, no record written to in two of them."""

    def register(
        function: Callable[[Transaction, Sequence[Scene[A]]], Awaitable[Outcomes]],
    ) -> Callable[[Transaction, Sequence[Scene[A]]], Awaitable[Outcomes]]:
        _ACTIONS[model] = function
        return function

    return register


async def perform(tx: Transaction, scenes: Sequence[Scene[Any]]) -> Outcomes:
    """Does one kind of action in each scene.

    Raises `Unable` for what the database refused, which is for a person to mend; the transaction is lost then.
    """
    try:
        return await _ACTIONS[type(scenes[0].action)](tx, scenes)
    except UnknownStage as refused:
        raise Unable(StuckReason.STAGE_UNKNOWN, refused.message) from None
    except Refused as refused:
        raise Unable(StuckReason.VALUE_REFUSED, refused.message) from None


def writes(action: BaseModel) -> str | None:
    """The root of the record that an action writes to, or to what hangs on it; None if it only makes new rows."""
    match action:
        case SetField():
            return action.field.partition(".")[0]
        case MoveStage():
            return "deal"
        case Enroll() | TakeOut():
            return "contact"
        case _:
            return None


def _planned(scenes: Sequence[Scene[A]], plan: Callable[[Scene[A]], P]) -> tuple[list[P], list[P | Unable]]:
    """The plans of the scenes that are able, and all in order."""
    every: list[P | Unable] = []
    for scene in scenes:
        try:
            every.append(plan(scene))
        except Unable as unable:
            every.append(unable)
    return [one for one in every if not isinstance(one, Unable)], every


async def _made(
    scenes: Sequence[Scene[A]], plan: Callable[[Scene[A]], tuple[P, Did]], make: Callable[[list[P]], Awaitable[object]]
) -> Outcomes:
    """Plans every scene, then makes what was planned all at once."""
    able, every = _planned(scenes, plan)
    if able:
        await make([draft for draft, _ in able])
    return [one if isinstance(one, Unable) else one[1] for one in every]


@performs(CreateTask)
async def create_task(tx: Transaction, scenes: Sequence[Scene[CreateTask]]) -> Outcomes:
    people = await _people(tx, [(scene, scene.action.assign_to) for scene in scenes])

    def plan(scene: Scene[CreateTask]) -> tuple[Draft, Did]:
        action, made, due_at = scene.action, scene.key.made("task"), scene.after(scene.action.due_in)
        assignee = people.of(action.assign_to, scene)
        values = {
            "subject": action.title,
            "body": action.body,
            "priority": action.priority,
            "assignee_id": assignee,
            "due_at": due_at,
            **scene.subject.links.columns(),
        }
        saw = {"assignee": str(assignee), "dueAt": due_at and due_at.isoformat()}
        return Draft(made, values, scene.origin), Did(saw, Kind.ACTIVITY, made)

    return await _made(scenes, plan, partial(activities.create_tasks, tx))


@performs(Remind)
async def remind(tx: Transaction, scenes: Sequence[Scene[Remind]]) -> Outcomes:
    people = await _people(tx, [(scene, scene.action.to) for scene in scenes])

    def plan(scene: Scene[Remind]) -> tuple[Mapping[str, Any], Did]:
        action, made = scene.action, scene.key.made("reminder")
        owner = people.of(action.to, scene)
        values = {
            "id": made,
            "owner_id": owner,
            "title": action.title,
            "due_at": scene.after(action.after),
            "escalate_after": action.escalate_after and action.escalate_after.model_dump(mode="json"),
            "execution_id": scene.key.execution,
            **scene.subject.links.columns(),
        }
        return values, Did({"owner": str(owner)}, Kind.REMINDER, made)

    return await _made(scenes, plan, partial(reminders.create_many, tx))


@performs(Notify)
async def notify(tx: Transaction, scenes: Sequence[Scene[Notify]]) -> Outcomes:
    people = await _people(tx, [(scene, scene.action.to) for scene in scenes])

    def plan(scene: Scene[Notify]) -> tuple[Mapping[str, Any], Did]:
        user, made = people.of(scene.action.to, scene), scene.key.made("notification")
        values = {
            "id": made,
            "user_id": user,
            "reason": "rule",
            "title": scene.action.title,
            "execution_id": scene.key.execution,
            **scene.subject.links.columns(),
        }
        return values, Did({"user": str(user)}, Kind.NOTIFICATION, made)

    return await _made(scenes, plan, partial(notifications.notify_many, tx))


@performs(SetField)
async def set_field(tx: Transaction, scenes: Sequence[Scene[SetField]]) -> Outcomes:
    """One statement for each field that is set."""

    def plan(scene: Scene[SetField]) -> Change:
        root, _, name = scene.action.field.partition(".")
        try:
            value = writable(scene.action)
        except ValueError as error:
            raise Unable(StuckReason.VALUE_REFUSED, str(error)) from None
        return Change(scene.record(root), {to_snake(name): value}, origin=scene.origin)

    _, every = _planned(scenes, plan)
    alike: dict[str, list[Change]] = {}
    for scene, change in zip(scenes, every, strict=True):
        if not isinstance(change, Unable):
            alike.setdefault(scene.action.field, []).append(change)
    changed: dict[tuple[str, UUID], Changed] = {}
    for field_, changes in alike.items():
        root = field_.partition(".")[0]
        verbs: Any = {"contact": contacts, "company": companies, "deal": deals}[root]
        changed |= {(root, id_): one for id_, one in (await verbs.change_many(tx, changes)).items()}

    def outcome(scene: Scene[SetField], change: Change | Unable) -> Did | Unable:
        if isinstance(change, Unable):
            return change
        root, _, name = scene.action.field.partition(".")
        one = changed.get((root, change.id))
        if one is None:
            return Unable(StuckReason.VALUE_REFUSED, NotFound(root.capitalize()).message)
        was = (scene.subject.facts.get(root) or {}).get(name)
        saw = {"field": scene.action.field, "was": was, "changed": one.before is not None}
        return Did(saw, changed={root: one.record})

    return [outcome(scene, change) for scene, change in zip(scenes, every, strict=True)]


@performs(MoveStage)
async def move_stage(tx: Transaction, scenes: Sequence[Scene[MoveStage]]) -> Outcomes:
    able, every = _planned(scenes, lambda scene: deals.Move(scene.record("deal"), scene.action.to, scene.origin))
    moved = await deals.move_stages(tx, able) if able else {}

    def outcome(move: deals.Move | Unable) -> Did | Unable:
        if isinstance(move, Unable):
            return move
        one = moved.get(move.deal)
        if one is None:
            return Unable(StuckReason.STAGE_UNKNOWN, deals.no_stage(move.stage).message)
        was = (one.before or {"stage": one.record.stage})["stage"]
        return Did({"was": was, "changed": one.before is not None}, changed={"deal": one.record})

    return [outcome(move) for move in every]


@performs(SendEmail)
async def send_email(tx: Transaction, scenes: Sequence[Scene[SendEmail]]) -> Outcomes:
    """Writes the messages; what they say is decided when their mailboxes send them."""
    named = {scene.action.template for scene in scenes if scene.action.template is not None}
    there = await templates.existing(tx, named) if named else set()
    senders = await mailboxes.senders(tx)

    def plan(scene: Scene[SendEmail]) -> tuple[str, UUID, UUID]:
        contact = scene.record("contact")
        email = scene.subject.facts["contact"]["email"]
        if email is None:
            raise Unable(StuckReason.EMAIL_MISSING, "the contact has no email address")
        template = scene.action.template
        if template is not None and template not in there:
            raise Unable(StuckReason.TEMPLATE_MISSING, f"template {template} is gone")
        mailbox = senders.choose(scene.subject.owner, scene.mailbox)
        if mailbox is None:
            raise Unable(StuckReason.MAILBOX_MISSING, "its mailbox is gone, or there is none to send from")
        return email, contact, mailbox

    able, every = _planned(scenes, plan)
    known = await addresses.known_many(tx, [email for email, _, _ in able]) if able else {}
    messages: list[intents.Written] = []
    outcomes: Outcomes = []
    for scene, planned in zip(scenes, every, strict=True):
        if isinstance(planned, Unable):
            outcomes.append(planned)
            continue
        email, contact, mailbox = planned
        messages.append(intents.Written(scene.key, mailbox, contact, known[email].id, scene.anchor))
        saw = {"mailbox": str(mailbox), "dueAt": scene.anchor.isoformat()}
        outcomes.append(Did(saw, Kind.MESSAGE, scene.key.made("message")))
    if messages:
        await intents.write(tx, messages)
    return outcomes


@performs(Enroll)
async def enroll(tx: Transaction, scenes: Sequence[Scene[Enroll]]) -> Outcomes:
    """Where a contact may not be enrolled, that is what the step saw, and the execution goes on."""
    able, every = _planned(scenes, _asked)
    outcomes: dict[UUID, Did | Unable] = {}
    for sequence in {sequence for sequence, _ in able}:
        asked = [one for of, one in able if of == sequence]
        outcomes |= await _enrolled(tx, sequence, asked)
    return [one if isinstance(one, Unable) else outcomes[one[1].contact] for one in every]


def _asked(scene: Scene[Enroll]) -> tuple[UUID, enrollments.Asked]:
    made, deal = scene.key.made("enrollment"), scene.subject.links.deal_id
    return scene.action.sequence, enrollments.Asked(scene.record("contact"), id=made, deal=deal, origin=scene.origin)


async def _enrolled(tx: Transaction, sequence: UUID, asked: Sequence[enrollments.Asked]) -> Mapping[UUID, Did | Unable]:
    """By contact, of whom each is asked for once."""
    try:
        answers = await enrollments.enroll(tx, sequence, asked)
    except NotFound:
        missing = Unable(StuckReason.SEQUENCE_MISSING, f"there is no sequence {sequence}")
        return {one.contact: missing for one in asked}
    except IllegalTransition:
        refused = Did({"refused": NotEnrolled.SEQUENCE_NOT_ACTIVE.value})
        return {one.contact: refused for one in asked}
    return {
        answer.contact: Did({"refused": answer.reason.value, "existing": answer.existing and str(answer.existing)})
        if answer.reason is not None
        else Did({}, Kind.ENROLLMENT, one.id)
        for one, answer in zip(asked, answers, strict=True)
    }


@performs(TakeOut)
async def take_out(tx: Transaction, scenes: Sequence[Scene[TakeOut]]) -> Outcomes:
    """One after the other: what it ends may be of any sequence, with its own messages and holds."""
    outcomes: Outcomes = []
    _, every = _planned(scenes, lambda scene: scene.record("contact"))
    for scene, contact in zip(scenes, every, strict=True):
        if isinstance(contact, Unable):
            outcomes.append(contact)
            continue
        ended = await enrollments.take_out(tx.acting(scene.origin), contact, scene.action.sequence)
        outcomes.append(Did({"ended": [str(one) for one in ended]}))
    return outcomes


class _People:
    """Who is meant, once the managers that are asked for were looked up."""

    def __init__(self, managers: Mapping[UUID, UUID | None]) -> None:
        self._managers = managers

    def of(self, person: Person, scene: Scene[Any]) -> UUID:
        """Raises `Unable` where there is nobody."""
        if isinstance(person, UUID):
            return person
        owner = scene.subject.owner
        if owner is None:
            raise Unable(StuckReason.NOBODY_TO_ASSIGN, "the record has no owner")
        found = owner if person == "owner" else self._managers.get(owner)
        if found is None:
            raise Unable(StuckReason.NOBODY_TO_ASSIGN, "the owner has no manager and there is no admin")
        return found


async def _people(tx: Transaction, asked: Sequence[tuple[Scene[Any], Person]]) -> _People:
    owners = {scene.subject.owner for scene, person in asked if person == "manager"} - {None}
    return _People(await identity.managers_of(tx, [one for one in owners if one]) if owners else {})
