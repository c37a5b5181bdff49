"""`create-org`: where an organization begins."""

import re

from pydantic import ValidationError

from domain.due import Calendar
from domain.email_addresses import BadEmailError, normalise_email
from domain.words import Role
from runtime import settings, wiring
from runtime.attaching import attach
from runtime.trouble import TroubleError
from store import identity, mailboxes
from store.errors import Refused


async def create(name: str, email: str, slug: str | None, zone: str) -> dict[str, str]:
    """The new organization, its admin, the admin's API key, and a mailbox whose mail stays here."""
    attach()
    found = settings.load("master_key")
    database = wiring.database(found, found.secret("database_url"))
    short = slug or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    try:
        address, calendar = normalise_email(email), Calendar(zone=zone)
        org = await identity.create_organization(database, name, short, calendar)
        async with database.transaction(org) as tx:
            admin = await identity.create_user(tx, address, address.split("@")[0], Role.ADMIN)
            _, token = await identity.create_key(tx, admin.id, "first key", Role.ADMIN)
            box = {"name": "Local outbox", "from_name": name[:100], "from_email": address, "transport": "outbox"}
            await mailboxes.create(tx, box, None, wiring.master_key(found))
    except Refused as refused:
        raise TroubleError(refused.message) from None
    except BadEmailError as error:
        raise TroubleError(str(error)) from None
    except ValidationError as error:
        raise TroubleError(error.errors()[0]["msg"]) from None
    finally:
        await database.close()
    return {"organization": str(org), "slug": short, "user": str(admin.id), "apiKey": token}
