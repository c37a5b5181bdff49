"""What the documentation names exists, and what exists is named."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic.alias_generators import to_camel

from api.app import create_app
from chaos.scenarios import SCENARIOS
from chaos.schedule import Kind
from cli.commands import names_of_commands
from domain import words
from domain.conditions import Operator
from domain.documents import RuleDocument, SequenceDocument
from domain.inbound_mail import LetterKind
from domain.templates import FILTERS
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


@pytest.mark.parametrize(
    ("heading", "vocabulary"),
    [
        ("refusal", words.Refusal),
        ("not enrolled", words.NotEnrolled),
        ("stuck", words.StuckReason),
        ("exit reason", words.ExitReason),
        ("message", words.MessageStatus),
        ("suppression", words.Suppression),
    ],
)
def test_the_glossary_explains_every_reason_and_no_other(heading, vocabulary):
    _, table = PAGES["docs/glossary.md"].split(f"\n| {heading} |")
    explained = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)
    assert sorted(explained) == sorted(vocabulary)


def test_the_guide_for_reps_explains_why_a_contact_was_not_enrolled_and_what_a_letter_may_be():
    guide = PAGES["docs/rep.md"]
    assert {*words.NotEnrolled, *LetterKind} <= set(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE))


def test_the_admins_guide_names_every_operator_trigger_step_exit_and_filter():
    guide = PAGES["docs/admin.md"]
    forms = f"{RuleDocument.model_json_schema()} {SequenceDocument.model_json_schema()}"
    events = [event for event in words.EventType if f"'{event}'" in forms]
    fields = [to_camel(name) for name in SequenceDocument.model_fields if name != "steps"]
    for name in (*get_args(Operator), *re.findall(r"'const': '([a-z_.]+)'", forms), *events, *fields):
        assert f"`{name}`" in guide, name
    for name in FILTERS:
        assert re.search(rf"`{name}[`(]", guide), name


def test_the_integrators_guide_lists_exactly_the_events_there_are():
    listed = set(re.findall(r"^\| `(\w+\.\w+)` \|", PAGES["docs/integrator.md"], re.MULTILINE))
    assert listed == set(words.EventType)


@pytest.mark.parametrize("page", PAGES)
def test_each_path_of_the_api_that_is_named_exists(page):
    served = create_app(Database.connect("postgresql://a:b@127.0.0.1/c"), bytes(32))
    shapes = {re.sub(r"\{[^}]+\}", "{}", path) for path in served.openapi()["paths"]}
    named = re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) ['\"]?(/(?:api/v1|webhooks)[^\s`'\"?]*)", PAGES[page])
    for path in named:
        assert re.sub(r"\{[^}]+\}|\$\w+", "{}", path) in shapes, path


def test_the_integrators_guide_lists_exactly_the_paths_there_are():
    served = create_app(Database.connect("postgresql://a:b@127.0.0.1/c"), bytes(32)).openapi()["paths"]
    rows = [line for line in PAGES["docs/integrator.md"].splitlines() if line.startswith("|")]
    listed = {
        (method, path)
        for row in rows
        for methods, path in re.findall(r"`((?:[A-Z]+ )+)(/[^`]+)`", row)
        for method in methods.split()
    }
    assert listed == {(method.upper(), path) for path, methods in served.items() for method in methods}


def test_each_test_that_the_page_on_crashes_names_exists():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", PAGES["docs/crashes.md"]):
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize(("column", "rows"), [("fault", list(Kind)), ("scenario", list(SCENARIOS))])
def test_the_page_on_crashes_explains_every_fault_and_every_scenario(column, rows):
    _, table = PAGES["docs/crashes.md"].split(f"\n| {column} |")
    assert re.findall(r"^\| `([\w-]+)` \|", table.partition("\n\n")[0], re.MULTILINE) == rows
