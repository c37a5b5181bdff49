"""`make chaos`: a storm of `--minutes` by `--seed` or one of its own, or a `--scenario`; `--keep` keeps its folder."""

import argparse
import asyncio
import secrets
import sys
import traceback

from chaos.run import run
from chaos.scenarios import SCENARIOS
from chaos.small_disks import live_apart
from runtime.ending import end
from runtime.trouble import TroubleError

_SEEDS = 1_000_000
_MINUTES = 5.0


def main() -> None:
    options = argparse.ArgumentParser(prog="make chaos", description="A seeded storm over the real processes, judged.")
    options.add_argument("--minutes", type=float, default=None, help="five, or what a scenario takes")
    options.add_argument(
        "--scenario", choices=SCENARIOS, default=None, help="a case of its own in place of a drawn storm"
    )
    options.add_argument("--seed", type=int, default=None, help="the storm to have again; else a new one")
    options.add_argument("--keep", action="store_true", help="keep the folder of a storm that ended well, too")
    given = options.parse_args()
    seed = secrets.randbelow(_SEEDS) if given.seed is None else given.seed
    scenario = SCENARIOS.get(given.scenario)
    minutes = given.minutes or (scenario.minutes if scenario else _MINUTES)
    well = False
    try:
        if scenario and scenario.small_disks:
            live_apart()
        well = asyncio.run(run(seed, minutes, scenario=given.scenario, keep=given.keep))
    except TroubleError as trouble:
        sys.stderr.write(f"{trouble}\n")
    except KeyboardInterrupt:
        end(130)
    except Exception:  # noqa: BLE001  (a defect: shown whole, and the process still ends the one way)
        traceback.print_exc()
    end(0 if well else 1)


main()
