import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from domain.words import StuckReason, Suppression
from store import executions, intents, mailboxes, suppressions
from tests.api.mailing import (
    ANY,
    DOCUMENT,
    HELLO,
    STRANGER,
    WAIT,
    make_contact,
    make_mailbox,
    make_post_elsewhere,
    make_sequence,
    post,
)
from tests.driving import advance, match_all, next_monday


async def count(base, table, where="true"):
    return await base.value(f"SELECT count(*) FROM {table} WHERE {where}")


# --- enrolling


async def test_a_contact_is_enrolled_and_both_the_event_and_the_wake_are_written(post_office, office, base):
    wakes = await count(base, "wakes")
    told = await post_office.enroll()
    assert told["enrolled"] == 1
    ((result),) = told["results"]
    assert (result["contactId"], result["reason"], result["existingId"]) == (post_office.contact, None, None)
    shown = await post_office.show(result["enrollmentId"])
    assert (shown["sequenceId"], shown["sequenceName"], shown["version"]) == (post_office.sequence, "Trial", 1)
    assert (shown["contactId"], shown["mailboxId"], shown["ownerId"]) == (
        post_office.contact, post_office.mailbox, str(base.rep),
    )  # fmt: skip
    assert shown["startedBy"] == {"kind": "user", "id": str(base.rep)}
    assert (shown["status"], shown["next"]["step"], shown["steps"], shown["messages"]) == ("open", "hello", [], [])
    events = (await office.rep.get("/events", params={"subjectId": shown["id"]})).json()["events"]
    assert [event["type"] for event in events] == ["enrollment.started"]
    assert await count(base, "wakes") == wakes + 1


async def test_each_contact_that_cannot_be_enrolled_is_told_why(post_office, office, base):
    inside = await post_office.enrolled()
    refused = await make_contact(office.rep, "no@x.com")
    async with base.transaction() as tx:
        await suppressions.suppress(tx, "no@x.com", Suppression.MANUAL)
    silent = await make_contact(office.rep, "silent@x.com")
    # A contact without an address comes only from elsewhere: the API asks for one.
    await base.rows("UPDATE contacts SET email = NULL WHERE id = :id RETURNING id", id=silent)
    gone = await make_contact(office.rep, "gone@x.com")
    await base.rows("UPDATE contacts SET is_active = false WHERE id = :id RETURNING id", id=gone)
    fresh = await make_contact(office.rep, "fresh@x.com")
    told = await post_office.enroll(post_office.contact, refused, silent, gone, STRANGER, fresh, fresh)
    assert [(one["contactId"], one["reason"], one["existingId"]) for one in told["results"]] == [
        (post_office.contact, "already_enrolled", inside),
        (refused, "address_suppressed", None),
        (silent, "email_missing", None),
        (gone, "contact_missing", None),
        (STRANGER, "contact_missing", None),
        (fresh, None, None),
        (fresh, "already_enrolled", None),
    ]
    assert told["enrolled"] == 1
    assert await count(base, "executions") == 2


async def test_who_was_in_it_before_comes_in_again_as_the_document_says(post_office, office, base):
    again = {"steps": [WAIT], "again": {"amount": 2, "unit": "days"}}
    sequences = {
        "never": await make_sequence(office.admin, {"steps": [WAIT]}, "never"),
        "always": await make_sequence(office.admin, {"steps": [WAIT], "again": "always"}, "always"),
        "later": await make_sequence(office.admin, again, "later"),
    }
    first = {}
    for name, sequence in sequences.items():
        post_office.sequence = sequence
        first[name] = await post_office.enrolled()
        await post(office.rep, f"/enrollments/{first[name]}/stop")
    for days, expected in (
        (0, {"never": "enrolled_before", "always": None, "later": "enrolled_before"}),
        (3, {"never": "enrolled_before", "always": "already_enrolled", "later": None}),
    ):
        await base.pass_time(timedelta(days=days))
        for name, reason in expected.items():
            post_office.sequence = sequences[name]
            (result,) = (await post_office.enroll())["results"]
            assert result["reason"] == reason, name
            assert reason != "enrolled_before" or result["existingId"] == first[name]


async def test_without_a_mailbox_nobody_is_enrolled(office, base):
    sequence = await make_sequence(office.admin)
    contact = await make_contact(office.rep)
    told = await post(office.rep, f"/sequences/{sequence}/enrollments", {"contacts": [contact]})
    assert [one["reason"] for one in told["results"]] == ["mailbox_missing"]
    assert await count(base, "executions") == 0


async def test_the_mailbox_is_the_one_named_else_the_documents_else_the_owners_else_nobodys(post_office, office, base):
    own = await make_mailbox(office.admin, "Rob's", ownerId=str(base.rep))
    named = await make_mailbox(office.admin, "Named", ownerId=str(base.manager))
    written = await make_sequence(office.admin, {**DOCUMENT, "mailbox": named}, "Written")
    managers = await make_contact(office.rep, "m@x.com", ownerId=str(base.admin))
    for sequence, fields, contact, expected in (
        (post_office.sequence, {}, post_office.contact, own),
        (post_office.sequence, {}, managers, post_office.mailbox),
        (written, {}, managers, named),
        (written, {"mailboxId": own}, post_office.contact, own),
    ):
        post_office.sequence = sequence
        (result,) = (await post_office.enroll(contact, **fields))["results"]
        assert (await post_office.show(result["enrollmentId"]))["mailboxId"] == expected


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"contacts": []}, "/contacts"),
        ({}, "/contacts"),
        ({"contacts": [STRANGER] * 1001}, "/contacts"),
        ({"contacts": ["me"]}, "/contacts/0"),
        ({"contacts": [STRANGER, STRANGER], "dealId": STRANGER}, "/dealId"),
        ({"contacts": [STRANGER], "mailboxId": STRANGER}, "/mailboxId"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_its_name(post_office, office, body, pointer):
    answer = await office.rep.post(f"/sequences/{post_office.sequence}/enrollments", json=body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


async def test_a_deal_is_kept_with_the_enrollment_and_must_be_ones_own(post_office, office, other_office):
    deal = (await post(office.rep, "/deals", {"title": "D"}))["id"]
    theirs = (await post(other_office.rep, "/deals", {"title": "D"}))["id"]
    refused = await office.rep.post(
        f"/sequences/{post_office.sequence}/enrollments", json={"contacts": [post_office.contact], "dealId": theirs}
    )
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/dealId")
    (result,) = (await post_office.enroll(post_office.contact, dealId=deal))["results"]
    assert (await post_office.show(result["enrollmentId"]))["dealId"] == deal


async def test_only_an_active_sequence_takes_contacts_in(post_office, office):
    draft = await make_sequence(office.admin, name="Draft", active=False)
    await post(office.admin, f"/sequences/{post_office.sequence}/pause")
    for sequence in (draft, post_office.sequence):
        answer = await office.rep.post(f"/sequences/{sequence}/enrollments", json={"contacts": [post_office.contact]})
        assert (answer.status_code, answer.json()["code"]) == (409, "ILLEGAL_TRANSITION")


async def test_a_thousand_are_enrolled_by_one_call(post_office, office, base):
    rows = "".join(f"c{number}@x.com\n" for number in range(1000))
    imported = await office.manager.post(
        "/imports/contacts", content=f"Email\n{rows}".encode(), headers={"Content-Type": "text/csv"}
    )
    assert imported.is_success, imported.text
    contacts = [str(row["id"]) for row in await base.rows("SELECT id FROM contacts WHERE email LIKE 'c%@x.com'")]
    assert len(contacts) == 1000
    told = await post_office.enroll(*contacts)
    assert (told["enrolled"], len(told["results"])) == (1000, 1000)
    assert [one["contactId"] for one in told["results"]] == contacts
    assert await count(base, "executions") == await count(base, "events", "type = 'enrollment.started'") == 1000
    assert (await office.rep.get("/enrollments", params={"limit": 1})).json()["total"] == 1000


async def test_one_contact_and_a_hundred_are_enrolled_in_as_many_statements(post_office, office, statements):
    contacts = [await make_contact(office.rep, f"c{number}@x.com") for number in range(100)]
    numbers = []
    for some in (contacts[:1], contacts[1:]):
        statements()
        assert (await post_office.enroll(*some))["enrolled"] == len(some)
        numbers.append(len([one for one in statements() if "resolve_api_key" not in one]))
    assert numbers == [10, 10]


async def test_fifty_who_enroll_one_contact_at_once_enroll_it_once(post_office, base):
    answers = await asyncio.gather(*(post_office.enroll() for _ in range(50)))
    results = [result for answer in answers for result in answer["results"]]
    (enrolled,) = [one["enrollmentId"] for one in results if one["enrollmentId"]]
    refused = [one for one in results if one["enrollmentId"] is None]
    assert len(refused) == 49
    assert {(one["reason"], one["existingId"]) for one in refused} == {("already_enrolled", enrolled)}
    assert await count(base, "executions") == 1


async def test_enrolling_again_under_one_key_is_told_the_same(post_office, office, base):
    path, body = f"/sequences/{post_office.sequence}/enrollments", {"contacts": [post_office.contact]}
    first, again = [await office.rep.post(path, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert (again.status_code, again.json(), again.headers["idempotent-replay"]) == (200, first.json(), "true")
    assert first.json()["enrolled"] == 1


async def test_nothing_of_another_organization_is_enrolled_or_sends(post_office, office, other_office, base):
    theirs = await make_post_elsewhere(other_office, base)
    told = await post_office.enroll(theirs.contact)
    assert [one["reason"] for one in told["results"]] == ["contact_missing"]
    body = {"contacts": [post_office.contact], "mailboxId": theirs.mailbox}
    answer = await office.rep.post(f"/sequences/{post_office.sequence}/enrollments", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/mailboxId")
    enrollment = await post_office.enrolled()
    answer = await office.rep.post(f"/enrollments/{enrollment}/retry", json={"mailboxId": theirs.mailbox})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/mailboxId")
    named = {"name": "Theirs", "document": {**DOCUMENT, "mailbox": theirs.mailbox}}
    assert (await office.manager.post("/sequences", json=named)).status_code == 422


# --- the whole why


async def test_an_enrollment_tells_its_steps_its_messages_and_what_it_waits_for(post_office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    shown = await post_office.show(enrollment)
    (step,) = shown["steps"]
    assert (step["number"], step["step"], step["outcome"]) == (1, "hello", "done")
    assert step["made"] == {"kind": "message", "id": message}
    (told,) = shown["messages"]
    assert (told["id"], told["step"], told["status"], told["acceptedAt"]) == (message, "hello", "pending", None)
    following = shown["next"]
    assert (following["status"], following["step"], following["heldBy"]) == ("open", "wait", [])
    assert (following["message"]["id"], following["message"]["status"]) == (message, "pending")
    assert following["message"]["why"] is None, "it is next"
    if following["awaits"] is None:
        assert following["dueAt"] == following["waits"]["at"]
        assert following["waits"]["chain"][0]["rule"] == "business_days"
    await post_office.accepted(message)
    await advance(base, UUID(enrollment), "enrollment")
    shown = await post_office.show(enrollment)
    assert [one["acceptedAt"] is not None for one in shown["messages"]] == [True]
    assert shown["next"]["message"] is None
    assert shown["next"]["waits"]["chain"][0]["why"].startswith("3 business days")


async def test_it_tells_why_a_message_has_not_left(post_office, office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)

    async def why():
        following = (await post_office.show(enrollment))["next"]["message"]
        alone = (await post_office.message(message))["next"]
        assert (alone["why"] or {}).get("reason") == (following["why"] or {}).get("reason")
        return following["why"] and (following["why"]["reason"], following["why"]["seconds"] is not None)

    mailbox, sending = f"/mailboxes/{post_office.mailbox}", "/sending"
    assert await why() is None
    await post(office.admin, f"{mailbox}/pause")
    assert await why() == ("mailbox_paused", False)
    await post(office.admin, f"{sending}/stop")
    assert await why() == ("sending_stopped", False)
    await post(office.admin, f"{sending}/resume")
    await post(office.admin, f"{mailbox}/resume")
    await post(office.manager, f"/sequences/{post_office.sequence}/pause")
    assert await why() == ("sequence_paused", False)
    await post(office.manager, f"/sequences/{post_office.sequence}/activate")
    assert await why() is None
    await post(office.rep, f"/enrollments/{enrollment}/pause")
    assert await why() == ("enrollment_paused", False)
    await post(office.rep, f"/enrollments/{enrollment}/resume")
    await next_monday(base)
    hours = [{"weekdays": ["tue"], "opens": "09:00", "closes": "17:00"}]
    changed = await office.admin.patch(mailbox, json={"pace": {"hours": hours}}, headers=ANY)
    assert changed.is_success, changed.text
    assert await why() == ("hours", True)
    told = (await post_office.show(enrollment))["next"]["message"]["why"]
    assert told["detail"] == "opens tue 09:00 in Europe/Berlin"
    await office.admin.patch(mailbox, json={"pace": {"spacing": 600}}, headers=ANY)
    other = (await post_office.enroll(await make_contact(office.rep, "b@x.com")))["results"][0]["enrollmentId"]
    await post_office.accepted(await post_office.written(other))
    assert await why() == ("spacing", True)
    await office.admin.patch(mailbox, json={"pace": {"perHour": 1}}, headers=ANY)
    assert await why() == ("per_hour", True)
    await office.admin.patch(mailbox, json={"pace": {}}, headers=ANY)
    await post_office.claimed(message)
    assert await why() == ("being_sent", False)


async def test_a_mailbox_in_trouble_and_one_that_is_gone_are_told(post_office, office, base):
    enrollment = await post_office.enrolled()
    await post_office.written(enrollment)
    async with base.transaction() as tx:
        await mailboxes.be_in_trouble(tx, UUID(post_office.mailbox), "connect", "no such host")
    told = (await post_office.show(enrollment))["next"]["message"]["why"]
    assert (told["reason"], told["detail"]) == ("mailbox_in_trouble", "no such host")
    assert 0 < told["seconds"] <= 60
    shown = (await office.rep.get(f"/mailboxes/{post_office.mailbox}")).json()["mailbox"]
    assert (shown["trouble"], shown["troubleDetail"]) == ("connect", "no such host")
    assert (await office.admin.delete(f"/mailboxes/{post_office.mailbox}")).status_code == 204
    assert (await post_office.show(enrollment))["next"]["message"]["why"]["reason"] == "mailbox_missing"


async def test_deleting_a_contact_ends_what_it_is_in_cancels_its_mail_and_lets_it_in_nowhere(post_office, office):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    assert (await office.rep.delete(f"/contacts/{post_office.contact}")).status_code == 204
    shown = await post_office.show(enrollment)
    assert (shown["status"], shown["exitReason"]) == ("ended", "contact_deleted")
    cancelled = await post_office.message(message)
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "contact_deleted")
    (event, *_) = (await office.rep.get("/events", params={"subjectId": enrollment})).json()["events"]
    assert (event["type"], event["after"]["exitReason"]) == ("enrollment.ended", "contact_deleted")
    (refused,) = (await post_office.enroll())["results"]
    assert (refused["reason"], refused["enrollmentId"]) == ("contact_missing", None)


# --- a person's hand


async def test_pausing_keeps_it_still_and_resuming_lets_it_go_on(post_office, office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    path = f"/enrollments/{enrollment}"
    refused = await office.rep.post(f"{path}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    paused = await post(office.rep, f"{path}/pause")
    assert (paused["status"], paused["dueAt"], paused["messages"][0]["status"]) == ("paused", None, "held")
    assert [(one["scope"], one["until"], one["pausedBy"]) for one in paused["pauses"]] == [
        ("enrollment", None, str(base.rep))
    ]
    assert (await office.rep.post(f"{path}/pause")).status_code == 409
    resumed = await post(office.rep, f"{path}/resume")
    assert (resumed["status"], resumed["messages"][0]["status"]) == ("open", "pending")
    assert resumed["pauses"][0]["until"] is not None
    events = (await office.rep.get("/events", params={"subjectId": enrollment})).json()["events"]
    assert [event["type"] for event in events][:2] == ["enrollment.resumed", "enrollment.paused"]
    assert (await post_office.message(message))["status"] == "pending"


async def test_a_person_ends_it_for_good_and_its_unsent_mail_with_it(post_office, office):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    stopped = await post(office.rep, f"/enrollments/{enrollment}/stop", {"note": "They called."})
    assert (stopped["status"], stopped["exitReason"], stopped["exitNote"]) == ("ended", "stopped", "They called.")
    assert (stopped["next"]["dueAt"], stopped["next"]["message"]) == (None, None)
    cancelled = await post_office.message(message)
    assert (cancelled["status"], cancelled["reason"], cancelled["next"]) == ("cancelled", "stopped", None)
    for verb in ("stop", "pause", "resume", "retry"):
        answer = await office.rep.post(f"/enrollments/{enrollment}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "ILLEGAL_TRANSITION"), verb


async def test_a_failed_message_asks_a_person_and_leaves_through_another_mailbox(post_office, office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    refused = await office.rep.post(f"/enrollments/{enrollment}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    await post_office.failed(message)
    stuck = (await post_office.show(enrollment))["next"]
    assert (stuck["status"], stuck["stuckReason"], stuck["stuckOwnerId"]) == ("stuck", "message_refused", str(base.rep))
    assert stuck["stuckDetail"] == "554 5.6.0 not this one"
    assert (stuck["message"]["status"], stuck["message"]["why"]["reason"]) == ("failed", "message_refused")
    unknown = await office.rep.post(f"/enrollments/{enrollment}/retry", json={"mailboxId": STRANGER})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/mailboxId")
    other = await make_mailbox(office.admin, "Other")
    shown = await post(office.rep, f"/enrollments/{enrollment}/retry", {"mailboxId": other})
    assert (shown["status"], shown["mailboxId"], shown["stuckReason"]) == ("open", other, None)
    again = await post_office.message(message)
    assert (again["id"], again["status"], again["mailboxId"]) == (message, "pending", other)
    assert await count(base, "intents") == 1, "the same message, never a second"
    post_office.mailbox = other
    await post_office.accepted(message)
    attempts = (await post_office.message(message))["attempts"]
    assert [(one["number"], one["outcome"]) for one in attempts] == [(1, "refused"), (2, "accepted")]


async def test_a_stuck_enrollment_without_a_message_goes_on_too(post_office, office, base):
    enrollment = await post_office.enrolled()
    async with base.transaction() as tx:
        reason = StuckReason.TEMPLATE_MISSING
        await executions.get_stuck(tx, UUID(enrollment), reason, "template is gone", base.admin, step="hello")
    assert (await post_office.show(enrollment))["stuckReason"] == "template_missing"
    (listed,) = (await office.rep.get("/enrollments", params={"status": "stuck"})).json()["enrollments"]
    assert listed["id"] == enrollment
    assert (await post(office.rep, f"/enrollments/{enrollment}/retry"))["status"] == "open"


async def test_an_exit_by_data_is_told_with_what_it_saw(post_office, office, base):
    exits = [{"on": "contact.updated", "changed": ["leadStatus"]}]
    post_office.sequence = await make_sequence(office.admin, {"steps": [WAIT], "exits": exits}, "Exits")
    enrollment = await post_office.enrolled()
    await match_all(base, first_attempt=False)
    assert (await office.rep.patch(f"/contacts/{post_office.contact}", json={"leadStatus": "qualified"})).is_success
    await match_all(base, first_attempt=False)
    shown = await post_office.show(enrollment)
    assert (shown["status"], shown["exitReason"], shown["saw"]["exit"]) == ("ended", "exit_met", 1)


async def test_enrollments_are_found_by_sequence_status_contact_and_owner(post_office, office, base):
    enrollment = await post_office.enrolled()
    for filters, total in (
        ({"sequence": post_office.sequence}, 1),
        ({"sequence": STRANGER}, 0),
        ({"status": "open"}, 1),
        ({"status": "ended"}, 0),
        ({"contact": post_office.contact}, 1),
        ({"owner": str(base.rep)}, 1),
        ({"owner": str(base.admin)}, 0),
    ):
        found = (await office.readonly.get("/enrollments", params=filters)).json()
        assert (found["total"], [one["id"] for one in found["enrollments"]]) == (total, [enrollment] * total), filters
    assert (await office.rep.get("/runs")).json()["total"] == 0, "an enrollment is no run"
    assert (await office.rep.get(f"/runs/{enrollment}")).status_code == 404


async def test_a_rules_run_tells_the_mail_it_waits_for(post_office, office, base):
    document = {
        "trigger": {"on": "contact.created"},
        "steps": [{"kind": "act", "id": "mail", "action": {"type": "send_email", "subject": "Hi", "text": "Hello"}}],
    }
    rule = await post(office.admin, "/rules", {"name": "Greet", "document": document})
    await post(office.admin, f"/rules/{rule['id']}/activate")
    contact = await make_contact(office.rep, "new@x.com")
    await match_all(base)
    (listed,) = (await office.rep.get("/runs", params={"contact": contact})).json()["runs"]
    run = (await office.rep.get(f"/runs/{listed['id']}")).json()["run"]
    (step,) = run["steps"]
    assert step["made"]["kind"] == "message"
    message = await post_office.message(step["made"]["id"])
    assert (message["writtenBy"]["kind"], message["writtenBy"]["id"]) == ("run", run["id"])
    assert (message["writtenBy"]["definitionId"], message["writtenBy"]["definitionName"]) == (rule["id"], "Greet")
    assert run["next"]["message"] == message["next"]
    assert run["next"]["message"]["why"] is None


async def test_an_answer_that_is_awaited_is_shown_until_its_deadline_makes_it_uncertain(post_office, base):
    enrollment = await post_office.enrolled()
    message = await post_office.written(enrollment)
    await post_office.claimed(message)
    await base.rows("UPDATE intents SET deadline = now() - interval '1 second' RETURNING id")
    async with base.transaction() as tx:
        assert await intents.expire(tx, UUID(post_office.mailbox)) == 1
    following = (await post_office.show(enrollment))["next"]
    assert (following["stuckReason"], following["message"]["status"]) == ("message_uncertain", "uncertain")
    assert following["message"]["why"]["reason"] == "no_answer"


async def test_who_may_only_read_moves_nothing(post_office, office):
    enrollment = await post_office.enrolled()
    for verb in ("pause", "resume", "stop", "retry"):
        assert (await office.readonly.post(f"/enrollments/{enrollment}/{verb}", headers=ANY)).status_code == 403
    assert (await office.readonly.get(f"/enrollments/{enrollment}")).status_code == 200
    assert HELLO["id"] == (await post_office.show(enrollment))["next"]["step"]
