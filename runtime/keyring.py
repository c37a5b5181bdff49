"""The secrets of an embedded stack: made once, kept beside its data, readable by their owner only."""

import base64
import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.trouble import TroubleError

_MASTER_KEY_BYTES = 32


class KeyringError(TroubleError):
    """The secrets are missing or damaged although the data they belong to are there."""


def _password() -> str:
    return secrets.token_urlsafe(24)


def _master_key() -> str:
    return base64.b64encode(secrets.token_bytes(_MASTER_KEY_BYTES)).decode()


class Keyring(BaseModel):
    """Passwords of the two database roles, and the key that seals what is stored encrypted (base64)."""

    model_config = ConfigDict(frozen=True)

    app_password: str = Field(default_factory=_password, repr=False)
    relay_password: str = Field(default_factory=_password, repr=False)
    master_key: str = Field(default_factory=_master_key, repr=False)


def open_keyring(path: Path, *, data: Path) -> Keyring:
    """Read the keyring, or make it if `data` does not exist yet.

    Raises KeyringError rather than make a new one for old data: what the lost key sealed would look
    present and be unreadable.
    """
    try:
        return Keyring.model_validate_json(path.read_bytes())
    except FileNotFoundError as missing:
        if data.exists():
            message = f"{path} is missing, and {data} cannot be used without it. Restore it from a backup."
            raise KeyringError(message) from missing
    except ValidationError as damage:
        message = f"{path} is damaged. Restore it from a backup."
        raise KeyringError(message) from damage
    keyring = Keyring()
    write_private(path, keyring.model_dump_json(indent=1))
    return keyring


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
