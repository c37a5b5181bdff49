"""`python -m chaos.altered_worker worker`: the command line of a release whose Walk disagrees with history."""

from chaos.altered_walk import AlteredWalk
from cli.__main__ import main
from runtime import wiring

if __name__ == "__main__":
    setattr(wiring, "Walk", AlteredWalk)  # noqa: B010  (to the type checker a class is no variable)
    main()
