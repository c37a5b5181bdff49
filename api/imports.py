"""Imports over HTTP: a CSV file in, and for every row either a record or the reason why not."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel
from uuid_utils.compat import uuid7

from api import problems
from api.contacts import NewContact
from api.deals import NewDeal
from api.idempotency import Answer, Once, may_once
from api.problems import Problem
from api.shapes import Currency, Given, Line, Name, Shown
from domain.csv_dialect import RowRefusal
from domain.imports import ContactRow, DealRow, Sheet, read_contacts, read_deals
from domain.words import LeadSource, LeadStatus
from store import companies, contacts, deals, identity
from store.events import Record
from store.transaction import Transaction

router = APIRouter(prefix="/imports", tags=["imports"])
Importing = Annotated[Once, may_once("import:write")]
RowT = TypeVar("RowT", bound=ContactRow | DealRow)
DraftT = TypeVar("DraftT", bound=Given)

_PATIENCE = 30.0
"""Seconds an import waits for another that brings the same records."""
_CONTACT_COLUMNS = {
    "email", "external_id", "first_name", "last_name", "phone", "title", "lead_status", "lead_source", "custom_fields",
}  # fmt: skip
_DEAL_COLUMNS = {
    "title", "external_id", "value_cents", "currency", "pipeline", "stage", "expected_close_date", "contact_id",
}  # fmt: skip
_BODY = {"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}}


class Reported(Shown):
    """Something about one row; `row` is the line in the file where it begins."""

    row: int
    column: str | None
    code: str
    message: str
    existing: UUID | None = None


class ImportReport(Shown):
    """Each row is imported or in `errors`; `warnings` are of rows imported; `unmapped` are columns not taken."""

    imported: int
    skipped: int
    errors: list[Reported]
    warnings: list[Reported]
    unmapped: list[str]


class ContactOptions(Given):
    encoding: Annotated[Name | None, Field(description="What the file is written in, where it is not UTF-8.")] = None
    fire_automations: bool = False


class DealOptions(ContactOptions):
    currency: Currency = "USD"


class _ContactDraft(NewContact):
    company_name: Line | None = None


class _DealDraft(NewDeal):
    company_name: Line | None = None


@dataclass
class _Work(Generic[RowT]):
    """One import under way: what is told of its rows, and those still in hand."""

    tx: Transaction
    sheet: Sheet[RowT]
    owner: UUID
    errors: list[Reported] = field(default_factory=list)
    warnings: list[Reported] = field(default_factory=list)

    def refuse(self, row: RowT, column: str, code: str, message: str, existing: UUID | None = None) -> None:
        self.errors.append(Reported(row=row.line, column=column, code=code, message=message, existing=existing))

    def warn(self, row: RowT, column: str, code: str, message: str) -> None:
        self.warnings.append(Reported(row=row.line, column=column, code=code, message=message))

    def checked(self, row: RowT, draft: type[DraftT], values: Mapping[str, Any]) -> DraftT | None:
        """The row by the same rules as a POST of it."""
        try:
            return draft.model_validate({to_camel(name): value for name, value in values.items() if value is not None})
        except ValidationError as error:
            for one in error.errors(include_input=False, include_url=False):
                self.refuse(row, str(one["loc"][0]), one["type"], one["msg"])
            return None

    def owner_of(self, row: RowT, known: Mapping[str, UUID]) -> UUID:
        if row.owner_name is None:
            return self.owner
        if found := known.get(row.owner_name.casefold()):
            return found
        self.warn(row, "owner", "unknown_owner", "No active user has this name; it is yours now.")
        return self.owner

    def report(self, imported: int) -> ImportReport:
        refused = [_reported(refusal) for refusal in self.sheet.refused]
        errors = sorted([*refused, *self.errors], key=lambda error: error.row)
        return ImportReport(
            imported=imported,
            skipped=len({error.row for error in errors}),
            errors=errors,
            warnings=sorted(self.warnings, key=lambda warning: warning.row),
            unmapped=list(self.sheet.unmapped),
        )


@router.post("/contacts", response_model=ImportReport, openapi_extra=_BODY)
async def import_contacts(asked: Annotated[ContactOptions, Query()], once: Importing) -> Response:
    """One contact a row; whose address exists is refused by row. Starts rules only with `fireAutomations`."""
    data = await once.call.request.body()
    sheet = _readable(await asyncio.to_thread(read_contacts, data, asked.encoding))

    async def take(tx: Transaction) -> Answer:
        tx = tx if asked.fire_automations else tx.unheard()
        return Answer(await _take_contacts(_Work(tx, sheet, once.call.caller.user)))

    return await once(take, lock_seconds=_PATIENCE)


@router.post("/deals", response_model=ImportReport, openapi_extra=_BODY)
async def import_deals(asked: Annotated[DealOptions, Query()], once: Importing) -> Response:
    """One deal a row, in `currency` where the row names none. Starts rules only with `fireAutomations`."""
    data = await once.call.request.body()
    sheet = _readable(await asyncio.to_thread(read_deals, data, asked.encoding, asked.currency))

    async def take(tx: Transaction) -> Answer:
        tx = tx if asked.fire_automations else tx.unheard()
        return Answer(await _take_deals(_Work(tx, sheet, once.call.caller.user), asked.currency))

    return await once(take, lock_seconds=_PATIENCE)


async def _take_contacts(work: _Work[ContactRow]) -> ImportReport:
    tx = work.tx
    drafts = [(row, draft) for row in work.sheet.rows if (draft := work.checked(row, _ContactDraft, _contact(row)))]
    drafts = await _strangers(work, drafts)
    owners = await identity.users_by_name(tx)
    named = await companies.named(tx, {draft.company_name for _, draft in drafts if draft.company_name})
    rows = [
        {
            **draft.model_dump(include=_CONTACT_COLUMNS),
            "id": uuid7(),
            "company_id": draft.company_name and named[draft.company_name],
            "owner_id": work.owner_of(row, owners),
        }
        for row, draft in drafts
    ]
    made = await contacts.create_many(tx, rows)
    # What another transaction brought meanwhile is known by now.
    await _strangers(work, [pair for pair, row in zip(drafts, rows, strict=True) if row["id"] not in made])
    return work.report(len(made))


async def _strangers(
    work: _Work[ContactRow], drafts: Sequence[tuple[ContactRow, _ContactDraft]]
) -> list[tuple[ContactRow, _ContactDraft]]:
    """Those not known yet; the others are refused."""
    emails = await contacts.by_emails(work.tx, (draft.email for _, draft in drafts))
    external_ids = await contacts.by_external_ids(work.tx, _given(draft.external_id for _, draft in drafts))
    left = []
    for row, draft in drafts:
        if existing := emails.get(draft.email):
            work.refuse(row, "email", "duplicate_email", "A contact with this address exists.", existing)
        elif existing := external_ids.get(draft.external_id or ""):
            work.refuse(row, "externalId", "duplicate", "A contact with this id exists.", existing)
        else:
            left.append((row, draft))
    return left


async def _take_deals(work: _Work[DealRow], currency: str) -> ImportReport:
    tx = work.tx
    board = _Board(await deals.pipelines(tx), await deals.pipeline_stages(tx))
    people = _People(
        await contacts.by_emails(tx, _given(row.contact_email for row in work.sheet.rows)),
        await contacts.by_external_ids(tx, (one for row in work.sheet.rows for one in row.contact_external_ids)),
    )
    drafts = []
    for row in work.sheet.rows:
        placed, contact = board.place(work, row), people.find(work, row)
        if (
            placed
            and contact
            and (draft := work.checked(row, _DealDraft, {**_deal(row, currency), **placed, **contact}))
        ):
            drafts.append((row, draft))
    drafts = await _new_deals(work, drafts)
    owners = await identity.users_by_name(tx)
    named = await companies.named(tx, {draft.company_name for _, draft in drafts if draft.company_name})
    rows = [
        {
            **draft.model_dump(include=_DEAL_COLUMNS),
            "id": uuid7(),
            "company_id": draft.company_name and named[draft.company_name],
            "owner_id": work.owner_of(row, owners),
        }
        for row, draft in drafts
    ]
    made = await deals.create_many(tx, rows)
    # What another transaction brought meanwhile is known by now.
    await _new_deals(work, [pair for pair, row in zip(drafts, rows, strict=True) if row["id"] not in made])
    return work.report(len(made))


async def _new_deals(
    work: _Work[DealRow], drafts: Sequence[tuple[DealRow, _DealDraft]]
) -> list[tuple[DealRow, _DealDraft]]:
    """Those not known yet; the others are refused."""
    known = await deals.by_external_ids(work.tx, _given(draft.external_id for _, draft in drafts))
    left = []
    for row, draft in drafts:
        if existing := known.get(draft.external_id or ""):
            work.refuse(row, "externalId", "duplicate", "A deal with this id exists.", existing)
        else:
            left.append((row, draft))
    return left


class _Board:
    """Pipelines and stages by what a file may call them: their names and keys, in any case."""

    def __init__(self, pipelines: Sequence[Record], stages: Sequence[Record]) -> None:
        self._pipelines = {label.casefold(): row.key for row in pipelines for label in (row.key, row.name)}
        self._stages: dict[str, dict[str, str]] = {}
        for row in stages:
            of_pipeline = self._stages.setdefault(row.pipeline, {})
            of_pipeline[row.key.casefold()] = of_pipeline[row.name.casefold()] = row.key

    def place(self, work: _Work[DealRow], row: DealRow) -> dict[str, str] | None:
        """Where a deal belongs; in the first stage if the file does not say, None if it says what is not there."""
        pipeline = deals.DEFAULT_PIPELINE
        if row.pipeline_label is not None:
            found = self._pipelines.get(row.pipeline_label.casefold())
            if found is None:
                work.warn(row, "pipeline", "unknown_pipeline", "No pipeline has this name; the default one was taken.")
            pipeline = found or pipeline
        stages = self._stages.get(pipeline, {})
        stage = stages.get(row.stage_label.casefold()) if row.stage_label else next(iter(stages.values()), None)
        if stage is None:
            work.refuse(row, "stage", "unknown_stage", f"The pipeline has no such stage; it has {_listed(stages)}.")
            return None
        return {"pipeline": pipeline, "stage": stage}


@dataclass(frozen=True)
class _People:
    """The contacts that a file of deals names, by address and by the id another system knows them by."""

    by_email: Mapping[str, UUID]
    by_external_id: Mapping[str, UUID]

    def find(self, work: _Work[DealRow], row: DealRow) -> dict[str, UUID | None] | None:
        """The first contact of the row that is known; None if it names some and none is."""
        named = [self.by_email.get(row.contact_email or ""), *map(self.by_external_id.get, row.contact_external_ids)]
        found = next((contact for contact in named if contact), None)
        if found is None and (row.contact_email or row.contact_external_ids):
            work.refuse(row, "contact", "unknown_contact", "None of the contacts it names is known.")
            return None
        return {"contact_id": found}


def _contact(row: ContactRow) -> dict[str, Any]:
    kept = {
        "city": row.city,
        "country": row.country,
        "leadStatus": row.lead_status_label,
        "leadSource": row.lead_source_label,
    }
    return {
        "email": row.email,
        "external_id": row.external_id,
        "first_name": row.first_name,
        "last_name": row.last_name,
        "phone": row.phone,
        "title": row.job_title,
        "company_name": row.company_name,
        "lead_status": row.lead_status or LeadStatus.NEW,
        "lead_source": row.lead_source or LeadSource.IMPORT,
        "custom_fields": {name: text for name, text in kept.items() if text},
    }


def _deal(row: DealRow, currency: str) -> dict[str, Any]:
    return {
        "title": row.name,
        "external_id": row.external_id,
        "value_cents": row.amount_minor or 0,
        "currency": row.currency or currency,
        "expected_close_date": row.close_date,
        "company_name": row.company_name,
    }


def _readable(sheet: Sheet[RowT]) -> Sheet[RowT]:
    if refusal := sheet.file_refusal:
        found = [problems.fault("body", [refusal.column] if refusal.column else [], refusal.code, refusal.message)]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "UNREADABLE_FILE", refusal.message, errors=found)
    return sheet


def _reported(refusal: RowRefusal) -> Reported:
    return Reported(row=refusal.line, column=refusal.column, code=refusal.code, message=refusal.message)


def _given(values: Iterable[str | None]) -> list[str]:
    return [value for value in values if value]


def _listed(stages: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(stages.values())) or "none"
