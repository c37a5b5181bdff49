"""The ways of the services during a storm: each through proxies of its own, some with a wrong clock or a bad deploy."""

import sys
from contextlib import AsyncExitStack
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from chaos import wrong_clock
from chaos.proxy import Address, Proxy
from chaos.schedule import LINKS
from runtime.processes import Launch

_DATABASES = ("DRUMBEAT_DATABASE_URL", "DRUMBEAT_RELAY_DATABASE_URL")
_LOOPBACK = "127.0.0.1"


class Routes:
    """A proxy a link, and `route` for the stack; an async context manager around the stack's life."""

    def __init__(self, environment: dict[str, str]) -> None:
        """`environment` is what every service is told besides."""
        self.proxies = {link: Proxy() for link in LINKS}
        self.clocks: dict[str, int] = {}
        """By how many seconds a service's clock is to be wrong from its next start on."""
        self.releases: dict[str, str] = {}
        """Of which release of `chaos.release` a service is from its next start on, where it is of another."""
        self._environment = environment
        self._listening = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Opens every proxy."""
        for proxy in self.proxies.values():
            await self._listening.enter_async_context(proxy)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes them."""
        await self._listening.aclose()

    def lead(self, link: str, port: int) -> int:
        """Makes a link lead to a port; where to connect instead."""
        proxy = self.proxies[link]
        proxy.target = Address(_LOOPBACK, port)
        return proxy.port

    def route(self, name: str, launch: Launch) -> Launch:
        """How a service is started now."""
        environment = {**launch.environment, **self._environment}
        for variable in _DATABASES:
            if variable in environment:
                url = urlsplit(environment[variable])
                port = self.lead(f"{name}-postgres", url.port or 0)
                there = f"{url.netloc.rpartition(':')[0]}:{port}"
                environment[variable] = urlunsplit(url._replace(netloc=there))
        if f"{name}-temporal" in self.proxies:
            host, _, port_there = environment["TEMPORAL_ADDRESS"].rpartition(":")
            environment["TEMPORAL_ADDRESS"] = f"{host}:{self.lead(f'{name}-temporal', int(port_there))}"
        if name in self.clocks:
            environment |= wrong_clock.off_by(self.clocks[name])
        release = ["chaos.release", self.releases[name]] if name in self.releases else ["cli"]
        return Launch([sys.executable, "-m", *release, name.partition("-")[0]], environment)
