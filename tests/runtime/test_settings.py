import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import settings
from runtime.settings import SettingsError

URL = "postgresql://drumbeat_app:pass-word@db.example:5432/drumbeat"
KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("DRUMBEAT_", "TEMPORAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)
    return iter([None])


def test_one_variable_is_enough_and_the_rest_has_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", URL)
    loaded = settings.load()
    assert loaded.secret("database_url") == URL
    assert (loaded.api_host, loaded.api_port, loaded.first_attempt) == ("127.0.0.1", 8000, True)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^DRUMBEAT_DATABASE_URL is not set\.$"):
        settings.load()


def test_an_optional_one_that_this_process_needs_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", URL)
    with pytest.raises(SettingsError) as caught:
        settings.load("relay_database_url", "master_key")
    assert str(caught.value).splitlines() == [
        "DRUMBEAT_RELAY_DATABASE_URL is not set.",
        "DRUMBEAT_MASTER_KEY is not set.",
    ]
    with pytest.raises(SettingsError, match="DRUMBEAT_ADMIN_DATABASE_URL"):
        settings.load().secret("admin_database_url")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DRUMBEAT_DATABASE_URL", "mysql://app:hunter2@db/drumbeat"),
        ("DRUMBEAT_RELAY_DATABASE_URL", "postgresql://relay:hunter2@db"),
        ("DRUMBEAT_MASTER_KEY", "hunter2"),
        ("DRUMBEAT_MASTER_KEY", base64.b64encode(b"hunter2").decode()),
        ("DRUMBEAT_API_PORT", "70000"),
        ("DRUMBEAT_POOL_SIZE", "none"),
        ("DRUMBEAT_LOG_FORMAT", "xml"),
        ("DRUMBEAT_FIRST_ATTEMPT", "perhaps"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_a_secret_one_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", URL)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable} cannot be used: ") as caught:
        settings.load()
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_misspelt_variable_is_not_silently_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", URL)
    monkeypatch.setenv("DRUMBEAT_POOLSIZE", "9")
    with pytest.raises(SettingsError, match=r"DRUMBEAT_POOLSIZE is not a setting; did you mean DRUMBEAT_POOL_SIZE\?"):
        settings.load()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUMBEAT_DATABASE_URL", URL)
    monkeypatch.setenv("DRUMBEAT_MASTER_KEY", KEY)
    shown = repr(settings.load())
    assert "pass-word" not in shown
    assert KEY not in shown


def test_temporal_is_found_by_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.temporal_connection() == {"target_host": "localhost:7233", "namespace": "default"}
    monkeypatch.setenv("TEMPORAL_ADDRESS", "cloud.example:7233")
    monkeypatch.setenv("TEMPORAL_NAMESPACE", "sales")
    monkeypatch.setenv("TEMPORAL_API_KEY", "key")
    connection = settings.temporal_connection()
    assert (connection["target_host"], connection["namespace"]) == ("cloud.example:7233", "sales")
    assert (connection["api_key"], connection["tls"]) == ("key", True)


def test_an_unreadable_temporal_configuration_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "temporal.toml").write_text("this is [not toml")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "temporal.toml"))
    with pytest.raises(SettingsError, match=r"^The TEMPORAL_\* variables cannot be used: "):
        settings.temporal_connection()


def test_the_folders_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRUMBEAT_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = settings.EmbeddedSettings()
    assert (folders.home, folders.cache) == (tmp_path / "data", tmp_path / "cache" / "drumbeat")
