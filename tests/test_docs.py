"""What the documentation names exists, and what exists is named."""

import re
from pathlib import Path
from typing import get_args

import pytest

from api.app import create_app
from cli.commands import names_of_commands
from domain import words
from domain.conditions import Operator
from domain.documents import RuleDocument
from runtime.settings import EmbeddedSettings, Settings
from store.transaction import Database

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
COMMANDS = names_of_commands()


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_each_command_that_is_named_exists(page):
    for name in re.findall(r"(?:\./|`)drumbeat ([a-z][a-z-]*)", PAGES[page]):
        assert name in COMMANDS
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)", PAGES[page]) + re.findall(
        r"^make ([a-z]+)$", PAGES[page], re.MULTILINE
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_operators_guide_names_every_command():
    named = set(re.findall(r"`drumbeat ([a-z-]+)", PAGES["docs/operator.md"]))
    assert named == set(COMMANDS)


def test_the_operators_guide_lists_exactly_the_settings_there_are():
    listed = set(re.findall(r"^\| `DRUMBEAT_(\w+)`", PAGES["docs/operator.md"], re.MULTILINE))
    assert listed == {name.upper() for name in (*Settings.model_fields, *EmbeddedSettings.model_fields)}


def test_the_glossary_explains_every_reason_and_no_other():
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGES["docs/glossary.md"], re.MULTILINE))
    assert explained == {*words.Refusal, *words.StuckReason}


def test_the_admins_guide_names_every_operator_trigger_and_step():
    guide = PAGES["docs/admin.md"]
    for name in (*get_args(Operator), *re.findall(r"'const': '([a-z_.]+)'", str(RuleDocument.model_json_schema()))):
        assert f"`{name}`" in guide, name


def test_the_integrators_guide_lists_exactly_the_events_there_are():
    listed = set(re.findall(r"^\| `(\w+\.\w+)` \|", PAGES["docs/integrator.md"], re.MULTILINE))
    assert listed == set(words.EventType)


@pytest.mark.parametrize("page", PAGES)
def test_each_path_of_the_api_that_is_named_exists(page):
    served = create_app(Database.connect("postgresql://a:b@127.0.0.1/c"), bytes(32))
    shapes = {re.sub(r"\{[^}]+\}", "{}", path) for path in served.openapi()["paths"]}
    named = re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) (/(?:api/v1|webhooks)[^\s`?]*)", PAGES[page])
    for path in named:
        assert re.sub(r"\{[^}]+\}", "{}", path) in shapes, path
