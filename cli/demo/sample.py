"""The demo's two files: what HubSpot would export, messy on purpose, and the truth about them.

One seed gives the same bytes wherever it runs. The generator knows which of its rows are bad and
why, so the demo can hold the report of an import against it line by line.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Final

GOOD_CONTACTS: Final = 250
GOOD_DEALS: Final = 80
OWNERS: Final = ("Mara Lindqvist", "Tomás Herrera", "Priya Raman", "Jon O'Neill")
"""The people who own the records, as both files name them."""

STAGES: Final = ("Lead", "Qualified", "Proposal", "Negotiation", "Closed won", "Closed lost")
"""The labels of the default pipeline, all of which the good deals use."""
PIPELINE: Final = "Sales"

# Most deals are early, so that there is something left to move.
_STAGE_WEIGHTS: Final = (40, 40, 5, 5, 5, 5)
_FIRST_CONTACT: Final = 51_001
_FIRST_DEAL: Final = 902_001
_ORIGINALS: Final = 20  # bad rows stand below so many good ones, which duplicates repeat
_FIRST_DAY: Final = date(2026, 1, 5)
_DOMAINS: Final = ("example.com", "example.org", "example.net")

# Each with the letters its address is made of, for an export knows names in every script.
_FIRST_NAMES: Final = (
    ("Ada", "ada"),
    ("Zoë", "zoe"),
    ("Łukasz", "lukasz"),
    ("José", "jose"),
    ("Søren", "soren"),
    ("Ngọc", "ngoc"),
    ("伟", "wei"),
    ("さくら", "sakura"),
    ("Дмитрий", "dmitri"),
    ("Ελένη", "eleni"),
    ("يوسف", "yusuf"),
    ("Grace", "grace"),
    ("Björn", "bjorn"),
    ("Chloé", "chloe"),
    ("Ines", "ines"),
    ("Kwame", "kwame"),
)
_LAST_NAMES: Final = (
    ("O'Brien", "obrien"),
    ("Müller", "muller"),
    ("Núñez", "nunez"),
    ("王", "wang"),
    ("田中", "tanaka"),
    ("Иванов", "ivanov"),
    ("Παπαδάκη", "papadaki"),
    ("van der Berg", "vandenberg"),
    ("Kowalski", "kowalski"),
    ("Okafor", "okafor"),
    ("Smith-Jones", "smith-jones"),
    ("Øst", "ost"),
    ("da Silva", "dasilva"),
    ("Haddad", "haddad"),
)
_COMPANIES: Final = (
    "Northwind Traders",
    "Becker, Lang & Söhne",
    'The "Good" Bakery',
    "Acme\nHolding",
    "Café Zürich, S.A.",
    "Fabrikam; Partners",
    "Contoso",
    "株式会社サクラ",
    "Blue | Green",
    "Wide World Importers",
)
_JOBS: Final = ("CEO", "Head of Sales", "Buyer, Europe", "Operations\nand IT", "CFO", "")
_STATUSES: Final = ("New", "Open", "In Progress", "Open Deal", "Connected", "Bad Timing", "")
_SOURCES: Final = (
    "Organic Search",
    "Paid Social",
    "Referrals",
    "Offline Sources",
    "Direct Traffic",
)
_PLACES: Final = (
    ("Oslo", "Norway"),
    ("Zürich", "Switzerland"),
    ("São Paulo", "Brazil"),
    ("東京", "Japan"),
    ("New York", "United States"),
    ("Thessaloniki", "Greece"),
)


_GOODS: Final = ("yearly licence", "pilot", "roll-out, phase", "renewal", "training")

_UNKNOWN_STAGE: Final = "unknown_stage"
_UNKNOWN_CONTACT: Final = "unknown_contact"

Cells = dict[str, str]
"""One row by the titles of its columns."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A file and what is true of it; lines are physical, and the header's is 1.

    `refused` is what reading must refuse, in order. The rows in `unknown_stage` and
    `unknown_contact` can be read, are not counted as `good`, and name what only the store misses.
    """

    data: bytes
    good: int
    refused: tuple[tuple[int, str], ...]
    unknown_stage: tuple[int, ...]
    unknown_contact: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row to be written; one with a fault is bad on purpose, one cut short lacks its end."""

    cells: Cells
    fault: str | None = None
    cut: bool = False


def contacts_csv(seed: int) -> Sample:
    """Return the contacts' file: 250 good rows and twelve that must be refused."""
    good = _contacts(seed)
    dice = Random(f"bad contacts {seed}")
    spare = iter(_contact(dice, GOOD_CONTACTS + number) for number in range(12))
    bad = [
        *(
            _Row(next(spare) | {"Email": _other_case(original["Email"])}, "duplicate_in_file")
            for original in dice.sample(good[:_ORIGINALS], 4)
        ),
        *(
            _Row(next(spare) | {"Email": address}, "bad_email")
            for address in ("a@b", "call me first", "ann@@example.com", "bo lee@example.org")
        ),
        *(_Row(next(spare) | {"Email": address}, "missing_value") for address in ("", "   ")),
        *(_Row(next(spare), "ragged_row", cut=True) for _ in range(2)),
    ]
    return _sample(dice, [_Row(cells) for cells in good], bad)


def deals_csv(seed: int) -> Sample:
    """Return the deals' file: 80 good rows on contacts of the same seed, and eight bad ones."""
    contacts = _contacts(seed)
    dice = Random(f"deals {seed}")
    rest = dice.choices(STAGES, _STAGE_WEIGHTS, k=GOOD_DEALS - len(STAGES))
    good = [
        _deal(dice, number, contacts) | {"Deal Stage": _stage_label(dice, stage)}
        for number, stage in enumerate((*STAGES, *rest))
    ]
    spare = iter(_deal(dice, GOOD_DEALS + number, contacts) for number in range(8))
    stranger = {"Associated Contact IDs": "999999999", "Contact Email": "nobody@example.org"}
    bad = [
        _Row(next(spare) | {"Amount": "-4500.0"}, "negative_amount"),
        _Row(next(spare) | {"Amount": "to be agreed"}, "bad_amount"),
        _Row(next(spare) | {"Close Date": "31/04/2026"}, "bad_date"),
        _Row(next(spare) | {"Deal Name": ""}, "missing_value"),
        _Row(
            next(spare) | {"Record ID": dice.choice(good[:_ORIGINALS])["Record ID"]},
            "duplicate_in_file",
        ),
        _Row(next(spare), "ragged_row", cut=True),
        _Row(next(spare) | {"Deal Stage": "Verbal yes"}, _UNKNOWN_STAGE),
        _Row(next(spare) | stranger, _UNKNOWN_CONTACT),
    ]
    return _sample(dice, [_Row(cells) for cells in good], bad)


def _contacts(seed: int) -> list[Cells]:
    dice = Random(f"contacts {seed}")
    return [_contact(dice, number) for number in range(GOOD_CONTACTS)]


def _contact(dice: Random, number: int) -> Cells:
    first_name, first_letters = dice.choice(_FIRST_NAMES)
    last_name, last_letters = dice.choice(_LAST_NAMES)
    city, country = dice.choice(_PLACES)
    # The number keeps addresses apart; the domains are those nobody can own.
    address = f"{first_letters}.{last_letters}{number}@{dice.choice(_DOMAINS)}"
    return {
        "Record ID": str(_FIRST_CONTACT + number),
        "First Name": first_name,
        "Last Name": last_name,
        "Email": dice.choices((address, address.upper(), f" {address} "), (8, 1, 1))[0],
        "Phone Number": f"+1 212-555-{100 + number % 100:04}",
        "Job Title": dice.choice(_JOBS),
        "Company Name": dice.choice(_COMPANIES),
        "Contact owner": dice.choice(OWNERS),
        "Lead Status": dice.choice(_STATUSES),
        "Lifecycle Stage": dice.choice(("Lead", "Marketing Qualified Lead", "Opportunity")),
        "Original Traffic Source": dice.choice(_SOURCES),
        "City": city,
        "Country/Region": country,
        "Marketing contact status": "Non-marketing contact",
        "Create Date": _minute(dice),
    }


def _deal(dice: Random, number: int, contacts: list[Cells]) -> Cells:
    contact, colleague = dice.sample(contacts, 2)
    record, address = contact["Record ID"], contact["Email"].strip()
    # By id, by ids, by address, by both: whatever the export's owner had filled in.
    records, address = dice.choice(
        (
            (record, ""),
            (f"{record};{colleague['Record ID']}", ""),
            ("", address),
            (record, address),
        )
    )
    amount = dice.randrange(50_000, 9_000_001)
    day = _FIRST_DAY + timedelta(days=dice.randrange(180))
    return {
        "Record ID": str(_FIRST_DEAL + number),
        "Deal Name": f"{contact['Company Name']}, {dice.choice(_GOODS)} {number + 1}",
        "Amount": dice.choice((f"{amount / 100}", f"{amount // 100}.0", f"${amount / 100:,.2f}")),
        "Currency": "USD",
        "Pipeline": PIPELINE,
        "Deal Stage": _stage_label(dice, STAGES[0]),
        "Close Date": dice.choice((f"{day}", f"{day} 17:30")),
        "Deal owner": contact["Contact owner"],
        "Associated Company (Primary)": contact["Company Name"],
        "Associated Contact": f"{contact['First Name']} {contact['Last Name']}",
        "Associated Contact IDs": records,
        "Contact Email": address,
        "Deal Type": dice.choice(("New Business", "Existing Business")),
    }


def _stage_label(dice: Random, stage: str) -> str:
    return dice.choices((stage, f"{stage} ({PIPELINE})"), (4, 1))[0]


def _minute(dice: Random) -> str:
    day = _FIRST_DAY - timedelta(days=dice.randrange(1, 400))
    return f"{day} {dice.randrange(24):02}:{dice.randrange(60):02}"


def _other_case(address: str) -> str:
    return address.lower() if address.isupper() else address.upper()


def _sample(dice: Random, good: list[_Row], bad: Iterable[_Row]) -> Sample:
    """Strew the bad rows among the good ones and write all as an export does."""
    rows = list(good)
    for row in bad:
        rows.insert(dice.randrange(_ORIGINALS, len(rows) + 1), row)
    titles = list(good[0].cells)
    text = _line(titles)
    faults: list[tuple[int, str]] = []
    for row in rows:
        if row.fault:
            # Cells hold newlines, so lines are counted in what is written.
            faults.append((text.count("\n") + 1, row.fault))
        text += _line(list(row.cells.values())[: -3 if row.cut else None])
    unknown = (_UNKNOWN_STAGE, _UNKNOWN_CONTACT)
    return Sample(
        data=text.encode("utf-8-sig"),
        good=len(good),
        refused=tuple((line, fault) for line, fault in faults if fault not in unknown),
        unknown_stage=tuple(line for line, fault in faults if fault == _UNKNOWN_STAGE),
        unknown_contact=tuple(line for line, fault in faults if fault == _UNKNOWN_CONTACT),
    )


def _line(cells: Iterable[str]) -> str:
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerow(cells)
    return written.getvalue()
