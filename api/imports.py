"""Imports over HTTP: a CSV file in, and for every row either a record or the reason why not."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Generic, TypeVar
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

_PATIENCE = 30.0
"""Seconds an import waits for another that brings the same records."""
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
    """A contact as a file has it; `imported` are the columns it brings."""

    imported: ClassVar[set[str]] = {
        "email", "external_id", "first_name", "last_name", "phone", "title", "lead_status", "lead_source",
        "custom_fields",
    }  # fmt: skip
    company_name: Line | None = None


class _DealDraft(NewDeal):
    """A deal as a file has it; `imported` are the columns it brings."""

    imported: ClassVar[set[str]] = {"title", "external_id", "value_cents", "currency", "expected_close_date"}
    company_name: Line | None = None


@dataclass
class _Draft(Generic[RowT]):
    """A row that may become a record, and the columns it brings."""

    row: RowT
    company: str | None
    columns: dict[str, Any]


@dataclass
class _Work(Generic[RowT]):
    """One file under way: the drafts still in hand, and what is told of the other rows."""

    sheet: Sheet[RowT]
    drafts: list[_Draft[RowT]] = field(default_factory=list)
    errors: list[Reported] = field(default_factory=list)
    warnings: list[Reported] = field(default_factory=list)

    def refuse(self, row: RowT, column: str, code: str, message: str, existing: UUID | None = None) -> None:
        self.errors.append(Reported(row=row.line, column=column, code=code, message=message, existing=existing))

    def warn(self, row: RowT, column: str, code: str, message: str) -> None:
        self.warnings.append(Reported(row=row.line, column=column, code=code, message=message))

    def draft(self, model: type[_ContactDraft | _DealDraft], values: Callable[[RowT], dict[str, Any]]) -> None:
        """Holds every row to the rules of a POST of it."""
        for row in self.sheet.rows:
            given = {to_camel(name): value for name, value in values(row).items() if value is not None}
            try:
                checked = model.model_validate(given)
            except ValidationError as error:
                for one in error.errors(include_input=False, include_url=False):
                    self.refuse(row, str(one["loc"][0]), one["type"], one["msg"])
            else:
                columns = checked.model_dump(include=model.imported)
                self.drafts.append(_Draft(row, checked.company_name, {"id": uuid7(), **columns}))

    def keep(self, wanted: Callable[[_Draft[RowT]], bool]) -> None:
        self.drafts = [draft for draft in self.drafts if wanted(draft)]

    def report(self, imported: int) -> ImportReport:
        refused = [_reported(refusal) for refusal in self.sheet.refused]
        errors = sorted([*refused, *self.errors], key=lambda error: error.row)
        skipped = {error.row for error in errors}
        warnings = sorted(self.warnings, key=lambda warning: warning.row)
        return ImportReport(
            imported=imported,
            skipped=len(skipped),
            errors=errors,
            warnings=[warning for warning in warnings if warning.row not in skipped],
            unmapped=list(self.sheet.unmapped),
        )


@router.post("/contacts", response_model=ImportReport, openapi_extra=_BODY)
async def import_contacts(asked: Annotated[ContactOptions, Query()], once: Importing) -> Response:
    """One contact a row; whose address exists is refused by row. Starts rules only with `fireAutomations`."""
    data = await once.call.request.body()
    work = await asyncio.to_thread(_read_contacts, data, asked)

    async def take(tx: Transaction) -> Answer:
        tx = tx if asked.fire_automations else tx.unheard()
        await _drop_known_contacts(tx, work)
        await _complete(tx, work, once.call.caller.user)
        made = await contacts.create_many(tx, [draft.columns for draft in work.drafts])
        work.keep(lambda draft: draft.columns["id"] not in made)
        # What was in the way came by another transaction meanwhile, and is known by now.
        await _drop_known_contacts(tx, work)
        return Answer(work.report(len(made)))

    return await once(take, lock_seconds=_PATIENCE)


@router.post("/deals", response_model=ImportReport, openapi_extra=_BODY)
async def import_deals(asked: Annotated[DealOptions, Query()], once: Importing) -> Response:
    """One deal a row, in `currency` where the row names none. Starts rules only with `fireAutomations`."""
    data = await once.call.request.body()
    work = await asyncio.to_thread(_read_deals, data, asked)

    async def take(tx: Transaction) -> Answer:
        tx = tx if asked.fire_automations else tx.unheard()
        await _drop_known_deals(tx, work)
        await _place(tx, work)
        await _complete(tx, work, once.call.caller.user)
        made = await deals.create_many(tx, [draft.columns for draft in work.drafts])
        work.keep(lambda draft: draft.columns["id"] not in made)
        # As above.
        await _drop_known_deals(tx, work)
        return Answer(work.report(len(made)))

    return await once(take, lock_seconds=_PATIENCE)


def _read_contacts(data: bytes, asked: ContactOptions) -> _Work[ContactRow]:
    work = _Work(_readable(read_contacts(data, asked.encoding)))
    work.draft(_ContactDraft, _contact)
    return work


def _read_deals(data: bytes, asked: DealOptions) -> _Work[DealRow]:
    work = _Work(_readable(read_deals(data, asked.encoding, asked.currency)))
    work.draft(_DealDraft, partial(_deal, currency=asked.currency))
    return work


async def _drop_known_contacts(tx: Transaction, work: _Work[ContactRow]) -> None:
    emails = await contacts.by_emails(tx, (draft.row.email for draft in work.drafts))
    external_ids = await contacts.by_external_ids(tx, _given(draft.row.external_id for draft in work.drafts))

    def is_new(draft: _Draft[ContactRow]) -> bool:
        row = draft.row
        if existing := emails.get(row.email):
            work.refuse(row, "email", "duplicate_email", "A contact with this address exists.", existing)
            return False
        if existing := external_ids.get(row.external_id or ""):
            work.refuse(row, "externalId", "duplicate", "A contact with this id exists.", existing)
            return False
        return True

    work.keep(is_new)


async def _drop_known_deals(tx: Transaction, work: _Work[DealRow]) -> None:
    external_ids = await deals.by_external_ids(tx, _given(draft.row.external_id for draft in work.drafts))

    def is_new(draft: _Draft[DealRow]) -> bool:
        if existing := external_ids.get(draft.row.external_id or ""):
            work.refuse(draft.row, "externalId", "duplicate", "A deal with this id exists.", existing)
            return False
        return True

    work.keep(is_new)


async def _place(tx: Transaction, work: _Work[DealRow]) -> None:
    """Gives every draft its stage and its contact, or refuses it."""
    board = _Board(await deals.pipelines(tx), await deals.pipeline_stages(tx))
    rows = [draft.row for draft in work.drafts]
    people = _People(
        await contacts.by_emails(tx, _given(row.contact_email for row in rows)),
        await contacts.by_external_ids(tx, (one for row in rows for one in row.contact_external_ids)),
    )

    def has_a_place(draft: _Draft[DealRow]) -> bool:
        placed, contact = board.place(work, draft.row), people.find(work, draft.row)
        draft.columns |= {**(placed or {}), **(contact or {})}
        return placed is not None and contact is not None

    work.keep(has_a_place)


async def _complete(tx: Transaction, work: _Work[Any], importer: UUID) -> None:
    """Gives every draft its company, made where there is none of that name, and its owner."""
    owners = await identity.users_by_name(tx)
    named = await companies.named(tx, {draft.company for draft in work.drafts if draft.company})
    for draft in work.drafts:
        name = draft.row.owner_name
        owner = owners.get(name.casefold()) if name else importer
        if owner is None:
            work.warn(draft.row, "owner", "unknown_owner", "No active user has this name; it is yours now.")
        draft.columns |= {"owner_id": owner or importer, "company_id": named[draft.company] if draft.company else None}


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
