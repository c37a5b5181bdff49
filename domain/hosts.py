"""Hosts: which of them is this machine itself."""

from ipaddress import ip_address, ip_network
from typing import Final

_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def is_this_machine(host: str | None) -> bool:
    """Whether what is said to a host never leaves this machine; a name is not looked up."""
    try:
        address = ip_address(host or "")
    except ValueError:
        return host is not None and host.lower() == "localhost"
    return any(address in network for network in _LOOPBACK)
