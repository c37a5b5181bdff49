# mypy: ignore-errors
"""People's stops against claims: what commits first holds, whichever way the two are interleaved."""

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import md5
from uuid import UUID

import pytest
from sqlalchemy import text

from domain.inbound_mail import Bounce, LetterKind
from domain.inbound_mail import Letter as Read
from domain.words import Kind, Suppression, Target
from store import contacts, definitions, enrollments, intents, letters, mailboxes, sending, stops, suppressions
from store.intents import Claim
from store.transaction import Database
from tests.driving import as_admin, enroll, letter, mail, make_contact, make_mailbox, publish, sequence

RACES = 2_002
THOROUGH_RACES = 10_010
"""Of the thirteen stops that concern one person, an equal share each, against one claim each."""
GROUP_RACES = 600
"""Of stops of a mailbox, a sequence or everything, each against three claims."""
AT_ONCE = 6
SEED = 20261121
"""Of how long each side dawdles; how the two are interleaved is the machine's to say all the same."""
MAILBOXES = 12


@dataclass(frozen=True)
class Racer:
    """One person with a mail that has left and one that has not.

    Ids are made of a number, so that thousands are written by one statement.
    """

    number: int
    mailboxes: list[UUID]

    def id(self, noun):
        return UUID(md5(f"{noun}{self.number}".encode()).hexdigest())  # noqa: S324  (no secret)

    @property
    def email(self):
        return f"racer{self.number}@example.com"

    @property
    def earlier(self):
        """The Message-ID of the mail that has left."""
        return f"<earlier{self.number}@x.example>"

    @property
    def mailbox(self):
        return self.mailboxes[self.number // 3 % len(self.mailboxes)]


@dataclass(frozen=True)
class Field:
    database: Database
    org: UUID
    sequence: UUID
    racers: list[Racer]
    random: random.Random

    @asynccontextmanager
    async def transaction(self):
        """Takes a ticket as its last statement, so that tickets are in the order of the locks both sides take."""
        tickets = []
        async with self.database.transaction(self.org, lock_seconds=30) as tx:
            yield tx, tickets
            tickets.append(await self.ticket(tx))

    async def ticket(self, tx):
        return (await tx.execute(text("SELECT nextval('tickets')"))).scalar_one()

    async def dawdle(self):
        for _ in range(self.random.randrange(24)):
            await asyncio.sleep(0)

    async def claim(self, racer):
        """The ticket taken before, the ticket at the end, and what the claim answered."""
        await self.dawdle()
        async with self.transaction() as (tx, tickets):
            began = await self.ticket(tx)
            id_ = racer.id("intent")
            answer = await intents.claim(
                tx,
                id_,
                racer.mailbox,
                message_id=f"<{id_}@x.example>",
                rendered={"to_email": racer.email},
                call_seconds=30,
            )
        return began, tickets[0], isinstance(answer, Claim)


_ROWS = """
INSERT INTO contacts (org_id, id, email, revision, created_at, updated_at)
  SELECT app_org(), md5('contact'||n)::uuid, 'racer'||n||'@example.com', 1, business_now(), business_now() FROM racers;
INSERT INTO addresses (org_id, id, hash, revision, created_at, updated_at)
  SELECT app_org(), md5('address'||n)::uuid, hash_address('racer'||n||'@example.com'), 0, business_now(), business_now()
  FROM racers;
INSERT INTO events (org_id, id, type, subject_kind, subject_id, number, at, before, after, actor_kind)
  SELECT app_org(), md5('event'||n)::uuid, 'contact.created', 'contact', md5('contact'||n)::uuid, 1, business_now(),
    '{}', '{}', 'system' FROM racers;
INSERT INTO executions (org_id, id, kind, event_id, definition_id, version_id, contact_id, status, awaits, anchor,
    started_at, started_by_kind, destination_id)
  SELECT app_org(), md5('execution'||n)::uuid, kind, md5('event'||n)::uuid, definition_id, version_id,
    md5('contact'||n)::uuid, 'open', 'message', business_now(), business_now(), 'user', destination_id FROM racers;
INSERT INTO intents (org_id, id, kind, destination_id, execution_id, step, visit, contact_id, address_id, status,
    due_at, revision, created_at, updated_at)
  SELECT app_org(), md5('intent'||n)::uuid, 'message', destination_id, md5('execution'||n)::uuid, 'mail', 1,
    md5('contact'||n)::uuid, md5('address'||n)::uuid, 'pending', business_now(), 0, business_now(), business_now()
  FROM racers;
INSERT INTO intents (org_id, id, kind, destination_id, execution_id, step, visit, contact_id, address_id, status,
    message_id, accepted_at, due_at, revision, created_at, updated_at)
  SELECT app_org(), md5('earlier'||n)::uuid, 'message', destination_id, md5('execution'||n)::uuid, 'earlier', 1,
    md5('contact'||n)::uuid, md5('address'||n)::uuid, 'accepted', '<earlier'||n||'@x.example>', business_now(),
    business_now(), 0, business_now(), business_now() FROM racers;
UPDATE executions SET message_id = md5('intent'||n)::uuid FROM racers WHERE id = md5('execution'||n)::uuid;
INSERT INTO letters (org_id, id, key, raw, from_email, matched_by, contact_id, status, received_at)
  SELECT app_org(), md5('letter'||n)::uuid, sha256(n::text::bytea), '', 'racer'||n||'@example.com', 'sender',
    md5('contact'||n)::uuid, 'received', business_now() FROM racers
"""


@asynccontextmanager
async def field(base, count, kind="enrollment"):
    """So many people in one sequence, each with a mail that is due, and a counter both sides draw tickets from."""
    boxes = [await make_mailbox(base, f"Mailbox {number}") for number in range(MAILBOXES)]
    made = await publish(base, sequence(mail()))
    await enroll(base, made, await make_contact(base))
    async with base.transaction() as tx:
        await tx.execute(
            text(
                "CREATE TEMPORARY TABLE racers (n int, kind text, definition_id uuid, version_id uuid,"
                " destination_id uuid) ON COMMIT DROP"
            )
        )
        await tx.execute(
            text(
                "INSERT INTO racers SELECT n, :kind, definition_id, version_id,"
                " (CAST(:boxes AS uuid[]))[n / 3 % :many + 1] FROM executions, generate_series(0, :count - 1) n"
            ),
            {"boxes": boxes, "many": MAILBOXES, "count": count, "kind": kind},
        )
        for statement in _ROWS.split(";"):
            await tx.execute(text(statement))
    await as_admin(base, "CREATE SEQUENCE tickets")
    await as_admin(base, "GRANT USAGE ON SEQUENCE tickets TO drumbeat_app")
    await as_admin(base, "ANALYZE")
    database = Database.connect(base.app_url, size=2 * AT_ONCE, overflow=4)
    try:
        racers = [Racer(number, boxes) for number in range(count)]
        yield Field(database, base.org, made, racers, random.Random(SEED))  # noqa: S311  (chance, not secrets)
    finally:
        await database.close()
        await as_admin(base, "DROP SEQUENCE tickets")


async def take_out(tx, racer):
    assert await enrollments.take_out(tx, racer.id("contact"), None)


async def stop(tx, racer):
    await stops.stop(tx, racer.id("execution"), Target.ENROLLMENT, None)


async def unsubscribe(tx, racer):
    assert await suppressions.unsubscribe(tx, racer.id("intent"))


async def suppress(tx, racer):
    await suppressions.suppress(tx, racer.email, Suppression.MANUAL)


async def pause(tx, racer):
    await enrollments.pause(tx, racer.id("execution"))


async def hold(tx, racer):
    raw = letter(f"Message-ID: <{racer.number}@racer.example>", frm=racer.email)
    await letters.receive(tx, letters.envelope(raw, recipients=(), source=None, link_key=bytes(32)))


async def reply(tx, racer):
    read = Read(kind=LetterKind.REPLY, text="No", full_text="No", subject="Re: Hello")
    assert await letters.understood(tx, racer.id("letter"), read)


async def bounce(tx, racer):
    about = Bounce(permanent=True, about_address=True, original_message_id=racer.earlier)
    read = Read(kind=LetterKind.BOUNCE, text="", full_text="", subject="Undeliverable", bounce=about)
    assert await letters.understood(tx, racer.id("letter"), read)


async def complain(tx, racer):
    read = Read(kind=LetterKind.COMPLAINT, text="", full_text="", subject="Abuse", original_ids=(racer.earlier,))
    assert await letters.understood(tx, racer.id("letter"), read)


async def delete(tx, racer):
    await contacts.delete(tx, racer.id("contact"))


ALL = (take_out, stop, unsubscribe, suppress, pause, hold, reply, bounce, complain, delete)
PEOPLES = [(what, "enrollment") for what in ALL]
# A run goes on. The address alone holds its mail back, but for that to a deleted contact, which is cancelled.
PEOPLES += [(what, "run") for what in (unsubscribe, suppress, delete)]


@pytest.mark.parametrize(("what", "kind"), PEOPLES, ids=[f"{what.__name__}-{kind}" for what, kind in PEOPLES])
async def test_thousands_of_stops_race_a_claim_each_and_no_claim_commits_after_its_stop(base, what, kind, thorough):
    races = (THOROUGH_RACES if thorough else RACES) // len(PEOPLES)
    async with field(base, races, kind) as of:

        async def stopped(racer):
            await of.dawdle()
            async with of.transaction() as (tx, tickets):
                await what(tx, racer)
            return tickets[0]

        async def race(racer):
            if of.random.random() < 0.5:
                stopped_at, claim = await asyncio.gather(stopped(racer), of.claim(racer))
            else:
                claim, stopped_at = await asyncio.gather(of.claim(racer), stopped(racer))
            _, claimed_at, claimed = claim
            return claimed, claimed_at > stopped_at

        found = Counter(await _all(of.racers, race))
    assert found[True, True] == 0
    assert found.total() == races
    assert found[True, False] > 20  # a race that always ends the same way is none
    assert found[False, True] + found[False, False] > 20
    assert await _disagreeing(base) == []
    assert await base.value("SELECT count(*) FROM attempts") == found[True, False]


async def _all(racers, race):
    """Runs the races, some at a time."""
    waiting, found = iter(racers), []

    async def lane():
        found.extend([await race(racer) for racer in waiting])

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    return found


async def _disagreeing(base):
    """Messages whose row says other than their attempts and their enrollment do."""
    return await base.rows(
        """
        SELECT i.status, x.status AS enrollment, t.number FROM intents i
        JOIN executions x ON x.id = i.execution_id LEFT JOIN attempts t ON t.intent_id = i.id
        WHERE (i.status = 'claimed') <> (t.number IS NOT NULL)
          OR i.status = 'pending' AND x.status IN ('ended', 'paused')
          OR i.status = 'pending' AND x.held_since IS NOT NULL
          OR i.status = 'cancelled' AND x.status <> 'ended' AND x.kind = 'enrollment'
          OR i.status = 'held' AND x.status <> 'paused' AND x.held_since IS NULL"""
    )


async def stop_sending(tx, of, racers):
    await sending.stop(tx, None)


async def resume_sending(tx, of, racers):
    await sending.resume(tx)


async def pause_sequence(tx, of, racers):
    await definitions.pause(tx, of.sequence, expected=None, kind=Kind.SEQUENCE)


async def resume_sequence(tx, of, racers):
    await definitions.activate(tx, of.sequence, None, expected=None, kind=Kind.SEQUENCE)


async def pause_mailbox(tx, of, racers):
    await mailboxes.pause(tx, racers[0].mailbox)


async def resume_mailbox(tx, of, racers):
    await mailboxes.resume(tx, racers[0].mailbox)


SWITCHES = ((stop_sending, resume_sending), (pause_sequence, resume_sequence), (pause_mailbox, resume_mailbox))


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch[0].__name__)
async def test_a_switch_of_a_group_lets_no_claim_through_that_begins_after_it(base, switch):
    off, on = switch
    races = GROUP_RACES // len(SWITCHES)
    async with field(base, races * 3) as of:
        early = 0
        for number in range(races):
            racers = of.racers[number * 3 : number * 3 + 3]
            # Two claims at about the same time, one for certain after.
            stopped_at, *claims = await asyncio.gather(
                _stopped(of, off, racers), *(of.claim(one) for one in racers[:2])
            )
            claims.append(await of.claim(racers[2]))
            assert [claim for claim in claims if claim[2] and claim[0] > stopped_at] == []
            assert not claims[2][2]
            early += sum(claim[2] for claim in claims)
            async with of.transaction() as (tx, _):
                await on(tx, of, racers)
    assert 0 < early < races * 2
    assert await _disagreeing(base) == []


async def _stopped(of, off, racers):
    """The ticket taken once the stop has committed."""
    await of.dawdle()
    async with of.transaction() as (tx, _):
        await off(tx, of, racers)
    async with of.transaction() as (_, tickets):
        pass
    return tickets[0]
