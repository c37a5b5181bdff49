import pytest

from store.intents import Unclaimed
from tests.api.mailing import post


async def test_one_switch_stops_all_mail_and_lets_it_go_on(post_office, office, base):
    message = await post_office.written(await post_office.enrolled())
    stopped = await post(office.manager, "/sending/stop", {"note": "Wrong price list."})
    assert (stopped["stoppedBy"], stopped["note"]) == (str(base.manager), "Wrong price list.")
    assert (await office.readonly.get("/sending")).json()["sending"] == stopped
    refused = await post_office.claim(message)
    assert isinstance(refused, Unclaimed)
    assert refused.reason == "sending_stopped"
    again = await post(office.admin, "/sending/stop", {"note": "Me too."})
    assert again == stopped, "who stopped it first is told"
    wakes = "SELECT count(*) FROM wakes WHERE kind = 'mailbox'"
    before = await base.value(wakes)
    resumed = await post(office.manager, "/sending/resume")
    assert (resumed["stoppedAt"], resumed["stoppedBy"], resumed["note"]) == (None, None, None)
    assert await base.value(wakes) == before + 1, "the mailbox with mail to send looks again"
    assert await post_office.claimed(message)


async def test_the_postal_address_is_what_every_mail_ends_with(office):
    assert (await office.rep.get("/sending")).json()["sending"]["postalAddress"] is None
    address = "Acme GmbH\nTorstraße 1\n10119 Berlin"
    answer = await office.admin.put("/sending/postal-address", json={"postalAddress": address})
    assert (answer.status_code, answer.json()["sending"]["postalAddress"]) == (200, address)


@pytest.mark.parametrize("address", ["", "  ", None, "x" * 501, "a\0b", 5])
async def test_an_address_that_is_none_is_refused(office, address):
    answer = await office.admin.put("/sending/postal-address", json={"postalAddress": address})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/postalAddress")


async def test_who_may_stop_may_not_say_whose_mail_it_is(office):
    put = await office.manager.put("/sending/postal-address", json={"postalAddress": "Acme"})
    assert put.status_code == 403
    for client in (office.rep, office.readonly):
        for verb in ("stop", "resume"):
            assert (await client.post(f"/sending/{verb}")).status_code == 403


async def test_another_organizations_switch_is_its_own(office, other_office):
    await post(office.manager, "/sending/stop")
    assert (await other_office.rep.get("/sending")).json()["sending"]["stoppedAt"] is None
