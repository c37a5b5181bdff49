"""`make chaos`: `--minutes` long, by `--seed` or one of its own; `--keep` keeps what a good storm leaves, too."""

import argparse
import asyncio
import secrets

from chaos.run import run
from runtime.ending import end

_SEEDS = 1_000_000


def main() -> None:
    options = argparse.ArgumentParser(prog="make chaos", description="A seeded storm over the real processes, judged.")
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seed", type=int, default=None, help="the storm to have again; else a new one")
    options.add_argument("--keep", action="store_true", help="keep the folder of a storm that ended well, too")
    given = options.parse_args()
    seed = secrets.randbelow(_SEEDS) if given.seed is None else given.seed
    end(0 if asyncio.run(run(seed, given.minutes * 60, keep=given.keep)) else 1)


main()
