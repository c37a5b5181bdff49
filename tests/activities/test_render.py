# mypy: ignore-errors
"""Rendering in a child: what a hostile template does to it, and what the next mail knows of that."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic_core import to_json

from activities import confined
from activities.confined import FUNCTIONS, Confined, Failed, TooBig, TooSlow, Unavailable
from activities.render import SECONDS, Renderer
from domain.templates import Content, TemplateError, problems, render

ROOT = Path(__file__).parent.parent.parent
FACTS = {"contact": {"firstName": "Ada", "tags": ["a", "b"]}, "unsubscribeUrl": "https://example.com/u"}
GOOD = Content(
    subject="Hi {{ contact.firstName }}",
    text="Hi {{ contact.firstName }},\n\n{{ unsubscribeUrl }}",
    html="<style>p{color:red}</style><p>Hi {{ contact.firstName }}: {{ contact.tags | join }}",
)
MARGIN = 1
"""Seconds that a busy machine may take to see that a time is over; more is another clock than the caller's."""


@pytest.fixture
async def renderer():
    one = Renderer()
    yield one
    await one.close()


@pytest.fixture
async def lone():
    one = Confined()
    yield one
    await one.close()


def mail(text: str, **parts: str) -> Content:
    return Content(**{"subject": "Hello", "text": text, **parts})


def child(of: Renderer) -> psutil.Process:
    return psutil.Process(of._confined._child.pid)


async def gone(pid: int, seconds: float = 30) -> bool:
    """Whether the process ends within so many seconds."""
    until = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_the_child_makes_the_same_mail(renderer) -> None:
    assert await renderer.render(GOOD, FACTS) == render(GOOD, FACTS)


async def test_one_child_makes_many_mails_cheaply_and_in_turn(renderer) -> None:
    await renderer.render(GOOD, FACTS)
    first = child(renderer)
    before = sum(first.cpu_times()[:2])
    names = [f"Ada {number}" for number in range(200)]
    made = await asyncio.gather(
        *(renderer.render(GOOD, {**FACTS, "contact": {"firstName": n, "tags": ["a"]}}) for n in names)
    )
    assert [one.subject for one in made] == [f"Hi {name}" for name in names]
    assert child(renderer).pid == first.pid
    assert sum(first.cpu_times()[:2]) - before < 2  # a hundredth of a second each is ten times what it takes


async def test_a_missing_field_comes_back_by_its_name(renderer) -> None:
    with pytest.raises(TemplateError) as error:
        await renderer.render(mail("{{ contact.phone }}"), FACTS)
    assert error.value.code == "field_missing"
    assert "'contact.phone'" in error.value.detail


LONG = {"contact": {"lastName": "x" * 100_000}}
LONGER = {"contact": {"firstName": "x y " * 2_000_000}}
MANY = {"contact": {"tags": ["x" * 20] * 300_000}}
LOOPS = "{% for a in %s %}{% for b in %s %}{% endfor %}{% endfor %}".replace("{%", "{%%").replace("%}", "%%}")
MANY_RULES = "<style>p{" + "".join(f"--a{n}:1;" for n in range(15_000)) + "}</style>" + "<p>x" * 4000
FORMATTING = "".join(f"<p><b id={number}>" for number in range(2450))
"""Each paragraph opens again what all before it left open, as the rules of HTML have it."""


TOO_MUCH = ("template_too_big", "template_too_slow")
"""Where the machine is slow its time is over first."""


@pytest.mark.parametrize(
    ("content", "facts", "codes"),
    [
        # what the language allows and a stranger can yet misuse
        (mail(LOOPS % ("contact.lastName", "contact.lastName")), LONG, ("template_too_slow",)),
        (mail(None, html=FORMATTING), FACTS, TOO_MUCH),
        (mail("{{ contact.firstName | title }}"), LONGER, TOO_MUCH),
        (mail("{{ contact.tags | join }}"), MANY, TOO_MUCH),
        (mail(None, html=MANY_RULES), FACTS, TOO_MUCH),
        # what the lint would have told
        (mail("{{ 'x' * 200000000 }}"), FACTS, ("template_broken",)),
        (mail(LOOPS % ("range(99999999)", "range(99999999)")), FACTS, ("template_broken",)),
        (mail("{{ contact.firstName | wordwrap(1) }}"), FACTS, ("template_broken",)),
        (mail("{{ " + "(" * 100_000), FACTS, ("template_broken",)),
        (mail("{{ ''.__class__ }}"), FACTS, ("template_broken",)),
    ],
    ids=["loops", "formatting", "memory", "output", "styles", "string", "range", "wordwrap", "brackets", "class"],
)
async def test_a_hostile_template_ends_in_time_and_the_next_mail_is_made(renderer, content, facts, codes) -> None:
    await renderer.render(GOOD, FACTS)
    began = time.monotonic()
    with pytest.raises(TemplateError) as error:
        await renderer.render(content, facts)
    assert error.value.code in codes
    assert time.monotonic() - began < SECONDS + MARGIN
    assert (await renderer.render(GOOD, FACTS)).subject == "Hi Ada"


async def test_the_writing_out_of_the_facts_is_within_the_time(renderer, monkeypatch) -> None:
    await renderer.render(GOOD, FACTS)

    def slowly(value: object) -> bytes:
        time.sleep(0.75 * SECONDS)
        return to_json(value)

    monkeypatch.setattr("activities.render.to_json", slowly)
    began = time.monotonic()
    with pytest.raises(TemplateError) as error:
        await renderer.render(mail(LOOPS % ("contact.lastName", "contact.lastName")), LONG)
    assert error.value.code == "template_too_slow"
    assert time.monotonic() - began < SECONDS + MARGIN


async def test_what_takes_the_childs_memory_is_too_big(renderer, monkeypatch) -> None:
    monkeypatch.setattr("activities.render.SECONDS", 60.0)  # the memory is to be over first, however busy the machine
    with pytest.raises(TemplateError) as error:
        await renderer.render(mail("x"), {"contact": {"tags": [[]] * 10_000_000}})
    assert error.value.code == "template_too_big"
    monkeypatch.undo()
    assert await renderer.render(GOOD, FACTS)


async def test_facts_that_are_no_json_are_told(renderer) -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    for facts in ({"contact": deep}, {"contact": object()}, {"contact": "\ud800"}):
        with pytest.raises(TemplateError) as error:
            await renderer.render(GOOD, facts)
        assert error.value.code == "template_broken"
    assert await renderer.render(GOOD, FACTS)


async def test_a_killed_child_is_replaced_unnoticed(renderer) -> None:
    await renderer.render(GOOD, FACTS)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        killed = child(renderer)
        killed.send_signal(number)
        assert await gone(killed.pid)
        assert (await renderer.render(GOOD, FACTS)).subject == "Hi Ada"
        assert child(renderer).pid != killed.pid


async def test_a_child_killed_at_its_work_is_replaced_and_the_work_done(renderer, monkeypatch) -> None:
    monkeypatch.setattr("activities.render.SECONDS", 30.0)  # a busy machine may take two to start another
    await renderer.render(GOOD, FACTS)
    held = child(renderer)
    held.suspend()
    waiting = asyncio.create_task(renderer.render(GOOD, FACTS))
    await asyncio.sleep(0)
    held.kill()
    assert (await waiting).subject == "Hi Ada"


async def test_a_frozen_child_is_killed_in_time_and_says_nothing_of_the_mail(renderer) -> None:
    await renderer.render(GOOD, FACTS)
    frozen = child(renderer)
    frozen.suspend()
    with pytest.raises(Unavailable, match=r"a processor for 0\.00 s"):
        await renderer.render(GOOD, FACTS)
    assert await gone(frozen.pid)
    assert await renderer.render(GOOD, FACTS)


async def test_a_caller_that_goes_away_leaves_no_answer_to_the_next(renderer) -> None:
    await renderer.render(GOOD, FACTS)
    first = child(renderer)
    first.suspend()
    going = asyncio.create_task(renderer.render(mail("for another"), FACTS))
    await asyncio.sleep(0)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (await renderer.render(GOOD, FACTS)).subject == "Hi Ada"
    assert await gone(first.pid)


async def test_ctrl_c_is_not_the_childs_to_hear(renderer) -> None:
    await renderer.render(GOOD, FACTS)
    first = child(renderer)
    assert os.getsid(first.pid) == first.pid  # the terminal does not reach it
    first.send_signal(signal.SIGINT)
    await renderer.render(GOOD, FACTS)
    assert child(renderer).pid == first.pid


async def test_the_child_has_no_secrets_and_little_room(renderer, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    secret = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(secret, True)  # noqa: FBT003  # the library's own
    await renderer.render(GOOD, FACTS)
    os.close(secret)
    one = child(renderer)
    # The C library or Python itself may set the locale's variable.
    assert set(one.environ()) <= {"LC_CTYPE"}
    assert one.cwd() == "/"
    assert len(os.listdir(f"/proc/{one.pid}/fd")) <= 4  # noqa: PTH208  # names of no files
    assert 0 < one.rlimit(psutil.RLIMIT_AS)[0] <= one.memory_info().vms + confined.MEMORY
    assert one.rlimit(psutil.RLIMIT_NOFILE) == (16, 16)
    assert one.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert 0 < one.rlimit(psutil.RLIMIT_CPU)[0] <= 60


async def test_closing_ends_the_child_and_a_later_mail_starts_another(renderer) -> None:
    await renderer.close()
    await renderer.render(GOOD, FACTS)
    first = child(renderer)
    await renderer.close()
    await renderer.close()
    assert await gone(first.pid)
    assert await renderer.render(GOOD, FACTS)


async def test_nothing_of_a_child_is_left_open() -> None:
    """What asyncio forgets to close it warns of when it is collected, and a warning is an error."""
    for how in ("closed", "slow", "killed"):
        one = Renderer()
        await one.render(GOOD, FACTS)
        if how == "slow":
            child(one).suspend()
            with pytest.raises(Unavailable):
                await one.render(GOOD, FACTS)
        if how == "killed":
            child(one).kill()
            await one.render(GOOD, FACTS)
        await one.close()
        del one
        await asyncio.sleep(0)
        gc.collect()


PARENT = """
import asyncio, sys
from activities.render import Renderer
from domain.templates import Content

async def main():
    renderer = Renderer()
    await renderer.render(Content(subject="x", text="x"), {})
    print(renderer._confined._child.pid, flush=True)
    if sys.argv[1] == "busy":
        loops = "{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}"
        task = asyncio.create_task(renderer.render(Content(subject="x", text=loops), {"x": "x" * 100_000}))
        await asyncio.sleep(0.2)
        print("busy", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_the_child_dies_with_its_parent(state) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, state], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            pid = int(await asyncio.to_thread(parent.stdout.readline))
            if state == "busy":
                assert await asyncio.to_thread(parent.stdout.readline) == "busy\n"
            assert psutil.pid_exists(pid)
        finally:
            parent.kill()
    assert await gone(pid)


# --- confinement itself

SMALL = b'{"content": {"subject": "x", "text": "x"}, "facts": {}}'


def test_only_functions_of_the_domain_are_confined() -> None:
    assert all(path.startswith("domain.") for path in FUNCTIONS.values())


async def test_an_unknown_name_is_refused(lone) -> None:
    with pytest.raises(KeyError):
        await lone.call("os.system", b"", seconds=1)


async def test_a_function_that_raises_tells_its_kind_and_no_values(lone) -> None:
    with pytest.raises(Failed) as error:
        await lone.call("render", b'{"content": "ada@example.com"}', seconds=10)
    assert "ValidationError at " in str(error.value)
    assert "ada" not in str(error.value)
    assert await lone.call("render", SMALL, seconds=10)


async def test_an_argument_larger_than_the_memory_is_too_big(lone) -> None:
    with pytest.raises(TooBig):
        await lone.call("render", b" " * (confined.MEMORY - 100_000_000), seconds=30)


ENDLESS = b'{"content": {"subject": "x", "text": "%s"}, "facts": {"x": "%s"}}' % (
    b"{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    b"x" * 100_000,
)


async def test_seconds_are_the_callers(lone) -> None:
    await lone.call("render", SMALL, seconds=30)
    began = time.monotonic()
    with pytest.raises(TooSlow):
        await lone.call("render", ENDLESS, seconds=0.5)
    assert time.monotonic() - began < 0.5 + MARGIN


async def test_a_repeat_is_within_the_seconds_and_without_its_end_the_first_death_counts(lone) -> None:
    await lone.call("render", SMALL, seconds=30)
    began = time.monotonic()
    calling = asyncio.create_task(lone.call("render", ENDLESS, seconds=3))
    await asyncio.sleep(1.5)
    lone._child.kill()
    with pytest.raises(Unavailable, match="SIGKILL"):
        await calling
    assert time.monotonic() - began < 3 + MARGIN
    assert await lone.call("render", SMALL, seconds=30)


async def test_no_child_to_be_had_is_not_the_mails_fault(lone, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Unavailable, match="could not be started"):
        await lone.call("render", b"", seconds=1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="did not start"):
        await lone.call("render", b"", seconds=1)
    monkeypatch.undo()
    assert await lone.call("render", SMALL, seconds=10)


async def test_the_lint_lets_no_bomb_pass_that_needs_no_hostile_facts() -> None:
    fields = {"contact": frozenset({"firstName", "tags"})}
    assert problems(GOOD, fields) == []
    assert problems(mail("{{ contact.firstName | wordwrap(1) }}"), fields)
