import pytest


@pytest.fixture
async def deal(rep):
    fields = {"title": "Northwind", "valueCents": 4_800_000}
    return (await rep.post("/deals", json=fields)).json()["deal"]


async def test_a_deal_begins_in_its_pipelines_first_stage_with_that_stages_probability(deal, base):
    assert (deal["pipeline"], deal["stage"], deal["probability"]) == ("default", "lead", 10)
    assert (deal["valueCents"], deal["currency"], deal["ownerId"]) == (4_800_000, "USD", str(base.rep))


async def test_a_deal_is_created_where_it_is_said_to_stand(rep):
    won = (await rep.post("/deals", json={"title": "Old", "stage": "closed_won"})).json()["deal"]
    assert (won["probability"], won["outcome"], won["wonAt"] is None) == (100, "won", False)
    sure = (await rep.post("/deals", json={"title": "Sure", "stage": "lead", "probability": 95})).json()["deal"]
    assert (sure["stage"], sure["probability"]) == ("lead", 95)


async def test_moving_a_deal_takes_over_the_stages_probability_and_is_an_event(rep, deal):
    answer = await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "proposal"})
    moved = answer.json()["deal"]
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (moved["stage"], moved["probability"]) == ("proposal", 60)
    events = (await rep.get("/events", params={"subjectKind": "deal", "subjectId": deal["id"]})).json()
    assert [event["type"] for event in events["events"]] == ["deal.stage_changed", "deal.created"]
    assert (events["events"][0]["before"], events["events"][0]["after"]) == ({"stage": "lead"}, {"stage": "proposal"})
    again = await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "proposal"})
    assert again.json() == answer.json()
    assert (await rep.get("/events", params={"subjectId": deal["id"]})).json()["total"] == 2


async def test_closing_a_deal_cancels_its_reminders_and_opening_it_takes_the_outcome_back(rep, deal):
    reminder = {"title": "Call", "dueAt": "2030-01-01T00:00:00Z", "dealId": deal["id"]}
    made = (await rep.post("/reminders", json=reminder)).json()["reminder"]
    won = (await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "closed_won"})).json()["deal"]
    assert (won["outcome"], won["wonAt"] is None, won["actualCloseDate"] is None) == ("won", False, False)
    assert (await rep.get(f"/reminders/{made['id']}")).json()["reminder"]["status"] == "cancelled"
    reopened = (await rep.put(f"/deals/{deal['id']}/stage", json={"stage": "lead"})).json()["deal"]
    assert (reopened["outcome"], reopened["wonAt"], reopened["actualCloseDate"]) == (None, None, None)


@pytest.mark.parametrize("stage", ["nonsense", "Proposal", "elsewhere"])
async def test_a_stage_that_the_deals_pipeline_has_not_is_unknown(rep, deal, base, stage):
    async with base.transaction() as tx:
        from sqlalchemy import insert

        from store.tables import pipelines, stages

        await tx.execute(insert(pipelines).values(org_id=tx.org, key="partners", name="Partners"))
        row = {"key": "elsewhere", "name": "Elsewhere", "position": 1, "probability": 5, "kind": "open"}
        await tx.execute(insert(stages).values(org_id=tx.org, pipeline="partners", **row))
    for answer in (
        await rep.put(f"/deals/{deal['id']}/stage", json={"stage": stage}),
        await rep.post("/deals", json={"title": "New", "stage": stage}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "UNKNOWN_STAGE")
        assert answer.json()["errors"][0]["pointer"] == "/stage"
    assert (await rep.post("/deals", json={"title": "New", "stage": "elsewhere", "pipeline": "partners"})).is_success
    assert (await rep.post("/deals", json={"title": "New", "pipeline": "nonsense"})).json()["code"] == "UNKNOWN_STAGE"


async def test_the_board_lists_stages_in_order(rep):
    stages = (await rep.get("/stages")).json()
    assert [stage["key"] for stage in stages["stages"]] == [
        "lead", "qualified", "proposal", "negotiation", "closed_won", "closed_lost",
    ]  # fmt: skip
    assert (stages["total"], stages["cursor"], stages["stages"][2]["probability"]) == (6, None, 60)


async def test_a_lists_sums_are_of_all_deals_it_is_about_whatever_the_page(rep, base):
    for value, currency, stage in (
        (100, "USD", "lead"),
        (250, "USD", "proposal"),
        (70, "JPY", "lead"),
        (1, "USD", "lead"),
    ):
        made = await rep.post("/deals", json={"title": "D", "valueCents": value, "currency": currency, "stage": stage})
        assert made.status_code == 201
    page = (await rep.get("/deals", params={"limit": 1})).json()
    assert (page["total"], len(page["deals"])) == (4, 1)
    assert page["pipelineValue"] == {"USD": 351, "JPY": 70}
    assert {(s["stage"], s["currency"]): (s["deals"], s["valueCents"]) for s in page["byStage"]} == {
        ("lead", "USD"): (2, 101),
        ("lead", "JPY"): (1, 70),
        ("proposal", "USD"): (1, 250),
    }
    some = (await rep.get("/deals", params={"minValue": 70, "maxValue": 100, "stage": "lead"})).json()
    assert (some["total"], some["pipelineValue"]) == (2, {"USD": 100, "JPY": 70})
    assert (await rep.get("/deals", params={"owner": base.manager})).json()["deals"] == []


async def test_a_deal_names_only_records_that_are_there(rep):
    nobody = "01999999-0000-7000-8000-000000000000"
    for field in ("contactId", "companyId", "ownerId"):
        answer = await rep.post("/deals", json={"title": "New", field: nobody})
        assert (answer.status_code, answer.json()["code"]) == (422, "UNKNOWN_REFERENCE")
        assert answer.json()["errors"][0]["pointer"] == f"/{field}"
