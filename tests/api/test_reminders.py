import pytest
from uuid_utils.compat import uuid7

from store import notifications


@pytest.fixture
async def reminder(rep):
    fields = {
        "title": "Call Ada",
        "dueAt": "2030-01-01T09:00:00+01:00",
        "escalateAfter": {"amount": 1, "unit": "business_days"},
    }
    return (await rep.post("/reminders", json=fields)).json()["reminder"]


async def test_a_reminder_is_its_makers_and_asks_to_be_waited_for(reminder, base):
    assert (reminder["status"], reminder["dueAt"]) == ("scheduled", "2030-01-01T08:00:00Z")
    assert (reminder["ownerId"], reminder["escalateAfter"]) == (str(base.rep), {"amount": 1, "unit": "business_days"})
    assert await base.rows("SELECT kind, target_id::text FROM wakes") == [
        {"kind": "reminder", "target_id": reminder["id"]}
    ]


async def test_a_reminder_is_snoozed_done_and_then_closed_for_good(rep, reminder, base):
    path = f"/reminders/{reminder['id']}"
    snoozed = (await rep.post(f"{path}/snooze", json={"until": "2031-01-01T00:00:00Z"})).json()["reminder"]
    assert (snoozed["dueAt"], snoozed["snoozes"]) == ("2031-01-01T00:00:00Z", 1)
    assert await base.value("SELECT count(*) FROM wakes") == 2
    done = (await rep.post(f"{path}/done")).json()["reminder"]
    assert (done["status"], done["dueAt"], done["closedAt"] is None) == ("done", None, False)
    for verb, body in (("snooze", {"until": "2031-01-01T00:00:00Z"}), ("done", None), ("cancel", None)):
        refused = await rep.post(f"{path}/{verb}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "ILLEGAL_TRANSITION")


async def test_a_reminder_is_cancelled(rep, reminder):
    cancelled = (await rep.post(f"/reminders/{reminder['id']}/cancel")).json()["reminder"]
    assert (cancelled["status"], cancelled["dueAt"]) == ("cancelled", None)


async def test_reminders_are_listed_by_status_and_owner(rep, reminder, base):
    other = {"title": "For Mona", "dueAt": "2030-01-01T00:00:00Z", "ownerId": str(base.manager)}
    mona = (await rep.post("/reminders", json=other)).json()["reminder"]
    await rep.post(f"/reminders/{reminder['id']}/done")

    async def found(**query):
        return [one["id"] for one in (await rep.get("/reminders", params=query)).json()["reminders"]]

    assert await found() == [mona["id"], reminder["id"]]
    assert await found(status="done") == [reminder["id"]]
    assert await found(owner=base.manager) == [mona["id"]]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"dueAt": "2030-01-01T00:00:00"}, "/dueAt"),
        ({"dueAt": "soon"}, "/dueAt"),
        ({"escalateAfter": {"amount": -1, "unit": "days"}}, "/escalateAfter/amount"),
        ({"escalateAfter": {"amount": 1, "unit": "fortnights"}}, "/escalateAfter/unit"),
        ({"title": ""}, "/title"),
    ],
)
async def test_a_reminder_that_makes_no_sense_is_refused_by_field(rep, fields, pointer):
    answer = await rep.post("/reminders", json={"title": "T", "dueAt": "2030-01-01T00:00:00Z", **fields})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_notifications_are_ones_own(rep, admin, base):
    async with base.transaction() as tx:
        for user in (base.rep, base.rep, base.admin):
            await notifications.notify(tx, uuid7(), {"user_id": user, "reason": "rule", "title": "Look"})
    mine = (await rep.get("/notifications")).json()
    assert (mine["total"], mine["unread"]) == (2, 2)
    one = mine["notifications"][0]["id"]
    read = (await rep.post(f"/notifications/{one}/read")).json()["notification"]
    assert read["readAt"] is not None
    assert (await rep.post(f"/notifications/{one}/read")).json()["notification"] == read
    assert (await rep.get("/notifications")).json()["unread"] == 1
    assert (await admin.post(f"/notifications/{one}/read")).status_code == 404
