"""What crosses between workflows and activity functions: ids and times, never personal data."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from domain.words import Target

ADVANCE = "advance"
DRAIN = "drain"
POKE = "poke"


class Waiter(BaseModel):
    """The row a Walk waits for. Fields may be added with defaults only: inputs outlive releases."""

    model_config = ConfigDict(frozen=True)

    org: UUID
    kind: Target
    id: UUID


class Mailbox(BaseModel):
    """The mailbox a Drain sends for, and the queue its activity function runs on."""

    model_config = ConfigDict(frozen=True)

    org: UUID
    id: UUID
    queue: str


class Answer(BaseModel):
    """What an activity function says: look again after `seconds` of real time, only when poked (None), or never."""

    model_config = ConfigDict(frozen=True)

    done: bool = False
    seconds: float | None = None
