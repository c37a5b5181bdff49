"""Contacts and deals out of CSV files, in particular those HubSpot exports.

What a file says becomes rows, refusals that name their line and column, and the list of columns
nobody asked for; every record below the header is in exactly one of the first two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final, Generic, TypeVar

from domain.cell_values import (
    BadValueError,
    DecimalMark,
    decimal_mark,
    read_currency,
    read_day,
    read_money,
)
from domain.csv_dialect import FileRefusal, Record, RowCode, RowRefusal, Table, read_table
from domain.csv_titles import CONTACT_TITLES, DEAL_TITLES, Titles, columns_of, fold
from domain.email_addresses import BadEmailError, normalise_email
from domain.words import LeadSource, LeadStatus

ValueT = TypeVar("ValueT")
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRow:
    """One contact; an empty or absent cell is None.

    The labels are what the file says, kept because several of them mean one status or source,
    and a label may mean no status we know.
    """

    line: int
    email: str
    external_id: str | None
    first_name: str | None
    last_name: str | None
    phone: str | None
    job_title: str | None
    company_name: str | None
    owner_name: str | None
    lead_status: LeadStatus | None
    lead_status_label: str | None
    lead_source: LeadSource | None
    lead_source_label: str | None
    city: str | None
    country: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DealRow:
    """One deal; an empty or absent cell is None, and a stage is a label still to be looked up."""

    line: int
    name: str
    external_id: str | None
    amount_minor: int | None
    currency: str | None
    pipeline_label: str | None
    stage_label: str | None
    contact_email: str | None
    contact_external_ids: tuple[str, ...]
    company_name: str | None
    owner_name: str | None
    close_date: date | None


@dataclass(frozen=True, slots=True)
class Sheet(Generic[RowT]):
    """What a file was found to hold; where the file is refused as a whole, the rest is empty."""

    rows: tuple[RowT, ...] = ()
    refused: tuple[RowRefusal, ...] = ()
    unmapped: tuple[str, ...] = ()
    file_refusal: FileRefusal | None = None


ContactSheet = Sheet[ContactRow]
DealSheet = Sheet[DealRow]


def read_contacts(data: bytes, encoding: str | None = None) -> ContactSheet:
    """Read contacts, one an address; without `encoding` the file must have a BOM or be UTF-8.

    Of several rows with one address or one external id, the first is taken and the others are
    refused.
    """
    table = _table(data, encoding, CONTACT_TITLES, required="email")
    if isinstance(table, FileRefusal):
        return Sheet(file_refusal=table)
    return _sheet(table, CONTACT_TITLES, _contact, _keys_of_contact)


def read_deals(data: bytes, encoding: str | None = None, default_currency: str | None = None) -> DealSheet:
    """Read deals, one an external id; without `encoding` the file must have a BOM or be UTF-8.

    Minor units depend on the currency: an amount that names none is read in `default_currency`
    or, where that is None too, with two decimals and no currency.
    """
    table = _table(data, encoding, DEAL_TITLES, required="name")
    if isinstance(table, FileRefusal):
        return Sheet(file_refusal=table)
    amount = columns_of(table.header.cells, DEAL_TITLES).get("amount")
    amounts = () if amount is None else (record.cells[amount] for record in table.body)
    read = partial(_deal, mark=decimal_mark(amounts), default_currency=default_currency)
    return _sheet(table, DEAL_TITLES, read, _keys_of_deal)


class _RefusedError(Exception):
    """Carries a refusal from the cell that caused it to the loop over the rows."""

    def __init__(self, refusal: RowRefusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class _Cells:
    """One record, read by the names of our fields."""

    record: Record
    header: Record
    columns: Mapping[str, int]

    def text(self, field: str) -> str | None:
        column = self.columns.get(field)
        return None if column is None else self.record.cells[column] or None

    def required(self, field: str) -> str:
        text = self.text(field)
        if text is None:
            raise self.refusal(field, "missing_value", "The cell is empty, and every row needs it.")
        return text

    def value(self, field: str, read: Callable[[str], ValueT]) -> ValueT | None:
        text = self.text(field)
        return None if text is None else self.read(field, text, read)

    def read(self, field: str, text: str, read: Callable[[str], ValueT]) -> ValueT:
        try:
            return read(text)
        except (BadValueError, BadEmailError) as fault:
            raise self.refusal(field, fault.code, str(fault)) from fault

    def refusal(self, field: str, code: RowCode, message: str) -> _RefusedError:
        title = self.header.cells[self.columns[field]]
        return _RefusedError(RowRefusal(self.record.line, title, code, message))


def _table(data: bytes, encoding: str | None, titles: Titles, required: str) -> Table | FileRefusal:
    table = read_table(data, encoding, lambda cells: len(columns_of(cells, titles)))
    if isinstance(table, Table) and required not in columns_of(table.header.cells, titles):
        message = (
            f"No column holds the {required}. It may be titled {', '.join(titles[required])}; "
            f"line {table.header.line} was taken for the header."
        )
        return FileRefusal("column_missing", message, required)
    return table


def _sheet(
    table: Table,
    titles: Titles,
    read: Callable[[_Cells], RowT],
    keys: Callable[[RowT], Mapping[str, str | None]],
) -> Sheet[RowT]:
    columns = columns_of(table.header.cells, titles)
    rows: list[RowT] = []
    refused = list(table.refused)
    first_lines: dict[tuple[str, str], int] = {}
    for record in table.body:
        cells = _Cells(record, table.header, columns)
        try:
            row = read(cells)
            own = [(field, key) for field, key in keys(row).items() if key is not None]
            for field, key in own:
                if first := first_lines.get((field, key)):
                    message = f"Line {first} has the same."
                    raise cells.refusal(field, "duplicate_in_file", message)
        except _RefusedError as fault:
            refused.append(fault.refusal)
        else:
            rows.append(row)
            first_lines.update(dict.fromkeys(own, record.line))
    refused.sort(key=lambda refusal: refusal.line)
    served = set(columns.values())
    unmapped = tuple(
        title or f"(column {position + 1})"
        for position, title in enumerate(table.header.cells)
        if position not in served
    )
    return Sheet(tuple(rows), tuple(refused), unmapped)


def _contact(cells: _Cells) -> ContactRow:
    # Exports without separate names get the usual split: everything behind the first word is
    # the family's.
    first_word, _, other_words = (cells.text("full_name") or "").partition(" ")
    status, source = cells.text("lead_status"), cells.text("lead_source")
    return ContactRow(
        line=cells.record.line,
        email=cells.read("email", cells.required("email"), normalise_email),
        external_id=cells.text("external_id"),
        first_name=cells.text("first_name") or first_word or None,
        last_name=cells.text("last_name") or other_words or None,
        phone=cells.text("phone"),
        job_title=cells.text("job_title"),
        company_name=cells.text("company_name"),
        owner_name=cells.text("owner_name"),
        lead_status=_LEAD_STATUSES.get(fold(status)) if status else None,
        lead_status_label=status,
        lead_source=_lead_source(source) if source else None,
        lead_source_label=source,
        city=cells.text("city"),
        country=cells.text("country"),
    )


def _deal(cells: _Cells, mark: DecimalMark, default_currency: str | None) -> DealRow:
    currency = cells.value("currency", read_currency)
    money = cells.value("amount", partial(read_money, mark=mark, currency=currency, default=default_currency))
    pipeline, stage = cells.text("pipeline_label"), cells.text("stage_label")
    return DealRow(
        line=cells.record.line,
        name=cells.required("name"),
        external_id=cells.text("external_id"),
        amount_minor=money.minor if money else None,
        currency=money.currency if money else currency,
        pipeline_label=pipeline,
        # Where stages of several pipelines share a label, HubSpot writes the pipeline behind it.
        stage_label=stage.removesuffix(f" ({pipeline})") if stage else None,
        contact_email=cells.value("contact_email", normalise_email),
        contact_external_ids=tuple(
            stripped for one in (cells.text("contact_external_ids") or "").split(";") if (stripped := one.strip())
        ),
        company_name=cells.text("company_name"),
        owner_name=cells.text("owner_name"),
        close_date=cells.value("close_date", read_day),
    )


def _keys_of_contact(row: ContactRow) -> Mapping[str, str | None]:
    return {"email": row.email, "external_id": row.external_id}


def _keys_of_deal(row: DealRow) -> Mapping[str, str | None]:
    return {"external_id": row.external_id}


_LEAD_STATUSES: Final = {
    "new": LeadStatus.NEW,
    "open": LeadStatus.NEW,
    "attemptedtocontact": LeadStatus.CONTACTED,
    "connected": LeadStatus.CONTACTED,
    "contacted": LeadStatus.CONTACTED,
    "inprogress": LeadStatus.CONTACTED,
    "opendeal": LeadStatus.QUALIFIED,
    "qualified": LeadStatus.QUALIFIED,
    "unqualified": LeadStatus.UNQUALIFIED,
    "badtiming": LeadStatus.UNQUALIFIED,
}

_LEAD_SOURCES: Final = {
    "organic": LeadSource.ORGANIC,
    "paid": LeadSource.PAID,
    "referral": LeadSource.REFERRAL,
    "partner": LeadSource.PARTNER,
}


def _lead_source(label: str) -> LeadSource:
    folded = fold(label)
    return next(
        (source for start, source in _LEAD_SOURCES.items() if folded.startswith(start)),
        LeadSource.IMPORT,
    )
