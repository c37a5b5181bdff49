"""`make chaos`: `--minutes` long, by `--seed` or one of its own; `--keep` keeps what a good storm leaves, too."""

import argparse
import asyncio
import secrets
import sys
import traceback

from chaos.run import run
from runtime.ending import end
from runtime.trouble import TroubleError

_SEEDS = 1_000_000


def main() -> None:
    options = argparse.ArgumentParser(prog="make chaos", description="A seeded storm over the real processes, judged.")
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seed", type=int, default=None, help="the storm to have again; else a new one")
    options.add_argument("--keep", action="store_true", help="keep the folder of a storm that ended well, too")
    given = options.parse_args()
    seed = secrets.randbelow(_SEEDS) if given.seed is None else given.seed
    well = False
    try:
        well = asyncio.run(run(seed, given.minutes * 60, keep=given.keep))
    except TroubleError as trouble:
        sys.stderr.write(f"{trouble}\n")
    except KeyboardInterrupt:
        end(130)
    except Exception:  # noqa: BLE001  (a defect: shown whole, and the process still ends the one way)
        traceback.print_exc()
    end(0 if well else 1)


main()
