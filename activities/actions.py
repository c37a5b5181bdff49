"""What a step may do: one function an action, registered by the model of its document.

Each calls the same verbs as the API and is idempotent under the step's effect key: what it
makes has an id derived from that key.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
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
from store.facts import Subject
from store.transaction import Transaction


class Unable(Exception):  # noqa: N818  (it is an outcome: the execution becomes stuck)
    """The step cannot be done until a person mends something; nothing of it was done."""

    def __init__(self, reason: StuckReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Scene:
    """What an action works with; `anchor` is the planned instant of the step, `mailbox` the execution's own."""

    key: EffectKey
    subject: Subject
    calendar: Calendar
    anchor: datetime
    mailbox: UUID | None = None


@dataclass(frozen=True)
class Did:
    """What an action made, and what it saw when it did."""

    saw: Mapping[str, Any]
    made_kind: Kind | None = None
    made_id: UUID | None = None


Model = TypeVar("Model", bound=BaseModel)
_ACTIONS: dict[type[BaseModel], Callable[[Transaction, Any, Scene], Awaitable[Did]]] = {}


def performs(
    model: type[Model],
) -> Callable[
    [Callable[[Transaction, Model, Scene], Awaitable[Did]]],
    Callable[[Transaction, Model, Scene], Awaitable[Did]],
]:
    """Registers the function that performs an action."""

    def register(
        function: Callable[[Transaction, Model, Scene], Awaitable[Did]],
    ) -> Callable[[Transaction, Model, Scene], Awaitable[Did]]:
        _ACTIONS[model] = function
        return function

    return register


async def perform(tx: Transaction, action: BaseModel, scene: Scene) -> Did:
    """Raises `Unable` for whatever only a person can mend."""
    try:
        return await _ACTIONS[type(action)](tx, action, scene)
    except UnknownStage as refused:
        raise Unable(StuckReason.STAGE_UNKNOWN, refused.message) from None
    except Refused as refused:
        raise Unable(StuckReason.VALUE_REFUSED, refused.message) from None


@performs(CreateTask)
async def create_task(tx: Transaction, action: CreateTask, scene: Scene) -> Did:
    assignee = await _person(tx, action.assign_to, scene)
    made = scene.key.made("task")
    due_at = _after(action.due_in, scene)
    values = {
        "subject": action.title,
        "body": action.body,
        "priority": action.priority,
        "assignee_id": assignee,
        "due_at": due_at,
        **scene.subject.links.columns(),
    }
    await activities.create_task(tx, values, id=made)
    saw = {"assignee": str(assignee), "dueAt": due_at and due_at.isoformat()}
    return Did(saw, Kind.ACTIVITY, made)


@performs(SetField)
async def set_field(tx: Transaction, action: SetField, scene: Scene) -> Did:
    root, _, name = action.field.partition(".")
    verb: Any = {"contact": contacts, "company": companies, "deal": deals}[root].change
    try:
        value = writable(action)
    except ValueError as error:
        raise Unable(StuckReason.VALUE_REFUSED, str(error)) from None
    changed = await verb(tx, _record(scene, root), {to_snake(name): value})
    was = (scene.subject.facts.get(root) or {}).get(name)
    return Did({"field": action.field, "was": was, "changed": changed.before is not None})


@performs(MoveStage)
async def move_stage(tx: Transaction, action: MoveStage, scene: Scene) -> Did:
    changed = await deals.move_stage(tx, _record(scene, "deal"), action.to)
    was = (changed.before or {"stage": changed.record.stage})["stage"]
    return Did({"was": was, "changed": changed.before is not None})


@performs(Remind)
async def remind(tx: Transaction, action: Remind, scene: Scene) -> Did:
    owner = await _person(tx, action.to, scene)
    made = scene.key.made("reminder")
    values = {
        "owner_id": owner,
        "title": action.title,
        "due_at": _after(action.after, scene),
        "escalate_after": action.escalate_after and action.escalate_after.model_dump(mode="json"),
        **scene.subject.links.columns(),
    }
    await reminders.create(tx, values, id=made)
    return Did({"owner": str(owner)}, Kind.REMINDER, made)


@performs(Notify)
async def notify(tx: Transaction, action: Notify, scene: Scene) -> Did:
    user = await _person(tx, action.to, scene)
    made = scene.key.made("notification")
    values = {
        "user_id": user,
        "reason": "rule",
        "title": action.title,
        **scene.subject.links.columns(),
    }
    await notifications.notify(tx, made, values)
    return Did({"user": str(user)}, Kind.NOTIFICATION, made)


@performs(SendEmail)
async def send_email(tx: Transaction, action: SendEmail, scene: Scene) -> Did:
    """Writes the message; what it says is decided when its mailbox sends it."""
    contact = _record(scene, "contact")
    email = scene.subject.facts["contact"]["email"]
    if email is None:
        raise Unable(StuckReason.EMAIL_MISSING, "the contact has no email address")
    if action.template is not None and await templates.find(tx, action.template) is None:
        raise Unable(StuckReason.TEMPLATE_MISSING, f"template {action.template} is gone")
    mailbox = (await mailboxes.senders(tx)).choose(scene.subject.owner, scene.mailbox)
    if mailbox is None:
        raise Unable(StuckReason.MAILBOX_MISSING, "its mailbox is gone, or there is none to send from")
    address = await addresses.known(tx, email)
    made = await intents.write(tx, scene.key, mailbox=mailbox, contact=contact, address=address.id, due_at=scene.anchor)
    return Did({"mailbox": str(mailbox), "dueAt": scene.anchor.isoformat()}, Kind.MESSAGE, made)


@performs(Enroll)
async def enroll(tx: Transaction, action: Enroll, scene: Scene) -> Did:
    """Where the contact may not be enrolled, that is what the step saw, and the execution goes on."""
    made = scene.key.made("enrollment")
    deal = scene.subject.links.deal_id
    try:
        asked = enrollments.Asked(_record(scene, "contact"), id=made, deal=deal)
        (answered,) = await enrollments.enroll(tx, action.sequence, [asked])
    except NotFound:
        raise Unable(StuckReason.SEQUENCE_MISSING, f"there is no sequence {action.sequence}") from None
    except IllegalTransition:
        return Did({"refused": NotEnrolled.SEQUENCE_NOT_ACTIVE.value})
    if answered.reason is not None:
        return Did({"refused": answered.reason.value, "existing": answered.existing and str(answered.existing)})
    return Did({}, Kind.ENROLLMENT, made)


@performs(TakeOut)
async def take_out(tx: Transaction, action: TakeOut, scene: Scene) -> Did:
    ended = await enrollments.take_out(tx, _record(scene, "contact"), action.sequence)
    return Did({"ended": [str(one) for one in ended]})


def _record(scene: Scene, root: str) -> UUID:
    record = scene.subject.facts.get(root)
    if record is None:
        raise Unable(StuckReason.RECORD_MISSING, f"there is no {root} to write to")
    return UUID(record["id"])


async def _person(tx: Transaction, person: Person, scene: Scene) -> UUID:
    if isinstance(person, UUID):
        return person
    owner = scene.subject.owner
    if owner is None:
        raise Unable(StuckReason.NOBODY_TO_ASSIGN, "the record has no owner")
    found = owner if person == "owner" else await identity.manager_of(tx, owner)
    if found is None:
        raise Unable(StuckReason.NOBODY_TO_ASSIGN, "the owner has no manager and there is no admin")
    return found


def _after(amount: Amount | None, scene: Scene) -> datetime | None:
    return due(scene.anchor, Wait.model_validate({"for": amount}), scene.calendar).at if amount else None
