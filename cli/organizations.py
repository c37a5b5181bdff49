"""`create-org`: where an organization begins."""

import re

from pydantic import ValidationError

from domain.due import Calendar
from domain.email_addresses import BadEmailError, normalise_email
from domain.words import Role
from runtime import settings, wiring
from runtime.attaching import attach
from runtime.trouble import TroubleError
from store import identity
from store.errors import Refused


async def create(name: str, email: str, slug: str | None, zone: str) -> dict[str, str]:
    """The new organization, its admin and the admin's API key."""
    attach()
    found = settings.load()
    database = wiring.database(found, found.secret("database_url"))
    short = slug or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    try:
        address, calendar = normalise_email(email), Calendar(zone=zone)
        org = await identity.create_organization(database, name, short, calendar)
        async with database.transaction(org) as tx:
            admin = await identity.create_user(tx, address, address.split("@")[0], Role.ADMIN)
            _, token = await identity.create_key(tx, admin.id, "first key", Role.ADMIN)
    except Refused as refused:
        raise TroubleError(refused.message) from None
    except BadEmailError as error:
        raise TroubleError(str(error)) from None
    except ValidationError as error:
        raise TroubleError(error.errors()[0]["msg"]) from None
    finally:
        await database.close()
    return {"organization": str(org), "slug": short, "user": str(admin.id), "apiKey": token}
