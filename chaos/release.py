"""`python -m chaos.release altered worker`: the command line of a release with another Walk than this one's."""

import sys

from chaos.altered_walk import AlteredWalk
from chaos.next_walk import NextWalk
from cli.__main__ import main
from runtime import wiring

WALKS = {"altered": AlteredWalk, "next": NextWalk}

if __name__ == "__main__":
    setattr(wiring, "Walk", WALKS[sys.argv.pop(1)])  # noqa: B010  (to the type checker a class is no variable)
    main()
