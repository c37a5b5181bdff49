"""The settings of a process: the only place where the environment is read.

Every variable begins with `DRUMBEAT_`. How to reach Temporal is said with the `TEMPORAL_*` variables
that all of Temporal's own tools share (address, namespace, API key, TLS).
"""

import base64
import binascii
import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from temporalio.envconfig import ClientConfig, ClientConnectConfig

from runtime.folders import cache_folder, home_folder
from runtime.trouble import TroubleError

_PREFIX = "DRUMBEAT_"
_MASTER_KEY_BYTES = 32


class SettingsError(TroubleError):
    """The environment lacks a variable, or one has a value that cannot be used; the text names each."""


def _database_url(value: SecretStr) -> SecretStr:
    url = urlsplit(value.get_secret_value())
    if url.scheme != "postgresql" or not url.hostname or not url.path.strip("/"):
        message = "must look like postgresql://user:password@host:port/database"
        raise ValueError(message)
    return value


def _master_key(value: SecretStr) -> SecretStr:
    try:
        raw = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != _MASTER_KEY_BYTES:
        message = "must be 32 bytes in base64, as `openssl rand -base64 32` makes them"
        raise ValueError(message)
    return value


def _web_address(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        message = "must look like https://crm.example.com"
        raise ValueError(message)
    return value.rstrip("/")


def _domain(value: str) -> str:
    if not re.fullmatch(r"(?=.{1,200}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z0-9]", value, re.IGNORECASE):
        message = "must be a domain such as reply.example.com"
        raise ValueError(message)
    return value.lower()


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
MasterKey = Annotated[SecretStr, AfterValidator(_master_key)]


class Settings(BaseSettings):
    """What a service is told from outside. Frozen; secrets never show in its representation."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    database_url: DatabaseUrl
    relay_database_url: DatabaseUrl | None = None
    admin_database_url: DatabaseUrl | None = None
    master_key: MasterKey | None = None

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=1, le=65535)
    public_url: Annotated[str, AfterValidator(_web_address)] | None = None
    inbound_domain: Annotated[str, AfterValidator(_domain)] | None = None
    mail_host: str = "127.0.0.1"
    mail_port: int = Field(default=2525, ge=1, le=65535)

    # Five and five: with an API, a relay and four workers that is 60 of PostgreSQL's 100 connections.
    pool_size: int = Field(default=5, ge=1)
    pool_overflow: int = Field(default=5, ge=0)
    pool_timeout_seconds: float = Field(default=30, gt=0)
    pool_recycle_seconds: int = Field(default=1800, gt=0)

    first_attempt: bool = True
    task_queue: str = "walk"
    mailboxes_at_once: int = Field(default=20, ge=1, le=1000)
    history_days: int = Field(default=1_095, ge=400, le=36_500)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"

    @property
    def links_to(self) -> str:
        """Where the links in mails lead: to this API."""
        return self.public_url or f"http://{self.api_host}:{self.api_port}"

    def secret(self, name: str) -> str:
        """Return a secret in clear, `settings.secret("relay_database_url")`; raise SettingsError if it is not set."""
        value = getattr(self, name)
        if value is None:
            raise SettingsError(_missing(name))
        assert isinstance(value, SecretStr)  # noqa: S101  # a wrong name is a mistake in the code
        return value.get_secret_value()


class EmbeddedSettings(BaseSettings):
    """The folders of the embedded stack."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: home_folder(os.environ))
    cache: Path = Field(default_factory=lambda: cache_folder(os.environ))


def load(*needed: str) -> Settings:
    """Read the environment; `needed` names the optional fields this process cannot do without.

    Raises SettingsError with a line for each variable that is missing, wrong or unknown.
    """
    problems = _unknown()
    settings = None
    try:
        settings = Settings()
    except ValidationError as error:
        problems += [_explain(each["loc"], each["type"], each["msg"]) for each in error.errors(include_input=False)]
    if settings is not None:
        problems += [_missing(name) for name in needed if getattr(settings, name) is None]
    if settings is None or problems:
        raise SettingsError("\n".join(problems))
    return settings


def temporal_connection() -> ClientConnectConfig:
    """Read how to reach Temporal; without any settings that is `localhost:7233`, namespace `default`.

    Raises SettingsError where the variables, or the configuration file they name, make no sense.
    """
    try:
        connection = ClientConfig.load_client_connect_config()
    except RuntimeError as error:
        message = f"The TEMPORAL_* variables cannot be used: {error}"
        raise SettingsError(message) from error
    connection.setdefault("target_host", "localhost:7233")
    connection.setdefault("namespace", "default")
    return connection


def inherited() -> dict[str, str]:
    """Return a copy of the environment, to hand to a child process with changes."""
    return dict(os.environ)


def _variable(field: str) -> str:
    return f"{_PREFIX}{field.upper()}"


def _missing(field: str) -> str:
    return f"{_variable(field)} is not set."


def _explain(location: tuple[Any, ...], kind: str, message: str) -> str:
    field = str(location[0])
    if kind == "missing":
        return _missing(field)
    return f"{_variable(field)} cannot be used: {message.removeprefix('Value error, ')}."


def _unknown() -> list[str]:
    """Name the variables that are no setting: a misspelt one would silently leave a setting at its default."""
    known = [_variable(field) for model in (Settings, EmbeddedSettings) for field in model.model_fields]
    problems = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else "."))
    return problems
