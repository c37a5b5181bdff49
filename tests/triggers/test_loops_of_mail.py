# mypy: ignore-errors
"""Rules that hear how mail and enrollments end: they never go round with their own consequences."""

from domain.documents import RuleDocument
from tests.driving import (
    act,
    advance,
    drive,
    enroll,
    mail,
    make_contact,
    make_mailbox,
    match_all,
    may_mail,
    publish,
    sender,
    sequence,
    switch_on,
    task,
)


def on_end(*steps):
    return RuleDocument.model_validate({"trigger": {"on": "enrollment.ended"}, "steps": steps})


async def test_a_rule_that_enrolls_again_whoever_has_been_through_does_so_once_and_is_then_refused(base):
    await may_mail(base)
    box = await make_mailbox(base)
    round_ = await publish(base, sequence(mail(), again="always"), "Round")
    await switch_on(base, on_end(act("again", "enroll", sequence=str(round_))), "Again")
    await enroll(base, round_, await make_contact(base))
    async with sender(base) as send:
        for _ in range(4):
            await match_all(base)
            for row in await base.rows("SELECT id FROM executions WHERE status = 'open' AND due_at IS NOT NULL"):
                await advance(base, row["id"], "enrollment")
            await send.empty(base.org, box)
    assert await base.value("SELECT count(*) FROM executions WHERE kind = 'enrollment'") == 2
    assert await base.value("SELECT reason FROM refusals") == "own_consequence"


async def test_a_run_for_an_enrollments_end_is_about_its_contact(base):
    await make_mailbox(base)
    contact = await make_contact(base)
    through = await publish(base, sequence(task("only")), "Through")
    await switch_on(base, on_end(task("thank", title="Say thank you")), "Thanks")
    await enroll(base, through, contact)
    await drive(base)
    assert await base.rows("SELECT contact_id FROM executions WHERE kind = 'run'") == [{"contact_id": contact}]
