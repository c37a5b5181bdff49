"""Rules that a reader could break without noticing: each is looked up in the syntax of every module."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from activities import actions
from domain import documents
from domain.words import EventType

ROOT = Path(__file__).parent.parent
ROOMS = ("domain", "store", "triggers", "workflows", "activities", "api", "runtime", "cli", "migrations")
MODULES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text()) for room in ROOMS for path in (ROOT / room).rglob("*.py")
}


def calls(tree: ast.AST):
    """Every call as dotted text, such as `connection.commit`."""
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imports(tree: ast.AST):
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def of(*rooms: str):
    return [(name, tree) for name, tree in MODULES.items() if name.split("/")[0] in rooms]


def test_one_function_commits():
    sites = [name for name, tree in MODULES.items() for call in calls(tree) if call.endswith(".commit")]
    assert sites == ["store/transaction.py"]


def test_a_statement_that_is_its_own_transaction_is_sent_where_the_others_are_committed():
    drivers = {
        name for name, tree in MODULES.items() for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"driver_connection", "raw_connection"}
    }  # fmt: skip
    assert drivers == {"store/transaction.py"}


def test_sql_is_written_in_the_store_and_the_migrations_only():
    elsewhere = {
        name
        for name, tree in MODULES.items()
        for module in imports(tree)
        if module.startswith(("sqlalchemy", "asyncpg")) and module != "sqlalchemy.exc"
        if not name.startswith(("store/", "migrations/"))
    }
    # The first makes the schema; the other two judge the product from outside it.
    assert elsewhere <= {"runtime/migrating.py", "runtime/postgres.py", "cli/demo/__init__.py", "cli/demo/judge.py"}


@pytest.mark.parametrize(
    "name", [name for name, _ in of("domain", "store", "triggers", "workflows", "activities", "api")]
)
def test_no_process_clock_is_read_for_business_time(name):
    clocks = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "workflow.now")
    assert [call for call in calls(MODULES[name]) if call.endswith(clocks)] == []


def test_the_environment_is_read_in_runtime_only():
    readers = {
        name for name, tree in MODULES.items() for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv", "os.environb"}
    }  # fmt: skip
    assert {name.split("/")[0] for name in readers} <= {"runtime"}


@pytest.mark.parametrize("event", EventType)
def test_every_event_type_is_recorded_by_a_verb_of_the_store(event):
    assert any(f"EventType.{event.name}" in ast.unparse(tree) for _, tree in of("store"))


def test_every_action_a_document_may_name_has_one_function():
    union, _ = get_args(documents.Action)
    assert set(actions._ACTIONS) == set(get_args(union))


@pytest.mark.parametrize("name", MODULES)
def test_no_module_has_a_name_that_says_nothing(name):
    assert not {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"} & set(
        Path(name).with_suffix("").parts
    )


def test_the_product_calls_no_outside_address_yet():
    callers = {name for name, tree in MODULES.items() if "httpx2" in imports(tree)}
    assert callers <= {"runtime/doctor.py", "cli/demo/office.py"}


def test_only_dispatch_and_the_runtime_hold_a_temporal_client():
    holders = {name for name, tree in MODULES.items() if "temporalio.client" in imports(tree)}
    assert {name for name in holders if not name.startswith(("runtime/", "cli/"))} == {"triggers/dispatch.py"}


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("aiosmtplib", {"activities/transports.py"}),
        ("aiosmtpd", {"runtime/mail_listener.py", "cli/demo/mail_server.py"}),
        ("jinja2", {"domain/templates.py"}),
        ("css_inline", {"domain/templates.py"}),
        ("inscriptis", {"domain/templates.py", "domain/inbound_mail.py"}),
    ],
)
def test_what_speaks_to_strangers_and_reads_what_they_wrote_is_in_one_place(library, rooms):
    users = {name for name, tree in MODULES.items() if any(one.partition(".")[0] == library for one in imports(tree))}
    assert users == rooms


def test_a_mail_is_rendered_and_a_letter_read_in_the_confined_child_only():
    callers = {
        name for name, tree in MODULES.items()
        for call in calls(tree) if call.endswith(("templates.render", "render_json", "inbound_mail.read", "read_mail"))
    }  # fmt: skip
    assert callers <= {"domain/templates.py", "domain/inbound_mail.py"}
