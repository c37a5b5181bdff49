"""Sending over HTTP: the one switch that stops all mail, and what all mail must carry."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, ConfigDict, Field

from api.auth import Call, may
from api.idempotency import Answer, Once, may_once
from api.shapes import Given, Note, Shown, storable
from store import identity, sending
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/sending", tags=["mail"])
Stopping = Annotated[Once, may_once("sending:stop")]


class Sending(Shown):
    """`stoppedAt` is null while mail may leave."""

    stopped_at: Annotated[datetime | None, Field(validation_alias="sending_stopped_at")]
    stopped_by: Annotated[UUID | None, Field(validation_alias="sending_stopped_by")]
    note: Annotated[str | None, Field(validation_alias="sending_note")]
    postal_address: str | None


class SendingOne(Shown):
    sending: Sending


class StopSending(Given):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "The price list is wrong."}]})

    note: Note | None = None


class PostalAddress(Given):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"postalAddress": "Acme GmbH\nTorstraße 1\n10119 Berlin"}]}
    )

    postal_address: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(storable)]


@router.get("")
async def get_sending(call: Annotated[Call, may("sending:read")]) -> SendingOne:
    """Whether mail may leave."""
    async with call.transaction() as tx:
        return _one(await identity.organization(tx))


@router.post("/stop", response_model=SendingOne)
async def stop_sending(once: Stopping, given: StopSending | None = None) -> Response:
    """No message is taken up from this answer on; one that is on its way already is not called back."""

    async def stop(tx: Transaction) -> Answer:
        return Answer(_one(await sending.stop(tx, given.note if given else None)))

    return await once(stop)


@router.post("/resume", response_model=SendingOne)
async def resume_sending(once: Stopping) -> Response:
    """What waited leaves, each mailbox at its pace."""

    async def resume(tx: Transaction) -> Answer:
        return Answer(_one(await sending.resume(tx)))

    return await once(resume)


@router.put("/postal-address")
async def replace_postal_address(given: PostalAddress, call: Annotated[Call, may("sending:write")]) -> SendingOne:
    """What every mail of a sequence ends with; none is activated before it is set."""
    async with call.transaction() as tx:
        return _one(await sending.set_postal_address(tx, given.postal_address))


def _one(organization: Record) -> SendingOne:
    return SendingOne(sending=Sending.model_validate(organization))
