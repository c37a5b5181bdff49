"""The one way out of a command."""

import contextlib
import logging
import os
import sys
from typing import NoReturn


def end(code: int) -> NoReturn:
    """Flush what was written and end the process at once with `code`.

    Nothing after it runs: no `finally`, no `atexit`. A process that has made a Temporal client must
    leave this way, because the client's native threads can crash the interpreter's own shutdown.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A reader that has gone (`| head`) or a closed stream is no reason to fail now.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
