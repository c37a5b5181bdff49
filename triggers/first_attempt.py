"""The first attempt: steps that the relay takes itself, many at once, before a workflow is asked to.

What it brings to an end or to a fact to await never enters Temporal; all retrying is the workflow's.
"""

import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from activities.advance import StepUnable, advance_all
from store.transaction import Transaction
from workflows.contracts import Answer

SECONDS = 1.0
"""How long those are tried one by one whose batch has failed; locks are held meanwhile."""

log = structlog.get_logger()


async def attempt(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Answer | None]:
    """What each run or enrollment answered; None where it is its workflow's.

    All at once; if that fails each alone, so that one's trouble is no other's, for as long as there is time.
    """
    if not ids:
        return {}
    answers = await _attempt(tx, ids)
    if answers is None and len(ids) > 1:
        started, answers = time.monotonic(), {}
        for id_ in ids:
            if time.monotonic() - started > SECONDS:
                break
            answers |= await _attempt(tx, [id_]) or {}
    return dict.fromkeys(ids) | (answers or {})


async def _attempt(tx: Transaction, ids: Sequence[UUID]) -> dict[UUID, Answer | None] | None:
    """None where nothing was done."""
    try:
        async with tx.savepoint():
            answers = await advance_all(tx, ids)
    except Exception as error:  # noqa: BLE001  (a lock or a mistake: the workflow owns all retrying)
        log.warning("first_attempt_failed", executions=[str(id_) for id_ in ids], error=type(error).__name__)
        return None
    # One that a person must help is found again by its workflow, which hands it over.
    return {id_: None if isinstance(answer, StepUnable) else answer for id_, answer in answers.items()}
