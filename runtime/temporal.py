"""The embedded Temporal server, and connecting to whichever server the environment names."""

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest, SignalWorkflowExecutionRequest
from temporalio.client import Client, Interceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from runtime.children import Child, free_ports, listens, spawn
from runtime.keyring import write_private
from runtime.locks import BusyError, Lock
from runtime.obtain import Found, Kind
from runtime.settings import temporal_connection
from runtime.temporal_store import SqliteFiles, Store
from runtime.trouble import TroubleError

NAMESPACE = "drumbeat"
"""The namespace of the embedded server."""

_RETENTION = timedelta(days=3)
_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_CALL = timedelta(seconds=5)

# The services of the plain server, clients' first. Each has a port for calls and one for membership.
_SERVICES = ("frontend", "history", "matching", "worker")
_HISTORY_SHARDS = 4
"""Fixed for ever once a store is made."""

DYNAMIC_CONFIG: Mapping[str, Any] = {
    # Timers fire up to this late on purpose, a second by default: in time-lapse that would be hours.
    "history.timerProcessorMaxTimeShift": "20ms",
    # A new namespace is usable at once, not in ten seconds.
    "system.namespaceCacheRefreshInterval": "1s",
    # The defaults are for a cluster; these fit two cores and a few hundred megabytes.
    "matching.numTaskqueueReadPartitions": 1,
    "matching.numTaskqueueWritePartitions": 1,
    "history.hostLevelCacheMaxSize": 8000,
    "history.eventsHostLevelCacheMaxSizeBytes": 33554432,
    # A workflow whose task has failed twice on end says so where `doctor` looks; five take half a minute.
    "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute": 2,
    "history.timerProcessorSchedulerWorkerCount": 64,
    "history.transferProcessorSchedulerWorkerCount": 64,
}
"""What the embedded server is told beyond its defaults."""


class TemporalError(TroubleError):
    """Temporal cannot be started or reached."""


class TemporalServer:
    """One server on one folder; it can be started again after any death."""

    def __init__(self, found: Found, folder: Path, *, namespace: str = NAMESPACE, store: Store | None = None) -> None:
        """`found` is a program, not an address; the namespace is made if it is missing.

        Without a `store`, it keeps things in SQLite files in the folder. Raises StoreError if a store is not
        one for this program.
        """
        self._found = found
        self._folder = folder
        self._namespace = namespace
        self._store = store or SqliteFiles(folder)
        self._arguments = self._store.arguments() if found.kind is Kind.CLI else []
        self._lock = Lock(folder / "lock")
        self._child: Child | None = None
        self._port: int | None = None

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._child is not None and self._child.running

    @property
    def child(self) -> Child:
        """The server's process, as it was last started."""
        assert self._child is not None  # noqa: S101  # `start` makes it
        return self._child

    @property
    def address(self) -> str:
        """Host and port. They stay as long as this object lives, so that clients find a restarted server."""
        return f"127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process connects to this server and to nothing else."""
        return {
            "TEMPORAL_ADDRESS": self.address,
            "TEMPORAL_NAMESPACE": self._namespace,
            # The user's own configuration file may hold an API key or TLS for another server.
            "TEMPORAL_CONFIG_FILE": os.devnull,
        }

    async def start(self) -> None:
        """Start the server and return when workflows can be started in its namespace.

        Raises TemporalError if another process uses the folder, or with the server's own last words; and
        StoreError or PostgresError if the store is not to be had.
        """
        if self.running:
            return
        self._take_folder()
        try:
            deadline = time.monotonic() + _START_SECONDS
            await self._serve(deadline)
            await self._prepare_namespace(deadline)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server and let go of the folder."""
        await self.kill()
        self._lock.release()

    async def kill(self) -> None:
        """End the server. The folder stays ours, and `start` brings it back on the same port.

        There is no gentler way worth having: asked politely it spends ten seconds taking leave of a
        cluster of itself, and what it has acknowledged is on its store's disk either way.
        """
        if self._child is not None:
            await self._child.end(SIGKILL, 0)

    def _take_folder(self) -> None:
        if self._lock.held:
            return
        try:
            self._lock.take()
        except BusyError as busy:
            message = (
                f"The Temporal folder {self._folder} is in use by process {busy}. "
                "Stop that process, or choose another folder."
            )
            raise TemporalError(message) from busy

    async def _serve(self, deadline: float) -> None:
        keep_port = self._port is not None
        while True:
            ports = free_ports(2 * len(_SERVICES) + 1)
            if keep_port and self._port is not None:
                ports[0] = self._port
            self._port = ports[0]
            await self._store.prepare()
            child = self._child = self._spawn(ports)
            while child.running and time.monotonic() < deadline:
                # Another server may have taken the port first and would answer just as well: ask who listens.
                if listens(child.pid, ports[0]):
                    return
                await asyncio.sleep(_POLL_SECONDS)
            await child.end(SIGKILL, 0)
            if time.monotonic() > deadline or "address already in use" not in child.output():
                message = f"The Temporal server did not start in {self._folder}:\n{child.last_words()}"
                raise TemporalError(message)

    def _spawn(self, ports: list[int]) -> Child:
        if self._found.kind is Kind.CLI:
            command = [
                *(self._found.where, "server", "start-dev", "--headless", "--log-level", "warn"),
                *("--ip", "127.0.0.1", "--port", str(ports[0]), "--http-port", str(ports[-1])),
                *("--namespace", self._namespace, *self._arguments),
            ]
            for key, value in DYNAMIC_CONFIG.items():
                command += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        else:
            command = [self._found.where, "--allow-no-auth", "--config-file", str(self._configure(ports)), "start"]
        return spawn(
            command,
            log=self._folder / "temporal.log",
            # A clean environment: the server reads dozens of variables with everyday names. It also wants
            # a user's name, and finds none by itself where the user has no entry on the machine.
            env={"PATH": os.defpath, "HOME": str(self._folder), "USER": "drumbeat"},
        )

    def _configure(self, ports: list[int]) -> Path:
        """Write what the plain server is told. JSON is YAML, and needs no library."""
        dynamic = self._folder / "dynamic.yaml"
        dynamic.write_text(json.dumps({key: [{"value": value}] for key, value in DYNAMIC_CONFIG.items()}, indent=1))
        count = len(_SERVICES)
        services: dict[str, dict[str, Any]] = {
            name: {"rpc": {"bindOnIP": "127.0.0.1", "grpcPort": call, "membershipPort": membership}}
            for name, call, membership in zip(_SERVICES, ports[:count], ports[count:-1], strict=True)
        }
        services["frontend"]["rpc"]["httpPort"] = ports[-1]
        cluster = {"enabled": True, "initialFailoverVersion": 1, "rpcName": "frontend", "rpcAddress": self.address}
        config = {
            "log": {"stdout": True, "level": "warn"},
            "persistence": {
                "numHistoryShards": _HISTORY_SHARDS,
                "defaultStore": "default",
                "visibilityStore": "visibility",
                "datastores": self._store.datastores(),
            },
            "global": {"membership": {"maxJoinDuration": "30s"}},
            "services": services,
            "clusterMetadata": {
                "failoverVersionIncrement": 10,
                "masterClusterName": "active",
                "currentClusterName": "active",
                "clusterInformation": {"active": cluster},
            },
            "dcRedirectionPolicy": {"policy": "noop"},
            "dynamicConfigClient": {"filepath": str(dynamic), "pollInterval": "60s"},
        }
        path = self._folder / "server.yaml"
        # For its owner only, as there may be a password in it. Unescaped, because JSON escapes rare letters in two
        # halves, which YAML does not join.
        write_private(path, json.dumps(config, indent=1, ensure_ascii=False))
        return path

    async def _prepare_namespace(self, deadline: float) -> None:
        reason: Exception | None = None
        while self.running and time.monotonic() < deadline:
            try:
                client = await Client.connect(self.address, namespace=self._namespace)
                await _register(client)
                if await _usable(client):
                    return
            except (RPCError, RuntimeError) as error:  # not healthy yet; RuntimeError is a failed connect
                reason = error
            await asyncio.sleep(_POLL_SECONDS)
        words = "" if self._child is None else self._child.last_words()
        message = f"The Temporal server at {self.address} does not become usable ({reason}):\n{words}"
        raise TemporalError(message)


async def connect(*, lazy: bool = False, patience: float = 0, interceptors: Sequence[Interceptor] = ()) -> Client:
    """Connect to the server the environment names, with models as payloads.

    `lazy` connects at the first call instead. Otherwise a server that does not answer is tried again
    for `patience` seconds; then TemporalError is raised. `interceptors` see the client's calls, and what a
    worker made with it runs. A process that has called this leaves through `runtime.ending.end`.
    """
    connection = temporal_connection()
    deadline = time.monotonic() + patience
    while True:
        try:
            return await Client.connect(
                **connection, lazy=lazy, data_converter=pydantic_data_converter, interceptors=interceptors
            )
        except RuntimeError as error:
            if time.monotonic() >= deadline:
                message = f"Temporal does not answer at {connection.get('target_host')}: {error}"
                raise TemporalError(message) from error
        await asyncio.sleep(0.2)


async def ensure_namespace(*, patience: float = 60) -> None:
    """Make the namespace the environment names, if it is not there, and return when it can be used.

    Raises TemporalError if that takes over `patience` seconds.
    """
    client = await connect(patience=patience)
    deadline = time.monotonic() + patience
    await _register(client)
    while not await _usable(client):
        if time.monotonic() > deadline:
            message = f"The namespace {client.namespace} was made, but cannot be used after {patience:.0f} s."
            raise TemporalError(message)
        await asyncio.sleep(_POLL_SECONDS)


async def _register(client: Client) -> None:
    retention = Duration()
    retention.FromTimedelta(_RETENTION)
    request = RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=retention)
    try:
        await client.workflow_service.register_namespace(request, timeout=_CALL)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


async def _usable(client: Client) -> bool:
    """Whether the namespace has reached the part of the server that keeps workflows.

    The answer to a signal for a workflow that does not exist tells, and leaves nothing behind.
    """
    request = SignalWorkflowExecutionRequest(
        namespace=client.namespace, workflow_execution=WorkflowExecution(workflow_id="none"), signal_name="none"
    )
    try:
        await client.workflow_service.signal_workflow_execution(request, timeout=_CALL)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return not any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)
    return True
