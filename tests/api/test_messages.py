from datetime import datetime
from email import message_from_bytes
from email.policy import default
from uuid import UUID

from domain.mail import compose
from store import intents
from tests.api.mailing import STRANGER, post, rendered, unsubscribe_path


async def test_a_message_is_told_from_plan_to_acceptance(post_office, office, base):
    enrollment = await post_office.enrolled()
    id_ = await post_office.written(enrollment)
    planned = await post_office.message(id_)
    assert (planned["status"], planned["acceptedAt"], planned["attemptsMade"]) == ("pending", None, 0)
    assert (planned["content"], planned["attempts"], planned["step"]) == (None, [], "hello")
    assert (planned["contactId"], planned["mailboxId"]) == (post_office.contact, post_office.mailbox)
    assert planned["mailboxName"] == "Sales"
    assert planned["writtenBy"] == {
        "kind": "enrollment",
        "id": enrollment,
        "definitionId": post_office.sequence,
        "definitionName": "Trial",
        "version": 1,
    }
    claim = await post_office.claimed(id_)
    claimed = await post_office.message(id_)
    ((attempt,),) = (claimed["attempts"],)
    assert (claimed["status"], attempt["number"], attempt["outcome"], attempt["endedAt"]) == ("claimed", 1, None, None)
    assert (attempt["saw"]["suppressed"], attempt["saw"]["enrollment"]) == (None, "open")
    assert "token" not in attempt
    assert str(claim.token) not in str(claimed)
    assert (claimed["content"]["subject"], claimed["content"]["toEmail"]) == ("Hello", "carla@customer.example.com")
    async with base.transaction() as tx:
        await intents.accepted(tx, claim, "250 kept")
    accepted = await post_office.message(id_)
    assert (accepted["status"], accepted["next"], accepted["attempts"][0]["answer"]) == ("accepted", None, "250 kept")
    (told,) = accepted["attempts"]
    assert (accepted["dueAt"], told["claimedAt"]) == (planned["dueAt"], attempt["claimedAt"])
    plan, written, claimed_at, accepted_at, ended = (
        datetime.fromisoformat(instant)
        for instant in (
            accepted["dueAt"], accepted["createdAt"], told["claimedAt"], accepted["acceptedAt"], told["endedAt"],
        )
    )  # fmt: skip
    assert plan < written < claimed_at < accepted_at == ended
    (event,) = (await office.rep.get("/events", params={"subjectId": id_})).json()["events"]
    assert event["type"] == "message.accepted"


async def test_a_mail_is_read_as_the_bytes_its_server_was_given(post_office, office):
    id_ = await post_office.written(await post_office.enrolled())
    early = await office.rep.get(f"/messages/{id_}/eml")
    assert (early.status_code, early.json()["code"]) == (404, "NOT_RENDERED")
    await post_office.accepted(id_)
    answer = await office.readonly.get(f"/messages/{id_}/eml")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "message/rfc822")
    assert answer.headers["content-disposition"] == f'attachment; filename="message-{id_}.eml"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    mail = message_from_bytes(answer.content, policy=default)
    assert (mail["Subject"], mail["To"]) == ("Hello", "carla@customer.example.com")
    assert mail["List-Unsubscribe"] == f"<https://crm.example.com{unsubscribe_path(id_)}>"
    again = rendered(UUID(id_), mail["Date"].datetime)
    assert answer.content == compose(again)


async def test_the_local_outbox_shows_what_was_accepted_in_it_only(post_office, office, base):
    first = await post_office.written(await post_office.enrolled())
    assert (await office.rep.get("/outbox")).json() == {"total": 0, "cursor": None, "messages": []}
    await post_office.accepted(first)
    shown = (await office.readonly.get("/outbox")).json()
    assert shown["total"] == 1
    (mail,) = shown["messages"]
    assert (mail["id"], mail["subject"], mail["toEmail"]) == (first, "Hello", "carla@customer.example.com")
    smtp = {"transport": "smtp", "host": "x.com", "port": 25, "security": "tls"}
    changed = await office.admin.patch(f"/mailboxes/{post_office.mailbox}", json=smtp, headers={"If-Match": "*"})
    assert changed.is_success
    assert (await office.rep.get("/outbox")).json()["total"] == 0


async def test_messages_are_found_by_status_contact_execution_and_mailbox(post_office, office):
    enrollment = await post_office.enrolled()
    id_ = await post_office.written(enrollment)
    for filters, total in (
        ({"status": "pending"}, 1),
        ({"status": "accepted"}, 0),
        ({"contact": post_office.contact}, 1),
        ({"contact": STRANGER}, 0),
        ({"execution": enrollment}, 1),
        ({"execution": STRANGER}, 0),
        ({"mailbox": post_office.mailbox}, 1),
        ({"mailbox": STRANGER}, 0),
    ):
        found = (await office.readonly.get("/messages", params=filters)).json()
        assert (found["total"], [one["id"] for one in found["messages"]]) == (total, [id_] * total), filters


async def test_a_person_says_that_an_uncertain_message_has_left(post_office, office):
    enrollment = await post_office.enrolled()
    id_ = await post_office.written(enrollment)
    refused = await office.rep.post(f"/messages/{id_}/settle", json={"sent": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    await post_office.uncertain(id_)
    assert (await post_office.show(enrollment))["stuckReason"] == "message_uncertain"
    settled = await post(office.rep, f"/messages/{id_}/settle", {"sent": True})
    assert (settled["status"], settled["reason"], settled["next"]) == ("accepted", "settled_by_a_person", None)
    assert settled["acceptedAt"] is not None
    assert (await post_office.show(enrollment))["status"] == "open"
    assert (await office.rep.post(f"/messages/{id_}/settle", json={"sent": False})).status_code == 409


async def test_a_person_has_an_uncertain_message_sent_again(post_office, office):
    enrollment = await post_office.enrolled()
    id_ = await post_office.written(enrollment)
    await post_office.uncertain(id_)
    settled = await post(office.rep, f"/messages/{id_}/settle", {"sent": False})
    assert (settled["status"], settled["next"]["why"], len(settled["attempts"])) == ("pending", None, 1)
    await post_office.accepted(id_)
    told = (await post_office.message(id_))["attempts"]
    assert [(one["number"], one["outcome"]) for one in told] == [(1, "uncertain"), (2, "accepted")]


async def test_settling_says_which(post_office, office):
    id_ = await post_office.written(await post_office.enrolled())
    await post_office.uncertain(id_)
    for body in ({}, {"sent": None}, {"sent": "yes"}, {"sent": 1}):
        answer = await office.rep.post(f"/messages/{id_}/settle", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/sent")
    assert (await office.readonly.post(f"/messages/{id_}/settle", json={"sent": True})).status_code == 403
    assert (await office.rep.post(f"/messages/{STRANGER}/settle", json={"sent": True})).status_code == 404
