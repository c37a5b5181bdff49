"""`python -m tests.crashes`: a crash at every point, at each of its occurrences, with a table in the end."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from runtime.attaching import temporal_server
from runtime.ending import end
from runtime.temporal import TemporalServer
from tests.crashes.trials import Outcome, table, trials


async def main(*, first_only: bool, only: str) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crashes-", ignore_cleanup_errors=True) as name:
        server = TemporalServer(temporal_server(), Path(name) / "temporal")
        await server.start()
        try:
            async with trials(Path(name), server.environment()) as runs:
                reference = await runs.reference()
                faults = [fault for fault in reference.faults(first_only=first_only) if only in str(fault)]
                done: list[Outcome] = []

                def tell(outcome: Outcome) -> None:
                    done.append(outcome)
                    how = "holds" if outcome.holds else "\n  ".join(["BROKEN", *outcome.offending])
                    how = how if outcome.reached else f"not reached; {how}"
                    seconds = time.monotonic() - started
                    sys.stderr.write(f"{seconds:6.1f} s {len(done):>4}/{len(faults)} {outcome.fault}: {how}\n")

                outcomes = await runs.all(faults, reference, tell)
        finally:
            await server.stop()
    sys.stdout.write(table(reference, outcomes) + "\n")
    unreached = sum(not outcome.reached for outcome in outcomes)
    broken = sum(not outcome.holds for outcome in outcomes)
    sys.stdout.write(
        f"{len(outcomes)} crashes in {time.monotonic() - started:.0f} s, {broken} broken, {unreached} not reached\n"
    )
    return not broken


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.crashes", description=(__doc__ or "").partition(": ")[2])
    options.add_argument("--first", action="store_true", help="the first occurrence of each point only")
    options.add_argument("--only", default="", metavar="WORDS", help="faults whose name has these words")
    given = options.parse_args()
    end(0 if asyncio.run(main(first_only=given.first, only=given.only)) else 1)
