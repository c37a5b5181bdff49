"""`./drumbeat`: every command, and the one way out of all of them."""

import sys
import traceback

from cli.commands import app
from runtime.ending import end
from runtime.trouble import TroubleError


def main() -> None:
    """Runs one command and ends the process: 0 done, 1 trouble, 2 wrong usage, 130 interrupted."""
    code = 0
    try:
        app(prog_name="drumbeat")
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except TroubleError as trouble:
        sys.stderr.write(f"{trouble}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception:  # noqa: BLE001  (a defect: shown whole, and the process still ends the one way)
        traceback.print_exc()
        code = 1
    end(code)


if __name__ == "__main__":
    main()
