"""The SMTP listener: takes in answers to what was sent, where no provider posts them.

Only mail for a reply address that we made: it relays nothing, and knows no other mailbox.
"""

import asyncio
from uuid import UUID

import structlog
from aiosmtpd.smtp import SMTP, Session
from aiosmtpd.smtp import Envelope as Delivery

from domain import link_tokens
from domain.email_addresses import BadEmailError, normalise_email
from domain.inbound_mail import LARGEST
from domain.link_tokens import Purpose
from store import intents, letters
from store.errors import is_transient
from store.transaction import Database, Origin

_WAITING = 100
"""Connections that may wait to be taken."""
_IDLE_SECONDS = 60
_LATER = "451 4.3.0 try again later"

log = structlog.get_logger()


class MailListener:
    """One handler for every connection; what is answered 250 is committed."""

    def __init__(self, database: Database, master_key: bytes) -> None:
        self._database = database
        self._link_key = link_tokens.subkey(master_key)

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, _session: Session, delivery: Delivery, address: str, _options: list[str]
    ) -> str:
        """Takes mail for a reply address that we made; nobody else's, so it relays nothing."""
        message = self._message(address)
        if message is None:
            return "550 5.1.1 no such mailbox"
        delivery.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, delivery: Delivery) -> str:  # noqa: N802
        """Stores it and holds what it may stop, for each recipient, before it is answered."""
        raw = delivery.original_content or b""
        try:
            for address in delivery.rcpt_tos:
                await self._take(raw, address)
        except Exception as error:
            if not is_transient(error):
                log.exception("letter_not_kept")
            return _LATER
        return "250 2.0.0 kept"

    async def handle_exception(self, error: Exception) -> str:
        """What fails elsewhere in the dialogue tells a stranger nothing of it."""
        log.warning("mail_dialogue_failed", error=type(error).__name__)
        return _LATER

    async def _take(self, raw: bytes, address: str) -> None:
        message = self._message(address)
        org = await intents.organization_of(self._database, message) if message else None
        if org is None:  # its organization is gone
            return
        came = letters.envelope(raw, recipients=[address.lower()], source=None, link_key=self._link_key)
        async with self._database.transaction(org, Origin("recipient")) as tx:
            letter, new = await letters.receive(tx, came)
        log.info("letter_received", letter=str(letter.id), new=new)

    def _message(self, address: str) -> UUID | None:
        try:
            found = link_tokens.token_in(normalise_email(address))
        except BadEmailError:
            return None
        return link_tokens.read(self._link_key, found, Purpose.REPLY) if found else None


async def listen(listener: MailListener, host: str, port: int) -> asyncio.Server:
    """A server that answers; the caller closes it."""
    loop = asyncio.get_running_loop()

    def session() -> SMTP:
        return SMTP(
            listener,
            hostname="drumbeat",
            ident="Drumbeat",
            data_size_limit=LARGEST,
            enable_SMTPUTF8=True,
            timeout=_IDLE_SECONDS,
            loop=loop,
        )

    return await loop.create_server(session, host, port, backlog=_WAITING)
