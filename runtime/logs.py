"""Logs: one line an event on standard error, JSON for machines, coloured text on a terminal."""

import logging
import re
import sys
from functools import lru_cache
from typing import Any, Self

import structlog
from structlog.typing import EventDict, Processor

_HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(
    r"passw(or)?d|secret|token|authorization|cookie|signature|(api|master|private|signing)_?key|^key$", re.IGNORECASE
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^\s:/@]+):[^\s@/]+@")


def configure(level: str, log_format: str, *, service: str) -> None:
    """Send structlog's and the standard library's records to standard error, in one format.

    `log_format` is `json`, `text` or `auto` (text on a terminal). Every line carries `service`, and
    whatever `structlog.contextvars` has bound. Servers that bring their own logging configuration
    (uvicorn) must be told to leave it out.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    last: list[Processor] = (
        [
            _redact,
            # The library's own way shows local variables, which hold what people wrote.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if as_text
        else [structlog.processors.format_exc_info, _redact, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # The SMTP server's own log holds the addresses and tokens of every command.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    # Our own lines go straight to where the library's go in the end: most are a request's, and the detour costs more.
    structlog.configure(
        processors=[*shared, *last],
        logger_factory=_Lines.of_caller,
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


class _Lines(structlog.WriteLogger):
    """Standard error, under the name of the module that writes."""

    _names = structlog.stdlib.LoggerFactory()

    def __init__(self, name: str) -> None:
        super().__init__(sys.stderr)
        self.name = name

    @classmethod
    def of_caller(cls, *names: str) -> Self:
        return cls(cls._names(*names).name)


def _redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {name: _clean(name, value) for name, value in event.items()}


@lru_cache(maxsize=1000)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _clean(name: str, value: Any) -> Any:  # noqa: ANN401  # a log line holds anything
    if _is_secret(name):
        return _HIDDEN
    if isinstance(value, str):
        return value if "://" not in value else _PASSWORD_IN_URL.sub(rf"\1:{_HIDDEN}@", value)
    if isinstance(value, dict):
        return {inner: _clean(str(inner), item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean("", item) for item in value]
    return value
