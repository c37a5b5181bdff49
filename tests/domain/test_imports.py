"""CSV files of every make become rows, refusals and unmapped columns, and nothing else."""

import csv
import io
from datetime import date
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.csv_dialect import ENCODINGS, LONGEST_CELL
from domain.csv_titles import CONTACT_TITLES, DEAL_TITLES, Titles, fold
from domain.imports import (
    ContactRow,
    ContactSheet,
    DealRow,
    DealSheet,
    read_contacts,
    read_deals,
)
from domain.words import LeadSource, LeadStatus

DELIMITERS = (",", ";", "\t", "|")


def refusals(sheet: ContactSheet | DealSheet) -> list[tuple[int, str]]:
    return [(refusal.line, refusal.code) for refusal in sheet.refused]


def emails(sheet: ContactSheet) -> list[str]:
    return [row.email for row in sheet.rows]


def contact(title: str, cell: str) -> ContactRow:
    """Read one contact whose second column is given."""
    text = io.StringIO()
    csv.writer(text).writerows([["Email", title], ["ann@example.com", cell]])
    (row,) = read_contacts(text.getvalue().encode()).rows
    return row


def deals(*columns: tuple[str, ...], default: str | None = None) -> DealSheet:
    """Read deals from columns, each a title and its cells; a name is added to every row."""
    named = (("Deal Name", *(f"Deal {number}" for number in range(1, len(columns[0])))), *columns)
    text = io.StringIO()
    csv.writer(text).writerows(zip(*named, strict=True))
    return read_deals(text.getvalue().encode(), default_currency=default)


def amounts(sheet: DealSheet) -> list[tuple[int | None, str | None]]:
    return [(row.amount_minor, row.currency) for row in sheet.rows]


# Files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_or_in_utf_8_is_read_unasked(encoding: str) -> None:
    data = "Email,First Name\nzoe@example.com,Zoë 王\n".encode(encoding)
    (row,) = read_contacts(data).rows
    assert (row.email, row.first_name) == ("zoe@example.com", "Zoë 王")


def test_utf_16_is_read_at_both_ends() -> None:
    data = b"\xfe\xff" + "Email\nzoe@example.com\n".encode("utf-16-be")
    assert emails(read_contacts(data)) == ["zoe@example.com"]


def test_bytes_of_an_unknown_encoding_are_refused_until_the_caller_names_it() -> None:
    data = "Email,First Name\nzoe@example.com,Zoë\n".encode("cp1252")
    refusal = read_contacts(data).file_refusal
    assert refusal is not None
    assert refusal.code == "encoding_unknown"
    assert "cp1252" in refusal.message
    (row,) = read_contacts(data, "CP1252").rows
    assert row.first_name == "Zoë"


def test_a_byte_order_mark_is_believed_over_the_named_encoding() -> None:
    data = "Email,First Name\nzoe@example.com,Zoë\n".encode("utf-8-sig")
    (row,) = read_contacts(data, "cp1252").rows
    assert row.first_name == "Zoë"


@pytest.mark.parametrize("encoding", ["hex", "unicode_escape", "no\0name", "", "klingon"])
def test_an_encoding_that_is_not_offered_is_refused(encoding: str) -> None:
    refusal = read_contacts(b"Email\nann@example.com\n", encoding).file_refusal
    assert refusal is not None
    assert refusal.code == "encoding_unknown"


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n\t\n"])
def test_a_file_without_any_row_is_refused(data: bytes) -> None:
    refusal = read_contacts(data).file_refusal
    assert refusal is not None
    assert refusal.code == "empty_file"


def test_a_contacts_file_without_addresses_is_refused_naming_the_column() -> None:
    sheet = read_contacts(b"First Name,Last Name\nAnn,Lee\n")
    assert sheet.file_refusal is not None
    assert (sheet.file_refusal.code, sheet.file_refusal.column) == ("column_missing", "email")
    assert sheet.rows == ()


def test_a_deals_file_without_names_is_refused_naming_the_column() -> None:
    refusal = read_deals(b"Amount;Deal Stage\n5;Lead\n").file_refusal
    assert refusal is not None
    assert (refusal.code, refusal.column) == ("column_missing", "name")


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_the_one_the_header_makes_sense_with(delimiter: str) -> None:
    # Every other delimiter occurs more often, but in the cells.
    others = "".join(other for other in DELIMITERS if other != delimiter) * 3
    lines = [["Email", "Job Title", "City"], ["ann@example.com", f'"{others}x"', "Oslo"]]
    (row,) = read_contacts("\n".join(map(delimiter.join, lines)).encode()).rows
    assert (row.email, row.city) == ("ann@example.com", "Oslo")


def test_a_file_of_one_column_needs_no_delimiter() -> None:
    assert emails(read_contacts(b"E-mail\nann@example.com\n\nbob@example.com")) == [
        "ann@example.com",
        "bob@example.com",
    ]


def test_titles_above_the_header_are_skipped_and_lines_stay_physical() -> None:
    data = b'sep=;\n"Contacts\nof 2025"\n\nEmail;City\nann@example.com;Oslo\nbob;Rome\n'
    sheet = read_contacts(data)
    assert [row.line for row in sheet.rows] == [6]
    assert refusals(sheet) == [(7, "bad_email")]


# Rows


def test_lines_are_counted_through_quoted_newlines_and_blank_lines() -> None:
    data = (
        b'Email,Company Name\r\nann@example.com,"Lee,\r\nSons\nand others"\r\n\r\n , \r\nbob@example.com,B\r\nbad,C\r\n'
    )
    sheet = read_contacts(data)
    assert [(row.line, row.company_name) for row in sheet.rows] == [
        (2, "Lee, Sons and others"),
        (7, "B"),
    ]
    assert refusals(sheet) == [(8, "bad_email")]


def test_a_quoted_cell_may_have_spaces_before_it() -> None:
    (row,) = read_contacts(b'Email, City\nann@example.com, "Oslo, Norway"\n').rows
    assert row.city == "Oslo, Norway"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_line_ending_ends_a_line(newline: str) -> None:
    data = newline.join(["Email", "ann@example.com", "bob@example.com"]).encode()
    assert [row.line for row in read_contacts(data).rows] == [2, 3]


@pytest.mark.parametrize(
    ("row", "code", "column"),
    [
        ("ann@example.com", "ragged_row", None),
        ("ann@example.com,Oslo,more", "ragged_row", None),
        (",Oslo", "missing_value", "E-Mail *"),
        ("a@b,Oslo", "bad_email", "E-Mail *"),
        ("ann@example.com,Os\0lo", "nul_character", None),
        ("ann@example.com," + "x" * (LONGEST_CELL + 1), "cell_too_long", None),
        ("ann@example.com," + "x" * 200_000, "cell_too_long", None),
        ('ann@example.com,"Os"lo', "bad_quoting", None),
        ('"ann@example.com,Oslo', "bad_quoting", None),
    ],
)
def test_a_row_that_cannot_be_taken_is_refused_alone(row: str, code: str, column: str | None) -> None:
    data = f"E-Mail *,City\nfirst@example.com,A\n{row}\nlast@example.com,Z\n".encode()
    sheet = read_contacts(data)
    assert [(one.line, one.code, one.column) for one in sheet.refused] == [(3, code, column)]
    assert emails(sheet) == ["first@example.com", "last@example.com"]


def test_a_cell_as_long_as_allowed_is_taken() -> None:
    assert contact("City", "x" * LONGEST_CELL).city == "x" * LONGEST_CELL


def test_stray_quotes_in_every_line_cost_no_more_than_their_lines() -> None:
    # Each row leaves a quotation open to the end of the file, and so would each re-reading.
    data = b"Email,City\nann@example.com,Oslo\n" + b'a","b\n' * 100_000
    sheet = read_contacts(data)
    assert emails(sheet) == ["ann@example.com"]
    assert {refusal.code for refusal in sheet.refused} == {"bad_quoting"}
    assert sheet.refused[-1].message.endswith("to 100002 were left out.")


def test_an_address_given_twice_is_taken_once_whatever_its_case() -> None:
    data = b"Email\nAnn@Example.com\nbob@example.com\n ann@EXAMPLE.com \n"
    sheet = read_contacts(data)
    assert emails(sheet) == ["ann@example.com", "bob@example.com"]
    assert refusals(sheet) == [(4, "duplicate_in_file")]
    assert sheet.refused[0].message == "Line 2 has the same."


def test_an_external_id_given_twice_is_taken_once() -> None:
    data = b"Record ID,Email\n7,ann@example.com\n7,bob@example.com\n,cy@example.com\n,di@example.com"
    sheet = read_contacts(data)
    assert emails(sheet) == ["ann@example.com", "cy@example.com", "di@example.com"]
    assert [(one.line, one.column, one.code) for one in sheet.refused] == [(3, "Record ID", "duplicate_in_file")]
    again = read_deals(b"Record ID,Deal Name\n7,A\n7,B\n")
    assert refusals(again) == [(3, "duplicate_in_file")]


def test_a_refused_row_does_not_make_the_next_one_a_duplicate() -> None:
    data = b"Email,Record ID\nann@example.com,7\nbob@example.com,7\nbob@example.com,8\n"
    sheet = read_contacts(data)
    assert refusals(sheet) == [(3, "duplicate_in_file")]
    assert [row.line for row in sheet.rows] == [2, 4]


# Columns


def test_a_hubspot_contact_is_read_whole() -> None:
    header = (
        "Record ID,First Name,Last Name,Email,Phone Number,Job Title,Company Name,Contact owner,"
        "Lead Status,Original Traffic Source,City,Country/Region,Lifecycle Stage,"
        "Unsubscribed from all email"
    )
    cells = (
        "101,Zoë,Lee,Zoe@Example.com,+1 415 555 0100,CFO,Acme,Olga Owner,Open deal,Organic Search,Oslo,Norway,Lead,No"
    )
    sheet = read_contacts(f"{header}\n{cells}\n".encode())
    assert sheet.rows == (
        ContactRow(
            line=2,
            external_id="101",
            first_name="Zoë",
            last_name="Lee",
            email="zoe@example.com",
            phone="+1 415 555 0100",
            job_title="CFO",
            company_name="Acme",
            owner_name="Olga Owner",
            lead_status=LeadStatus.QUALIFIED,
            lead_status_label="Open deal",
            lead_source=LeadSource.ORGANIC,
            lead_source_label="Organic Search",
            city="Oslo",
            country="Norway",
        ),
    )
    assert sheet.unmapped == ("Lifecycle Stage", "Unsubscribed from all email")


def test_a_hubspot_deal_is_read_whole() -> None:
    header = (
        "Record ID,Deal Name,Amount,Currency,Pipeline,Deal Stage,Close Date,Deal owner,"
        "Associated Company (Primary),Associated Contact IDs,Contact Email,Deal Type"
    )
    cells = (
        "9,Big one,117.0,usd,Sales,Proposal (Sales),2026-03-04 10:30,Olga Owner,"
        "Acme,101; 102;,Zoe@Example.com,New Business"
    )
    sheet = read_deals(f"{header}\n{cells}\n".encode())
    assert sheet.rows == (
        DealRow(
            line=2,
            external_id="9",
            name="Big one",
            amount_minor=11_700,
            currency="USD",
            pipeline_label="Sales",
            stage_label="Proposal",
            contact_email="zoe@example.com",
            contact_external_ids=("101", "102"),
            company_name="Acme",
            owner_name="Olga Owner",
            close_date=date(2026, 3, 4),
        ),
    )
    assert sheet.unmapped == ("Deal Type",)


def test_a_file_of_names_alone_leaves_the_rest_empty() -> None:
    (deal,) = read_deals(b"name\nBig one\n").rows
    assert (deal.amount_minor, deal.currency, deal.stage_label) == (None, None, None)
    assert (deal.contact_email, deal.contact_external_ids, deal.close_date) == (None, (), None)


@pytest.mark.parametrize(
    "title", ["First Name", "first_name", "FIRST-NAME *", "FirstName", "\uff26irst  name", "Nombre"]
)
def test_titles_are_known_in_every_spelling(title: str) -> None:
    assert contact(title, "Zoë").first_name == "Zoë"


def test_a_field_takes_its_best_column_and_the_others_are_reported() -> None:
    data = b"Work email,Email,EMAIL,,Shoe size\nw@example.com,ann@example.com,b@example.com,x,38\n"
    sheet = read_contacts(data)
    assert emails(sheet) == ["ann@example.com"]
    assert sheet.unmapped == ("Work email", "EMAIL", "(column 4)", "Shoe size")


@pytest.mark.parametrize("titles", [CONTACT_TITLES, DEAL_TITLES], ids=["contacts", "deals"])
def test_no_title_belongs_to_two_fields(titles: Titles) -> None:
    folded = [{fold(name) for name in names} for names in titles.values()]
    assert len(set().union(*folded)) == sum(map(len, folded))


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("Ludwig van Beethoven", "Ludwig", "van Beethoven"),
        ("Cher", "Cher", None),
        ("", None, None),
    ],
)
def test_a_name_in_one_column_is_split_behind_its_first_word(name: str, first: str | None, last: str | None) -> None:
    row = contact("Name", name)
    assert (row.first_name, row.last_name) == (first, last)


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("New", LeadStatus.NEW),
        ("Open", LeadStatus.NEW),
        ("Attempted to Contact", LeadStatus.CONTACTED),
        ("ATTEMPTED_TO_CONTACT", LeadStatus.CONTACTED),
        ("Connected", LeadStatus.CONTACTED),
        ("In Progress", LeadStatus.CONTACTED),
        ("Open Deal", LeadStatus.QUALIFIED),
        ("Unqualified", LeadStatus.UNQUALIFIED),
        ("Bad Timing", LeadStatus.UNQUALIFIED),
        ("Waiting for Godot", None),
        ("", None),
    ],
)
def test_a_lead_status_is_read_and_its_label_kept(label: str, status: LeadStatus | None) -> None:
    row = contact("Lead Status", label)
    assert (row.lead_status, row.lead_status_label) == (status, label or None)


@pytest.mark.parametrize(
    ("label", "source"),
    [
        ("Organic Search", LeadSource.ORGANIC),
        ("ORGANIC_SOCIAL", LeadSource.ORGANIC),
        ("Paid Search", LeadSource.PAID),
        ("Referrals", LeadSource.REFERRAL),
        ("Partner", LeadSource.PARTNER),
        ("Offline Sources", LeadSource.IMPORT),
        ("Direct Traffic", LeadSource.IMPORT),
        ("", None),
    ],
)
def test_a_lead_source_is_read_and_its_label_kept(label: str, source: LeadSource | None) -> None:
    row = contact("Original Traffic Source", label)
    assert (row.lead_source, row.lead_source_label) == (source, label or None)


# Values


@pytest.mark.parametrize(
    ("written", "minor", "currency"),
    [
        ("0", 0, None),
        ("117.0", 11_700, None),
        ("1234.5", 123_450, None),
        ("1,234.56", 123_456, None),
        ("1.234,56", 123_456, None),
        ("1 234,56", 123_456, None),
        ("1\u00a0234\u202f567,8", 123_456_780, None),
        ("1'234.50", 123_450, None),
        ("1\u2019234.50", 123_450, None),
        ("1,23,456.78", 12_345_678, None),
        ("12,345,678", 1_234_567_800, None),
        ("1.234.567", 123_456_700, None),
        ("1,234", 123_400, None),
        ("1.234", 123_400, None),
        ("0.125", 12, None),
        ("0.135", 14, None),
        (",5", 50, None),
        ("$1,234.50", 123_450, None),
        ("$ 90", 9_000, None),
        ("€1.234,50", 123_450, "EUR"),
        ("1 234,50 €", 123_450, "EUR"),
        ("USD 90", 9_000, "USD"),
        ("90 usd", 9_000, "USD"),
        ("JPY 1,500", 1_500, "JPY"),
        ("KWD 1.5", 1_500, "KWD"),
        ("90071992547409.91", 2**53 - 1, None),
    ],
)
def test_an_amount_becomes_minor_units_of_its_currency(written: str, minor: int, currency: str | None) -> None:
    assert amounts(deals(("Amount", written))) == [(minor, currency)]


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("-5", "negative_amount"),
        ("$ -5", "negative_amount"),
        ("-$5", "negative_amount"),
        ("\N{MINUS SIGN}5.00", "negative_amount"),
        ("(1,234.50)", "negative_amount"),
        ("lots", "bad_amount"),
        ("1,2,3", "bad_amount"),
        ("1.5E6", "bad_amount"),
        ("12..5", "bad_amount"),
        ("CA$5", "bad_amount"),
        ("NaN", "bad_amount"),
        ("\u0967\u0968", "bad_amount"),
        ("9" * 39, "bad_amount"),
        ("9" * 200, "bad_amount"),
        ("90071992547409.92", "bad_amount"),
        ("£5 USD", "bad_currency"),
        ("KWD 1.234", "ambiguous_amount"),
    ],
)
def test_what_is_no_amount_is_refused(written: str, code: str) -> None:
    assert refusals(deals(("Amount", written))) == [(2, code)]


@pytest.mark.parametrize(
    ("evidence", "written", "currency", "minor"),
    [
        ("7.50", "1,234", "USD", 123_400),
        ("7,50", "1.234", "USD", 123_400),
        ("1.234.567", "1.234", "USD", 123_400),
        ("7.50", "1.234", "KWD", 1_234),
        ("7.50", "1,234", "KWD", 1_234_000),
        ("7.50", "1.234", "USD", None),
        ("7,50", "1,234", "USD", None),
        ("7", "1,234", "USD", 123_400),
        ("lots", "1,234", "USD", 123_400),
    ],
)
def test_an_ambiguous_amount_is_read_as_its_column_writes_amounts(
    evidence: str, written: str, currency: str, minor: int | None
) -> None:
    sheet = deals(("Amount", evidence, written), ("Currency", "USD", currency))
    if minor is None:
        assert refusals(sheet) == [(3, "ambiguous_amount")]
    else:
        assert amounts(sheet)[-1] == (minor, currency)


def test_an_ambiguous_amount_in_a_column_that_writes_both_ways_is_refused() -> None:
    sheet = deals(("Amount", "1,234.50", "1.234,50", "1,234", "55"))
    assert refusals(sheet) == [(4, "ambiguous_amount")]
    assert [minor for minor, _ in amounts(sheet)] == [123_450, 123_450, 5_500]


@pytest.mark.parametrize(
    ("amount", "currency", "default", "read"),
    [
        ("5", "", None, (500, None)),
        ("5", "", "JPY", (5, "JPY")),
        ("5", "EUR", "JPY", (500, "EUR")),
        ("€5", "", "JPY", (500, "EUR")),
        ("€5", "eur", None, (500, "EUR")),
        ("", "EUR", None, (None, "EUR")),
        ("", "", "JPY", (None, None)),
    ],
)
def test_the_currency_is_the_rows_then_the_cells_then_the_callers(
    amount: str, currency: str, default: str | None, read: tuple[int | None, str | None]
) -> None:
    sheet = deals(("Amount", amount), ("Currency", currency), default=default)
    assert amounts(sheet) == [read]


@pytest.mark.parametrize(("amount", "currency"), [("€5", "USD"), ("5", "Euro"), ("5", "ÄÖÜ")])
def test_a_currency_that_is_none_or_contradicted_is_refused(amount: str, currency: str) -> None:
    assert refusals(deals(("Amount", amount), ("Currency", currency))) == [(2, "bad_currency")]


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-04",
        "2026-03-04 23:59",
        "2026-03-04T23:59:59",
        "2026-03-04T23:59:59.123Z",
        "2026-03-04T00:00:00+14:00",
    ],
)
def test_a_day_is_the_day_written(written: str) -> None:
    (row,) = deals(("Close Date", written)).rows
    assert row.close_date == date(2026, 3, 4)


@pytest.mark.parametrize("written", ["03/04/2026", "2026-02-30", "20260304", "2026-W10-3", "soon", "2026-03-04 25:00"])
def test_what_is_no_day_is_refused(written: str) -> None:
    assert refusals(deals(("Close Date", written))) == [(2, "bad_date")]


def test_a_deal_with_a_bad_contact_address_is_refused() -> None:
    assert refusals(deals(("Contact Email", "a@b"))) == [(2, "bad_email")]


# Properties

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.binary(), st.sampled_from([None, *ENCODINGS]))
def test_no_bytes_at_all_make_reading_fail(data: bytes, encoding: str | None) -> None:
    read_contacts(data, encoding)
    read_deals(data, encoding)


@given(
    st.lists(st.text('",;|\t\r\n a1.@é\0', max_size=12), max_size=12),
    st.sampled_from([b"Email,City\n", b"Deal Name;Amount;Close Date\n"]),
)
def test_no_text_below_a_header_makes_reading_fail(pieces: list[str], header: bytes) -> None:
    data = header + "".join(pieces).encode()
    read_contacts(data)
    read_deals(data)


@given(
    st.lists(
        st.sampled_from(
            [
                "",
                "  ",
                " , ",
                '"",""',
                "{n}@example.com,Oslo",
                '"{n}@example.com","Os,lo"',
                "twice@example.com,Rome",
                "bad,Rome",
                "ragged",
                "{n}@example.com,a,b",
                "{n}@example.com,NUL\0",
                'bad,"quo"ting',
            ]
        ),
        max_size=30,
    )
)
def test_every_line_is_a_row_a_refusal_or_blank(shapes: list[str]) -> None:
    lines = [shape.format(n=number) for number, shape in enumerate(shapes)]
    sheet = read_contacts("\n".join(["Email,City", *lines]).encode())
    told = sorted([*(row.line for row in sheet.rows), *(one.line for one in sheet.refused)])
    assert told == [number for number, line in enumerate(lines, 2) if line.strip(' ,"')]


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=20),
    st.sampled_from(DELIMITERS),
    # With any other line ending, the writer's minimal quoting leaves newlines in cells bare.
    st.sampled_from(
        [
            (csv.QUOTE_ALL, "\n"),
            (csv.QUOTE_ALL, "\r\n"),
            (csv.QUOTE_ALL, "\r"),
            (csv.QUOTE_MINIMAL, "\r\n"),
        ]
    ),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_was_written_is_read_back(
    cells: list[tuple[str, str, str]],
    delimiter: str,
    style: tuple[Literal[0, 1], str],
    encoding: str,
) -> None:
    quoting, newline = style
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=quoting)
    writer.writerow(["First Name", "Email", "City", "Job Title"])
    for number, (first_name, city, job_title) in enumerate(cells):
        writer.writerow([first_name, f"user{number}@example.com", city, job_title])
    sheet = read_contacts(text.getvalue().encode(encoding))
    assert sheet.refused == ()
    assert [(row.first_name, row.city, row.job_title) for row in sheet.rows] == [
        tuple(" ".join(cell.split()) or None for cell in row) for row in cells
    ]
