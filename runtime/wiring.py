"""How each service is put together: the only place where settings meet the rooms they are for."""

import asyncio
import base64
import signal
from collections.abc import Sequence
from datetime import timedelta

import structlog
import uvicorn
import uvloop
from temporalio.client import Client, Interceptor
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.advance import Advance
from activities.send import Links, Send
from api.app import create_app
from domain.keys import mail_queue
from runtime import mail_listener, migrating, temporal
from runtime.mail_listener import MailListener
from runtime.settings import Settings
from store import hints
from store.transaction import Database
from triggers.dispatch import Dispatch, TemporalAway
from triggers.letters import Letters
from triggers.loops import repeat
from triggers.relay import Relay
from triggers.sweep import Resumption, Retention, Sweep
from workflows.drain import Drain
from workflows.walk import Walk

POLL = 1.0
"""Real seconds between looks at a queue, should its hint be lost."""
APART = 0.02
"""Real seconds between two looks that were hinted at: half of what an event may wait for its effect when many come."""
SWEEP_EVERY = 15.0
RETAIN_EVERY = 600.0
LOOPS = dict.fromkeys(("api", "relay", "worker"), uvloop.new_event_loop)
"""The event loop of a service, where it is not Python's own: a request costs a third less."""

log = structlog.get_logger()


def database(settings: Settings, url: str) -> Database:
    """A pool for one role."""
    return Database.connect(
        url,
        size=settings.pool_size,
        overflow=settings.pool_overflow,
        timeout=settings.pool_timeout_seconds,
        recycle=settings.pool_recycle_seconds,
    )


def master_key(settings: Settings) -> bytes:
    return base64.b64decode(settings.secret("master_key"))


async def serve_api(settings: Settings) -> None:
    """Answers HTTP until told to end; open requests have ten seconds to finish."""
    app = database(settings, settings.secret("database_url"))
    served = create_app(app, master_key(settings), revision=migrating.head())
    config = uvicorn.Config(
        served,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    await uvicorn.Server(config).serve()
    await app.close()


async def serve_relay(settings: Settings, interceptors: Sequence[Interceptor] = ()) -> None:
    """Matches, pokes, sweeps and lets go, until told to end. Temporal may be away all the while."""
    url = settings.secret("relay_database_url")
    crossing, app = database(settings, url), database(settings, settings.secret("database_url"))
    relay = Relay(crossing, app, first_attempt=settings.first_attempt)
    client, queue = _Patient(interceptors).client, settings.task_queue
    dispatch = Dispatch(crossing, app, client, queue, first_attempt=settings.first_attempt)
    retention = Retention(crossing, app, timedelta(days=settings.history_days))
    sweep, letters = Sweep(crossing, app), Letters(crossing, app)
    resumption = Resumption(crossing, app)
    stopping = until_told()
    facts, wakes, mail = asyncio.Event(), asyncio.Event(), asyncio.Event()
    log.info("ready")
    await asyncio.gather(
        hints.listen(url, {hints.OUTBOX: facts, hints.WAKES: wakes, hints.LETTERS: mail}, stopping),
        repeat("relay", relay.once, pause=POLL, stopping=stopping, hint=facts, apart=APART),
        repeat("dispatch", dispatch.once, pause=POLL, stopping=stopping, hint=wakes, apart=APART),
        repeat("letters", letters.once, pause=POLL, stopping=stopping, hint=mail),
        repeat("resumption", resumption.once, pause=POLL, stopping=stopping),
        repeat("sweep", sweep.once, pause=SWEEP_EVERY, stopping=stopping),
        repeat("retention", retention.once, pause=RETAIN_EVERY, stopping=stopping),
    )
    await letters.close()
    await crossing.close()
    await app.close()


async def serve_worker(settings: Settings, interceptors: Sequence[Interceptor] = ()) -> None:
    """Runs workflows and their activity functions until told to end; waits for Temporal to come."""
    stopping = until_told()
    app = database(settings, settings.secret("database_url"))
    client = await _first_client(stopping, interceptors)
    send = Send(app, master_key(settings), Links(settings.links_to, settings.inbound_domain))
    if client is not None:
        async with worker(client, app, settings), sender(client, send, settings):
            log.info("ready")
            await stopping.wait()
    await send.close()
    await app.close()


async def serve_mail(settings: Settings) -> None:
    """Takes in mail by SMTP until told to end."""
    stopping = until_told()
    app = database(settings, settings.secret("database_url"))
    listener = MailListener(app, master_key(settings))
    async with await mail_listener.listen(listener, settings.mail_host, settings.mail_port):
        log.info("ready")
        await stopping.wait()
    await app.close()


def worker(client: Client, app: Database, settings: Settings) -> Worker:
    """A worker whose concurrency fits its pool: each advance holds one connection."""
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=[Walk, Drain],
        activities=[Advance(app).advance],
        workflow_runner=sandbox(),
        max_concurrent_workflow_tasks=8,
        max_concurrent_local_activities=settings.pool_size + settings.pool_overflow,
        max_cached_workflows=1000,
        # After a crash every sleeper comes through the normal queue, and soon.
        nonsticky_to_sticky_poll_ratio=0.5,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=10),
    )


def sender(client: Client, send: Send, settings: Settings) -> Worker:
    """A worker for mail, on a queue of its own: slow mail servers take none of the places of those that wait."""
    return Worker(
        client,
        task_queue=mail_queue(settings.task_queue),
        activities=[send.drain],
        max_concurrent_activities=settings.mailboxes_at_once,
        max_heartbeat_throttle_interval=timedelta(seconds=4),
        # A frozen process is still handed what its open polls ask for, and each is lost for a heartbeat's timeout.
        max_concurrent_activity_task_polls=2,
        graceful_shutdown_timeout=timedelta(seconds=35),
    )


def sandbox() -> SandboxedWorkflowRunner:
    """Where workflow code runs: watched, but for our own modules, which are imported once and not per instance."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules("workflows", "domain")
    return SandboxedWorkflowRunner(restrictions=restrictions)


def until_told() -> asyncio.Event:
    """Set by SIGTERM or SIGINT. Call inside the running loop."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


class _Patient:
    """One Temporal client for the process, made when Temporal first answers."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors
        self._client: Client | None = None

    async def client(self) -> Client:
        if self._client is None:
            try:
                self._client = await temporal.connect(interceptors=self._interceptors)
            except temporal.TemporalError as error:
                raise TemporalAway(str(error)) from None
        return self._client


async def _first_client(stopping: asyncio.Event, interceptors: Sequence[Interceptor]) -> Client | None:
    """The client, however long Temporal takes; None if told to end before."""
    while not stopping.is_set():
        try:
            return await temporal.connect(patience=2, interceptors=interceptors)
        except temporal.TemporalError as error:
            log.warning("temporal_away", detail=str(error))
    return None
