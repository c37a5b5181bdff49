"""`outbox`: what the local outbox has kept, as rows and as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domain.mail import compose, of_json
from runtime import settings, wiring
from runtime.attaching import attach
from runtime.progress import say
from runtime.trouble import TroubleError
from store import identity, messages
from store.events import Record
from store.pages import Span


async def show(slug: str | None, limit: int, eml: Path | None) -> dict[str, Any]:
    """The newest messages, and the file of each where a folder is named."""
    attach()
    found = settings.load()
    database = wiring.database(found, found.secret("database_url"))
    try:
        org = await identity.find_organization(database, slug)
        if org is None:
            message = (
                "Which organization? Name it with --org." if slug is None else f"There is no organization '{slug}'."
            )
            raise TroubleError(message)
        async with database.transaction(org) as tx:
            page = await messages.in_outbox(tx, Span(limit=limit))
    finally:
        await database.close()
    if eml is not None:
        _write(eml, page.records)
    shown = [
        {
            "id": str(row.id),
            "at": row.accepted_at.isoformat(),
            "from": row.rendered["from_email"],
            "to": row.rendered["to_email"],
            "subject": row.rendered["subject"],
        }
        for row in page.records
    ]
    return {"messages": shown, "total": page.total}


def _write(folder: Path, rows: Sequence[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / f"{row.id}.eml").write_bytes(compose(of_json(row.rendered)))
    say(f"Written to {folder}: {len(rows)}.")
