import asyncio

import pytest

from cli.demo import sample

SEED = 7


async def load(client, path, csv, **query):
    content = csv if isinstance(csv, bytes) else csv.encode()
    return await client.post(f"/imports/{path}", content=content, params=query, headers={"Content-Type": "text/csv"})


def told(report, what="errors"):
    return [(one["row"], one["column"], one["code"]) for one in report[what]]


@pytest.fixture
async def owners(office):
    for number, name in enumerate(sample.OWNERS):
        made = await office.admin.post("/users", json={"email": f"r{number}@x.com", "name": name, "role": "rep"})
        assert made.status_code == 201


async def test_a_messy_export_is_imported_whole_and_every_bad_row_told(office, owners, base):
    contacts, deals = sample.contacts_csv(SEED), sample.deals_csv(SEED)
    report = (await load(office.manager, "contacts", contacts.data)).json()
    assert (report["imported"], report["skipped"]) == (sample.GOOD_CONTACTS, len(contacts.refused))
    assert [(error["row"], error["code"]) for error in report["errors"]] == list(contacts.refused)
    assert report["warnings"] == []
    assert report["unmapped"] == ["Lifecycle Stage", "Marketing contact status", "Create Date"]
    assert await base.value("SELECT count(*) FROM contacts WHERE owner_id IS NOT NULL") == sample.GOOD_CONTACTS

    report = (await load(office.manager, "deals", deals.data)).json()
    assert report["imported"] == sample.GOOD_DEALS
    refused = {
        *deals.refused,
        *((line, "unknown_stage") for line in deals.unknown_stage),
        *((line, "unknown_contact") for line in deals.unknown_contact),
    }
    assert {(error["row"], error["code"]) for error in report["errors"]} == refused
    assert await base.value("SELECT count(*) FROM deals WHERE contact_id IS NOT NULL") == sample.GOOD_DEALS
    assert await base.value("SELECT count(DISTINCT stage) FROM deals") == len(sample.STAGES)
    numbers = await base.rows("SELECT DISTINCT revision FROM contacts UNION SELECT number FROM events")
    assert [row["revision"] for row in numbers] == [1]


async def test_an_import_starts_no_rules_unless_asked(office, base):
    await load(office.manager, "contacts", "Email\na@x.com\n")
    assert (await base.value("SELECT count(*) FROM events"), await base.value("SELECT count(*) FROM outbox")) == (1, 0)
    await load(office.manager, "contacts", "Email\nb@x.com\n", fireAutomations="true")
    assert (await base.value("SELECT count(*) FROM events"), await base.value("SELECT count(*) FROM outbox")) == (2, 1)


async def test_rows_whose_contact_exists_are_refused_and_name_it(office):
    known = (await office.rep.post("/contacts", json={"email": "a@x.com", "externalId": "1"})).json()["contact"]["id"]
    csv = "Record ID,Email\n5,A@X.com\n1,other@x.com\n6,new@x.com\n"
    report = (await load(office.manager, "contacts", csv)).json()
    assert (report["imported"], report["skipped"]) == (1, 2)
    assert told(report) == [(2, "email", "duplicate_email"), (3, "externalId", "duplicate")]
    assert {error["existing"] for error in report["errors"]} == {known}


async def test_a_row_of_a_deleted_contact_is_a_new_one(office):
    known = (await office.rep.post("/contacts", json={"email": "a@x.com", "externalId": "1"})).json()["contact"]["id"]
    assert (await office.rep.delete(f"/contacts/{known}")).status_code == 204
    report = (await load(office.manager, "contacts", "Record ID,Email\n1,a@x.com\n")).json()
    assert (report["imported"], report["skipped"]) == (1, 0)
    (made,) = (await office.rep.get("/contacts")).json()["contacts"]
    assert made["id"] != known


async def test_the_same_file_at_once_creates_each_contact_once(office, base, owners):
    file = sample.contacts_csv(SEED)
    answers = await asyncio.gather(*(load(office.manager, "contacts", file.data) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["imported"] for answer in answers) == sample.GOOD_CONTACTS
    for answer in answers:
        report = answer.json()
        rows = {error["row"] for error in report["errors"]}
        assert report["imported"] + len(rows) == sample.GOOD_CONTACTS + len(file.refused)
    assert await base.value("SELECT count(*) FROM contacts") == sample.GOOD_CONTACTS
    assert await base.value("SELECT max(n) FROM (SELECT count(*) n FROM companies GROUP BY lower(name)) AS c") == 1


async def test_the_same_deals_at_once_are_created_once(office, base):
    csv = "Record ID,Deal Name,Deal Stage\n" + "".join(f"{n},Deal {n},Lead\n" for n in range(50))
    reverse = "Record ID,Deal Name,Deal Stage\n" + "".join(f"{n},Deal {n},Lead\n" for n in reversed(range(50)))
    answers = await asyncio.gather(*(load(office.manager, "deals", file) for file in (csv, reverse) * 3))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json()["imported"] for answer in answers) == 50
    assert await base.value("SELECT count(*) FROM deals") == 50


async def test_an_import_sent_again_under_its_key_is_told_the_same(office, base):
    headers = {"Content-Type": "text/csv", "Idempotency-Key": "k1"}
    first = await office.manager.post("/imports/contacts", content=b"Email\na@x.com\n", headers=headers)
    again = await office.manager.post("/imports/contacts", content=b"Email\na@x.com\n", headers=headers)
    assert (again.json(), again.headers["idempotent-replay"]) == (first.json(), "true")
    loud = {"fireAutomations": "true"}
    other = await office.manager.post("/imports/contacts", params=loud, content=b"Email\na@x.com\n", headers=headers)
    assert other.json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_every_row_is_held_to_the_rules_of_a_post(office):
    csv = (
        "Email,First Name,Phone Number,Company Name\n"
        f"a@x.com,{'x' * 256},1,C\n"
        f"b@x.com,B,{'1' * 51},C\n"
        f"c@x.com,C,1,{'c' * 256}\n"
        "d@x.com,D,1,C\n"
    )
    report = (await load(office.manager, "contacts", csv)).json()
    assert report["imported"] == 1
    assert told(report) == [
        (2, "firstName", "string_too_long"),
        (3, "phone", "string_too_long"),
        (4, "companyName", "string_too_long"),
    ]


async def test_owners_pipelines_and_stages_are_found_in_any_case_and_the_unknown_told(office, base):
    csv = (
        "Deal Name,Pipeline,Deal Stage,Deal owner,Amount,Currency\n"
        "One,sales,PROPOSAL,mona,10.50,EUR\n"
        "Two,,closed_won,MONA@example.com,,\n"
        "Three,Elsewhere,lead,Nobody,1,JPY\n"
        "Four,Sales,Verbal yes,,1,\n"
        "Five,,,,1,\n"
    )
    report = (await load(office.manager, "deals", csv, currency="CHF")).json()
    assert (report["imported"], told(report)) == (4, [(5, "stage", "unknown_stage")])
    assert told(report, "warnings") == [(4, "pipeline", "unknown_pipeline"), (4, "owner", "unknown_owner")]
    rows = await base.rows(
        "SELECT title, stage, probability, value_cents, currency, owner_id, outcome FROM deals ORDER BY title"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("Five", "lead", 10, 100, "CHF", base.manager, None),
        ("One", "proposal", 60, 1050, "EUR", base.manager, None),
        ("Three", "lead", 10, 1, "JPY", base.manager, None),
        ("Two", "closed_won", 100, 0, "CHF", base.manager, "won"),
    ]


async def test_a_deal_that_was_won_long_ago_was_won_then(office, base):
    await load(office.manager, "deals", "Deal Name,Deal Stage,Close Date\nOld,Closed won,2019-03-04\n")
    deal = (await base.rows("SELECT won_at::text, actual_close_date::text, lost_at FROM deals"))[0]
    assert tuple(deal.values()) == ("2019-03-04 00:00:00+00", "2019-03-04", None)


@pytest.mark.parametrize(
    ("csv", "code"),
    [
        (b"", "empty_file"),
        ("Email\njosé@x.com\n".encode("cp1252"), "encoding_unknown"),
        (b"Colour\nred\n", "column_missing"),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_whole(office, csv, code):
    answer = await load(office.manager, "contacts", csv)
    assert (answer.status_code, answer.json()["code"]) == (422, "UNREADABLE_FILE")
    assert answer.json()["errors"][0]["code"] == code


async def test_a_named_encoding_is_taken_and_an_unknown_one_refused(office):
    csv = "Email,First Name\na@x.com,José\n".encode("cp1252")
    assert (await load(office.manager, "contacts", csv, encoding="cp1252")).json()["imported"] == 1
    assert (await office.rep.get("/contacts")).json()["contacts"][0]["firstName"] == "José"
    assert (await load(office.manager, "contacts", csv, encoding="klingon")).status_code == 422


async def test_nothing_to_import_is_no_mistake(office):
    report = (await load(office.manager, "contacts", "Email,Colour\n")).json()
    assert report == {"imported": 0, "skipped": 0, "errors": [], "warnings": [], "unmapped": ["Colour"]}
    report = (await load(office.manager, "deals", "Deal Name\n")).json()
    assert report["imported"] == 0
