"""Ties a command to the process that started it: when that one dies, however it dies, the command is signalled.

Run as a script, `leash.py SIGNAL PARENT COMMAND…`, by `children.spawn` between fork and the command,
so that a supervisor full of threads never has to run Python code in a forked copy of itself.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command; exit 1 if the parent is already gone."""
    death_signal, parent, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):  # it died before the leash was on
        os._exit(1)
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these, and what is ignored is inherited
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  # the caller decides what runs
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main()
