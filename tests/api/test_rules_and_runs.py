from datetime import timedelta

import pytest

from domain.words import StuckReason
from store import executions
from tests.driving import advance, match_all

WAITING = {
    "trigger": {"on": "deal.stage_changed", "to": ["proposal"]},
    "conditions": {"field": "deal.valueCents", "op": "gte", "value": 1000},
    "steps": [
        {"kind": "act", "id": "task", "action": {"type": "create_task", "title": "Call"}},
        {"kind": "wait", "id": "three-days", "wait": {"for": {"amount": 3, "unit": "business_days"}}},
        {"kind": "act", "id": "tell", "action": {"type": "notify", "title": "Look"}},
    ],
}
ANY = {"If-Match": "*"}


async def make_rule(admin, document=None, name="Chase"):
    answer = await admin.post("/rules", json={"name": name, "document": document or WAITING})
    assert answer.status_code == 201, answer.text
    return answer.json()["rule"]


@pytest.fixture
async def rule(admin):
    made = await make_rule(admin)
    await admin.post(f"/rules/{made['id']}/activate", headers=ANY)
    return made


async def move(rep, value, stage="proposal"):
    deal = (await rep.post("/deals", json={"title": "D", "valueCents": value})).json()["deal"]
    await rep.put(f"/deals/{deal['id']}/stage", json={"stage": stage})
    return deal


async def test_a_rule_is_a_draft_with_one_version_until_it_is_activated(admin, rep):
    made = await make_rule(admin)
    assert (made["status"], made["revision"]) == ("draft", 1)
    whole = await rep.get(f"/rules/{made['id']}")
    assert whole.headers["etag"] == '"1"'
    (version,) = whole.json()["rule"]["versions"]
    assert (version["number"], version["document"], version["activeSince"]) == (1, WAITING, None)
    assert whole.json()["rule"]["activeVersion"] is None


async def test_a_rules_life_is_guarded_by_its_revision(admin):
    made = await make_rule(admin)
    path = f"/rules/{made['id']}"
    active = await admin.post(f"{path}/activate", headers={"If-Match": '"1"'})
    assert (active.status_code, active.json()["rule"]["status"], active.headers["etag"]) == (200, "active", '"2"')
    for stale in ('"1"', 'W/"2"', "2", '"x"', '"1", "2"'):
        refused = await admin.post(f"{path}/pause", headers={"If-Match": stale})
        assert (refused.status_code, refused.json()["code"]) == (412, "STALE_VERSION")
        assert not refused.json()["errors"] or refused.json()["errors"][0]["in"] == "header"
    for verb in ("activate", "pause", "archive"):
        refused = await admin.post(f"{path}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (428, "PRECONDITION_REQUIRED")
    assert (await admin.put(f"{path}/document", json=WAITING)).status_code == 428
    second = await admin.put(f"{path}/document", json={**WAITING, "conditions": None}, headers={"If-Match": '"2"'})
    assert [version["number"] for version in second.json()["rule"]["versions"]] == [1, 2]
    assert (second.json()["rule"]["activeVersion"], second.headers["etag"]) == (1, '"3"')
    again = await admin.post(f"{path}/activate", json={"version": 2}, headers={"If-Match": '"3"'})
    assert again.status_code == 200
    assert (await admin.get(path)).json()["rule"]["activeVersion"] == 2
    paused = await admin.post(f"{path}/pause", headers={"If-Match": '"4"'})
    assert paused.json()["rule"]["status"] == "paused"
    assert (await admin.post(f"{path}/pause", headers=ANY)).json()["code"] == "ILLEGAL_TRANSITION"
    assert (await admin.post(f"{path}/archive", headers=ANY)).json()["rule"]["status"] == "archived"
    assert (await admin.post(f"{path}/activate", headers=ANY)).json()["code"] == "ILLEGAL_TRANSITION"
    unknown = await admin.post(f"{path}/activate", json={"version": 0}, headers=ANY)
    assert unknown.json()["errors"][0]["pointer"] == "/version"


async def test_a_name_in_use_is_refused_and_names_the_rule(admin):
    made = await make_rule(admin)
    answer = await admin.post("/rules", json={"name": "CHASE", "document": WAITING})
    assert (answer.status_code, answer.json()["existing"]) == (409, made["id"])


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"trigger": {"on": "moon.rises"}}, {"/document/trigger/on"}),
        ({"trigger": {}}, {"/document/trigger/on"}),
        ({"steps": []}, {"/document/steps"}),
        ({"steps": [{"kind": "dance", "id": "a"}]}, {"/document/steps/0/kind"}),
        ({"steps": [{"kind": "wait", "id": "a", "wait": {"for": {"amount": 1}}}]}, {"/document/steps/0/wait/for/unit"}),
        ({"steps": [{"kind": "act", "id": "a", "action": {"type": "notify"}}]}, {"/document/steps/0/action/title"}),
        (
            {"steps": [{"kind": "act", "id": "A b", "action": {"type": "notify", "title": "T"}}]},
            {"/document/steps/0/id"},
        ),
        ({"colour": "red"}, {"/document/colour"}),
        ({"conditions": {"field": "deal.colour", "op": "eq", "value": 1}}, {"/document"}),
        (
            {
                "steps": [
                    {"kind": "act", "id": "a", "action": {"type": "set_field", "field": "deal.ownerId", "value": 1}}
                ]
            },
            {"/document"},
        ),
        ({"steps": [{"kind": "exit", "id": "a"}, {"kind": "exit", "id": "b"}]}, {"/document"}),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused_where_it_makes_none(admin, change, pointers):
    answer = await admin.post("/rules", json={"name": "R", "document": {**WAITING, **change}})
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert {fault["pointer"] for fault in answer.json()["errors"]} == pointers
    assert (await admin.get("/rules")).json()["total"] == 0


async def test_a_wrong_comparison_is_named(admin):
    wrong = {**WAITING, "conditions": {"all": [{"field": "deal.valueCents", "op": "resembles", "value": 1}]}}
    answer = await admin.post("/rules", json={"name": "R", "document": wrong})
    assert "/document/conditions/all/0/op" in {fault["pointer"] for fault in answer.json()["errors"]}


@pytest.mark.parametrize("depth", [10, 100, 400, 5000])
async def test_a_document_nested_too_deep_is_refused(admin, depth):
    condition = '{"not":' * depth + '{"field":"deal.title","op":"eq","value":"x"}' + "}" * depth
    steps = '{"kind":"branch","id":"b","if":{"field":"deal.title","op":"eq","value":"x"},"then":[' * depth
    steps += '{"kind":"exit","id":"x"}' + "]}" * depth
    for document in (
        f'{{"trigger":{{"on":"contact.created"}},"conditions":{condition},"steps":[{{"kind":"exit","id":"x"}}]}}',
        f'{{"trigger":{{"on":"contact.created"}},"steps":[{steps}]}}',
    ):
        body = f'{{"name":"R","document":{document}}}'
        answer = await admin.post("/rules", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text[:300]


async def test_the_schema_of_documents_is_told(rep):
    schema = (await rep.get("/rules/schema")).json()
    assert {"trigger", "conditions", "steps"} == schema["properties"].keys()


async def test_a_run_tells_its_event_what_decided_it_its_steps_and_what_comes_next(rule, rep, base):
    deal = await move(rep, 5000)
    await match_all(base)
    (listed,) = (await rep.get("/runs", params={"deal": deal["id"]})).json()["runs"]
    run = (await rep.get(f"/runs/{listed['id']}")).json()["run"]
    assert (run["ruleId"], run["ruleName"], run["version"], run["dealId"]) == (rule["id"], "Chase", 1, deal["id"])
    assert (run["event"]["type"], run["event"]["number"]) == ("deal.stage_changed", 2)
    assert (run["event"]["before"], run["event"]["after"]) == ({"stage": "lead"}, {"stage": "proposal"})
    assert (run["saw"]["holds"], run["saw"]["field"], run["saw"]["saw"]) == (True, "deal.valueCents", 5000)
    (step,) = run["steps"]
    assert (step["number"], step["step"], step["action"], step["outcome"]) == (1, "task", "create_task", "done")
    task = (await rep.get(f"/activities/{step['made']['id']}")).json()["activity"]
    assert (step["made"]["kind"], task["subject"], task["executionId"]) == ("activity", "Call", run["id"])
    following = run["next"]
    assert (following["status"], following["step"], following["stuckReason"]) == ("open", "three-days", None)
    assert following["dueAt"] == following["waits"]["at"]
    assert following["waits"]["chain"][0]["rule"] == "business_days"
    for filters, count in (({"rule": rule["id"]}, 1), ({"status": "open"}, 1), ({"status": "ended"}, 0)):
        assert (await rep.get("/runs", params=filters)).json()["total"] == count


async def test_a_refusal_tells_why_a_rule_did_not_act(rule, rep, base):
    deal = await move(rep, 500)
    await match_all(base)
    (refusal,) = (await rep.get("/refusals", params={"subject": deal["id"]})).json()["refusals"]
    assert (refusal["ruleId"], refusal["ruleName"], refusal["version"]) == (rule["id"], "Chase", 1)
    assert (refusal["reason"], refusal["eventType"]) == ("conditions_not_met", "deal.stage_changed")
    verdict = refusal["verdict"]
    assert (verdict["holds"], verdict["expected"], verdict["saw"]) == (False, 1000, 500)
    assert (await rep.get("/refusals", params={"rule": rule["id"], "event": refusal["eventId"]})).json()["total"] == 1
    assert (await rep.get("/refusals", params={"event": rule["id"]})).json()["total"] == 0


async def test_a_run_is_stopped_by_a_person_for_good(rule, rep, office, base):
    deal = await move(rep, 5000)
    await match_all(base)
    (run,) = (await rep.get("/runs", params={"deal": deal["id"]})).json()["runs"]
    stopped = (await office.manager.post(f"/runs/{run['id']}/stop", json={"note": "They signed."})).json()["run"]
    assert (stopped["status"], stopped["exitReason"], stopped["exitNote"]) == ("ended", "stopped", "They signed.")
    assert stopped["next"]["dueAt"] is None
    await base.pass_time(timedelta(days=30))
    from uuid import UUID

    assert (await advance(base, UUID(run["id"]))).done
    assert (await rep.get("/notifications")).json()["total"] == 0
    again = await office.manager.post(f"/runs/{run['id']}/stop")
    assert (again.status_code, again.json()["code"]) == (409, "ILLEGAL_TRANSITION")


async def test_a_stuck_run_says_what_is_wrong_and_goes_on_when_it_is_mended(rule, rep, office, base):
    deal = await move(rep, 5000)
    await match_all(base)
    (run,) = (await rep.get("/runs", params={"deal": deal["id"]})).json()["runs"]
    refused = await office.manager.post(f"/runs/{run['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "ILLEGAL_TRANSITION")
    async with base.transaction() as tx:
        await executions.get_stuck(tx, run["id"], StuckReason.NOBODY_TO_ASSIGN, "the record has no owner", base.admin)
    stuck = (await rep.get(f"/runs/{run['id']}")).json()["run"]["next"]
    assert (stuck["status"], stuck["stuckReason"], stuck["stuckDetail"], stuck["stuckOwnerId"]) == (
        "stuck", "nobody_to_assign", "the record has no owner", str(base.admin),
    )  # fmt: skip
    wakes = await base.value("SELECT count(*) FROM wakes")
    answer = await office.manager.post(f"/runs/{run['id']}/retry")
    assert (answer.status_code, answer.json()["run"]["status"]) == (200, "open")
    assert await base.value("SELECT count(*) FROM wakes") == wakes + 1
