"""`up`: the whole product for real use, under one supervisor."""

from runtime.attaching import temporal_server
from runtime.processes import Stack
from runtime.progress import say
from runtime.settings import EmbeddedSettings


async def serve_up(*, workers: int, port: int) -> None:
    """Starts everything, says where it answers, and serves until told to end."""
    home = EmbeddedSettings().home
    async with Stack(home, temporal_server(), workers=workers, api_port=port) as stack:
        say(f"Drumbeat serves at {stack.api_url} (described at {stack.api_url}/openapi.json).")
        say('Make an organization: ./drumbeat create-org "Acme" --email you@example.com')
        say("Is all well? ./drumbeat doctor.  Stop: Ctrl-C.")
        await stack.supervise()
        say("Stopping; what is waiting goes on at the next start.")
