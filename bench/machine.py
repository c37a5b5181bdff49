"""What a figure was measured on: without it, it says little."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import psutil

_LIBRARIES = ("temporalio", "sqlalchemy", "asyncpg", "fastapi", "dbos", "procrastinate")


def machine(postgres: str, temporal: str) -> dict[str, object]:
    """For the results' head; the versions of the two servers are told by themselves."""
    return {
        "cores": os.cpu_count(),
        "cpu": _model(),
        "memoryBytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": postgres,
        "temporal": temporal,
        "load": round(os.getloadavg()[2], 2),
        **{name: version(name) for name in _LIBRARIES},
    }


def _model() -> str:
    """The processor's name, where the system tells it."""
    told = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE) if told.exists() else None
    return found[1].strip() if found else platform.processor()
