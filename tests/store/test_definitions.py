"""Rules: immutable versions, what was switched on when, and edits that meet."""

import itertools
from datetime import timedelta

import pytest

from domain.words import DefinitionStatus
from store import definitions
from store.errors import Duplicate, IllegalTransition, Invalid, NotFound, Stale
from tests.driving import act as doc
from tests.driving import mail, make_deal, match_all, move, on_stage, sequence, task, wait


async def act(base, verb, *args, **kwargs):
    async with base.transaction() as tx:
        return await verb(tx, *args, **kwargs)


async def new_rule(base, title="One", name="Rule"):
    return (await act(base, definitions.create, name, on_stage(task(title=title)))).id


async def titles(base):
    rows = await base.rows("SELECT subject FROM activities WHERE type = 'task' ORDER BY created_at, id")
    return [row["subject"] for row in rows]


async def test_a_draft_hears_nothing(base):
    await new_rule(base)
    await move(base, await make_deal(base))
    await match_all(base)
    assert await base.value("SELECT count(*) FROM executions") == 0
    assert await base.value("SELECT count(*) FROM refusals") == 0


async def test_a_new_version_does_nothing_until_it_is_activated(base):
    rule, deal = await new_rule(base), await make_deal(base)
    await act(base, definitions.activate, rule, None, expected=None)
    await act(base, definitions.add_version, rule, on_stage(task(title="Two")), expected=None)
    await move(base, deal)
    await match_all(base)
    assert await titles(base) == ["One"]
    await act(base, definitions.activate, rule, 2, expected=None)
    await move(base, deal, "lead")
    await move(base, deal)
    await match_all(base)
    assert await titles(base) == ["One", "Two"]


async def test_an_event_is_matched_with_the_version_that_was_on_when_it_was_recorded(base):
    rule, deal = await new_rule(base), await make_deal(base)
    await act(base, definitions.activate, rule, None, expected=None)
    await move(base, deal)  # recorded under version 1, matched after version 2 was switched on
    await act(base, definitions.add_version, rule, on_stage(task(title="Two")), expected=None)
    await act(base, definitions.activate, rule, 2, expected=None)
    await match_all(base)
    assert await titles(base) == ["One"]


async def test_what_was_recorded_before_or_between_is_refused_with_the_reason(base):
    rule, deal = await new_rule(base), await make_deal(base)
    await move(base, deal)
    await act(base, definitions.activate, rule, None, expected=None)
    await act(base, definitions.pause, rule, expected=None)
    await move(base, deal, "lead")
    await move(base, deal)
    await act(base, definitions.activate, rule, None, expected=None)
    await match_all(base)
    assert await titles(base) == []
    refused = await base.rows("SELECT reason FROM refusals")
    assert [row["reason"] for row in refused] == ["not_active_then"] * 2


async def test_activations_are_windows_that_do_not_overlap(base):
    rule = await new_rule(base)
    for step in (definitions.activate, definitions.pause, definitions.activate, definitions.activate):
        extra = () if step is definitions.pause else (None,)
        await act(base, step, rule, *extra, expected=None)
        await base.pass_time(timedelta(minutes=1))
    windows = await base.rows("SELECT since, until FROM activations ORDER BY since")
    assert len(windows) == 3
    assert [window["until"] is None for window in windows] == [False, False, True]
    for earlier, later in itertools.pairwise(windows):
        assert earlier["since"] <= earlier["until"] <= later["since"]
    known = await act(base, definitions.versions_of, rule)
    assert [version.active_since for version in known] == [windows[-1]["since"]]


async def test_pausing_lets_runs_inside_go_on(base):
    rule = (await act(base, definitions.create, "Rule", on_stage(wait(), task()))).id
    await act(base, definitions.activate, rule, None, expected=None)
    await move(base, await make_deal(base))
    await match_all(base)
    await act(base, definitions.pause, rule, expected=None)
    assert await base.value("SELECT status FROM executions") == "open"


async def test_an_archived_rule_takes_nothing_more(base):
    rule = await new_rule(base)
    await act(base, definitions.archive, rule, expected=None)
    for verb, *args in (
        (definitions.add_version, rule, on_stage(task())), (definitions.activate, rule, None),
        (definitions.pause, rule), (definitions.archive, rule),
    ):  # fmt: skip
        with pytest.raises(IllegalTransition):
            await act(base, verb, *args, expected=None)


async def test_an_edit_of_an_older_revision_is_stale_and_changes_nothing(base):
    rule = await new_rule(base)
    await act(base, definitions.activate, rule, None, expected=1)
    for verb, *args in (
        (definitions.add_version, rule, on_stage(task())), (definitions.activate, rule, None),
        (definitions.pause, rule), (definitions.archive, rule),
    ):  # fmt: skip
        with pytest.raises(Stale, match="revision 2, not 1"):
            await act(base, verb, *args, expected=1)
    found = await act(base, definitions.get, rule)
    assert (found.revision, found.status) == (2, DefinitionStatus.ACTIVE)
    assert await base.value("SELECT count(*) FROM versions") == 1


async def test_a_name_is_one_live_rules_and_free_again_when_that_is_archived(base):
    rule = await new_rule(base, name="Follow up")
    with pytest.raises(Duplicate) as refused:
        await new_rule(base, name="FOLLOW UP")
    assert refused.value.existing == rule
    await act(base, definitions.archive, rule, expected=None)
    await new_rule(base, name="follow up")


async def test_a_document_that_cannot_work_is_refused_whole(base):
    twice = on_stage(task("same"), task("same"))
    with pytest.raises(Invalid, match="'same' is used twice"):
        await act(base, definitions.create, "Rule", twice)
    assert await base.value("SELECT count(*) FROM definitions") == 0


NOBODY = "0190f5c4-1c1e-7abc-8def-000000000000"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (on_stage(task(), to=["nowhere"]), "there is no stage 'nowhere'"),
        (on_stage(task(), doc("x", "move_stage", to="nowhere")), "there is no stage 'nowhere'"),
        (on_stage(task(assignTo=NOBODY)), f"there is no user '{NOBODY}'"),
        (on_stage(doc("x", "remind", title="x", to=NOBODY)), f"there is no user '{NOBODY}'"),
        (on_stage(doc("x", "notify", title="x", to=NOBODY)), f"there is no user '{NOBODY}'"),
        (on_stage(doc("x", "enroll", sequence=NOBODY)), f"there is no sequence '{NOBODY}'"),
        (on_stage(doc("x", "send_email", template=NOBODY)), f"there is no template '{NOBODY}'"),
        (sequence(mail(template=NOBODY)), f"there is no template '{NOBODY}'"),
        (sequence(mail(), mailbox=NOBODY), f"there is no mailbox '{NOBODY}'"),
        (sequence(mail(), exits=[{"on": "deal.stage_changed", "to": ["nowhere"]}]), "there is no stage 'nowhere'"),
    ],
)
async def test_a_document_that_names_what_is_not_there_is_refused_since_it_would_never_act(base, document, problem):
    with pytest.raises(Invalid, match=problem):
        await act(base, definitions.create, "Rule", document)


async def test_an_unknown_version_is_not_found(base):
    rule = await new_rule(base)
    with pytest.raises(NotFound):
        await act(base, definitions.activate, rule, 7, expected=None)
    assert (await act(base, definitions.get, rule)).status == "draft"


async def test_a_document_reads_back_as_it_was_written(base):
    document = on_stage(wait("w", 2, "business_days"), task("t", priority="high"), to=["proposal", "negotiation"])
    rule = (await act(base, definitions.create, "Rule", document)).id
    stored = await base.value("SELECT document::text FROM versions WHERE definition_id = :rule", rule=rule)
    assert definitions.read(stored) == document
