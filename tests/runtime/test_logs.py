import json
import subprocess
import sys
from typing import Any

from runtime.folders import CHECKOUT


def logged(statements: str, log_format: str = "json", level: str = "info") -> list[str]:
    """Run statements in a process of their own, where nothing else has set logging up."""
    script = (
        "import logging, structlog\nfrom runtime.logs import configure\n"
        f"configure({level!r}, {log_format!r}, service='test')\nlog = structlog.get_logger()\n{statements}"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def entry(statements: str) -> dict[str, Any]:
    (line,) = logged(statements)
    read: dict[str, Any] = json.loads(line)
    return read


def test_an_event_is_one_line_of_json_with_what_was_bound() -> None:
    line = entry("structlog.contextvars.bind_contextvars(org='o-1'); log.info('matched', count=3)")
    assert {name: line[name] for name in ("event", "level", "service", "org", "count")} == {
        "event": "matched",
        "level": "info",
        "service": "test",
        "org": "o-1",
        "count": 3,
    }
    assert line["timestamp"].endswith("Z")


def test_the_standard_librarys_records_come_in_the_same_form() -> None:
    line = entry("logging.getLogger('library').warning('%s of %s', 1, 2, extra={'token': 'abc'})")
    assert (line["event"], line["logger"], line["level"]) == ("1 of 2", "library", "warning")
    assert (line["service"], line["token"]) == ("test", "[hidden]")


def test_an_exception_is_part_of_its_line() -> None:
    line = entry("try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')")
    assert line["event"] == "failed"
    assert "ZeroDivisionError" in line["exception"]


def test_secrets_are_hidden_by_name_at_any_depth_and_keys_of_ours_are_not() -> None:
    line = entry(
        "log.info('x', password='1', api_key='2', key='3', headers={'Authorization': '4', 'accept': 'any'},"
        " sources=[{'signing_secret': '5'}], effect_key='kept', idempotency_key='kept')"
    )
    assert line["headers"] == {"Authorization": "[hidden]", "accept": "any"}
    assert line["sources"] == [{"signing_secret": "[hidden]"}]
    assert [line[name] for name in ("password", "api_key", "key")] == ["[hidden]"] * 3
    assert [line[name] for name in ("effect_key", "idempotency_key")] == ["kept"] * 2


def test_a_password_inside_an_address_is_hidden_even_in_a_traceback() -> None:
    line = entry(
        "try:\n    raise OSError('postgresql://app:hunter2@db/x')\nexcept OSError:\n"
        "    log.exception('cannot reach postgresql://app:hunter2@db:5432/x')"
    )
    assert "hunter2" not in json.dumps(line)
    assert line["event"] == "cannot reach postgresql://app:[hidden]@db:5432/x"


def test_what_is_below_the_level_is_not_written() -> None:
    assert logged("log.info('quiet'); logging.getLogger('library').info('quiet')", level="warning") == []


def test_text_is_for_people() -> None:
    (line,) = logged("log.info('matched', count=3)", log_format="text")
    assert "matched" in line
    assert "count=3" in line
    assert not line.startswith("{")


def test_a_pipe_gets_json_unless_told_otherwise() -> None:
    (line,) = logged("log.info('matched')", log_format="auto")
    assert json.loads(line)["event"] == "matched"
