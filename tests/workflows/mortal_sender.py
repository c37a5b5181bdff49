"""A worker that sends, to be killed or frozen; run as a script, it says `ready`.

Its third argument says where it stops itself, as SIGSTOP stops a process, the first time it comes there:
`claimed` is after the commit of a claim, `calling` before the first byte that follows, `told` after the mail
server's "go on" and before the mail's first byte. With `never` it goes on.
A claim lasts two seconds here, a heartbeat comes every half second.
"""

import asyncio
import os
import signal
import sys
from typing import Any
from unittest.mock import patch

from aiosmtplib import SMTP, SMTPResponse
from pydantic import SecretStr
from sqlalchemy import event
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.send import Links, Send
from activities.transports import Outcome, SmtpTransport
from runtime.settings import Settings
from runtime.wiring import sender, until_told
from store.transaction import Database

SHORT = {"activities.send.CALL_SECONDS": 1.0, "activities.send.CLAIM_GRACE": 1.0, "store.intents.CLAIM_GRACE": 1.0,
         "activities.send._BEAT": 0.5}  # fmt: skip


class Freeze:
    """Stops this process once."""

    def __init__(self) -> None:
        self._over = False

    def __call__(self) -> None:
        if not self._over:
            self._over = True
            os.kill(os.getpid(), signal.SIGSTOP)


def freeze_when_claimed(database: Database) -> None:
    freeze, claimed = Freeze(), []
    engine = database.engine.sync_engine

    @event.listens_for(engine, "after_cursor_execute")
    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO attempts" in statement:
            claimed.append(statement)

    @event.listens_for(engine, "checkin")
    def given_back(*_: Any) -> None:
        if claimed:
            freeze()


class FrozenTransport(SmtpTransport):
    freeze = Freeze()

    async def send(self, raw: bytes, sender: str, recipient: str, until: float) -> Outcome:
        self.freeze()
        return await super().send(raw, sender, recipient, until)


class FrozenClient(SMTP):
    freeze = Freeze()

    async def execute_command(self, *command: bytes, **options: Any) -> SMTPResponse:
        answer = await super().execute_command(*command, **options)
        if command == (b"DATA",):
            self.freeze()
        return answer


async def main(url: str, queue: str, where: str) -> None:
    database = Database.connect(url)
    if where == "claimed":
        freeze_when_claimed(database)
    client = await Client.connect(
        os.environ["TEMPORAL_ADDRESS"],
        namespace=os.environ["TEMPORAL_NAMESPACE"],
        data_converter=pydantic_data_converter,
    )
    send = Send(database, bytes(32), Links("https://crm.example.com"))
    stopping = until_told()
    async with sender(client, send, Settings(database_url=SecretStr(url), task_queue=queue)):
        print("ready", flush=True)  # noqa: T201  (its answer)
        await stopping.wait()
    await send.close()
    await database.close()


if __name__ == "__main__":
    for name, value in SHORT.items():
        patch(name, value).start()
    if sys.argv[3] == "calling":
        patch("activities.send.SmtpTransport", FrozenTransport).start()
    if sys.argv[3] == "told":
        patch("activities.transports.SMTP", FrozenClient).start()
    asyncio.run(main(*sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)
