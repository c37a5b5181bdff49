import pytest
from sqlalchemy import text

from domain.words import Role
from store import identity


@pytest.mark.parametrize(
    ("of_key", "of_user", "may_be"),
    [
        ("admin", "rep", "rep"),
        ("rep", "admin", "rep"),
        ("readonly", "manager", "readonly"),
        ("admin", "admin", "admin"),
    ],
)
async def test_a_key_may_no_more_than_its_user(base, of_key, of_user, may_be):
    async with base.transaction() as tx:
        _, token = await identity.create_key(tx, base.rep, "key", Role(of_key))
        await tx.execute(text("UPDATE users SET role = :role WHERE id = :id"), {"role": of_user, "id": base.rep})
    caller = await identity.authenticate(base.app, token)
    assert caller is not None
    assert caller.role == Role(may_be)


async def test_a_key_lets_nobody_in_once_it_is_revoked_or_its_user_is_inactive(base):
    async with base.transaction() as tx:
        revoked, token = await identity.create_key(tx, base.rep, "key", Role.REP)
        _, other = await identity.create_key(tx, base.manager, "key", Role.REP)
        await identity.revoke_key(tx, revoked.id)
        await tx.execute(text("UPDATE users SET is_active = false WHERE id = :id"), {"id": base.manager})
    assert await identity.authenticate(base.app, token) is None
    assert await identity.authenticate(base.app, other) is None


async def test_a_webhook_secret_is_stored_sealed_and_opens_with_its_master_key_only(base):
    async with base.transaction() as tx:
        source, secret = await identity.create_source(tx, "forms", bytes(32))
    assert secret.startswith("whsec_")
    stored: bytes = await base.value("SELECT sealed_secret FROM sources")
    found = await identity.resolve_source(base.app, source.id, bytes(32))
    assert found is not None
    assert found.org == base.org
    assert found.secret not in stored
    with pytest.raises(Exception, match=r"^$"):  # the cipher's InvalidTag says nothing more
        await identity.resolve_source(base.app, source.id, bytes([1]) * 32)
