"""docker-compose.yml cannot be run everywhere the tests can, so what it names is looked up in the code."""

import re
from pathlib import Path

import pytest
import yaml
from temporalio.envconfig import ClientConfig

from cli.commands import app, names_of_commands
from runtime.settings import Settings

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "drumbeat:local"}


@pytest.mark.parametrize("name", OURS)
def test_each_service_runs_a_command_that_exists(name):
    assert OURS[name]["command"][0] in names_of_commands()


@pytest.mark.parametrize("name", OURS)
def test_each_variable_of_a_service_is_one_that_is_read(name):
    for variable in OURS[name]["environment"]:
        if variable.startswith("DRUMBEAT_"):
            assert variable.removeprefix("DRUMBEAT_").lower() in Settings.model_fields
        else:
            assert variable in {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY"}


@pytest.mark.parametrize("name", OURS)
def test_each_service_has_every_secret_its_command_needs(name):
    needed = {
        "api": {"MASTER_KEY", "DATABASE_URL"},
        "relay": {"DATABASE_URL", "RELAY_DATABASE_URL"},
        "worker": {"DATABASE_URL", "MASTER_KEY"},
        "mail": {"DATABASE_URL", "MASTER_KEY"},
        "migrate": {"DATABASE_URL", "RELAY_DATABASE_URL", "ADMIN_DATABASE_URL"},
        "namespace": set(),
    }[OURS[name]["command"][0]]
    assert {f"DRUMBEAT_{one}" for one in needed} <= OURS[name]["environment"].keys()


@pytest.mark.parametrize("name", OURS)
def test_no_service_has_a_secret_it_does_not_need(name):
    has = OURS[name]["environment"].keys()
    assert ("DRUMBEAT_ADMIN_DATABASE_URL" in has) == (name == "migrate")
    assert ("DRUMBEAT_RELAY_DATABASE_URL" in has) == (name in {"migrate", "relay"})
    assert ("DRUMBEAT_MASTER_KEY" in has) == (name in {"api", "worker", "mail"})


def test_the_health_check_asks_a_path_that_exists():
    from api.app import create_app
    from store.transaction import Database

    paths = create_app(Database.connect("postgresql://a:b@127.0.0.1/c"), bytes(32)).openapi()["paths"].keys()
    asked = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", str(COMPOSE["services"]["api"]["healthcheck"]["test"]))
    assert asked
    assert set(asked) <= paths


def test_no_secret_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    secrets = [rest for name, rest in asked if re.search(r"PASSWORD|KEY|PWD|SECRET", name)]
    assert secrets
    assert all(rest.startswith(":?") for rest in secrets)
    assert not re.search(r"(PASSWORD|KEY|PWD): +[^$\s]", text)


def test_the_secrets_command_makes_every_secret_that_is_asked_for():
    from typer.testing import CliRunner

    made = CliRunner().invoke(app, ["secrets"]).stdout
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert {line.partition("=")[0] for line in made.splitlines()} == asked


def test_every_dependency_is_a_service_and_waits_for_health_or_completion():
    services = COMPOSE["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert how["condition"] == "service_completed_successfully"


def test_the_servers_of_other_makers_are_pinned_to_what_was_measured():
    from runtime.obtain import SERVER_VERSION

    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    assert images["temporal"] == f"temporalio/server:{SERVER_VERSION}"
    assert images["postgres"] == "postgres:18"


def test_temporal_is_reached_by_its_own_variables():
    found = ClientConfig.load_client_connect_config(
        override_env_vars={"TEMPORAL_ADDRESS": "temporal:7233", "TEMPORAL_NAMESPACE": "default"}
    )
    assert found["target_host"] == COMPOSE["services"]["api"]["environment"]["TEMPORAL_ADDRESS"]
