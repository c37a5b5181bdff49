"""The commands. What is slow to import is imported by the command that needs it."""

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sales automation that never drops a follow-up.",
)


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, max=32, help="How many workers; 0: nothing is sent, for repairs.")] = 1,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the API listens; 0: a free one.")] = 8000,
) -> None:
    """Serve for real use, data in ./.drumbeat/, until Ctrl-C."""
    from cli.serve import serve_up

    asyncio.run(serve_up(workers=workers, port=port))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, addresses printed.")] = False,
    seed: Annotated[int, typer.Option(help="Whom the demo is about; the same seed, the same people.")] = 1,
) -> None:
    """Run the main job in time-lapse, kill its processes meanwhile, and prove that nothing was lost."""
    from cli.demo import run

    if not asyncio.run(run(seed=seed, keep=keep)):
        raise typer.Exit(1)


@app.command()
def api() -> None:
    """Serve HTTP."""
    _serve("api", "database_url", "master_key")


@app.command()
def relay() -> None:
    """Match events, poke workflows, sweep what is overdue."""
    _serve("relay", "database_url", "relay_database_url")


@app.command()
def worker() -> None:
    """Run the workflows that wait and the activity functions that act."""
    _serve("worker", "database_url", "master_key")


@app.command()
def mail() -> None:
    """Take in answers by SMTP, where no provider posts them; joins what `up` runs on this machine."""
    from runtime.attaching import attach

    attach()
    _serve("mail", "database_url", "master_key")


@app.command()
def outbox(
    org: Annotated[str | None, typer.Option(help="The organization's short name, where there are several.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 25,
    eml: Annotated[Path | None, typer.Option(help="Also write each as an .eml file into this folder.")] = None,
) -> None:
    """Show what the local outbox has kept: mail of mailboxes that send nowhere else."""
    from cli.outbox import show

    _answer(asyncio.run(show(org, limit, eml)))


@app.command()
def migrate(
    scale: Annotated[float, typer.Option(min=1, max=21_600, help="Time-lapse of a new database.")] = 1,
    test: Annotated[bool, typer.Option("--test", help="Mark a new database as a test.")] = False,
) -> None:
    """Bring the database to the newest schema; makes the roles it needs."""
    from runtime import migrating, settings

    found = settings.load("admin_database_url", "relay_database_url")
    urls = [found.secret(f"{name}database_url") for name in ("admin_", "", "relay_")]
    revision = asyncio.run(migrating.migrate(*urls, scale=scale, test=test))
    _answer({"revision": revision})


@app.command()
def namespace() -> None:
    """Make the Temporal namespace if it is not there; for a server of your own."""
    from runtime import temporal

    asyncio.run(temporal.ensure_namespace())
    _answer({"namespace": "ready"})


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Show what a repair would poke and terminate.")] = False,
    restored_from: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="With --repair: when the backup was taken that the database is from."),
    ] = None,
    sent_log: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Settle what a mail server's log names as sent."),
    ] = None,
    log_is_complete: Annotated[
        bool, typer.Option("--log-is-complete", help="What a restored backup left in doubt and no log names: not sent.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do what would be done.")] = False,
) -> None:
    """Say what is wrong with each component, and what to do."""
    from cli.doctor import Treatment, examine

    if restored_from is not None and not repair:
        raise typer.BadParameter("belongs to --repair", param_hint="--restored-from")
    if log_is_complete and not sent_log:
        raise typer.BadParameter("belongs to --sent-log", param_hint="--log-is-complete")
    since = None if restored_from is None else _instant(restored_from)
    asked = Treatment(repair, since, sent_log or (), log_is_complete, yes)
    if not asyncio.run(examine(asked)):
        raise typer.Exit(1)


@app.command("secrets")
def make_secrets() -> None:
    """Print new secrets as lines for the .env file of docker-compose.yml."""
    import base64
    import secrets

    names = (
        "DRUMBEAT_ADMIN_PASSWORD",
        "DRUMBEAT_APP_PASSWORD",
        "DRUMBEAT_RELAY_PASSWORD",
        "TEMPORAL_POSTGRES_PASSWORD",
    )
    lines = [f"{name}={secrets.token_urlsafe(24)}" for name in names]
    lines.append(f"DRUMBEAT_MASTER_KEY={base64.b64encode(secrets.token_bytes(32)).decode()}")
    sys.stdout.write("\n".join(lines) + "\n")


@app.command("create-org")
def create_org(
    name: Annotated[str, typer.Argument(help="The organization's name.")],
    email: Annotated[str, typer.Option(help="The first admin's email address.")],
    slug: Annotated[str | None, typer.Option(help="Short name; made from the name if left out.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone, such as Europe/Berlin.")] = "UTC",
) -> None:
    """Make an organization with one admin; prints the admin's API key, this once."""
    from cli.organizations import create

    _answer(asyncio.run(create(name, email, slug, zone)))


def names_of_commands() -> set[str]:
    """Every command, as it is typed."""
    commands = app.registered_commands
    return {each.name or each.callback.__name__ for each in commands if each.callback is not None}


def _serve(service: str, *needed: str) -> None:
    from runtime import heap, logs, settings, wiring

    found = settings.load(*needed)
    logs.configure(found.log_level, found.log_format, service=service)
    heap.settle()
    with asyncio.Runner(loop_factory=wiring.LOOPS.get(service)) as runner:
        runner.run(getattr(wiring, f"serve_{service}")(found))


def _instant(given: str) -> datetime:
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        example = "2026-05-04T09:00:00+02:00"
        raise typer.BadParameter(f"an instant with its offset, such as {example}", param_hint="--restored-from")
    return found


def _answer(body: object) -> None:
    sys.stdout.write(json.dumps(body, indent=2) + "\n")
