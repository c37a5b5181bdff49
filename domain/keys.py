"""Deterministic names: what makes a repeated effect the same effect."""

from typing import NamedTuple
from uuid import UUID, uuid5

from domain.words import Target

_NAMESPACE = UUID("6f9e0c1e-6d0b-4b1e-9a6b-5d2f4a7c1e90")


class EffectKey(NamedTuple):
    """One visit of one execution to one logical step: the idempotency key of what it does."""

    execution: UUID
    step: str
    visit: int

    def made(self, kind: str) -> UUID:
        """The id of the `kind` of record this effect makes: the same however often it is tried."""
        return uuid5(_NAMESPACE, f"{self.execution}/{self.step}/{self.visit}/{kind}")


def run_id(event: UUID, rule: UUID) -> UUID:
    """The run of a rule for an event: the same whenever the event is matched, also by a database restored meanwhile.

    Sorted as the event is, a UUIDv7 whose instant it keeps.
    """
    instant, chance = event.bytes[:6], uuid5(event, str(rule)).bytes[6:]
    return UUID(bytes=instant + bytes([0x70 | chance[0] & 0x0F]) + chance[1:])


def workflow_id(target: str, row: UUID) -> str:
    """The Temporal workflow that waits for a row; never personal data."""
    return f"{target}-{row}"


def row_of(workflow: str) -> UUID | None:
    """The row that a workflow of such an id waits for; None where it is another's id."""
    target, _, row = workflow.partition("-")
    try:
        return UUID(row) if Target(target) else None
    except ValueError:
        return None


def mail_queue(task_queue: str) -> str:
    """The task queue of what sends: its own, so that a slow mail server holds up no wait."""
    return f"{task_queue}-mail"
