"""What crosses between workflows and activity functions: ids and times, never personal data."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from domain.words import Target

ADVANCE = "advance"
POKE = "poke"


class Waiter(BaseModel):
    """The row a Walk waits for. Fields may be added with defaults only: inputs outlive releases."""

    model_config = ConfigDict(frozen=True)

    org: UUID
    kind: Target
    id: UUID


class Answer(BaseModel):
    """What `advance` says: look again after `seconds` of real time, only when poked (None), or never."""

    model_config = ConfigDict(frozen=True)

    done: bool = False
    seconds: float | None = None
