"""How many statements a write sends, but for BEGIN, the organization's setting, COMMIT and authentication.

What is written at once needs none of these: its one statement is all that is sent.
"""

import pytest

KEY = {"Idempotency-Key": "k1"}


@pytest.fixture
def sent(statements):
    def since() -> list[str]:
        return [statement for statement in statements() if not statement.startswith("SELECT * FROM resolve_api_key")]

    return since


async def post(client, path, body=None, headers=None):
    answer = await client.post(path, json=body, headers=headers)
    assert answer.is_success, answer.text
    (record,) = answer.json().values()
    return record


async def test_a_create_is_one_statement_and_three_with_a_key(rep, sent):
    deal = await post(rep, "/deals", {"title": "D"})
    bodies = {
        "/contacts": lambda n: {"email": f"{n}@x.com", "firstName": "A", "tags": ["a"]},
        "/companies": lambda n: {"name": n},
        "/deals": lambda n: {"title": n, "stage": "proposal"},
        "/activities": lambda n: {"type": "task", "subject": n, "dealId": deal["id"]},
        "/reminders": lambda n: {"title": n, "dueAt": "2030-01-01T00:00:00Z", "dealId": deal["id"]},
    }
    for path, body in bodies.items():
        sent()
        await post(rep, path, body("one"))
        assert len(sent()) == 1, path
        await post(rep, path, body("two"), KEY)
        assert len(sent()) == 3, path
        await post(rep, path, body("two"), KEY)
        assert len(sent()) == 2, f"the replay of {path}"
    await post(rep, "/activities", {"type": "note", "subject": "N", "dealId": deal["id"]})
    assert len(sent()) == 1


async def test_an_action_is_one_statement_and_three_with_a_key(rep, sent):
    deal = await post(rep, "/deals", {"title": "D"})
    for headers, expected in (({}, 1), (KEY, 3)):
        task = await post(rep, "/activities", {"type": "task", "subject": "T", "dealId": deal["id"]})
        nudge = {"title": "T", "dueAt": "2030-01-01T00:00:00Z", "activityId": task["id"]}
        await post(rep, "/reminders", nudge)
        reminders = [await post(rep, "/reminders", nudge) for _ in range(2)]
        later = {"until": "2031-01-01T00:00:00Z"}
        for path, body in (
            (f"/reminders/{reminders[0]['id']}/snooze", later),
            (f"/reminders/{reminders[0]['id']}/done", None),
            (f"/reminders/{reminders[1]['id']}/cancel", None),
            (f"/tasks/{task['id']}/complete", None),
        ):
            sent()
            await post(rep, path, body, headers)
            assert len(sent()) == expected, path


async def test_a_move_is_one_statement_and_two_more_where_it_closes_the_deal_and_cancels_reminders(rep, sent):
    deal = await post(rep, "/deals", {"title": "D"})
    await post(rep, "/reminders", {"title": "T", "dueAt": "2030-01-01T00:00:00Z", "dealId": deal["id"]})
    for stage, expected in (("proposal", 1), ("closed_won", 3)):
        sent()
        assert (await rep.put(f"/deals/{deal['id']}/stage", json={"stage": stage})).is_success
        assert len(sent()) == expected


async def test_deleting_a_contact_takes_six_statements_where_nothing_ends_by_it(rep, sent):
    contact = await post(rep, "/contacts", {"email": "a@x.com"})
    sent()
    assert (await rep.delete(f"/contacts/{contact['id']}")).is_success
    # The contact, its address, what is written; the lock of what may be inside, what is inside, what is unsent.
    assert len(sent()) == 6


async def test_a_change_is_one_statement(rep, sent):
    deal = await post(rep, "/deals", {"title": "D"})
    contact = await post(rep, "/contacts", {"email": "a@x.com"})
    company = await post(rep, "/companies", {"name": "C"})
    task = await post(rep, "/activities", {"type": "task", "subject": "T", "dealId": deal["id"]})
    for path, body in (
        (f"/contacts/{contact['id']}", {"email": "b@x.com", "phone": "1"}),
        (f"/companies/{company['id']}", {"name": "D"}),
        (f"/deals/{deal['id']}", {"valueCents": 5, "contactId": contact["id"]}),
        (f"/activities/{task['id']}", {"subject": "U"}),
    ):
        sent()
        assert (await rep.patch(path, json=body)).is_success
        assert len(sent()) == 1, path


async def test_who_calls_is_asked_in_one_statement_which_is_the_whole_request_where_all_is_done_at_once(
    rep, statements
):
    statements()
    await rep.post("/contacts", json={"email": "a@x.com"})
    assert len([statement for statement in statements() if "resolve_api_key" in statement]) == 1
    await rep.post("/contacts", json={"email": "b@x.com"})
    assert len(statements()) == 1


async def test_a_webhook_of_a_source_that_sent_before_is_one_statement(sender, statements):
    await sender.post({"type": "contact.upsert", "data": {"email": "a@x.com"}}, "msg_1")
    statements()
    await sender.post({"type": "contact.upsert", "data": {"email": "b@x.com"}}, "msg_2")
    assert len(statements()) == 1
