"""What the demo's files claim to hold is what reading them finds."""

import csv
import io
from collections import Counter

import pytest

from cli.demo.sample import (
    GOOD_CONTACTS,
    GOOD_DEALS,
    OWNERS,
    PIPELINE,
    STAGES,
    Sample,
    contacts_csv,
    deals_csv,
)
from domain.imports import ContactSheet, DealSheet, read_contacts, read_deals

SEEDS = range(25)


def refusals(sheet: ContactSheet | DealSheet) -> tuple[tuple[int, str], ...]:
    return tuple((refusal.line, refusal.code) for refusal in sheet.refused)


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_the_contacts_finds_what_the_generator_knows(seed: int) -> None:
    sample = contacts_csv(seed)
    sheet = read_contacts(sample.data)
    assert len(sheet.rows) == sample.good == GOOD_CONTACTS
    assert refusals(sheet) == sample.refused
    assert Counter(code for _, code in sample.refused) == {
        "duplicate_in_file": 4,
        "bad_email": 4,
        "missing_value": 2,
        "ragged_row": 2,
    }
    assert {row.owner_name for row in sheet.rows} == set(OWNERS)
    assert sheet.unmapped == ("Lifecycle Stage", "Marketing contact status", "Create Date")


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_the_deals_finds_what_the_generator_knows(seed: int) -> None:
    sample = deals_csv(seed)
    sheet = read_deals(sample.data)
    left_to_the_store = {*sample.unknown_stage, *sample.unknown_contact}
    good = [row for row in sheet.rows if row.line not in left_to_the_store]
    assert len(good) == sample.good == GOOD_DEALS
    assert len(sheet.rows) == GOOD_DEALS + len(left_to_the_store)
    assert refusals(sheet) == sample.refused
    assert {code for _, code in sample.refused} == {
        "negative_amount",
        "bad_amount",
        "bad_date",
        "missing_value",
        "duplicate_in_file",
        "ragged_row",
    }
    assert all(50_000 <= (row.amount_minor or 0) <= 9_000_000 for row in good)
    assert {row.currency for row in good} == {"USD"}


@pytest.mark.parametrize("seed", SEEDS)
def test_good_deals_name_known_contacts_and_stages_and_the_others_do_not(seed: int) -> None:
    contacts = read_contacts(contacts_csv(seed).data).rows
    addresses = {contact.email for contact in contacts}
    records = {contact.external_id for contact in contacts}
    sample = deals_csv(seed)
    for deal in read_deals(sample.data).rows:
        found = records.intersection(deal.contact_external_ids) or deal.contact_email in addresses
        assert bool(found) == (deal.line not in sample.unknown_contact)
        assert (deal.stage_label in STAGES) == (deal.line not in sample.unknown_stage)
        assert deal.pipeline_label == PIPELINE


@pytest.mark.parametrize("seed", SEEDS)
def test_every_stage_has_deals_and_most_are_in_the_first_two(seed: int) -> None:
    stages = Counter(row.stage_label for row in read_deals(deals_csv(seed).data).rows)
    assert set(STAGES) <= set(stages)
    assert stages["Lead"] + stages["Qualified"] > GOOD_DEALS / 2


@pytest.mark.parametrize("sample", [contacts_csv(1), deals_csv(1)], ids=["contacts", "deals"])
def test_a_sample_has_the_shape_of_an_export_and_its_mess(sample: Sample) -> None:
    assert sample.data.startswith(b'\xef\xbb\xbf"Record ID","')
    text = sample.data.decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    quoted = io.StringIO(newline="")
    csv.writer(quoted, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    assert quoted.getvalue() == text
    cells = [cell for row in rows[1:] for cell in row]
    for mess in (",", "\n", '"', "é", "王"):
        assert any(mess in cell for cell in cells), mess


def test_a_seed_gives_the_same_files_and_another_seed_gives_others() -> None:
    assert contacts_csv(7) == contacts_csv(7)
    assert deals_csv(7) == deals_csv(7)
    assert contacts_csv(7).data != contacts_csv(8).data


def test_every_address_is_in_a_domain_nobody_can_own() -> None:
    rows = read_contacts(contacts_csv(1).data).rows
    domains = {row.email.partition("@")[2] for row in rows}
    assert domains == {"example.com", "example.org", "example.net"}
