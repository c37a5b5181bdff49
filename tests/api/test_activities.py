from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text


@pytest.fixture
async def deal(rep):
    return (await rep.post("/deals", json={"title": "Northwind"})).json()["deal"]


@pytest.fixture
async def task(rep, deal):
    fields = {"type": "task", "subject": "Call Ada", "dealId": deal["id"], "dueAt": "2030-01-01T00:00:00+01:00"}
    return (await rep.post("/activities", json=fields)).json()["activity"]


async def test_what_happened_is_logged_and_found_by_word_and_record(rep, deal, base):
    note = {"type": "note", "subject": "Lunch", "body": "They liked the PILOT.", "dealId": deal["id"]}
    call = {"type": "call", "subject": "Called", "direction": "outbound", "durationSeconds": 60, "dealId": deal["id"]}
    for fields in (note, call):
        answer = await rep.post("/activities", json=fields)
        assert answer.status_code == 201
        assert answer.json()["activity"]["occurredAt"] is not None

    async def found(**query):
        return [one["subject"] for one in (await rep.get("/activities", params=query)).json()["activities"]]

    assert await found(q="pilot") == ["Lunch"]
    assert await found(q="pilot -liked") == []
    assert await found(type="call", deal=deal["id"]) == ["Called"]
    assert await found(user=base.rep) == ["Called", "Lunch"]
    assert await found(user=base.admin) == []


async def test_an_activity_is_about_something(rep):
    answer = await rep.post("/activities", json={"type": "note", "subject": "Alone"})
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")


async def test_a_kind_of_activity_that_is_not_known_is_named(rep, deal):
    answer = await rep.post("/activities", json={"type": "fax", "subject": "Hm", "dealId": deal["id"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/type")


async def test_only_a_task_is_due_and_has_an_assignee(rep, deal, task):
    note = {"type": "note", "subject": "N", "dealId": deal["id"]}
    refused = await rep.post("/activities", json={**note, "dueAt": "2030-01-01T00:00:00Z"})
    assert (refused.status_code, refused.json()["errors"][0]) == (
        422,
        {"in": "body", "pointer": "/dueAt", "code": "unknown_field", "message": "Extra inputs are not permitted"},
    )
    made = (await rep.post("/activities", json=note)).json()["activity"]
    late = await rep.patch(f"/activities/{made['id']}", json={"dueAt": "2030-01-01T00:00:00Z"})
    assert (late.status_code, late.json()["code"]) == (422, "VALIDATION_ERROR")
    moved = await rep.patch(f"/activities/{task['id']}", json={"dueAt": "2031-01-01T00:00:00Z", "priority": "high"})
    assert (moved.status_code, moved.json()["activity"]["dueAt"]) == (200, "2031-01-01T00:00:00Z")


async def test_a_task_is_its_makers_and_due_in_utc(task, base):
    assert (task["assigneeId"], task["dueAt"], task["completedAt"]) == (str(base.rep), "2029-12-31T23:00:00Z", None)


async def test_completing_a_task_cancels_its_reminders_and_completing_it_again_changes_nothing(rep, task, base):
    reminder = {"title": "Nudge", "dueAt": "2030-01-01T00:00:00Z", "activityId": task["id"]}
    made = (await rep.post("/reminders", json=reminder)).json()["reminder"]
    answer = await rep.post(f"/tasks/{task['id']}/complete")
    done = answer.json()["activity"]
    assert (answer.status_code, done["completedBy"], done["completedAt"] is None) == (200, str(base.rep), False)
    assert (await rep.get(f"/reminders/{made['id']}")).json()["reminder"]["status"] == "cancelled"
    assert (await rep.post(f"/tasks/{task['id']}/complete")).json() == answer.json()
    events = (await rep.get("/events", params={"subjectId": task["id"]})).json()["events"]
    assert [event["type"] for event in events] == ["task.completed", "task.created"]


async def test_what_is_no_task_cannot_be_completed(rep, deal):
    note = {"type": "note", "subject": "N", "dealId": deal["id"]}
    made = (await rep.post("/activities", json=note)).json()["activity"]
    answer = await rep.post(f"/tasks/{made['id']}/complete")
    assert (answer.status_code, answer.json()["code"]) == (409, "ILLEGAL_TRANSITION")


async def test_the_days_tasks_are_the_callers_by_the_organizations_day(rep, office, base, deal):
    now = await base.value("SELECT business_now()")
    midnight = now.astimezone(ZoneInfo("Europe/Berlin")).replace(hour=0, minute=0, second=0, microsecond=0)

    async def make(client, subject, due: datetime | None):
        fields = {"type": "task", "subject": subject, "dealId": deal["id"], "dueAt": due and due.isoformat()}
        assert (await client.post("/activities", json=fields)).status_code == 201

    await make(rep, "first of the day", midnight)
    await make(rep, "last of the day", midnight + timedelta(hours=22, minutes=59))
    await make(rep, "yesterday", midnight - timedelta(minutes=1))
    await make(rep, "next week", midnight + timedelta(days=7))
    await make(rep, "some time", None)
    await make(office.manager, "another's", midnight)

    async def due(which):
        return {task["subject"] for task in (await rep.get("/tasks", params={"due": which})).json()["activities"]}

    assert await due("today") == {"first of the day", "last of the day"}
    assert "yesterday" in await due("overdue")
    assert not await due("overdue") & {"next week", "some time", "another's"}
    assert len(await due("all")) == 5
    assert (await rep.get("/tasks", params={"due": "never"})).json()["errors"][0]["pointer"] == "/due"
    async with base.transaction() as tx:
        await tx.execute(text("SELECT advance_clock('1 day')"))
    assert "first of the day" in await due("overdue")
