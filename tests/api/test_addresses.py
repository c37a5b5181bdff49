import pytest

from tests.api.mailing import STRANGER, make_contact, make_sequence, post

CARLA = "carla@customer.example.com"


async def test_an_address_is_suppressed_ends_its_enrollments_and_is_released(post_office, office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    made = await post(office.rep, "/addresses/suppress", {"email": " CARLA@customer.example.com "})
    assert (made["suppressed"], made["suppressedAt"] is not None) == ("manual", True)
    assert "email" not in made
    shown = await post_office.show(enrollment)
    assert (shown["status"], shown["exitReason"]) == ("ended", "stopped")
    assert (await post_office.message(message))["status"] == "cancelled"
    other = await make_sequence(office.admin, name="Other")
    post_office.sequence = other
    assert [one["reason"] for one in (await post_office.enroll())["results"]] == ["address_suppressed"]
    refused = await office.rep.post(f"/addresses/{made['id']}/release")
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    released = await post(office.manager, f"/addresses/{made['id']}/release")
    assert (released["id"], released["suppressed"], released["suppressedAt"]) == (made["id"], None, None)
    assert (await post_office.enroll())["enrolled"] == 1
    events = (await office.rep.get("/events", params={"subjectId": made["id"]})).json()["events"]
    assert [event["type"] for event in events] == ["address.released", "address.suppressed"]
    assert CARLA not in str(events)


async def test_suppressing_again_and_releasing_what_is_not_suppressed_change_nothing(office, base):
    first = await post(office.rep, "/addresses/suppress", {"email": CARLA, "why": "complained"})
    again = await post(office.rep, "/addresses/suppress", {"email": CARLA, "why": "manual"})
    assert again == first
    released = [await post(office.manager, f"/addresses/{first['id']}/release") for _ in range(2)]
    assert (released[0], released[0]["suppressed"]) == (released[1], None)
    events = (await office.rep.get("/events", params={"subjectId": first["id"]})).json()["events"]
    assert [event["number"] for event in events] == [2, 1]


async def test_an_address_is_found_by_who_knows_it(office, base):
    made = await post(office.rep, "/addresses/suppress", {"email": CARLA})
    found = await office.readonly.get("/addresses", params={"email": "Carla@Customer.example.com"})
    assert (found.status_code, found.json()["address"]) == (200, made)
    unknown = await office.readonly.get("/addresses", params={"email": "nobody@x.com"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert (await office.readonly.get("/addresses", params={"email": "no address"})).status_code == 422


async def test_one_that_is_not_suppressed_is_found_but_not_listed(post_office, office):
    await post_office.enrolled()
    assert (await office.rep.get("/addresses", params={"email": CARLA})).json()["address"]["suppressed"] is None
    assert (await office.rep.get("/addresses")).json() == {"total": 0, "cursor": None, "addresses": []}


async def test_the_suppressed_are_listed_by_reason(office):
    for number, why in enumerate(("manual", "manual", "bounced")):
        await post(office.rep, "/addresses/suppress", {"email": f"a{number}@x.com", "why": why})
    for filters, total in (({}, 3), ({"suppressed": "manual"}, 2), ({"suppressed": "unsubscribed"}, 0)):
        assert (await office.readonly.get("/addresses", params=filters)).json()["total"] == total


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/email"), ({"email": "a@b"}, "/email"), ({"email": CARLA, "why": "whim"}, "/why")],
)
async def test_what_cannot_be_suppressed_is_refused(office, body, pointer):
    answer = await office.rep.post("/addresses/suppress", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_organizations_know_nothing_of_each_others_addresses(office, other_office):
    made = await post(office.rep, "/addresses/suppress", {"email": CARLA})
    assert (await other_office.admin.post(f"/addresses/{made['id']}/release")).status_code == 404
    assert (await other_office.admin.get("/addresses", params={"email": CARLA})).status_code == 404
    assert (await other_office.admin.post(f"/addresses/{STRANGER}/release")).status_code == 404
    assert (await make_contact(other_office.rep, CARLA)) != made["id"]
