"""The README and the guides, done as they say: every command in one terminal, every document posted."""

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from cli.demo import answers
from cli.demo.campaign import active, mail_step
from cli.demo.office import Office, Outside
from runtime.attaching import temporal_server
from runtime.processes import Stack
from tests.driving import until
from tests.mailing import mail_server

ROOT = Path(__file__).parent.parent.parent
GUIDES = ("README.md", "docs/rep.md", "docs/admin.md", "docs/integrator.md")
"""In the order in which somebody new reads them."""
NOT_RUN = {
    "make demo": "has a test of its own",
    "make test": "is what runs this",
    "make up": "starts what the test has started, at a port that may be taken",
}
AT = "http://127.0.0.1:8000"
"""Where `make up` serves; the test's stack is elsewhere."""
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?=\n*(.*?)(?:\n\n|\Z))", re.MULTILINE | re.DOTALL)
_ANSWERS = re.compile(r"\banswers `")
_CODE = re.compile(r"`([^`]+)`")
_MEMBER = re.compile(r'"(\w+)": *("[^"]*"|\w+)?')
_SECONDS = 30
_END = "--- the end of a block ---"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the paragraph that follows it."""

    language: str
    text: str
    after: str


def blocks(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer((ROOT / page).read_text()):
        yield Block(*found.groups())


class Terminal:
    """A reader's terminal: what one block sets, the next has."""

    def __init__(self, shell: Process) -> None:
        self._shell = shell

    async def run(self, commands: str) -> str:
        """What they say; the test fails with it where one of them fails, as all do on an answer from 400 on."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho; echo '{_END}'\n".encode())
        try:
            async with asyncio.timeout(_SECONDS):
                said = await self._shell.stdout.readuntil(f"\n{_END}\n".encode())
        except asyncio.IncompleteReadError as ended:
            pytest.fail(f"{commands}\n{ended.partial.decode()}", pytrace=False)
        return said.decode().removesuffix(f"\n{_END}\n")


@asynccontextmanager
async def terminal(folder: Path, home: Path) -> AsyncIterator[Terminal]:
    """In a folder that looks like the checkout, beside a stack that runs on `home`."""
    (folder / "drumbeat").symlink_to(ROOT / "drumbeat")
    (folder / ".curlrc").write_text('fail-with-body\nnoproxy = "*"\n')
    environment = {**os.environ, "CURL_HOME": str(folder), "DRUMBEAT_HOME": str(home)}
    shell = await asyncio.create_subprocess_exec(
        "bash", "--norc", stdin=PIPE, stdout=PIPE, stderr=STDOUT, cwd=folder, env=environment, limit=2**24
    )
    try:
        begun = Terminal(shell)
        await begun.run("set -Eeuo pipefail; shopt -s inherit_errexit; trap 'echo failed: $BASH_COMMAND' ERR")
        yield begun
    finally:
        if shell.returncode is None:
            shell.kill()
        await shell.communicate()


@pytest.mark.timeout(180)
async def test_the_readme_and_the_guides_can_be_done_as_they_say(tmp_path):
    home, checkout = tmp_path / "home", tmp_path / "checkout"
    checkout.mkdir()
    async with (
        Stack(home, temporal_server(), tell=lambda _: None) as stack,
        terminal(checkout, home) as reader,
    ):
        compared = []
        for page in GUIDES:
            if page == "docs/rep.md":
                await misfortune(stack, (await reader.run('echo "$KEY"')).strip(), tmp_path / "mail.jsonl")
            ran = ""
            for block in blocks(page):
                if block.language == "sh" and block.text.strip() not in NOT_RUN:
                    ran = block.text.replace(AT, stack.api_url)
                    answer = await reader.run(ran)
                    if _ANSWERS.search(block.after):
                        shown = " ".join(_CODE.findall(block.after))
                        assert agrees(answer, shown), f"{block.after}\n\n{answer}"
                        compared.append(shown)
                elif block.language == "json" and not await posted(reader, json.loads(block.text)):
                    asked, shown = ran, block.text

                    async def answered(asked: str = asked, shown: str = shown) -> bool:
                        return agrees(await reader.run(asked), shown, values=False)

                    await until(answered, shown)
                    compared.append(shown)
        assert len(compared) == 3, "the guides show so many answers"


@pytest.mark.parametrize(
    "commands",
    ["false", "FOUND=$(false | cat)", "call GET /", "FOUND=$(call GET /)", "FOUND=$(echo {} | pick id)", 'curl "$AT"'],
)
async def test_a_command_that_fails_or_is_refused_is_seen(tmp_path, commands):
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    helpers = next(blocks("docs/rep.md")).text.replace("call GET /api/v1/me\n", "")
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server, terminal(tmp_path, tmp_path) as reader:
        await reader.run(f"KEY=none AT=http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n{helpers}")
        assert await reader.run("echo well") == "well\n"
        with pytest.raises(pytest.fail.Exception, match="failed: "):
            await reader.run(commands)


def agrees(answer: str, shown: str, *, values: bool = True) -> bool:
    """Whether an answer has every member that is shown, with its value unless that is left out as `…`."""
    members = _MEMBER.findall(answer)
    names = {name for name, _ in members}
    return all(
        (name, value) in members if values and value not in ("", '"…"') else name in names
        for name, value in _MEMBER.findall(shown)
    )


async def posted(reader: Terminal, document: Mapping[str, object]) -> bool:
    """Posts a document of a guide as what it is; False where it is an answer."""
    match document:
        case {"trigger": _}:
            path = "/api/v1/rules"
        case {"steps": _}:
            path = "/api/v1/sequences"
        case _:
            return "data" in document  # of a webhook, which the block after it signs and posts
    await reader.run(f"call POST {path} '{json.dumps({'name': 'Of the guide', 'document': document})}'")
    return True


async def misfortune(stack: Stack, key: str, log: Path) -> None:
    """What waits for a person's word, and no reader can bring about: a message, an enrollment and a letter."""
    office, outside = Office(stack.api_url, key), Outside(stack.api_url)

    async def enroll(name: str, fields: Mapping[str, str], **settings: str) -> dict[str, Any]:
        sequence = await active(office, "sequence", name, {"steps": [mail_step("hello", "Hello", "")], **settings})
        contact = (await office.post("/contacts", fields))["contact"]
        await office.post(f"/sequences/{sequence}/enrollments", {"contacts": [contact["id"]]})
        return dict(contact)

    async def waiting(noun: str, status: str) -> None:
        async def found() -> bool:
            return bool((await office.get(f"/{noun}", status=status))["total"] == 1)

        await until(found, f"{noun}: {status}")

    try:
        with mail_server(log, "--drop-answer-of", "1") as server:
            rep = (await office.post("/users", {"email": "sam@example.com", "name": "Sam", "role": "rep"}))["user"]
            where = {"transport": "smtp", "host": "127.0.0.1", "port": server.port, "security": "none"}
            sender = {"name": "Cut off", "ownerId": rep["id"], "fromName": "Sam", "fromEmail": "sam@example.com"}
            mailbox = (await office.post("/mailboxes", {**sender, **where}))["mailbox"]
            await enroll("Cut off", {"email": "una@example.com", "firstName": "Una"}, mailbox=mailbox["id"])
            await waiting("messages", "uncertain")
        nameless = await enroll("To the nameless", {"email": "nameless@example.com"})
        await waiting("messages", "failed")
        await office.patch(f"/contacts/{nameless['id']}", nameless["revision"], {"firstName": "Nemo"})
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Message-ID"] = "you@example.com", "ada@example.com", "<first@example.com>"
        made = await office.post("/sources", {"name": "Mail"})
        await outside.letter(made["source"]["id"], made["secret"], answers.encrypted(mail), "you@example.com")
        await waiting("letters", "unreadable")
    finally:
        await office.close()
        await outside.close()
